"""The background that a camera shows where there is no specimen."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpudecon.backend import Array


def estimate_background(image: Array, measured: Array | None = None) -> float:
    """The level of the darkest regions: the 1st percentile of the image after a mean over 3 voxels along each axis.

    Deliberately low: a background that is too high takes away specimen, one that is too low leaves a faint haze.  Works
    on NumPy and CuPy arrays of any shape; at most about 10^7 voxels, taken from whole planes, are looked at.  Means
    with voxels where ``measured`` is False do not count.
    """
    return percentile_of_darkest(smoothed(image, measured))


def smoothed(image: Array, measured: Array | None = None) -> Array:
    """Means over 3 voxels along each axis, without those of voxels that are not measured; see `estimate_background`."""
    every = max(1, image.size // 10_000_000) if image.ndim == 3 else 1
    values = _means(image[::every], along_z=every == 1)
    if measured is not None:
        whole = _means(measured[::every], along_z=every == 1) > 0.999
        values = values[whole] if bool(whole.any()) else image[measured]
    return values


def percentile_of_darkest(values: Array) -> float:
    """The background from smoothed values."""
    return float(np.percentile(values.get() if hasattr(values, "get") else values, 1))


def _means(image: Array, *, along_z: bool) -> Array:
    """Over 3 neighbours along each axis that has them; faces have none."""
    smooth: Any = image.astype(np.float32)
    for axis, n in enumerate(smooth.shape):
        if n >= 3 and (along_z or axis > 0):
            parts = [smooth[(slice(None),) * axis + (slice(i, n - 2 + i),)] for i in range(3)]
            smooth = (parts[0] + parts[1] + parts[2]) / 3
    return smooth
