"""RoughnessOps: what a penalty on roughness makes of the weights of a Richardson-Lucy update, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpudecon.backend.slabs import HasSlabs

Array = Any


class RoughnessOps(HasSlabs):
    """Twins of ``kernels/roughness.cu``: factors <- weights / c(1 + strength G), G the gradient of a penalty.

    c(x) = min(max(x, 1/2), 2).

    ``weights`` may be None and then counts as 1.  Gradients take forward differences times ``scale_z``, ``_y``,
    ``_x``, and 0 at the last sample of an axis; the divergence is minus their adjoint, and the Laplacian div grad.
    """

    def tv_factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        smooth: float,
        scale_z: float,
        scale_y: float,
        scale_x: float,
    ) -> None:
        """G = -div( grad f / sqrt(|grad f|^2 + smooth^2) ), f = estimate."""
        scales = [np.float32(s) for s in (scale_z, scale_y, scale_x)]

        def gradient_of_penalty(field: Array) -> Array:
            steps = [s * _forward(field, axis) for axis, s in enumerate(scales)]
            length = np.sqrt(sum(step * step for step in steps) + np.float32(smooth) ** 2)
            return -sum(
                s * _backward(step / length, axis) for axis, (s, step) in enumerate(zip(scales, steps, strict=True))
            )

        self._factor(factors, estimate, weights, strength, gradient_of_penalty)

    def good_factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        smooth: float,
        scale_z: float,
        scale_y: float,
        scale_x: float,
    ) -> None:
        """G = -4 (Laplacian q) / q with q = sqrt(estimate + smooth)."""

        def gradient_of_penalty(field: Array) -> Array:
            root = np.sqrt(field + np.float32(smooth))
            return np.float32(-4) * _laplacian(root, (scale_z, scale_y, scale_x)) / root

        self._factor(factors, estimate, weights, strength, gradient_of_penalty)

    def tikhonov_factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        scale_z: float,
        scale_y: float,
        scale_x: float,
    ) -> None:
        """G = -Laplacian of the estimate."""
        scales = (scale_z, scale_y, scale_x)
        self._factor(factors, estimate, weights, strength, lambda field: -_laplacian(field, scales))

    def _factor(
        self,
        factors: Array,
        estimate: Array,
        weights: Array | None,
        strength: float,
        gradient_of_penalty: Callable[[Array], Array],
    ) -> None:
        length = estimate.shape[0]

        def planes(cut: slice) -> None:
            low, high = max(cut.start - 1, 0), min(cut.stop + 1, length)  # neighbours, where there are any
            gradient = gradient_of_penalty(estimate[low:high])[cut.start - low : cut.stop - low]
            factor = 1 / np.clip(1 + np.float32(strength) * gradient, np.float32(0.5), np.float32(2))
            factors[cut] = factor if weights is None else factor * weights[cut]

        self.slabs.run(length, 4 * estimate[0].nbytes, planes)


def _forward(field: Array, axis: int) -> Array:
    """field[i + 1] - field[i], 0 at the last sample."""
    return np.diff(field, axis=axis, append=np.take(field, [-1], axis))


def _backward(field: Array, axis: int) -> Array:
    """field[i] - field[i - 1], the one before the first being 0."""
    return np.diff(field, axis=axis, prepend=np.float32(0))


def _laplacian(field: Array, scales: tuple[float, float, float]) -> Array:
    return sum(np.float32(s * s) * _backward(_forward(field, axis), axis) for axis, s in enumerate(scales))
