"""The object's power spectrum over the length of the frequency vector, estimated from the blurred, noisy image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.methods.problem import Problem
from gpudecon.methods.spectrum import column_multiplicity, measured_spectrum, noise_power

IN_BAND = 0.1  # of H(0): frequencies that the PSF passes with more show the object
SIGNIFICANT = 3.0  # standard errors by which a shell must exceed the noise to be believed
FITTED = 1 / 3  # of the highest such shell: from there on the power law is fitted
LEAST_SHELLS = 5  # that a power law is fitted to
STEEPEST = 12.0  # exponent, wide about the 2 to 6 of objects in three dimensions


@dataclass(frozen=True)
class SignalToNoise:
    """S_f / S_n in shells of |k|, ``step`` (1 / um) wide from 0 on, and whether S_n could be measured."""

    ratio: NDArray[np.float64]
    step: float
    is_reliable: bool


def signal_to_noise(problem: Problem) -> SignalToNoise | None:
    """S_f / S_n over |k|, or None where too little of the object exceeds the noise.

    Over the frequencies of a shell that the PSF passes well, S_f = sum (|G|^2 - S_n) / sum |H|^2.  Where this stands
    out from the noise's own scatter it is taken as it is.  Elsewhere S_f = A |k|^-beta, with the median slope between
    all pairs of the upper of those shells in log-log scale (Theil 1950, Sen 1968).
    """
    model, xp = problem.model, problem.backend.xp
    spectrum, _ = measured_spectrum(problem)
    noise, is_reliable = noise_power(problem, spectrum)
    step = min(1 / (n * v) for n, v in zip(model.domain, problem.voxel_um, strict=True) if n > 1)
    shells = int(max(float(length.max()) for length in frequency_lengths(problem)) / step) + 1
    sums = np.zeros((3, shells))
    download = problem.backend.download
    twice = column_multiplicity(problem)
    for z, length in enumerate(frequency_lengths(problem)):
        transfer = (xp.abs(model.otf[z]).astype(np.float64) * model.size) ** 2
        weight = (transfer > IN_BAND**2) * twice
        if z == 0:
            weight[0, 0] = 0.0  # the mean is no part of the spectrum
        power = xp.abs(spectrum[z]).astype(np.float64) ** 2
        # on the host: CuPy's bincount adds in any order, and the filter would have other bits each time
        index = download((length / step).astype(np.int64)).ravel()
        for row, values in zip(sums, (weight * power, weight * transfer, weight), strict=True):
            row += np.bincount(index, weights=download(values).ravel(), minlength=shells)
    energy, transfer, count = sums
    signal = energy - count * noise
    clear = (count > 0) & (signal > SIGNIFICANT * noise * np.sqrt(count))
    k = (np.arange(shells) + 0.5) * step
    fitted = np.flatnonzero(clear & (k >= FITTED * k[clear].max(initial=0.0)))
    if len(fitted) < LEAST_SHELLS or noise <= 0:
        return None
    signal[clear] /= transfer[clear]
    level, exponent = _power_law(k[fitted], signal[fitted])
    ratio = np.where(clear, signal, np.exp(level) * k**-exponent) / noise
    return SignalToNoise(ratio, step, is_reliable)


def frequency_lengths(problem: Problem) -> Iterator[Array]:
    """|k| of the half spectrum in 1 / um, plane by plane."""
    xp = problem.backend.xp
    (nz, ny, nx), (dz, dy, dx) = problem.model.domain, problem.voxel_um
    lateral = problem.backend.upload(np.add.outer(np.fft.fftfreq(ny, dy) ** 2, np.fft.rfftfreq(nx, dx) ** 2))
    for axial in np.fft.fftfreq(nz, dz):
        yield xp.sqrt(lateral + axial**2)


def _power_law(k: NDArray[Any], power: NDArray[Any]) -> tuple[float, float]:
    """(log A, beta) of power = A k^-beta, by medians."""
    x, y = np.log(k), np.log(power)
    i, j = np.triu_indices(len(x), 1)
    exponent = float(np.clip(-np.median((y[j] - y[i]) / (x[j] - x[i])), 0.0, STEEPEST))
    return float(np.median(y + exponent * x)), exponent
