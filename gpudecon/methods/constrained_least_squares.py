"""Constrained least squares: the smoothest image whose blur fits the data as well as the noise allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread
from gpudecon.methods.spectrum import binned_power, measured_spectrum, noise_power
from gpudecon.methods.wiener import filtered

# Of gamma, where it is yet to be chosen and only its reach is asked for.
TYPICAL = 1e-2


@dataclass(frozen=True)
class ConstrainedLeastSquares:
    """Constrained least squares (Hunt, IEEE Trans. Comput. 22, 1973)::

        F = conj(H) G / (|H|^2 + gamma L^2)

    with L the discrete Laplacian, its terms weighed by the voxel's anisotropy.  A direct filter: one pass.

    Parameters
    ----------
    gamma
        The weight of smoothness, a positive number; "auto", by Hunt's discrepancy rule that for which the residual
        g - H f has the energy of the noise; or "gcv", that of least generalised cross-validation, which needs no
        measure of the noise, only that it is white.
    noise_variance
        Variance of the noise per voxel, for gamma "auto"; "auto": from the frequencies beyond the OTF's support.
    nonnegative
        Set negative values of the result to zero.  The filter itself knows no positivity.
    """

    name: ClassVar[str] = "cls"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = False
    divisible: ClassVar[bool] = True
    promises: ClassVar[frozenset[str]] = frozenset()

    gamma: float | Literal["auto", "gcv"] = "auto"
    noise_variance: float | Literal["auto"] = "auto"
    nonnegative: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        for option in ("gamma", "noise_variance"):
            given = getattr(self, option)
            if not isinstance(given, str) and not 0 < given < float("inf"):
                words = "'auto', or 'gcv'" if option == "gamma" else "'auto'"
                raise InputError(f"cls: {option} is {given}; it must be positive, or {words}.")
        if self.gamma != "auto" and self.noise_variance != "auto":
            raise InputError("cls: noise_variance only serves to find gamma 'auto'; give one of the two.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 1.0

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        gamma = TYPICAL if isinstance(self.gamma, str) else self.gamma
        return spread.of_filter(lambda h, laplacian: np.conj(h) / (np.abs(h) ** 2 + gamma * laplacian**2))

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the restored image once."""
        gamma = self.gamma
        if isinstance(gamma, str):
            chosen = self._discrepancy_gamma if gamma == "auto" else cross_validated_gamma
            gamma = problem.record.number("gamma", lambda: chosen(problem))
        yield filtered(problem, noise_to_signal=0.0, gamma=gamma, nonnegative=self.nonnegative)

    def _discrepancy_gamma(self, problem: Problem) -> float:
        """The root of  sum_bins E (gamma t / (1 + gamma t))^2 = noise energy  with t = L^2 / |H|^2.

        The left side, the energy of g - H f, grows with gamma, so bisection finds it.
        """
        spectrum, power_per_variance = measured_spectrum(problem)
        if self.noise_variance == "auto":
            noise, _ = noise_power(problem, spectrum)
        else:
            noise = self.noise_variance * power_per_variance
        power = binned_power(problem, spectrum, _roughness)
        low, high = np.log(1e-12), np.log(1e12)
        while high - low > 1e-4:
            middle = (low + high) / 2
            damped = np.exp(middle) * power.value
            if power.energy @ (damped / (1 + damped)) ** 2 < noise * problem.model.size:
                low = middle
            else:
                high = middle
        return float(np.exp(low))


def cross_validated_gamma(problem: Problem) -> float:
    """The gamma of least generalised cross-validation (Golub, Heath & Wahba, Technometrics 21, 1979)::

        V = sum |G|^2 r^2 / (sum r)^2,    r = gamma L^2 / (|H|^2 + gamma L^2) = gamma t / (1 + gamma t)

    over all frequencies.  A window (see `measured_spectrum`) multiplies the numerator by the same factor for every
    gamma, so it does not move the minimum.  V may have several: a scan over all orders of magnitude comes first.
    """
    spectrum, _ = measured_spectrum(problem)
    power = binned_power(problem, spectrum, _roughness)
    filled = power.count > 0
    value, energy, count = power.value[filled], power.energy[filled], power.count[filled]
    scale = energy.sum()

    def score(log_gamma: float) -> float:
        damped = np.exp(log_gamma) * value
        damped /= 1 + damped
        return float((energy / scale) @ damped**2 / (count @ damped) ** 2)

    coarse = np.linspace(np.log(1e-12), np.log(1e12), 241)
    best = coarse[int(np.argmin([score(g) for g in coarse]))]
    fine = best + (coarse[1] - coarse[0]) * np.linspace(-1, 1, 201)
    return float(np.exp(fine[int(np.argmin([score(g) for g in fine]))]))


def _roughness(transfer: Array, laplacian: Array) -> Array:
    """L^2 / |H|^2."""
    return laplacian.astype(np.float64) ** 2 / transfer
