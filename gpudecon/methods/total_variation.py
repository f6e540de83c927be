"""Total variation: a denoiser that keeps edges, by its dual problem."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.methods.least_squares import inner_product
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread

# Weight in standard deviations of the noise for "auto": near the least error on simulated specimens of all kinds.
AUTO_WEIGHT = 1.0
MOST_ITERATIONS = 1000
CHECK_EVERY = 10


@dataclass(frozen=True)
class TotalVariation:
    """Total-variation denoising (Rudin, Osher & Fatemi, Physica D 60, 1992; Chambolle, J. Math. Imaging Vis. 20,
    2004)::

        minimise 1/2 |f - (g - b)|^2 + w TV(f),   TV(f) = sum over voxels of |grad f|

    with forward differences, those along an axis of voxel size v multiplied by v_min / v.  It is solved by fast
    gradient projection on the dual (Beck & Teboulle, IEEE Trans. Image Process. 18, 2009) until the duality gap proves
    that the result is near the minimum.  Needs no PSF.

    Parameters
    ----------
    weight
        w as a fraction of the image's range, largest minus smallest value; steps across a flat region of radius r
        voxels lose about 2 w / r (2-D) or 3 w / r (3-D) of their height.  "auto": the standard deviation of the noise,
        which is measured in the image.
    tolerance
        The largest distance from the exact minimum, root mean square, as a fraction of what is taken out of the image.
    """

    name: ClassVar[str] = "tv"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = False
    takes_mask: ClassVar[bool] = False
    divisible: ClassVar[bool] = True
    promises: ClassVar[frozenset[str]] = frozenset({"flux"})

    weight: float | Literal["auto"] = "auto"
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        check_options(self)
        check_weight(self.name, self.weight)
        if not 0 < self.tolerance < 1:
            raise InputError(f"tv: tolerance is {self.tolerance}; it must be between 0 and 1.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 9.0

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        return 30 * spread.scale

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the denoised image once.

        With v = g - b and f = v + w div p, the gap between primal and dual is w sum(|grad f| - p . grad f).  The
        functional is strongly convex, so the squared distance of f from the minimum is at most twice the gap.
        """
        data, xp = problem.data(), problem.backend.xp
        noisy = problem.model.empty()
        noisy[...] = 0
        problem.backend.ops.residual(noisy, data.image, data.background, data.background_image, None)
        weight = absolute_weight(problem, self.weight, AUTO_WEIGHT)
        if weight == 0:
            yield noisy
            return
        mean = noisy.mean(dtype=np.float64).astype(np.float32)
        noisy -= mean  # differences of small numbers are exact to more digits
        prior = TotalVariationPrior(problem, weight)
        estimate, removed = problem.model.empty(), problem.model.empty()
        dot = inner_product(problem)
        distance2 = removed2 = 0.0

        def is_near() -> bool:
            nonlocal distance2, removed2
            xp.subtract(noisy, estimate, out=removed)
            distance2, removed2 = 2 * prior.gap(estimate), dot(removed, removed)
            return distance2 <= self.tolerance**2 * removed2

        for _ in range(MOST_ITERATIONS // CHECK_EVERY):
            prior.shrink(estimate, noisy, CHECK_EVERY, lowest=-math.inf)
            if problem.record.number("near", is_near):
                break
        else:
            if not problem.record.is_part:
                warnings.warn(
                    f"tv: after {MOST_ITERATIONS} iterations the result is known to within "
                    f"{math.sqrt(distance2 / removed2):.2g} of what was removed, not to the tolerance "
                    f"{self.tolerance:g}; give a smaller weight or a larger tolerance.",
                    GpudeconWarning,
                    stacklevel=4,
                )
        estimate += mean
        yield estimate


class TotalVariationPrior:
    """The proximal map of w TV, with the dual field kept from one call to the next (a warm start)."""

    def __init__(self, problem: Problem, weight: float) -> None:
        xp, domain = problem.backend.xp, problem.model.domain
        finest = min(problem.voxel_um)
        z, y, x = (finest / v for v in problem.voxel_um)
        # |grad|^2 <= 4 per axis that has differences, each weighed
        norm2 = max(4 * sum(c * c for c, n in zip((z, y, x), domain, strict=True) if n > 1), 1.0)
        self.weight = weight
        self._ops = problem.backend.ops
        self._weights = z * weight, y * weight, x * weight
        self._scales = z / weight, y / weight, x / weight
        step = 1 / (weight * norm2)
        self._steps = z * step, y * step, x * step
        self._dual = xp.zeros((3, *domain), np.float32)
        self._lead = xp.zeros((3, *domain), np.float32)
        self._rows = xp.empty(domain[:2], np.float64)
        self._age = 1.0  # t of Nesterov's sequence

    def shrink(self, estimate: Array, source: Array, iterations: int, lowest: float) -> None:
        """Estimate <- about argmin over f >= lowest of 1/2 |f - source|^2 + w TV(f), by fast gradient projection."""
        for _ in range(iterations):
            self._ops.tv_primal(estimate, source, self._lead, *self._weights, lowest)
            age = (1 + math.sqrt(1 + 4 * self._age**2)) / 2
            self._ops.tv_dual(self._dual, self._lead, estimate, *self._steps, (self._age - 1) / age)
            self._age = age
        self._ops.tv_primal(estimate, source, self._dual, *self._weights, lowest)

    def restart(self) -> None:
        """Begin anew from the dual field reached, without its momentum: for another source."""
        self._lead[...] = self._dual
        self._age = 1.0

    def gap(self, estimate: Array) -> float:
        """Primal minus dual functional, for the estimate that `shrink` has left and no bound."""
        self._ops.tv_gap(self._rows, estimate, self._dual, *self._scales)
        return self.weight**2 * max(float(self._rows.sum()), 0.0)


def check_weight(name: str, weight: float | str) -> None:
    """Refuse a weight that is neither a number above 0 nor "auto"."""
    if isinstance(weight, str) or 0 < weight < math.inf:
        return
    raise InputError(f"{name}: weight is {weight}; it must be positive, or 'auto'.")


def absolute_weight(problem: Problem, weight: float | Literal["auto"], auto: float) -> float:
    """The weight in the image's units: a fraction of its range, or if "auto" ``auto`` standard deviations of noise."""
    xp, record = problem.backend.xp, problem.record
    if weight == "auto":
        return auto * record.number("noise", lambda: noise_level(problem))

    def image_range() -> float:
        image = problem.image if problem.mask is None else problem.image[problem.mask != 0]
        return float(xp.max(image)) - float(xp.min(image))

    return weight * record.number("range", image_range)


def noise_level(problem: Problem) -> float:
    """Standard deviation of the image's noise, taken for white, in the image's units.

    From differences of differences along y and x, which hold little structure: their median, times 1.4826 for Gaussian
    noise, tells noise from the outliers that edges are; the root mean square of what lies within three times that is
    the result, because the median of the few values that low counts take is coarse.
    """
    xp = problem.backend.xp
    step = max(1, problem.image.shape[0] // 16)  # some planes tell enough
    detail = problem.image[::step].astype(np.float64)
    measured = None if problem.mask is None else problem.mask[::step] != 0
    axes = [axis for axis in (1, 2) if detail.shape[axis] > 1]
    for axis in axes:
        detail = xp.diff(detail, axis=axis) * math.sqrt(0.5)
        if measured is not None:
            first, second = (measured.take(xp.arange(s, measured.shape[axis] + s - 1), axis) for s in (0, 1))
            measured = first & second
    if not axes:
        return 0.0
    detail = xp.abs(detail if measured is None else detail[measured]).ravel()
    if detail.size == 0:
        return 0.0
    spread = 1.4826 * float(xp.median(detail)) or float(xp.sqrt((detail**2).mean()))
    within = detail[detail <= 3 * spread]
    return float(xp.sqrt((within**2).mean())) / WITHIN_THREE


# Standard deviation of a Gaussian cut off at three standard deviations.
WITHIN_THREE = 0.98658
