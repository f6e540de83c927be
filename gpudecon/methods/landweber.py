"""Landweber: least squares by steps along the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread
from gpudecon.methods.start import flat_start


@dataclass(frozen=True)
class Landweber:
    """Projected Landweber iteration (Landweber, Am. J. Math. 73, 1951; Bertero & Boccacci 1998, section 6.2)::

        f <- max( f + step H^T M (g - b - H f), 0 )

    from a flat start; M keeps what is measured.  It converges to the least-squares estimate, high frequencies last, so
    stopping early keeps noise out.

    Parameters
    ----------
    iterations
        How many; more give finer detail and more noise.
    step
        Between 0 and 2, where the iteration diverges: the PSF is positive and sums to 1, so |H| <= 1.  Larger steps
        bring fine detail sooner.
    nonnegative
        Project onto what is not negative.  False: the plain iteration, which is linear.
    """

    name: ClassVar[str] = "landweber"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True
    divisible: ClassVar[bool] = True
    promises: ClassVar[frozenset[str]] = frozenset()

    iterations: int = 100
    step: float = 1.5
    nonnegative: bool = True

    def __post_init__(self) -> None:
        check_options(self)
        if self.iterations < 1:
            raise InputError(f"landweber: iterations is {self.iterations}; it must be at least 1.")
        if not 0 < self.step < 2:
            raise InputError(f"landweber: step is {self.step}; it must be above 0 and below 2, where it diverges.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 1.0

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        return 8.5 * spread.radius

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the estimate after each iteration."""
        model, ops = problem.model, problem.backend.ops
        data = problem.data()
        estimate = flat_start(problem, data, problem.weights(data))
        lowest = 0.0 if self.nonnegative else -math.inf
        for _ in range(self.iterations):
            work = model.blur(estimate)
            ops.residual(work, data.image, data.background, data.background_image, data.mask)
            model.adjoint()
            ops.projected_step(estimate, work, self.step, lowest)
            yield estimate
