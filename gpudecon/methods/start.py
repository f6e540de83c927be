"""Where iterations start: a flat estimate, or what the image already tells."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from gpudecon.backend import Array
from gpudecon.methods.problem import FLOOR, Data, Problem
from gpudecon.methods.wiener import filtered, least_risk_ratio

Start = Literal["flat", "image", "lowpass", "wiener"]

DARKEST = 0.05  # of the flat estimate's level: what starts near 0 stays near 0, since steps are factors


def start_estimate(problem: Problem, data: Data, weights: Array | None, start: Start) -> Array:
    """A positive estimate on the domain, 0 where nothing can be seen (``weights`` 0); see `RichardsonLucy.start`."""
    model, xp = problem.model, problem.backend.xp
    estimate = model.empty()
    record = problem.record
    level = max(record.number("level", lambda: _mean_light(problem, data)), FLOOR * problem.highest)
    if start == "flat":
        estimate[...] = level
    else:
        light = _light(problem, data, weights)
        if start == "wiener":
            nz, ny, nx = model.image_shape
            boxed = xp.ascontiguousarray(light[:nz, :ny, :nx])
            whole = dataclasses.replace(problem, image=boxed, background=0.0, background_image=None, mask=None)
            constant = record.number("start_noise_to_signal", lambda: least_risk_ratio(whole))
            estimate[...] = filtered(whole, noise_to_signal=constant, gamma=0.0, nonnegative=True)
        else:
            nz, ny, nx = light.shape
            estimate[...] = level  # where there are no data
            estimate[:nz, :ny, :nx] = light
            if start == "lowpass":
                model.work[...] = estimate
                model.correlate(model.otf)
                estimate[...] = model.work
        xp.maximum(estimate, xp.float32(DARKEST * level), out=estimate)
    if weights is not None:
        for plane, weight in zip(estimate, weights, strict=True):  # no array of the domain's size
            plane *= weight > 0
    return estimate


def _light(problem: Problem, data: Data, weights: Array | None) -> Array:
    """The data above the background; voxels that are not measured are the mean of those around, weighed by the PSF."""
    model, xp = problem.model, problem.backend.xp
    light = data.image - xp.float32(data.background)
    if data.background_image is not None:
        light -= data.background_image
    if data.mask is None or weights is None:
        return light
    nz, ny, nx = light.shape
    model.work[...] = 0
    model.work[:nz, :ny, :nx] = light * (data.mask != 0)
    around = model.adjoint()[:nz, :ny, :nx] * weights[:nz, :ny, :nx]
    return xp.where(data.mask != 0, light, around)


def flat_start(problem: Problem, data: Data, weights: Array | None) -> Array:
    """A constant estimate with the mean of what the image holds above the background."""
    return start_estimate(problem, data, weights, "flat")


def _mean_light(problem: Problem, data: Data) -> float:
    """Mean of the image above the background.

    Voxels below it count as 0: in a sparse image the plain mean may lie below the background.
    """
    xp = problem.backend.xp
    total = xp.zeros((), np.float64)
    for z, plane in enumerate(data.image):  # plane by plane: no array of the image's size
        excess = plane - xp.float32(data.background)
        if data.background_image is not None:
            excess -= data.background_image[z]
        xp.maximum(excess, 0, out=excess)
        if data.mask is not None:
            excess *= data.mask[z]
        total += excess.sum(dtype=np.float64)
    measured = data.image.size if data.mask is None else int((data.mask != 0).sum())
    return float(total) / measured
