"""Wiener filter: the linear estimate of least mean square error for white noise on a white object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.spectrum import (
    BEYOND_SUPPORT,
    binned_power,
    image_spectrum,
    laplacian_tables,
    measured_spectrum,
    noise_power,
)


@dataclass(frozen=True)
class Wiener:
    """Wiener filter (Wiener 1949) with a constant noise-to-signal ratio::

        F = conj(H) G / (|H|^2 + S_n / S_f)

    A direct filter: one pass.  The image is continued into a margin by its mirror image unless edges are periodic.

    Parameters
    ----------
    noise_to_signal
        S_n / S_f, a positive number, or "auto": that of the least expected mean square error, with S_n from the
        frequencies beyond the OTF's support and the object's power from what the others hold above it.  "auto" keeps
        the image's mean, which is known better than any other frequency.
    nonnegative
        Set negative values of the result to zero.  The filter itself knows no positivity.
    """

    name: ClassVar[str] = "wiener"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = False
    promises: ClassVar[frozenset[str]] = frozenset()

    noise_to_signal: float | Literal["auto"] = "auto"
    nonnegative: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        if self.noise_to_signal != "auto" and not 0 < self.noise_to_signal < float("inf"):
            raise InputError(f"wiener: noise_to_signal is {self.noise_to_signal}; it must be positive, or 'auto'.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 1.0

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the restored image once."""
        if self.noise_to_signal == "auto":
            ratio, keep_mean = least_risk_ratio(problem), True
        else:
            ratio, keep_mean = self.noise_to_signal, False
        yield filtered(problem, noise_to_signal=ratio, gamma=0.0, nonnegative=self.nonnegative, keep_mean=keep_mean)


SIGNIFICANT = 4.0  # standard deviations of the noise's mean power above which a power is a signal
UNMEASURED = 0.01  # the most that "auto" takes where the image holds no measure of its noise


def least_risk_ratio(problem: Problem) -> float:
    """The constant K that minimises the expected square error over the frequencies that the PSF passes::

        sum_k [ |H|^2 S_n + K^2 S_f ] / (|H|^2 + K)^2    with  S_f = max(|G|^2 - S_n, 0) / |H|^2

    summed over frequencies of like |H|^2, where |G|^2 is an average over many.  The power of white noise at one
    frequency scatters by its mean, so an average over n of them by that / sqrt(n); what does not exceed it clearly is
    no signal, because division by a small |H|^2 would make much of it.
    """
    spectrum, _ = measured_spectrum(problem)
    noise, is_reliable = noise_power(problem, spectrum)
    power = binned_power(problem, spectrum, lambda transfer, _: transfer)
    passed = (power.value > BEYOND_SUPPORT**2) & (power.count > 0)
    transfer, count = power.value[passed], power.count[passed]
    excess = power.energy[passed] - count * noise
    signal = np.where(excess > SIGNIFICANT * noise * np.sqrt(count), excess, 0) / transfer
    ratios = np.geomspace(1e-8, 1e2, 401)
    risks = [float(np.sum((transfer * count * noise + k**2 * signal) / (transfer + k) ** 2)) for k in ratios]
    ratio = float(ratios[int(np.argmin(risks))])
    return ratio if is_reliable else min(ratio, UNMEASURED)


def filtered(
    problem: Problem, *, noise_to_signal: float, gamma: float, nonnegative: bool, keep_mean: bool = False
) -> Array:
    """The image after ``conj(H) G / (|H|^2 + noise_to_signal + gamma L^2)``, in an array of its own."""
    model, ops = problem.model, problem.backend.ops
    spectrum = image_spectrum(problem)
    tables = laplacian_tables(problem)
    ops.regularized_filter(spectrum, model.otf, *tables, noise_to_signal, gamma, float(model.size))
    if keep_mean:  # the filter divides it by 1 + noise_to_signal
        spectrum[0, 0, 0] *= 1 + noise_to_signal
    model.fft.inverse(spectrum, model.work)
    restored = model.work.copy()  # the model's field stays free for whoever looks at the result
    if nonnegative:
        problem.backend.xp.maximum(restored, 0, out=restored)
    return restored
