"""Richardson-Lucy: maximum likelihood for Poisson counts, with edges and background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import FLOOR, Data, Problem, check_options


@dataclass(frozen=True)
class RichardsonLucy:
    """Richardson-Lucy iteration (Richardson 1972, Lucy 1974; edges: Bertero & Boccacci 2005)::

        f <- f / (H^T 1) * H^T( g / (H f + b) )

    from a flat start.  The estimate is non-negative; with background 0 and periodic edges every step keeps the flux
    exactly, otherwise nearly so.  With a background far above the signal the steps are small: `acceleration` helps.

    Parameters
    ----------
    iterations
        How many; more give finer detail and more noise.
    acceleration
        "none", or "shb": scaled heavy ball (Wang & Miller, IEEE Trans. Image Process. 23, 2014), each step starting
        from y = f_k + (k - 1) / (k + 2) (f_k - f_(k-1)), which needs about a third of the iterations.  Unlike the
        published form y is kept above f_k / 2 instead of 0: a voxel that were set to 0 would stay 0 for ever.
    """

    name: ClassVar[str] = "rl"
    counts_only: ClassVar[bool] = True
    needs_psf: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True
    promises: ClassVar[frozenset[str]] = frozenset({"non-negative", "flux"})

    iterations: int = 30
    acceleration: Literal["none", "shb"] = "none"

    def __post_init__(self) -> None:
        check_options(self)
        if self.iterations < 1:
            raise InputError(f"rl: iterations is {self.iterations}; it must be at least 1.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 2.0 if self.acceleration == "shb" else 1.0

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the estimate after each iteration."""
        model, ops = problem.model, problem.backend.ops
        data = problem.data()
        weights = problem.weights(data)
        estimate = flat_start(problem, data, weights)
        latest = estimate.copy() if self.acceleration == "shb" else estimate
        for k in range(1, self.iterations + 1):
            work = model.blur(estimate)
            ops.rl_ratio(work, data.image, *data.scene)
            model.adjoint()
            if self.acceleration == "shb":
                ops.rl_update_momentum(estimate, latest, work, weights, (k - 1) / (k + 2))
            else:
                ops.rl_update(estimate, work, weights)
            yield latest


def flat_start(problem: Problem, data: Data, weights: Array | None) -> Array:
    """A constant estimate with the mean of what the image holds above the background.

    Voxels below it count as 0: in a sparse image the plain mean may lie below the background, and what starts near 0
    stays near 0, since steps are factors.
    """
    xp = problem.backend.xp
    excess = data.image - xp.float32(data.background)
    if data.background_image is not None:
        excess -= data.background_image
    xp.maximum(excess, 0, out=excess)
    if data.mask is not None:
        excess *= data.mask
    measured = excess.size if data.mask is None else int((data.mask != 0).sum())
    estimate = problem.model.empty()
    estimate[...] = max(float(excess.sum(dtype="float64")) / measured, FLOOR * problem.highest)
    if weights is not None:
        xp.multiply(estimate, weights > 0, out=estimate)
    return estimate
