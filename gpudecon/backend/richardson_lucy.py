"""RichardsonLucyOps: one Richardson-Lucy iteration apart from the two convolutions, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpudecon.backend.scene import foreseen, keep_measured
from gpudecon.backend.slabs import HasSlabs, at_least, by_slabs

Array = Any

STEEPEST, TINIEST = 16.0, 1e-30  # as in the kernels


class RichardsonLucyOps(HasSlabs):
    """Twins of ``kernels/richardson_lucy.cu``."""

    @by_slabs
    def rl_ratio(
        self,
        work: Array,
        image: Array,
        background: float,
        background_image: Array | None,
        mask: Array | None,
        floor: float,
    ) -> None:
        """Work <- image / max(work + background + background_image, floor) inside the image where ``mask`` is not 0,
        and 0 elsewhere.
        """
        _ratio(work, image, background, background_image, mask, floor, None)

    @by_slabs
    def rl_excess(
        self,
        work: Array,
        image: Array,
        background: float,
        background_image: Array | None,
        mask: Array | None,
        floor: float,
    ) -> None:
        """As `rl_ratio`, but less 1 where the image is measured."""
        _ratio(work, image, background, background_image, mask, floor, np.float32(1))

    @by_slabs
    def rl_unmatched_factor(self, work: Array, weights: Array | None) -> None:
        """Work <- max(1 + work * weights, 1/2)."""
        if weights is not None:
            work *= weights
        work += np.float32(1)
        at_least(work, 0.5)

    @by_slabs
    def rl_update(self, estimate: Array, work: Array, weights: Array | None) -> None:
        """Estimate <- estimate * max(work, 0) * weights; the FFT's rounding must not turn zero negative."""
        at_least(work, 0)
        if weights is not None:
            work *= weights
        estimate *= work

    @by_slabs
    def rl_update_momentum(
        self, estimate: Array, previous: Array, work: Array, weights: Array | None, momentum: float, excess: float
    ) -> None:
        """New = estimate * max(work, 0) * weights, step = momentum (new - previous) + excess (new - estimate);
        estimate <- new + step, or new exp(step / new) where step < 0; previous <- new.
        """
        at_least(work, 0)
        if weights is not None:
            work *= weights
        work *= estimate
        np.subtract(work, estimate, out=estimate)
        estimate *= np.float32(excess)
        np.subtract(work, previous, out=previous)
        previous *= np.float32(momentum)
        estimate += previous
        previous[...] = work
        _go_ahead(estimate, work)

    @by_slabs
    def rl_step(self, work: Array, step: Array, estimate: Array, weights: Array | None) -> None:
        """New = estimate * max(work, 0) * weights; step <- new - estimate; work <- new."""
        at_least(work, 0)
        if weights is not None:
            work *= weights
        work *= estimate
        np.subtract(work, estimate, out=step)

    @by_slabs
    def rl_predict(self, estimate: Array, previous: Array, work: Array, momentum: float) -> None:
        """Step = momentum (work - previous); estimate <- work + step, or work exp(step / work) where step < 0;
        previous <- work.
        """
        np.subtract(work, previous, out=estimate)
        estimate *= np.float32(momentum)
        previous[...] = work
        _go_ahead(estimate, work)


def _go_ahead(step: Array, value: Array) -> None:
    """Step <- value + step; downwards exponentially, with the same slope, so that nothing reaches 0 and stays there.

    ``value`` is lost.
    """
    fall = value * np.float32(-STEEPEST)
    np.maximum(fall, step, out=fall)
    np.clip(fall, np.float32(-np.inf), np.float32(0), out=fall)
    at_least(step, 0)
    fall /= value + np.float32(TINIEST)
    np.exp(fall, out=fall)
    value *= fall
    step += value


def _ratio(
    work: Array,
    image: Array,
    background: float,
    background_image: Array | None,
    mask: Array | None,
    floor: float,
    subtracted: np.float32 | None,
) -> None:
    model = at_least(foreseen(work, image, background, background_image), floor)
    np.divide(image, model, out=model)
    if subtracted is not None:
        model -= subtracted
    keep_measured(work, model, mask)
