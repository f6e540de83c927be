"""The residual of a restoration: what it tells of the PSF, its whiteness, and the chi-square map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.camera import Camera
from gpudecon.errors import InputError
from gpudecon.forward import Unblurred
from gpudecon.methods.least_squares import clear_behind
from gpudecon.methods.problem import Problem
from gpudecon.methods.spectrum import column_multiplicity, energy, fading
from gpudecon.quality.metrics import same_shape

HIDDEN = 0.01  # transfer below which a PSF is taken to hide structure
SEEN = (0.02, 0.06)  # transfers at which the power of structure is read
TOLERATED = 1.1  # a PSF that is this much too wide has no finding
FARTHEST = 1.6  # frequencies that even a PSF so much narrower hides are the reference for the noise
BAND_ENDS = (1.3, 1.45, 1.6)  # widths up to which the band is tried
LEAST_RATIO = 0.2  # of the band's excess to the most that the PSF, tolerance included, explains
DEVIATIONS = 5.0  # standard deviations of the noise that the band's excess must have
LEAST_EXCESS = 0.05  # of the noise's power, that it must have too
LEAST_FREQUENCIES = 20.0  # independent ones in each of the three sets
LEAST_FADING = 12  # samples at either end of each axis: with fewer, coarse structure leaks into the band
CELLS = (24, 48)  # most cells along kz, and along the lateral frequency up to half a cycle per voxel
SAMPLED = (64, 256)  # most planes and rows of the spectrum that are looked at, about


@dataclass(frozen=True)
class Unexplained:
    """Structure in an image at frequencies that the PSF does not pass; see `unexplained`.

    ``excess`` is its power over that of the noise, ``deviations`` this in standard deviations, and ``ratio`` its power
    over the most that the given PSF would leave there.
    """

    excess: float
    deviations: float
    ratio: float

    def __str__(self) -> str:
        return (
            f"The image holds structure finer than the PSF lets through: beyond the PSF's band the residual has "
            f"{1 + self.excess:.3g} times the power of its noise ({self.deviations:.0f} standard deviations more). "
            "The PSF is probably too wide (check its NA, wavelength, voxel size and the size of the bead), or the "
            "noise is not white (an image that was interpolated or smoothed). Compare with a theoretical PSF, and "
            "mistrust fine detail in this result."
        )


@dataclass(frozen=True)
class Cells:
    """A spectrum in cells of frequency (axial, lateral), from 0 upward.

    Mean power, the PSF's transfer |H| (root of its mean square), and the number of independent frequencies.
    """

    power: NDArray[np.float64]
    transfer: NDArray[np.float64]
    number: NDArray[np.float64]

    def narrower(self, factor: float) -> NDArray[np.float64]:
        """The largest transfer, here or at higher lateral frequencies, of a PSF narrower by ``factor``: H(k / factor).

        Higher ones count so that the missing cone of a widefield PSF, where specimens have much power, is not beyond.
        """
        places = [np.rint(np.arange(n) / factor).astype(int) for n in self.transfer.shape]
        narrow: NDArray[np.float64] = self.transfer[np.ix_(*places)]
        return np.asarray(np.maximum.accumulate(narrow[:, ::-1], axis=1)[:, ::-1])

    def mean(self, quantity: NDArray[np.float64], cells: NDArray[np.bool_]) -> float:
        return float((quantity * self.number)[cells].sum() / self.number[cells].sum())


def normalised_residual(image: NDArray[Any], predicted: NDArray[Any], camera: Camera) -> NDArray[np.float64]:
    """(g - m) / sqrt(variance of m): mean 0, variance 1 and white, where the prediction m is right.

    ``predicted`` is the image without noise that a restoration stands for, H f + b, in the grey values of ``image``;
    the variance is  gain (m - offset) + gain^2 read_noise^2.  Where no electron and no read noise is expected it would
    be 0; there at least a tenth of an electron is assumed.
    """
    same_shape(image, predicted)
    expected = np.asarray(predicted, np.float64)
    electrons = (expected - camera.offset) / camera.gain + camera.read_noise**2
    return (np.asarray(image, np.float64) - expected) / (camera.gain * np.sqrt(np.maximum(electrons, 0.1)))


def autocorrelation(residual: NDArray[Any]) -> tuple[float, ...]:
    """Correlation of neighbours along each axis: 0 within about 1 / sqrt(voxels) where the residual is white.

    Positive: structure is left (too few iterations, too strong a regularization, a wrong PSF or background).
    Negative: noise has been fitted.  NaN along axes of one voxel.
    """
    r = np.asarray(residual, np.float64)
    r = r - r.mean()
    energy = float((r * r).mean())
    lags = []
    for axis, n in enumerate(r.shape):
        here, there = (r[(slice(None),) * axis + (cut,)] for cut in (slice(0, n - 1), slice(1, n)))
        lags.append(float((here * there).mean()) / energy if n > 1 and energy > 0 else float("nan"))
    return tuple(lags)


def chi_square_map(residual: NDArray[Any], window: int = 5) -> NDArray[np.float64]:
    """Local mean of the squared normalised residual over ``window`` voxels along each axis: 1 where all is explained.

    Its standard deviation there is about sqrt(2 / window^dimensions).  Axes shorter than the window are averaged whole.
    """
    from scipy import ndimage

    if window < 1:
        raise InputError(f"chi_square_map: window is {window}; give a number of voxels of at least 1.")
    squares = np.asarray(residual, np.float64) ** 2
    local: NDArray[np.float64] = ndimage.uniform_filter(squares, [min(window, n) for n in squares.shape])
    return local


def unexplained(problem: Problem, estimate: Array) -> Unexplained | None:
    """Whether the residual g - H f - b holds structure that no estimate could explain with this PSF; None: no.

    Few iterations leave structure in the residual too, but at frequencies that the PSF hardly passes at most what the
    image itself holds there,  |H|^2 S  with S the object's power.  A PSF that is too wide leaves structure where its
    own transfer is nearly 0.  So the residual's power over the noise, in the band just beyond the PSF's, is held
    against the extrapolation  |H_t|^2 <P> / <|H|^2>  from the *image's* power <P> over the noise where |H| is 0.02 to
    0.06, with H_t of a PSF 1.1 times narrower than given: no number of iterations changes it.  A fifth of that is
    asked, since the power of specimens falls with k.  The noise is read far beyond the band, where a PSF 1.6 times
    narrower passes nothing, and taken for white.

    It cannot see a PSF that is too narrow, nor one that is too wide where the specimen is smooth and the light is weak;
    `gpudecon.quality.psf_width.too_wide` sees more and costs two restorations.

    Costs one blur, one FFT and two passes over part of the spectrum; twice that without the blur where a band stands
    out.  ``model.work`` is overwritten.
    """
    if isinstance(problem.model, Unblurred):
        return None
    cells = _cells(problem, _residual(problem, estimate))
    number, transfer = cells.number, cells.transfer
    there = number > 0
    beyond, outermost = cells.narrower(TOLERATED), cells.narrower(FARTHEST)
    reference = there & (outermost < HIDDEN)
    edge = cells.narrower(1.0)
    passed = there & (edge > SEEN[0]) & (edge < SEEN[1])
    if min(number[reference].sum(), number[passed].sum()) < LEAST_FREQUENCIES:
        return None
    noise = cells.mean(cells.power, reference)
    if noise <= 0:
        return None
    standing_out = []
    for end in BAND_ENDS:
        band = there & (beyond < HIDDEN) & (cells.narrower(end) >= HIDDEN) & (outermost >= HIDDEN)
        if number[band].sum() < LEAST_FREQUENCIES:
            continue
        excess = cells.mean(cells.power, band) / noise - 1
        deviations = excess / float(np.sqrt(1 / number[band].sum() + 1 / number[reference].sum()))
        if excess > LEAST_EXCESS and deviations > DEVIATIONS:
            standing_out.append((deviations, excess, cells.mean(beyond**2, band) / noise))
    if not standing_out:
        return None
    image = _cells(problem, _scaled_light(problem))
    structure = max(image.mean(image.power, passed) - noise, 0.0) / cells.mean(transfer**2, passed)
    found = [
        Unexplained(excess, deviations, excess / max(structure * let_through, 1e-12))
        for deviations, excess, let_through in standing_out
    ]
    return max((finding for finding in found if finding.ratio > LEAST_RATIO), key=lambda f: f.deviations, default=None)


def _cells(problem: Problem, field: Array) -> Cells:
    """The spectrum of ``field``, the image's part of ``model.work``, faded towards the faces, gathered in cells."""
    model, xp = problem.model, problem.backend.xp
    windows = [fading(n, LEAST_FADING) for n in model.image_shape]
    independent = _independent(problem, windows)
    field -= field.mean(dtype=np.float64).astype(np.float32)
    for axis, window in enumerate(windows):
        field *= xp.asarray(window).reshape([-1 if a == axis else 1 for a in range(3)])
    clear_behind(model.work, model.image_shape)
    model.fft.forward(model.work, model.spectrum)

    nz, ny, nx = model.domain
    axial, lateral = min(CELLS[0], nz // 2 + 1), min(CELLS[1], min(ny, nx) // 2 + 1)
    steps = [max(1, n // most) for n, most in zip((nz, ny), SAMPLED, strict=True)]
    finest = min(problem.voxel_um[1:])
    ky = np.fft.fftfreq(ny)[:: steps[1]] * finest / problem.voxel_um[1]
    kx = np.arange(nx // 2 + 1) / nx * finest / problem.voxel_um[2]
    place = np.rint(np.hypot(ky[:, None], kx) * 2 * (lateral - 1)).astype(np.int64)
    width = int(place.max()) + 1
    kz = np.rint(np.abs(np.fft.fftfreq(nz)) * 2 * (axial - 1)).astype(int)
    places = problem.backend.upload(place.ravel())
    twice = xp.broadcast_to(column_multiplicity(problem), place.shape)
    each = xp.bincount(places, weights=twice.ravel(), minlength=width)
    power, transfer, count = (xp.zeros((axial, width), np.float64) for _ in range(3))
    planes = np.arange(0, nz, steps[0])
    for k in np.unique(kz[planes]):
        alike = planes[kz[planes] == k]
        for total, field in ((power, model.spectrum), (transfer, model.otf)):
            energies = sum(energy(field[z, :: steps[1]]) for z in alike) * twice
            total[k] = xp.bincount(places, weights=energies.ravel(), minlength=width)
        count[k] = each * len(alike)
    power, transfer, count = (problem.backend.download(a) for a in (power, transfer, count))
    frequencies = np.maximum(count, 1)
    return Cells(power / frequencies, np.sqrt(transfer / frequencies) * model.size, count * (independent / model.size))


def _independent(problem: Problem, windows: list[NDArray[np.float32]]) -> float:
    """How many independent frequencies the noise has, faded by the windows; in pairs k and -k.

    They are  (sum v)^2 / sum v^2  with v the variance: the image times the square of the windows.  Where a few bright
    points have most of the light they have most of the noise too, and neighbouring frequencies are alike.
    """
    xp = problem.backend.xp
    first, second = (xp.zeros((), np.float64) for _ in range(2))
    lateral = xp.asarray(np.multiply.outer(windows[1], windows[2]).astype(np.float64) ** 2 / problem.highest)
    for fade, plane in zip(windows[0], problem.image, strict=True):
        variance = xp.maximum(plane, 0) * lateral * float(fade) ** 2
        first += variance.sum()
        second += (variance**2).sum()
    return float(first) ** 2 / max(float(second), 1e-300) / 2


def _residual(problem: Problem, estimate: Array) -> Array:
    """The image less H f and b in ``model.work``, 0 where it is no measurement, over the image's largest value."""
    field = problem.model.crop(problem.model.blur(estimate))
    problem.backend.xp.subtract(problem.image, field, out=field)
    return _scaled(problem, field)


def _scaled_light(problem: Problem) -> Array:
    """The image less its background, as `_residual` has it."""
    field = problem.model.crop(problem.model.work)
    field[...] = problem.image
    return _scaled(problem, field)


def _scaled(problem: Problem, field: Array) -> Array:
    problem.take_background_from(field)
    if problem.mask is not None:
        field *= problem.mask != 0
    field *= np.float32(1 / problem.highest)
    return field
