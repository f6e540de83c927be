"""Wiener filter: the linear estimate of least mean square error for white noise on a white object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.spectrum import image_spectrum, laplacian_tables, white_power


@dataclass(frozen=True)
class Wiener:
    """Wiener filter (Wiener 1949) with a constant noise-to-signal ratio::

        F = conj(H) G / (|H|^2 + S_n / S_f)

    A direct filter: one pass.  The image is continued into a margin by its mirror image unless edges are periodic.

    Parameters
    ----------
    noise_to_signal
        S_n / S_f, a positive number, or "auto": S_n from the frequencies beyond the OTF's support, S_f from the rest.
    nonnegative
        Set negative values of the result to zero.  The filter itself knows no positivity.
    """

    name: ClassVar[str] = "wiener"
    counts_only: ClassVar[bool] = False

    noise_to_signal: float | Literal["auto"] = "auto"
    nonnegative: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        if self.noise_to_signal != "auto" and not 0 < self.noise_to_signal < float("inf"):
            raise InputError(f"wiener: noise_to_signal is {self.noise_to_signal}; it must be positive, or 'auto'.")

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the restored image once."""
        spectrum = image_spectrum(problem)
        if self.noise_to_signal == "auto":
            noise, signal = white_power(problem, spectrum)
            ratio = max(noise / signal, 1e-8) if signal > 0 else 1.0
        else:
            ratio = self.noise_to_signal
        yield filtered(problem, spectrum, noise_to_signal=ratio, gamma=0.0, nonnegative=self.nonnegative)


def filtered(problem: Problem, spectrum: Array, *, noise_to_signal: float, gamma: float, nonnegative: bool) -> Array:
    """The model's field after ``conj(H) G / (|H|^2 + noise_to_signal + gamma L^2)`` and the inverse FFT."""
    model, ops = problem.model, problem.backend.ops
    tables = laplacian_tables(problem)
    ops.regularized_filter(spectrum, model.otf, *tables, noise_to_signal, gamma, float(model.size))
    model.fft.inverse(spectrum, model.work)
    if nonnegative:
        problem.backend.xp.maximum(model.work, 0, out=model.work)
    return model.work
