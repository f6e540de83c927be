"""TotalVariationOps: total variation by its dual, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpudecon.backend.slabs import HasSlabs, at_least

Array = Any


class TotalVariationOps(HasSlabs):
    """Twins of ``kernels/total_variation.cu`` and of the duality gap in ``kernels/row_sums.cu``.

    ``dual`` and ``lead`` are float32 (3, Z, Y, X), contiguous: a vector per voxel, (z, y, x).  The gradient takes
    forward differences, 0 at the last sample of an axis; the divergence is minus its adjoint.
    """

    def tv_dual(
        self,
        dual: Array,
        lead: Array,
        estimate: Array,
        step_z: float,
        step_y: float,
        step_x: float,
        momentum: float,
    ) -> None:
        """New = v / max(1, |v|) with v = lead + step grad(estimate); lead <- new + momentum (new - dual);
        dual <- new.
        """

        def planes(cut: slice) -> None:
            new = _gradient(estimate, cut, (step_z, step_y, step_x))
            new += lead[:, cut]
            new /= at_least(_lengths(new), 1)
            np.subtract(new, dual[:, cut], out=lead[:, cut])
            lead[:, cut] *= np.float32(momentum)
            lead[:, cut] += new
            dual[:, cut] = new

        self.slabs.run(estimate.shape[0], 3 * estimate[0].nbytes, planes)

    def tv_primal(
        self,
        estimate: Array,
        source: Array,
        dual: Array,
        weight_z: float,
        weight_y: float,
        weight_x: float,
        lowest: float,
    ) -> None:
        """Estimate <- max(source + div(weight dual), lowest)."""
        z, y, x = (np.float32(w) for w in (weight_z, weight_y, weight_x))

        def planes(cut: slice) -> None:
            target, (along_z, along_y, along_x) = estimate[cut], dual[:, cut]
            target[...] = source[cut]
            first, last = int(cut.start == 0), min(cut.stop, len(estimate) - 1)
            target[: last - cut.start] += z * along_z[: last - cut.start]
            target[first:] -= z * dual[0, cut.start + first - 1 : cut.stop - 1]
            target[:, :-1] += y * along_y[:, :-1]
            target[:, 1:] -= y * along_y[:, :-1]
            target[..., :-1] += x * along_x[..., :-1]
            target[..., 1:] -= x * along_x[..., :-1]
            at_least(target, lowest)

        self.slabs.run(estimate.shape[0], 3 * estimate[0].nbytes, planes)

    def tv_gap(self, rows: Array, estimate: Array, dual: Array, scale_z: float, scale_y: float, scale_x: float) -> None:
        """rows[z, y] <- sum over x, in double precision, of |g| - g . dual with g = scale grad(estimate)."""

        def planes(cut: slice) -> None:
            gradient = _gradient(estimate, cut, (scale_z, scale_y, scale_x))
            terms = _lengths(gradient)
            gradient *= dual[:, cut]
            terms -= gradient.sum(axis=0)
            rows[cut] = terms.sum(axis=2, dtype=np.float64)

        self.slabs.run(estimate.shape[0], 3 * estimate[0].nbytes, planes)


def _gradient(estimate: Array, cut: slice, factors: tuple[float, float, float]) -> Array:
    """Forward differences of the planes ``cut``, times a factor for each axis; (3, planes, Y, X)."""
    here = estimate[cut]
    gradient = np.zeros((3, *here.shape), np.float32)
    after = estimate[cut.start + 1 : cut.stop + 1]
    np.subtract(after, here[: len(after)], out=gradient[0, : len(after)])
    np.subtract(here[:, 1:], here[:, :-1], out=gradient[1, :, :-1])
    np.subtract(here[..., 1:], here[..., :-1], out=gradient[2, ..., :-1])
    gradient *= np.array(factors, np.float32)[:, None, None, None]
    return gradient


def _lengths(vectors: Array) -> Array:
    squares = vectors[0] * vectors[0]
    for component in vectors[1:]:
        squares += component * component
    return np.sqrt(squares, out=squares)
