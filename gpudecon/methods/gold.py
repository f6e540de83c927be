"""Gold's ratio method: non-negative least squares by factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.least_squares import restrict
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread
from gpudecon.methods.start import flat_start


@dataclass(frozen=True)
class Gold:
    """Gold's ratio method (Gold, Argonne National Laboratory report ANL-6984, 1964)::

        f <- f * max(H^T M (g - b), 0) / (H^T M H f)

    from a flat start; M keeps what is measured.  It converges to the non-negative least-squares estimate (De Pierro,
    IEEE Trans. Med. Imaging 6, 1987), slowly, as Richardson-Lucy does to the Poisson one.  Where H^T M (g - b) is
    negative that estimate is 0, because H^T M H f is not negative: so setting f to 0 there is no approximation.

    Parameters
    ----------
    iterations
        How many; more give finer detail and more noise.
    """

    name: ClassVar[str] = "gold"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True
    divisible: ClassVar[bool] = True
    promises: ClassVar[frozenset[str]] = frozenset({"non-negative"})

    iterations: int = 100

    def __post_init__(self) -> None:
        check_options(self)
        if self.iterations < 1:
            raise InputError(f"gold: iterations is {self.iterations}; it must be at least 1.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 2.0

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        return 8.5 * spread.radius

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the estimate after each iteration."""
        model, ops, xp = problem.model, problem.backend.ops, problem.backend.xp
        data = problem.data()
        estimate = flat_start(problem, data, problem.weights(data))
        model.work[...] = 0
        ops.residual(model.work, data.image, data.background, data.background_image, data.mask)
        seen = xp.empty(model.domain, np.float32)  # H^T M (g - b), in the layout of an image
        xp.maximum(model.adjoint(), 0, out=seen)
        for _ in range(self.iterations):
            work = restrict(model.blur(estimate), data)
            model.adjoint()
            ops.rl_ratio(work, seen, 0.0, None, None, data.floor)
            ops.rl_update(estimate, work, None)
            yield estimate
