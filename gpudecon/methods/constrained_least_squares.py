"""Constrained least squares: the smoothest image whose blur fits the data as well as the noise allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.spectrum import image_spectrum, independent_voxels, residual_energy, white_power
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

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the restored image once."""
        spectrum = image_spectrum(problem)
        gamma = self._discrepancy_gamma(problem, spectrum) if self.gamma == "auto" else self.gamma
        yield filtered(problem, spectrum, noise_to_signal=0.0, gamma=gamma, nonnegative=self.nonnegative)

    def _discrepancy_gamma(self, problem: Problem, spectrum: Array) -> float:
        """The root of  sum_bins E (gamma t / (1 + gamma t))^2 = noise energy,  which grows with gamma."""
        if self.noise_variance == "auto":
            noise_power = white_power(problem, spectrum)[0]
        else:
            noise_power = self.noise_variance * independent_voxels(problem)
        leverage, energy = residual_energy(problem, spectrum)

        low, high = np.log(1e-12), np.log(1e12)
        while high - low > 1e-4:
            middle = (low + high) / 2
            damped = np.exp(middle) * leverage
            if energy @ (damped / (1 + damped)) ** 2 < noise_power * problem.model.size:
                low = middle
            else:
                high = middle
        return float(np.exp(low))
