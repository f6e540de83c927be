"""The background that a camera shows where there is no specimen."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpudecon.backend import Array


def estimate_background(image: Array) -> float:
    """The level of the darkest regions: the 1st percentile of the image after a mean over 3 voxels along each axis.

    Deliberately low: a background that is too high takes away specimen, one that is too low leaves a faint haze.  Works
    on NumPy and CuPy arrays of any shape; at most about 10^7 voxels, taken from whole planes, are looked at.
    """
    every = max(1, image.size // 10_000_000) if image.ndim == 3 else 1
    planes: Any = image[::every] if every > 1 else image
    smooth = planes.astype(np.float32)
    for axis, n in enumerate(smooth.shape):
        if n >= 3 and not (every > 1 and axis == 0):
            parts = [smooth[(slice(None),) * axis + (slice(i, n - 2 + i),)] for i in range(3)]
            smooth = (parts[0] + parts[1] + parts[2]) / 3
    values = smooth.get() if hasattr(smooth, "get") else smooth
    return float(np.percentile(values, 1))
