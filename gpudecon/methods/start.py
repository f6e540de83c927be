"""Where iterations start: a flat estimate, or what the image already tells."""

from __future__ import annotations

from typing import Literal

from gpudecon.backend import Array
from gpudecon.methods.problem import FLOOR, Data, Problem
from gpudecon.methods.wiener import filtered, least_risk_ratio

Start = Literal["flat", "image", "lowpass", "wiener"]

DARKEST = 0.05  # of the flat estimate's level: what starts near 0 stays near 0, since steps are factors


def start_estimate(problem: Problem, data: Data, weights: Array | None, start: Start) -> Array:
    """A positive estimate on the domain, 0 where nothing can be seen (``weights`` 0); see `RichardsonLucy.start`."""
    model, xp = problem.model, problem.backend.xp
    estimate = model.empty()
    level = max(_mean_light(problem, data), FLOOR * problem.highest)
    if start == "flat":
        estimate[...] = level
    else:
        if start == "wiener":
            restored = filtered(problem, noise_to_signal=least_risk_ratio(problem), gamma=0.0, nonnegative=True)
            estimate[...] = restored
        else:
            nz, ny, nx = data.image.shape
            estimate[...] = level  # where there are no data
            inside = estimate[:nz, :ny, :nx]
            light = data.image - xp.float32(data.background)
            if data.background_image is not None:
                light -= data.background_image
            inside[...] = light if data.mask is None else xp.where(data.mask != 0, light, inside)
            if start == "lowpass":
                model.work[...] = estimate
                model.correlate(model.otf)
                estimate[...] = model.work
        xp.maximum(estimate, xp.float32(DARKEST * level), out=estimate)
    if weights is not None:
        xp.multiply(estimate, weights > 0, out=estimate)
    return estimate


def flat_start(problem: Problem, data: Data, weights: Array | None) -> Array:
    """A constant estimate with the mean of what the image holds above the background."""
    return start_estimate(problem, data, weights, "flat")


def _mean_light(problem: Problem, data: Data) -> float:
    """Mean of the image above the background.

    Voxels below it count as 0: in a sparse image the plain mean may lie below the background.
    """
    xp = problem.backend.xp
    excess = data.image - xp.float32(data.background)
    if data.background_image is not None:
        excess -= data.background_image
    xp.maximum(excess, 0, out=excess)
    if data.mask is not None:
        excess *= data.mask
    measured = excess.size if data.mask is None else int((data.mask != 0).sum())
    return float(excess.sum(dtype="float64")) / measured
