"""FISTA-TV: non-negative least squares with total variation."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.least_squares import inner_product
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread
from gpudecon.methods.start import flat_start
from gpudecon.methods.total_variation import TotalVariationPrior, absolute_weight, check_weight

# Weight in standard deviations of the noise for "auto": between what suits filaments and what suits large blobs.
AUTO_WEIGHT = 0.1


@dataclass(frozen=True)
class FistaTV:
    """Least squares with total variation and positivity, by FISTA (Beck & Teboulle, SIAM J. Imaging Sci. 2, 2009, and
    IEEE Trans. Image Process. 18, 2009)::

        minimise 1/2 |M (H f + b - g)|^2 + w TV(f)   subject to  f >= 0

        f_k = prox( y_k + H^T M (g - b - H y_k) ),   y_(k+1) = f_k + (t_k - 1) / t_(k+1) (f_k - f_(k-1))

    where prox denoises by total variation (see `TotalVariation`) under f >= 0, approximately, from the dual field of
    the iteration before.  The momentum starts anew where it turns against the descent (O'Donoghue & Candes, Found.
    Comput. Math. 15, 2015).

    Parameters
    ----------
    iterations
        How many.
    weight
        w as a fraction of the image's range, largest minus smallest value.  "auto": a tenth of the standard
        deviation of the noise, which is measured in the image.
    inner_iterations
        Steps of the denoiser in each iteration; few are enough, because it goes on where it was.
    """

    name: ClassVar[str] = "fista_tv"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True
    divisible: ClassVar[bool] = True
    promises: ClassVar[frozenset[str]] = frozenset({"non-negative"})

    iterations: int = 50
    weight: float | Literal["auto"] = "auto"
    inner_iterations: int = 3

    def __post_init__(self) -> None:
        check_options(self)
        check_weight(self.name, self.weight)
        for option in ("iterations", "inner_iterations"):
            if getattr(self, option) < 1:
                raise InputError(f"fista_tv: {option} is {getattr(self, option)}; it must be at least 1.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 9.0

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        return 13 * spread.radius

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the estimate after each iteration."""
        model, ops = problem.model, problem.backend.ops
        data = problem.data()
        weight = absolute_weight(problem, self.weight, AUTO_WEIGHT)
        prior = TotalVariationPrior(problem, weight) if weight > 0 else None
        dot = inner_product(problem)
        estimate = flat_start(problem, data, problem.weights(data))
        lead, latest, age = model.empty(), model.empty(), 1.0
        lead[...] = estimate

        def went_uphill(lead: Array, latest: Array, estimate: Array) -> bool:
            """Whether the last step did: <lead - latest, latest - estimate> > 0."""
            return dot(lead, latest) - dot(lead, estimate) - dot(latest, latest) + dot(latest, estimate) > 0

        for _ in range(self.iterations):
            work = model.blur(lead)
            ops.residual(work, data.image, data.background, data.background_image, data.mask)
            model.adjoint()
            ops.projected_step(work, lead, 1.0, -math.inf)
            if prior is None:
                problem.backend.xp.maximum(work, 0, out=latest)
            else:
                prior.restart()
                prior.shrink(latest, work, self.inner_iterations, lowest=0.0)
            is_uphill = problem.record.number("uphill", functools.partial(went_uphill, lead, latest, estimate))
            next_age = 1.0 if is_uphill else (1 + math.sqrt(1 + 4 * age**2)) / 2
            momentum = 0.0 if is_uphill else (age - 1) / next_age
            age = next_age
            ops.bounded_sum(estimate, latest, latest, -momentum, 1 + momentum, -math.inf)
            estimate, lead, latest = latest, estimate, lead
            yield estimate
