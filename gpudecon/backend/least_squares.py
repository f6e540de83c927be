"""LeastSquaresOps: residuals, steps and inner products of least-squares methods, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpudecon.backend.scene import foreseen, keep_measured
from gpudecon.backend.slabs import HasSlabs, at_least, by_slabs

Array = Any


class LeastSquaresOps(HasSlabs):
    """Twins of ``kernels/least_squares.cu`` and of the inner product in ``kernels/row_sums.cu``."""

    @by_slabs
    def residual(
        self, work: Array, image: Array, background: float, background_image: Array | None, mask: Array | None
    ) -> None:
        """Work <- image - background - background_image - work inside the image where ``mask`` is not 0, and 0
        elsewhere.
        """
        model = foreseen(work, image, background, background_image)
        np.subtract(image, model, out=model)
        keep_measured(work, model, mask)

    @by_slabs
    def projected_step(self, estimate: Array, work: Array, step: float, lowest: float) -> None:
        """Estimate <- max(estimate + step * work, lowest)."""
        estimate += np.float32(step) * work
        at_least(estimate, lowest)

    @by_slabs
    def bounded_sum(
        self,
        target: Array,
        other: Array,
        estimate: Array,
        target_factor: float,
        other_factor: float,
        lowest: float,
    ) -> None:
        """Target <- target_factor * target + other_factor * other, but 0 where this is negative and ``estimate`` is
        not above ``lowest``: no direction leads out of the bound.
        """
        target *= np.float32(target_factor)
        target += np.float32(other_factor) * other
        np.copyto(target, np.float32(0), where=(target < 0) & (estimate <= np.float32(lowest)))

    @by_slabs
    def inner_product(self, rows: Array, work: Array, other: Array) -> None:
        """rows[z, y] <- sum over x of work * other, in double precision."""
        rows[...] = np.einsum("zyx,zyx->zy", work, other, dtype=np.float64)
