"""When to stop an iteration: after a fixed number, when it changes little, or when it begins to fit the noise."""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.forward import Unblurred
from gpudecon.methods.least_squares import clear_behind
from gpudecon.methods.noise import counts_of
from gpudecon.methods.problem import Data, Method, Problem

# Square of the transfer below which frequencies count less in the prediction, where its noise would decide.
TAPER = 3e-3
# The part of what two estimates have in common that counts as explained, beside what predicts.  Of it too much would
# trust that structure which both have is there, and sharpen for ever; without it, iteration ends at the PSF's band.
TRUSTED = 0.2
# Twice the light asks for 1.19 times the iterations (median on phantoms; quartiles 1.06 and 1.30), but only where noise
# limits them: the number is raised by this multiple of the estimates' noise over their signal, and at most so much.
GROWTH, MOST_GROWTH = 3.0, 0.2
# Every iteration is looked at up to the tenth, then each tenth of those done.
LOOK_EVERY = 0.1
LEAST_PATIENCE = 10  # iterations: an unmatched step may make an error rise before it falls
# More counts than these in a voxel are not dealt one by one: their shot noise is below 1e-4 of the signal.
MOST_COUNTS = 1e8


@dataclass(frozen=True)
class Choice:
    """What a `HoldOut` chose: the number of iterations, from a curve (iteration, error) of its trial on parts.

    The error is relative to that of an empty estimate.  ``limited`` is True if it was still falling at the last
    iteration that the method allows: more might be better.
    """

    iterations: int
    curve: tuple[tuple[int, float], ...]
    limited: bool = False


@dataclass(frozen=True)
class RelativeChange:
    """Stop when the estimate changes by less than ``tolerance`` of its norm: |f_k - f_(k-1)| < tolerance |f_k|.

    A sign of convergence, not of quality: maximum likelihood converges towards an estimate that fits the noise.
    """

    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise InputError(f"RelativeChange: tolerance is {self.tolerance}; it must be between 0 and 1.")

    def is_reached(self, latest: Array, previous: Array) -> bool:
        """Whether the step from ``previous`` to ``latest`` is small enough; ``previous`` is overwritten."""
        norm = float((latest.astype(np.float64) ** 2).sum())
        previous -= latest
        return float((previous.astype(np.float64) ** 2).sum()) < self.tolerance**2 * norm


@dataclass(frozen=True)
class HoldOut:
    """Choose the number of iterations by counts that the iteration has not seen.

    The photo-electrons are dealt binomially into two images whose noise is independent, ``fraction`` of them into the
    second.  The method restores both, and each estimate F_k is judged by the other image G' and the other estimate F'_k
    (capitals: transforms; B the background's)::

        sum over frequencies of |G' - B - H F_k|^2 / (|H|^2 + 0.003)  +  |F_k - F'_k|^2 / 2  -  0.2 F_k F'_k*

    The first term is, but for a constant, the square error of the *object* where the PSF passes light.  What the PSF
    does not pass it cannot see: there the second tells the estimate's noise, and the third, what is no noise in it.
    The mean of both images' errors is least at an iteration k.  All of the light asks for more than a part of it, where
    noise is the limit: k (1 + min(3 v, 0.2)) are chosen, with v = |F_k - F'_k|^2 / 2 over F_k F'_k*.

    Nothing in it depends on the method or on how far its steps go.  bench/quality.py measures how near it comes to the
    best.  It costs about 1.3 times the iterations chosen, twice, and 3/2 of an iteration for each look.

    Parameters
    ----------
    fraction
        Of the counts that go into the second image.
    seed
        Of the deal.
    patience
        The trial ends when there was no better iteration for this fraction of those done, and at least 10.
    """

    fraction: float = 0.5
    seed: int = 0
    patience: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1 or not 0 < self.patience < math.inf:
            raise InputError(
                f"HoldOut: fraction is {self.fraction} and patience {self.patience}; the fraction must be between "
                "0 and 1, the patience positive."
            )
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"HoldOut: seed is {self.seed!r}; it must be a whole number from 0.")

    def choose(self, method: Method, problem: Problem, most: int) -> Choice:
        """Run the trial, up to ``most`` iterations, and return the number of iterations for the whole image."""
        parts = self.deal(problem)
        if not all(part.highest > 0 for part in parts):
            warnings.warn(
                "The image holds too few photo-electrons to choose the number of iterations by; one is made. If it "
                "is no dark image, check the camera's gain.",
                GpudeconWarning,
                stacklevel=5,
            )
            return Choice(1, ())
        data = parts[0].data(), parts[1].data()
        nothing = problem.model.empty()
        nothing[...] = 0
        empty = _error(parts, data, (nothing, nothing))[0]
        del nothing
        best, curve, due = (1, math.inf, 0.0), [], 1.0
        for k, estimates in enumerate(zip(*(method.iterate(part) for part in parts), strict=True), start=1):
            if k < due and k < most:
                continue
            due = max(k + 1, k * (1 + LOOK_EVERY))
            error, noise = _error(parts, data, estimates)
            curve.append((k, error / empty))
            if error < best[1]:
                best = (k, error, noise)
            elif k - best[0] >= max(LEAST_PATIENCE, self.patience * k):
                break
        chosen = round(best[0] * (1 + min(GROWTH * best[2], MOST_GROWTH)))
        return Choice(min(chosen, most), tuple(curve), limited=best[0] == most)

    def deal(self, problem: Problem, unit_and_dark: tuple[float, float] | None = None) -> tuple[Problem, Problem]:
        """The image's counts dealt binomially into two, each part scaled to the image's mean.

        ``unit_and_dark`` are the grey values of one photo-electron and of none; None takes `counts_of` the problem.
        Dealt on the host, each plane from a stream of its own: the same on every device, and a voxel that is rounded
        otherwise changes one plane at most.
        """
        gain, dark = unit_and_dark or counts_of(problem)
        gain = max(gain, problem.highest / MOST_COUNTS)
        image = problem.backend.download(problem.image)
        shares = (1 - self.fraction, self.fraction)
        parts = [np.empty(image.shape, np.float32) for _ in shares]
        for z, plane in enumerate(image):
            rng = np.random.default_rng((self.seed, z))
            electrons = np.maximum(plane.astype(np.float64) - dark, 0) / gain
            whole = np.floor(electrons)
            whole += rng.random(whole.shape) < electrons - whole
            held = rng.binomial(whole.astype(np.int64), self.fraction)
            for part, counts, share in zip(parts, (whole - held, held), shares, strict=True):
                part[z] = counts * (gain / share) + dark
        kept, held_out = (
            dataclasses.replace(
                problem, image=problem.backend.upload(part), highest=float(part.max()), gain=gain / share
            )
            for part, share in zip(parts, shares, strict=True)
        )
        return kept, held_out


def _error(
    parts: tuple[Problem, Problem], data: tuple[Data, Data], estimates: tuple[Array, Array]
) -> tuple[float, float]:
    """(the mean over the parts of what `HoldOut` minimises, the estimates' noise over their signal).

    Estimates are compared within the image.
    """
    one, other = estimates
    model, xp = parts[0].model, parts[0].backend.xp
    predicted = _object_error(parts[1], data[1], one) + _object_error(parts[0], data[0], other)
    apart, common = (xp.zeros((), np.float64) for _ in range(2))
    for f, g in zip(model.crop(one), model.crop(other), strict=True):  # plane by plane: in double precision
        difference = (f - g).astype(np.float64)
        apart += (difference * difference).sum()
        common += (f.astype(np.float64) * g).sum()
    noise, signal = float(apart) / 2, float(common)
    return predicted / 2 + noise - TRUSTED * signal, noise / max(signal, 1e-30 * noise, 1e-300)


def _object_error(held: Problem, data: Data, estimate: Array) -> float:
    """Mean over all frequencies of |G - B - H F|^2 / (|H|^2 + TAPER), and so a sum over voxels."""
    model, xp = held.model, held.backend.xp
    nz, ny, nx = model.data_shape
    work = model.blur(estimate)
    residual = work[:nz, :ny, :nx]
    xp.subtract(data.image, residual, out=residual)
    residual -= np.float32(data.background)
    if data.background_image is not None:
        residual -= data.background_image
    if data.mask is not None:
        residual *= data.mask
    if isinstance(model, Unblurred):  # |H|^2 is 1 everywhere
        return float((residual.astype(np.float64) ** 2).sum())
    clear_behind(work, model.data_shape)
    model.fft.forward(work, model.spectrum)
    total = xp.zeros((), np.float64)
    for otf, spectrum in zip(model.otf, model.spectrum, strict=True):  # plane by plane: no array of the domain's size
        power = xp.abs(spectrum).astype(np.float64) ** 2 / ((xp.abs(otf) * float(model.size)) ** 2 + TAPER)
        # the half spectrum holds each column once, but the whole one all of them twice except 0 and, if even, the last
        total += 2 * power.sum() - power[:, 0].sum()
        if model.domain[2] % 2 == 0:
            total -= power[:, -1].sum()
    return float(total) / model.size
