"""ICTM: Tikhonov-regularised least squares under positivity, by projected conjugate gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.least_squares import inner_product, restrict
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread
from gpudecon.methods.start import flat_start
from gpudecon.methods.wiener import least_risk_ratio


@dataclass(frozen=True)
class ICTM:
    """Iterative constrained Tikhonov-Miller (van der Voort & Strasters, J. Microsc. 178, 1995; Verveer & Jovin, J. Opt.
    Soc. Am. A 14, 1997)::

        minimise |M (H f + b - g)|^2 + gamma |f|^2   subject to  f >= 0

    by conjugate gradients (Polak-Ribiere, restarted where they turn against the gradient) among the voxels that are
    free to move, with the exact step along each direction, projected onto f >= 0.  A step that the projection makes
    worse is replaced by one along the gradient that cannot, so the functional never rises.  Without the constraint and
    on periodic edges the minimum is the Wiener filter with noise-to-signal ratio gamma.

    Parameters
    ----------
    iterations
        How many, each with three convolutions.
    gamma
        The weight of the object's energy, 0 or positive, or "auto": that of the least expected mean square error of
        the unconstrained minimum, as `Wiener` finds it.  It makes the estimate dimmer, by about 1 + gamma.
    nonnegative
        Keep to f >= 0.  False: plain conjugate gradients.
    """

    name: ClassVar[str] = "ictm"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True
    divisible: ClassVar[bool] = False  # the steps that suit one part of an image let another one diverge
    promises: ClassVar[frozenset[str]] = frozenset()

    iterations: int = 30
    gamma: float | Literal["auto"] = "auto"
    nonnegative: bool = True

    def __post_init__(self) -> None:
        check_options(self)
        if self.iterations < 1:
            raise InputError(f"ictm: iterations is {self.iterations}; it must be at least 1.")
        if self.gamma != "auto" and not 0 <= self.gamma < math.inf:
            raise InputError(f"ictm: gamma is {self.gamma}; it must be 0 or positive, or 'auto'.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 4.0

    def settled(self, problem: Problem) -> ICTM:
        """The same with gamma chosen for this problem."""
        return dataclasses.replace(self, gamma=least_risk_gamma(problem)) if self.gamma == "auto" else self

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        return math.inf

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the estimate after each iteration."""
        model, ops = problem.model, problem.backend.ops
        data = problem.data()
        gamma = least_risk_gamma(problem) if self.gamma == "auto" else self.gamma
        lowest = 0.0 if self.nonnegative else -math.inf
        dot = inner_product(problem)

        def functional() -> float:
            """|M (H f + b - g)|^2 + gamma |f|^2; leaves the residual M (g - b - H f) in ``work``."""
            work = model.blur(estimate)
            ops.residual(work, data.image, data.background, data.background_image, data.mask)
            return dot(work, work) + gamma * dot(estimate, estimate)

        def descend() -> tuple[float, float]:
            """Descent <- half the negative gradient, 0 where it points out of the bound; (|descent|^2, its product
            with the one before).
            """
            work = model.adjoint()
            ops.bounded_sum(work, estimate, estimate, 1.0, -gamma, lowest)
            with_last = dot(work, descent)
            descent[...] = work
            return dot(descent, descent), with_last

        estimate = flat_start(problem, data, problem.weights(data))
        before, direction, descent = (model.empty() for _ in range(3))
        direction[...] = 0
        descent[...] = 0
        value, (slope, _), beta = functional(), descend(), 0.0
        for _ in range(self.iterations):
            ops.bounded_sum(direction, descent, estimate, beta, 1.0, lowest)
            along = dot(direction, descent)
            if along <= 0:
                direction[...] = descent
                along = slope
            work = restrict(model.blur(direction), data)
            curvature = dot(work, work) + gamma * dot(direction, direction)
            before[...] = estimate
            ops.projected_step(estimate, direction, along / curvature if curvature > 0 else 0.0, lowest)
            last, value = value, functional()
            if value > last:
                # |H| <= 1, so the functional bends nowhere more than 1 + gamma, and this step cannot raise it
                estimate[...] = before
                direction[...] = descent
                ops.projected_step(estimate, descent, 1 / (1 + gamma), lowest)
                value = functional()
            last_slope = slope
            slope, with_last = descend()
            beta = max(0.0, slope - with_last) / last_slope if last_slope > 0 else 0.0
            yield estimate


def least_risk_gamma(problem: Problem) -> float:
    """The Wiener filter's constant for this image.

    Voxels that are no measurement would count as structure: they are filled with the mean of those measured around
    them, weighed by the PSF.
    """
    if problem.mask is None:
        return least_risk_ratio(problem)
    model, data = problem.model, problem.data()
    weights = problem.weights(data)
    nz, ny, nx = data.image.shape
    model.work[:nz, :ny, :nx] = data.image
    restrict(model.work, data)
    surroundings = model.crop(model.adjoint())
    surroundings *= model.crop(weights)
    image = problem.backend.xp.where(problem.mask != 0, problem.image, surroundings).astype(np.float32)
    return least_risk_ratio(dataclasses.replace(problem, image=image, mask=None))
