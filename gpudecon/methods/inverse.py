"""Inverse filter: division by the transfer function, with a limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread
from gpudecon.methods.spectrum import image_spectrum


@dataclass(frozen=True)
class InverseFilter:
    """Inverse filter (Gonzalez & Woods, Digital Image Processing, section "Inverse filtering")::

        F = conj(H) G / max(|H|^2, eps^2),   or 0 where |H| < eps

    A direct filter: one pass.  It knows nothing of noise and multiplies that of a frequency by 1 / |H|, up to 1 / eps.
    For images almost free of noise, and to compare with; else `Wiener` is the same with a reasoned limit.

    Parameters
    ----------
    threshold
        Eps relative to H(0), between 0 and 1; the largest amplification is 1 / threshold.
    below
        What becomes of frequencies with |H| < eps: "clamp" divides them by eps^2 instead of |H|^2, "zero" removes them,
        which rings at edges of objects.
    """

    name: ClassVar[str] = "inverse"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = False
    divisible: ClassVar[bool] = True
    promises: ClassVar[frozenset[str]] = frozenset()

    threshold: float = 0.05
    below: Literal["clamp", "zero"] = "clamp"

    def __post_init__(self) -> None:
        check_options(self)
        if not 0 < self.threshold <= 1:
            raise InputError(f"inverse: threshold is {self.threshold}; it must be above 0 and at most 1.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 1.0

    def reach(self, spread: Spread) -> float:
        """See `Method`."""

        def transfer(h: NDArray[Any], _: NDArray[Any]) -> NDArray[Any]:
            divided: NDArray[Any] = np.conj(h) / np.maximum(np.abs(h), self.threshold) ** 2
            return divided if self.below == "clamp" else divided * (np.abs(h) >= self.threshold)

        return spread.of_filter(transfer)

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the restored image once."""
        model, xp = problem.model, problem.backend.xp
        spectrum = image_spectrum(problem)
        eps = np.float32(self.threshold * abs(complex(model.otf[0, 0, 0])) * model.size)
        for z in range(model.domain[0]):
            amplitude = xp.abs(model.otf[z]) * np.float32(model.size)
            divisor = xp.maximum(amplitude, eps) ** 2
            spectrum[z] *= xp.conj(model.otf[z])
            spectrum[z] /= divisor
            if self.below == "zero":
                spectrum[z] *= amplitude >= eps
        model.fft.inverse(spectrum, model.work)
        restored = model.empty()  # the model's field stays free for whoever looks at the result
        restored[...] = model.work
        yield restored
