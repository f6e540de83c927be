"""How much noise a problem's image holds: the gain, and the signal-to-noise ratio of its brightest structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.forward import Unblurred
from gpudecon.methods.photon_transfer import NoiseLine, differences, fitted_line, in_boxes
from gpudecon.methods.problem import Problem
from gpudecon.methods.spectrum import column_multiplicity, fading

LEAK = 0.02  # the most that a point of the image's peak SNR may add to the variance where it stands
LEAST_DARK = 0.02  # the fewest frequencies, as a fraction of all, that noise is measured on
MOST_VOXELS = 1 << 26  # larger images hold enough noise in fourth differences, which need no further memory
BRIGHTEST = 1e-4  # the fraction of voxels, at least 8 of them, that is the peak


def counts_of(problem: Problem) -> tuple[float, float]:
    """(grey values per photo-electron, grey value of no electron): as given, or from the noise.

    The first is the slope of the noise's variance over the level, at least 1e-9 of the image's largest value; the
    second the level at which the variance would be 0, between 0 and the darkest level.  Where the variance is not seen
    to grow with the level (noise of other kinds, too small an image) they are the ratio of their means, which is the
    gain of counts with the same noise, and 0.
    """
    if problem.gain is not None:
        return problem.gain, 0.0
    line = noise_line(problem)
    if line.is_significant:
        gain, dark = line.slope, min(max(-line.at_zero / line.slope, 0.0), line.lowest)
    else:
        gain, dark = line.mean_variance / max(line.mean_level, 1e-3), 0.0
    return max(gain, 1e-9) * problem.highest, dark * problem.highest


def snr_of(problem: Problem) -> float:
    """Signal-to-noise ratio of the brightest structure: its level over the background, by the noise's deviation there.

    That is s / sqrt(s + b) with s and b in photo-electrons.  The brightest 10^-4 of the voxels are found in the image
    after smoothing with the PSF, so that spikes of noise are not taken for them, and their level is the mean of the
    image itself there.  The background is the given one, or the darkest 1 % after smoothing if these are brighter.  An
    image of the background is taken off first: what varies in it is no structure.
    """
    xp = problem.backend.xp
    smooth, unit = _smoothed(problem), 1 / problem.highest
    background = problem.background
    measured = smooth.ravel() if problem.mask is None else smooth[problem.mask != 0]
    few = max(min(8, measured.size), int(BRIGHTEST * measured.size))
    dark, top = int(0.01 * measured.size), measured.size - few
    ordered = xp.partition(measured, (dark, top))  # only these two are in their places
    darkest, brightest = max(float(ordered[dark]) - background, 0.0), ordered[top]
    del measured, ordered  # the noise needs room
    bright = smooth >= brightest
    del smooth
    if problem.mask is not None:
        bright &= problem.mask != 0
    light = problem.image[bright].astype(np.float32) - np.float32(background)
    if problem.background_image is not None:
        light -= problem.background_image[bright]
    signal = (float(light.mean(dtype=np.float64)) - darkest) * unit
    level = float(problem.image[bright].mean(dtype=np.float64)) * unit
    del light, bright
    if problem.gain is not None:
        variance = problem.gain * unit * max(level, 0.0)
    else:
        variance = _difference_line(problem).variance(level)  # the quicker of the two: the root of it is needed
    return max(signal, 0.0) / float(np.sqrt(max(variance, 1e-18)))


def _smoothed(problem: Problem) -> Array:
    """The mean of the measured voxels around each, weighed by the PSF; without a PSF, over 3 voxels along each axis.

    Of the image less what varies in its background.
    """
    model, xp = problem.model, problem.backend.xp
    if isinstance(model, Unblurred):
        smooth = problem.image.astype(np.float32)
        if problem.background_image is not None:
            smooth -= problem.background_image
        for axis, n in enumerate(smooth.shape):
            wide = xp.pad(smooth, [(int(a == axis), int(a == axis)) for a in range(3)], mode="edge")
            smooth = sum(wide[(slice(None),) * axis + (slice(i, n + i),)] for i in range(3)) / 3
        return smooth
    data = problem.data()
    weights = problem.weights(data)
    nz, ny, nx = model.data_shape
    model.work[...] = 0
    model.work[:nz, :ny, :nx] = data.image
    if data.background_image is not None:
        model.work[:nz, :ny, :nx] -= data.background_image
    if data.mask is not None:
        model.work[:nz, :ny, :nx] *= data.mask
    model.adjoint()
    smooth = model.crop(model.work)
    return smooth.copy() if weights is None else smooth * model.crop(weights)


def noise_line(problem: Problem) -> NoiseLine:
    """The variance of the noise over the level, both of the image divided by ``problem.highest``.

    From frequencies that the PSF does not pass, or from fourth differences where there are none such, where voxels are
    masked and where the image is very large.
    """
    if problem.mask is None and not isinstance(problem.model, Unblurred) and problem.model.size <= MOST_VOXELS:
        snr = 100.0
        for _ in range(2):  # the second time with the SNR that the first has found
            passed = _largest_dark_transfer(problem, snr)
            if passed is None:
                break
            levels, squares = _beyond_support(problem, passed)
            line = fitted_line(levels, squares)
            peak = float(np.quantile(levels, 1 - BRIGHTEST))
            snr = (peak - float(np.median(levels))) / float(np.sqrt(max(line.variance(peak), 1e-18)))
        else:
            return line
    return _difference_line(problem)


def _difference_line(problem: Problem) -> NoiseLine:
    levels, squares = differences(problem.image, problem.mask, problem.backend.xp)
    return fitted_line(levels / problem.highest, squares / problem.highest**2)


def _largest_dark_transfer(problem: Problem, snr: float) -> float | None:
    """Frequencies with at most this |H| are dark enough: a point of the given SNR leaks through them little.

    Of a point's amplitude they pass the part  p = sum |H| over them / sum |H| over all  at most, of the noise's
    variance their fraction q of all frequencies; so it adds at most  (snr p)^2 / q  to the variance.  None where fewer
    than `LEAST_DARK` are so dark.
    """
    model, xp = problem.model, problem.backend.xp
    twice = column_multiplicity(problem)
    count, amplitude = xp.zeros(_BINS, np.float64), xp.zeros(_BINS, np.float64)
    for z in range(model.domain[0]):
        transfer = xp.abs(model.otf[z]).astype(np.float64) * model.size
        index = ((xp.log10(xp.clip(transfer, 10.0**_LOWEST, 1.0)) / -_LOWEST + 1) * (_BINS - 1)).astype(np.int64)
        weight = xp.broadcast_to(twice, transfer.shape)
        count += xp.bincount(index.ravel(), weights=weight.ravel(), minlength=_BINS)
        amplitude += xp.bincount(index.ravel(), weights=(transfer * weight).ravel(), minlength=_BINS)
    counts, amplitudes = (np.cumsum(problem.backend.download(a)) for a in (count, amplitude))
    share, passed = counts / counts[-1], amplitudes / amplitudes[-1]
    enough = np.flatnonzero(((snr * passed) ** 2 <= LEAK * share) & (share >= LEAST_DARK))
    return None if len(enough) == 0 else float(10 ** (_LOWEST - _LOWEST * (enough[-1] + 1) / (_BINS - 1)))


_LOWEST, _BINS = -8.0, 800  # decades of |H| and bins for them


def _beyond_support(problem: Problem, transfer: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(levels, squares) in boxes, as `differences`, of what frequencies with |H| up to ``transfer`` hold.

    With R that band and r its kernel, w a window that fades towards the faces, and g the image, the squares are
    (r * w g)^2 / (r^2 * w^2)  and the levels  (r^2 * w^2 g) / (r^2 * w^2):  the variance is averaged over the voxels
    with the same weights as the level.  An eighth of each axis at either face, where the window is small, is left out.
    """
    model, xp, image = problem.model, problem.backend.xp, problem.image
    unit = np.float32(1 / model.size)
    band = (xp.abs(model.otf) * np.float32(model.size) <= np.float32(transfer)) * unit
    windows = [xp.asarray(fading(n)) for n in model.image_shape]
    window = windows[0][:, None, None] * windows[1][:, None] * windows[2]
    inside = tuple(slice(n // 8, n - n // 8) for n in model.image_shape)
    squared_kernel = model.empty()
    model.spectrum[...] = band
    model.fft.inverse(model.spectrum, model.work)
    xp.multiply(model.work, model.work, out=squared_kernel)
    model.fft.forward(squared_kernel, model.spectrum)
    smear = model.spectrum * unit
    del squared_kernel

    def through(field: Array, transfer_function: Array) -> Array:
        model.work[...] = 0
        model.crop(model.work)[...] = field
        model.fft.forward(model.work, model.spectrum)
        model.spectrum[...] *= transfer_function
        model.fft.inverse(model.spectrum, model.work)
        return model.work[inside].astype(np.float64)

    mean = float(image.mean(dtype=np.float64)) / problem.highest

    def boxed(weighed: Array) -> NDArray[np.float64]:
        weighed /= weight
        means: NDArray[np.float64] = problem.backend.download(in_boxes(weighed, [0, 1, 2])).ravel()
        return means

    weight = through(window**2, smear)
    xp.maximum(weight, 1e-12, out=weight)
    field = image.astype(np.float32)
    field *= np.float32(1 / problem.highest)
    field -= field.mean(dtype=np.float64).astype(np.float32)
    field *= window
    squares = through(field, band)
    squares *= squares
    boxes = boxed(squares)
    del squares
    field *= window
    return boxed(through(field, smear)) + mean, boxes
