"""Scene: what operations on the data share, as `Scene` and its like in ``kernels/``: the model, and where data are."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def foreseen(work: Array, image: Array, background: float, background_image: Array | None) -> Array:
    """Work + background + background_image on the image's box, in an array of its own.

    In one piece: passes over rows of a larger box would take three times as long.
    """
    nz, ny, nx = image.shape
    model = work[:nz, :ny, :nx] + np.float32(background)
    if background_image is not None:
        model += background_image
    return model


def keep_measured(work: Array, values: Array, mask: Array | None) -> None:
    """Work <- values on their box where ``mask`` is not 0, and 0 elsewhere; ``values`` are lost."""
    nz, ny, nx = values.shape
    if mask is not None:
        np.copyto(values, np.float32(0), where=mask == 0)
    work[:nz, :ny, :nx] = values
    work[nz:], work[:nz, ny:], work[:nz, :ny, nx:] = 0.0, 0.0, 0.0
