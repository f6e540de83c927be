"""Constrained least squares: the smoothest image whose blur fits the data as well as the noise allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.spectrum import binned_power, measured_spectrum, noise_power
from gpudecon.methods.wiener import filtered


@dataclass(frozen=True)
class ConstrainedLeastSquares:
    """Constrained least squares (Hunt, IEEE Trans. Comput. 22, 1973)::

        F = conj(H) G / (|H|^2 + gamma L^2)

    with L the discrete Laplacian, its terms weighed by the voxel's anisotropy.  A direct filter: one pass.

    Parameters
    ----------
    gamma
        The weight of smoothness, a positive number, or "auto": by the discrepancy rule, that for which the residual
        g - H f has the energy of the noise.
    noise_variance
        Variance of the noise per voxel, for gamma "auto"; "auto": from the frequencies beyond the OTF's support.
    nonnegative
        Set negative values of the result to zero.  The filter itself knows no positivity.
    """

    name: ClassVar[str] = "cls"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = False
    promises: ClassVar[frozenset[str]] = frozenset()

    gamma: float | Literal["auto"] = "auto"
    noise_variance: float | Literal["auto"] = "auto"
    nonnegative: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        for option in ("gamma", "noise_variance"):
            given = getattr(self, option)
            if given != "auto" and not 0 < given < float("inf"):
                raise InputError(f"cls: {option} is {given}; it must be positive, or 'auto'.")
        if self.gamma != "auto" and self.noise_variance != "auto":
            raise InputError("cls: noise_variance only serves to find gamma; give one of the two.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 1.0

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the restored image once."""
        gamma = self._discrepancy_gamma(problem) if self.gamma == "auto" else self.gamma
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
        power = binned_power(problem, spectrum, lambda transfer, laplacian: laplacian.astype("f8") ** 2 / transfer)
        low, high = np.log(1e-12), np.log(1e12)
        while high - low > 1e-4:
            middle = (low + high) / 2
            damped = np.exp(middle) * power.value
            if power.energy @ (damped / (1 + damped)) ** 2 < noise * problem.model.size:
                low = middle
            else:
                high = middle
        return float(np.exp(low))
