"""What direct filters read off the image's spectrum: noise, signal, and the Laplacian's transfer function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.errors import GpudeconWarning
from gpudecon.methods.problem import Problem

# Frequencies that the PSF passes with less than this fraction of its largest transfer carry noise only.
BEYOND_SUPPORT = 1e-3
# Where even the darkest frequencies are passed with more than this fraction, what they hold is not taken for noise.
NOISE_REFERENCE = 0.05
# A stack with fewer planes than those that hold this share of the PSF's light shows more of what lies outside it.
THICKNESS = 0.9


def image_spectrum(problem: Problem) -> Array:
    """The FFT of the image (continued into the margin) minus the background, in the model's own field."""
    model = problem.model
    if not problem.record.is_part:
        _warn_of_a_thin_stack(problem)
    if problem.background_image is None:
        problem.backend.ops.load_extended(model.work, problem.image)
        if problem.background:
            model.work -= np.float32(problem.background)
    else:
        problem.backend.ops.load_extended(model.work, problem.light())
    model.fft.forward(model.work, model.spectrum)
    return model.spectrum


def _warn_of_a_thin_stack(problem: Problem) -> None:
    """Direct filters take what is above and below a stack for its mirror image, which for a few planes is wrong."""
    model = problem.model
    planes = problem.image.shape[0]
    if model.edges == "periodic":
        return
    light = np.fft.ifft(problem.backend.download(model.otf[:, 0, 0])).real  # of each plane of the PSF, focus at index 0
    reach = np.abs(np.fft.fftfreq(len(light), 1 / len(light)))
    within = np.array([light[reach <= r].sum() for r in range(len(light) // 2 + 1)])
    needed = 2 * int(np.argmax(within >= THICKNESS * light.sum())) + 1
    if planes < needed:
        advice = "use 'rl'" + (", or the PSF's plane in focus as a PSF (y, x)" if planes == 1 else "")
        warnings.warn(
            f"The stack has {planes} plane{'s' * (planes > 1)}, but most of the PSF's light is spread over {needed}: a "
            f"direct filter cannot tell light from outside the stack from its own and may amplify it; {advice}.",
            GpudeconWarning,
            stacklevel=6,
        )


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


def measured_spectrum(problem: Problem) -> tuple[Array, float]:
    """(spectrum to measure power on, its noise power per unit of the noise's variance), in the model's own field.

    With periodic edges it is the image's own.  Else the image, less its mean, fades to zero towards its faces in Hann
    windows: neither the jump between opposite faces nor a made-up margin may pass for fine structure.
    """
    model, xp = problem.model, problem.backend.xp
    if model.edges == "periodic":
        return image_spectrum(problem), float(model.size)
    windows = [
        xp.asarray(np.hanning(n + 2)[1:-1], np.float32) if n > 2 else xp.ones(n, np.float32) for n in model.image_shape
    ]
    inside = model.crop(model.work)
    model.work[...] = 0
    inside[...] = problem.image
    problem.take_background_from(inside)
    inside -= inside.mean(dtype=np.float64).astype(np.float32)
    inside *= windows[0][:, None, None]
    inside *= windows[1][:, None]
    inside *= windows[2]
    model.fft.forward(model.work, model.spectrum)
    return model.spectrum, float(np.prod([float((w.astype(np.float64) ** 2).sum()) for w in windows]))


def noise_power(problem: Problem, spectrum: Array) -> tuple[float, bool]:
    """Power S_n per frequency of the noise, taken for white, and whether it can be relied on.

    The mean of |G|^2 where the PSF passes least: beyond the OTF's support, or over the darkest 2 % of all frequencies
    where the sampling leaves none beyond it.  These may hold signal too; then S_n is too large, which is warned of.
    """
    model, xp = problem.model, problem.backend.xp
    steps = [max(1, n // 64) for n in model.domain[:2]]
    sample = xp.abs(model.otf[:: steps[0], :: steps[1]]) * float(model.size)
    darkest = float(xp.quantile(sample, 0.02))
    dark = max(BEYOND_SUPPORT, darkest)
    twice = column_multiplicity(problem)
    energy = count = 0.0
    for z in range(model.domain[0]):
        below = (xp.abs(model.otf[z]) * float(model.size) <= dark) * twice
        energy += float((xp.abs(spectrum[z]).astype(np.float64) ** 2 * below).sum())
        count += float(below.sum())
    if darkest > NOISE_REFERENCE:
        warnings.warn(
            f"The PSF passes every frequency (the least with {darkest:.2g}), so the image holds no measure of noise "
            "and 'auto' may smooth too much; give the method's constant, or a PSF that is not narrower than a voxel.",
            GpudeconWarning,
            stacklevel=6,
        )
    return energy / max(count, 1.0), darkest <= NOISE_REFERENCE


@dataclass(frozen=True)
class BinnedPower:
    """Frequencies gathered into 1 % wide bins of some quantity: its value, the sum of |G|^2, and their number."""

    value: NDArray[np.float64]
    energy: NDArray[np.float64]
    count: NDArray[np.float64]


def binned_power(problem: Problem, spectrum: Array, quantity: Callable[[Array, Array], Array]) -> BinnedPower:
    """Gather the spectrum by ``quantity(|H|^2, L)``, so that one pass over it serves the search for a parameter.

    Sums over all frequencies of a smooth function of the quantity then follow from the bins alone: each term is right
    to 1 % and the sum, where these errors cancel, far better.  The mean (frequency 0) is left out.
    """
    model, xp = problem.model, problem.backend.xp
    lz, ly, lx = laplacian_tables(problem)
    twice = column_multiplicity(problem)
    bins = len(_LOG_VALUES)
    energy, count = xp.zeros(bins, np.float64), xp.zeros(bins, np.float64)
    for z in range(model.domain[0]):
        power = xp.abs(spectrum[z]).astype(np.float64) ** 2 * twice
        weight = xp.broadcast_to(twice, power.shape).copy()
        if z == 0:
            power[0, 0] = weight[0, 0] = 0.0
        transfer = (xp.abs(model.otf[z]).astype(np.float64) * model.size) ** 2
        value = quantity(xp.maximum(transfer, 1e-30), lz[z] + ly[:, None] + lx)
        log_value = xp.log(xp.clip(value, _VALUES[0], _VALUES[-1]))
        index = ((log_value - _LOG_VALUES[0]) / _BIN).astype(np.int64).ravel()
        energy += xp.bincount(index, weights=power.ravel(), minlength=bins)
        count += xp.bincount(index, weights=weight.ravel(), minlength=bins)
    download = problem.backend.download
    return BinnedPower(_VALUES, download(energy), download(count))


_BIN = 0.01
_LOG_VALUES = np.arange(np.log(1e-24), np.log(1e24), _BIN)
_VALUES = np.exp(_LOG_VALUES + _BIN / 2)


def column_multiplicity(problem: Problem) -> Array:
    """How often each column of the half spectrum stands in the whole one: twice, but for frequency 0 and Nyquist."""
    nx = problem.model.domain[2]
    twice = np.full(nx // 2 + 1, 2.0)
    twice[0] = 1.0
    if nx % 2 == 0:
        twice[-1] = 1.0
    return problem.backend.upload(twice)


def energy(spectrum: Array) -> Array:
    """|spectrum|^2, which `abs` would take a root for."""
    squares = spectrum.real**2
    squares += spectrum.imag**2
    return squares


def fading(n: int, least: int = 0) -> NDArray[np.float32]:
    """1 in the middle half, sin^2 over a quarter at either end; all 1 for fewer than 8 samples.

    ``least`` samples fade at either end, as far as there are so many: short axes leak less then into far frequencies.
    """
    k = min(max(n // 4, least), n // 2) if n >= 8 else 0
    rise = np.sin(np.pi / 2 * (np.arange(k) + 0.5) / max(k, 1)) ** 2
    return np.concatenate([rise, np.ones(n - 2 * k), rise[::-1]]).astype(np.float32)
