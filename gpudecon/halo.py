"""Halo: how much of its surroundings a part of an image must be restored with, to come out as in the whole."""

from __future__ import annotations

import math

import numpy as np

from gpudecon.errors import InputError
from gpudecon.image import checked_voxel_um
from gpudecon.methods import Method
from gpudecon.methods.reach import Spread
from gpudecon.psf.psf import PSF


def halo(
    psf: PSF | None, method: Method, *, voxel_um: tuple[float, ...] | None = None, edges: str = "extend"
) -> tuple[int, ...]:
    """Voxels along each axis, (z, y, x) or (y, x), beyond which what is there hardly matters.

    With this margin around each part, cropped from its result, and the same `Constants`, parts and whole agree to 1e-3
    of the local value: the larger of the value there and 1 % of what is bright (`gpudecon.engine.seams`).  It is the
    radius that holds 95 % of the PSF's light along the axis times the method's reach, or the reach of a filter's
    kernel; both measured by bench/seams.py.  Along an axis that is not cut no margin is needed.

    ``psf`` is on the image's grid, or has a voxel size and is resampled to ``voxel_um``, the image's (z, y, x).  Raises
    `InputError` where the parts depend on the whole.
    """
    check_divisible(method, edges)
    if not method.needs_psf:
        psf = None
    elif psf is None:
        raise InputError(f"{method.name} needs a PSF; its halo depends on it.")
    dimensions = 3 if psf is None else psf.array.ndim
    if voxel_um is not None:
        dimensions = 2 if psf is None and np.size(voxel_um) == 2 else dimensions
        voxel_um = checked_voxel_um(voxel_um, dimensions)
    if psf is not None and voxel_um and psf.voxel_um and not np.allclose(psf.voxel_um, voxel_um, rtol=1e-3):
        psf = psf.resample(voxel_um)
    sizes = voxel_um or (psf and psf.voxel_um) or (1.0,) * dimensions
    array = None if psf is None else psf.array
    return tuple(math.ceil(method.reach(Spread(array, axis, sizes))) for axis in range(dimensions))


def is_divisible(method: Method, edges: str) -> bool:
    """Whether an image can be restored part by part."""
    return method.divisible and not (method.needs_psf and edges == "periodic")


def check_divisible(method: Method, edges: str) -> None:
    """Refuse what cannot be restored part by part."""
    if is_divisible(method, edges):
        return
    if not method.divisible:
        raise InputError(
            f"{method.name} with these options depends on the whole image and cannot be done in parts; restore the "
            "image whole, or use another method."
        )
    raise InputError(
        "With edges 'periodic' opposite faces touch, which they do not in parts of an image; use 'extend'."
    )
