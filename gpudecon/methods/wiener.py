"""Wiener filter: the linear estimate of least mean square error, for a given ratio of noise to signal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.methods.object_spectrum import SignalToNoise, frequency_lengths, signal_to_noise
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread
from gpudecon.methods.spectrum import (
    binned_power,
    image_spectrum,
    laplacian_tables,
    measured_spectrum,
    noise_power,
)

# Of S_n / S_f: what a constant that is yet to be chosen is taken to be where only its reach is asked for.
TYPICAL = 1e-3


@dataclass(frozen=True)
class Wiener:
    """Wiener filter (Wiener 1949)::

        F = conj(H) G / (|H|^2 + S_n / S_f)

    A direct filter: one pass.  The image is continued into a margin by its mirror image unless edges are periodic.

    Parameters
    ----------
    noise_to_signal
        S_n / S_f: a positive number for all frequencies; "auto", the number of least expected mean square error, with
        S_n from the frequencies beyond the OTF's support and the object's power from what the others hold above it;
        "spectrum", a function of the frequency's length, with S_n as before and S_f measured where the PSF passes the
        object well and continued by a power law.  The last two keep the image's mean, which is known better than any
        other frequency.
    nonnegative
        Set negative values of the result to zero.  The filter itself knows no positivity.
    """

    name: ClassVar[str] = "wiener"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = False
    promises: ClassVar[frozenset[str]] = frozenset()

    noise_to_signal: float | Literal["auto", "spectrum"] = "auto"
    nonnegative: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        given = self.noise_to_signal
        if not isinstance(given, str) and not 0 < given < float("inf"):
            raise InputError(f"wiener: noise_to_signal is {given}; it must be positive, or 'auto', or 'spectrum'.")

    @property
    def divisible(self) -> bool:
        """Not with a measured spectrum: it has the resolution of the whole image, and so its filter reaches as far."""
        return self.noise_to_signal != "spectrum"

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 1.0

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        given = TYPICAL if isinstance(self.noise_to_signal, str) else self.noise_to_signal
        return spread.of_filter(lambda h, _: np.conj(h) / (np.abs(h) ** 2 + given))

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the restored image once."""
        if self.noise_to_signal == "spectrum":
            ratio = signal_to_noise(problem)
            if ratio is not None:
                yield _radially_filtered(problem, ratio, nonnegative=self.nonnegative)
                return
            warnings.warn(
                "Too little of the image stands out from its noise to measure the object's spectrum; wiener takes "
                "noise_to_signal 'auto', one number for all frequencies.",
                GpudeconWarning,
                stacklevel=4,
            )
        if isinstance(self.noise_to_signal, str):
            constant = problem.record.number("noise_to_signal", lambda: least_risk_ratio(problem))
            keep_mean = True
        else:
            constant, keep_mean = self.noise_to_signal, False
        yield filtered(problem, noise_to_signal=constant, gamma=0.0, nonnegative=self.nonnegative, keep_mean=keep_mean)


SHOWN = 1e-3  # of |H|^2: what the PSF passes with less shows too little of the object to measure its power
UNMEASURED = 0.01  # the most that "auto" and "spectrum" take where the image holds no measure of its noise


def least_risk_ratio(problem: Problem) -> float:
    """The constant K that minimises the expected square error::

        sum_k [ |H|^2 S_n + K^2 S_f ] / (|H|^2 + K)^2    with  S_f = (|G|^2 - S_n) / |H|^2

    summed over frequencies of like |H|^2.  S_f is not kept from being negative: only so do the errors of its many terms
    cancel, which grow as 1 / |H|^2.  What the PSF hardly passes holds no known signal, but its noise counts.
    """
    spectrum, _ = measured_spectrum(problem)
    noise, is_reliable = noise_power(problem, spectrum)
    power = binned_power(problem, spectrum, lambda transfer, _: transfer)
    filled = power.count > 0
    transfer, count = power.value[filled], power.count[filled]
    shown = transfer > SHOWN
    signal = np.where(shown, (power.energy[filled] - count * noise) / transfer, 0.0)
    ratios = np.geomspace(1e-8, 1e2, 401)
    risks = [float(np.sum((transfer * count * noise + k**2 * signal) / (transfer + k) ** 2)) for k in ratios]
    ratio = float(ratios[int(np.argmin(risks))])
    return ratio if is_reliable else min(ratio, UNMEASURED)


def filtered(
    problem: Problem, *, noise_to_signal: float, gamma: float, nonnegative: bool, keep_mean: bool = False
) -> Array:
    """The image after ``conj(H) G / (|H|^2 + noise_to_signal + gamma L^2)``, in a field of its own."""
    model, ops = problem.model, problem.backend.ops
    spectrum = image_spectrum(problem)
    mean = _mean(problem, spectrum) if keep_mean else 0.0
    tables = laplacian_tables(problem)
    ops.regularized_filter(spectrum, model.otf, *tables, noise_to_signal, gamma, float(model.size))
    return _restored(problem, mean * noise_to_signal / (1 + noise_to_signal), nonnegative)


def _radially_filtered(problem: Problem, signal: SignalToNoise, *, nonnegative: bool) -> Array:
    """The image after ``conj(H) G / (|H|^2 + S_n / S_f(|k|))``, in a field of its own; the mean is kept."""
    model, xp = problem.model, problem.backend.xp
    ratio = 1 / np.maximum(signal.ratio, 1e-12)
    if not signal.is_reliable:
        ratio = np.minimum(ratio, UNMEASURED)
    log_ratio = problem.backend.upload(np.log(ratio))
    middles = problem.backend.upload(np.arange(len(ratio)) + 0.5)
    spectrum = image_spectrum(problem)
    mean = _mean(problem, spectrum)
    for z, length in enumerate(frequency_lengths(problem)):
        transfer = model.otf[z] * np.float32(model.size)
        log_here = xp.interp((length / signal.step).ravel(), middles, log_ratio).reshape(length.shape)
        denominator = xp.abs(transfer) ** 2 + xp.exp(log_here)
        spectrum[z] *= xp.conj(transfer)
        spectrum[z] /= (denominator * model.size).astype(np.float32)
    return _restored(problem, mean * ratio[0] / (1 + ratio[0]), nonnegative)


def _mean(problem: Problem, spectrum: Array) -> float:
    """The mean of the light, of which filters take a part away: not that of a part of the image."""
    return problem.record.number("mean", lambda: float(spectrum[0, 0, 0].real) / problem.model.size)


def _restored(problem: Problem, missing: float, nonnegative: bool) -> Array:
    """The inverse transform of the model's spectrum and ``missing`` light, in a field of its own."""
    model = problem.model
    model.fft.inverse(model.spectrum, model.work)
    restored = model.empty()  # the model's field stays free for whoever looks at the result
    restored[...] = model.work
    if missing:
        restored += np.float32(missing)
    if nonnegative:
        problem.backend.xp.maximum(restored, 0, out=restored)
    return restored
