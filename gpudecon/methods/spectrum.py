"""What direct filters read off the image's spectrum: noise, signal, and the Laplacian's transfer function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.backend.ops import mirror_taper
from gpudecon.methods.problem import Problem

# Frequencies that the PSF passes with less than this fraction of its largest transfer carry noise only.
BEYOND_SUPPORT = 1e-3


def image_spectrum(problem: Problem) -> Array:
    """The FFT of the image (continued into the margin) minus the background, in the model's own field."""
    model = problem.model
    problem.backend.ops.load_extended(model.work, problem.image)
    if problem.background:
        model.work -= np.float32(problem.background)
    model.fft.forward(model.work, model.spectrum)
    return model.spectrum


def laplacian_tables(problem: Problem) -> tuple[Array, Array, Array]:
    """Transfer of the negative discrete Laplacian as three terms to be added, shapes (Z, 1), (Y,) and (X // 2 + 1,).

    Along an axis of n samples of size v: (v_min / v)^2 (2 - 2 cos(2 pi k / n)); axes of one sample contribute nothing.
    """
    finest = min(problem.voxel_um)
    tables = []
    for axis, (n, v) in enumerate(zip(problem.model.domain, problem.voxel_um, strict=True)):
        k = np.arange(n // 2 + 1 if axis == 2 else n)
        tables.append(((finest / v) ** 2 * (2 - 2 * np.cos(2 * np.pi * k / n))).astype(np.float32))
    z, y, x = (problem.backend.upload(t) for t in tables)
    return z[:, None], y, x


def independent_voxels(problem: Problem) -> float:
    """Noise energy on the domain in units of the image's noise variance.

    The margin blends two mirror images, so its noise has the variance (1 - w)^2 + w^2 of the image's.
    """
    count = 1.0
    for n, length in zip(problem.image.shape, problem.model.domain, strict=True):
        weight = mirror_taper(np.arange(length), n, length)[2].astype(np.float64)
        count *= float(((1 - weight) ** 2 + weight**2).sum())
    return count


def white_power(problem: Problem, spectrum: Array) -> tuple[float, float]:
    """Power per frequency (S_n, S_f) of noise and object, both taken for white.

    S_n is the mean of |G|^2 where the PSF passes least: beyond the OTF's support, or the darkest 2 % of all frequencies
    where sampling leaves none beyond it.  S_f = (sum |G|^2 - S_n) / sum |H|^2 over the others, without the mean.
    """
    model, xp = problem.model, problem.backend.xp
    scale = float(model.size)
    sample = xp.abs(model.otf[:: max(1, model.domain[0] // 64), :: max(1, model.domain[1] // 64)]) * scale
    dark = max(BEYOND_SUPPORT, float(xp.quantile(sample, 0.02)))
    twice = _column_multiplicity(problem)
    noise = noise_count = rest = rest_count = passed = 0.0
    for z in range(model.domain[0]):
        power = (xp.abs(spectrum[z]) ** 2).astype(np.float64) * twice
        transfer = xp.abs(model.otf[z]) * scale
        below = transfer <= dark
        noise += float((power * below).sum())
        noise_count += float((twice * below).sum())
        above = ~below
        above[0, 0] &= z > 0  # the mean is neither noise nor structure
        rest += float((power * above).sum())
        rest_count += float((twice * above).sum())
        passed += float((twice * above * transfer.astype(np.float64) ** 2).sum())
    noise_power = noise / max(noise_count, 1.0)
    # an image of noise alone leaves no signal; a hundredth of the noise then stands for it
    return noise_power, max(rest - noise_power * rest_count, 0.01 * noise_power * rest_count) / passed


def residual_energy(problem: Problem, spectrum: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of |G|^2 over frequencies of like leverage t = L^2 / |H|^2: (t of each bin, sum in each bin).

    The residual of constrained least squares with any gamma is sum_bins E (gamma t / (1 + gamma t))^2: one pass over
    the spectrum serves the whole search for gamma.  Bins are 1 % wide, so each term is right to 1 % and the sum, where
    these errors cancel, far better.
    """
    model, xp = problem.model, problem.backend.xp
    lz, ly, lx = laplacian_tables(problem)
    scale = float(model.size)
    twice = _column_multiplicity(problem)
    energy = xp.zeros(len(_LEVERAGE), np.float64)
    for z in range(model.domain[0]):
        power = (xp.abs(spectrum[z]) ** 2).astype(np.float64) * twice
        transfer = xp.abs(model.otf[z]).astype(np.float64) * scale
        laplacian = (lz[z] + ly[:, None] + lx).astype(np.float64)
        log_leverage = 2 * xp.log(xp.maximum(laplacian, 1e-30) / xp.maximum(transfer, 1e-30))
        index = xp.clip((log_leverage - _LOG_LEVERAGE[0]) / _BIN, 0, len(_LEVERAGE) - 1).astype(np.int64)
        energy += xp.bincount(index.ravel(), weights=power.ravel(), minlength=len(_LEVERAGE))
    return _LEVERAGE, problem.backend.download(energy)


_BIN = 0.01
_LOG_LEVERAGE = np.arange(np.log(1e-12), np.log(1e24), _BIN)
_LEVERAGE = np.exp(_LOG_LEVERAGE + _BIN / 2)


def _column_multiplicity(problem: Problem) -> Array:
    """How often each column of the half spectrum stands in the whole one: twice, but for frequency 0 and Nyquist."""
    nx = problem.model.domain[2]
    twice = np.full(nx // 2 + 1, 2.0)
    twice[0] = 1.0
    if nx % 2 == 0:
        twice[-1] = 1.0
    return problem.backend.upload(twice)
