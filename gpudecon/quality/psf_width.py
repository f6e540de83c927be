"""Whether the PSF is too wide for an image: a narrower one then predicts held-out photo-electrons better."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.forward import ForwardModel
from gpudecon.methods.noise import counts_of
from gpudecon.methods.problem import Problem
from gpudecon.methods.richardson_lucy import RichardsonLucy
from gpudecon.psf.psf import PSF
from gpudecon.quality.stopping import HoldOut

FACTOR = 1.5  # how much narrower the other PSF is
DEVIATIONS = 5.0  # standard deviations by which it must predict better
REGION = (32, 96, 96)  # most voxels (z, y, x) that are looked at: the brightest part of a larger image
MOST_ITERATIONS = 150
LOOK_EVERY = 0.1  # of the iterations done
PATIENCE = 0.3  # a trial ends when there was no better iteration for this fraction of those done, and at least 5


@dataclass(frozen=True)
class TooWide:
    """A PSF narrower by ``factor`` explains held-out counts better, by ``deviations`` standard deviations."""

    factor: float
    deviations: float

    def __str__(self) -> str:
        return (
            f"The PSF is probably too wide: one narrower by {self.factor:g} predicts photo-electrons that were held "
            f"out better, by {self.deviations:.0f} standard deviations. Check its NA, wavelength, voxel size and the "
            "size of the bead, and that the image is raw: interpolated or smoothed ones, and a gain that is too "
            "small, look alike."
        )


def too_wide(problem: Problem, kernel: NDArray[np.float32], seed: int = 0) -> TooWide | None:
    """Whether a narrower PSF than ``kernel`` (z, y, x), that of the problem, predicts the image better; None: no.

    The photo-electrons of the image, or of the brightest part of a large one, are dealt into two halves.  Each PSF
    restores the first (Richardson-Lucy, heavy ball) to where its blurred estimate m predicts the second, g, best.  With
    m and m' of the given and of the narrower PSF the log-likelihood ratio is, over the voxels, ::

        sum of  g log(m' / m) - (m' - m),   variance  sum of  g log^2(m' / m)

    What a narrower PSF brings in addition to a right one is noise, which the second half does not share, so that it
    predicts no better.  What a too wide one cannot explain is structure, which both halves share.
    """
    gain, dark = counts_of(problem)  # of the whole, which tells more than a part
    part = _brightest(problem, kernel)
    kept, held = HoldOut(seed=seed).deal(part, (gain, dark))
    if not (kept.highest > 0 and held.highest > 0):
        return None
    same = (1.0,) * 3
    # of 2 to 4 samples only the centre would stay within their extent
    room = np.pad(kernel, [(2, 2) if 1 < n < 5 else (0, 0) for n in kernel.shape])
    narrow = PSF(room, (1 / FACTOR,) * 3).resample(same).array
    given = _prediction(kept, held)
    model = ForwardModel(part.backend, part.model.image_shape, narrow, part.model.edges)
    other = _prediction(dataclasses.replace(kept, model=model), dataclasses.replace(held, model=model))
    deviations = _deviations(held, given, other, dark)
    return TooWide(FACTOR, deviations) if deviations > DEVIATIONS else None


def _prediction(kept: Problem, held: Problem) -> Array:
    """H f + b on the image's box, from the iteration on ``kept`` that predicts ``held`` best."""
    model, data = kept.model, held.data()
    nz, ny, nx = model.image_shape
    rows = kept.backend.xp.empty(data.image.shape[:2], np.float64)
    prediction, least, best, due = kept.backend.xp.empty(model.image_shape, np.float32), np.inf, 0, 1.0
    method = RichardsonLucy(iterations=MOST_ITERATIONS, acceleration="shb")
    for k, estimate in enumerate(method.iterate(kept), start=1):
        if k < due:
            continue
        due = max(k + 1, k * (1 + LOOK_EVERY))
        work = model.blur(estimate)
        kept.backend.ops.poisson_divergence(rows, work, data.image, *data.scene)
        divergence = float(rows.sum())
        if divergence < least:
            least, best = divergence, k
            prediction[...] = work[:nz, :ny, :nx]
        elif k - best >= max(5, PATIENCE * k):
            break
    prediction += np.float32(held.background)
    if held.background_image is not None:
        prediction += held.background_image
    return prediction


def _deviations(held: Problem, given: Array, other: Array, dark: float) -> float:
    """By how many standard deviations ``other`` predicts the held-out counts better than ``given``.

    ``dark`` is the grey value of no electron.  A prediction below it, which no light makes, is taken for a tenth of an
    electron.
    """
    xp = held.backend.xp
    assert held.gain is not None
    gain, variance = xp.zeros((), np.float64), xp.zeros((), np.float64)
    for z, counts in enumerate(held.image):  # plane by plane: in double precision
        g, m, n = ((plane.astype(np.float64) - dark) / held.gain for plane in (counts, given[z], other[z]))
        m, n = (xp.maximum(prediction, 0.1) for prediction in (m, n))
        measured = 1.0 if held.mask is None else (held.mask[z] != 0).astype(np.float64)
        log = xp.log(n / m) * measured
        gain += (g * log - (n - m) * measured).sum()
        variance += (g * log**2).sum()
    return float(gain) / math.sqrt(max(float(variance), 1e-30))


def _brightest(problem: Problem, kernel: NDArray[np.float32]) -> Problem:
    """The part of the problem, at most `REGION`, with the most light; half a region's step from place to place."""
    shape = problem.model.image_shape
    size = tuple(min(n, most) for n, most in zip(shape, REGION, strict=True))
    if size == shape:
        return problem
    places = [
        sorted({*range(0, n - s, max(s // 2, 1)), n - s}) if n > s else [0] for n, s in zip(shape, size, strict=True)
    ]
    boxes = [
        tuple(slice(start, start + s) for start, s in zip(corner, size, strict=True))
        for corner in itertools.product(*places)
    ]
    best = max(boxes, key=lambda box: float(problem.image[box].sum(dtype=np.float64)))
    xp = problem.backend.xp
    image = xp.ascontiguousarray(problem.image[best])
    return dataclasses.replace(
        problem,
        model=ForwardModel(problem.backend, (size[0], size[1], size[2]), kernel, "extend"),
        image=image,
        highest=max(float(image.max()), 1e-30),
        background_image=None
        if problem.background_image is None
        else xp.ascontiguousarray(problem.background_image[best]),
        mask=None if problem.mask is None else xp.ascontiguousarray(problem.mask[best]),
    )
