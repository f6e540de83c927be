"""Halo: how much of an image's surroundings a part must be restored with, so that it comes out as in the whole."""

from __future__ import annotations

import math

import numpy as np

from gpudecon.errors import InputError
from gpudecon.methods import Method
from gpudecon.psf.psf import PSF

ENERGY = 0.95  # of the PSF's light lies within its radius, along each axis


def halo(
    psf: PSF | None, method: Method, *, voxel_um: tuple[float, ...] | None = None, edges: str = "extend"
) -> tuple[int, ...]:
    """Voxels along each axis, (z, y, x) or (y, x), beyond which an image's parts hardly depend on what is there.

    With this margin around each part, cropped from its result, and the same `Constants`, parts and the whole agreed to
    1e-3 of the local value at default options (bench/seams.py; "local value" is defined there): it is the radius that
    holds 95 % of the PSF's light along the axis times the method's reach, which grows with the number of iterations.
    Along an axis that is not cut no margin is needed.  ``psf`` is on the image's grid, or has a voxel size;
    ``voxel_um`` is the image's (z, y, x).  Raises `InputError` where the parts depend on the whole.
    """
    check_divisible(method, edges)
    if psf is not None and voxel_um is not None and psf.voxel_um is not None:
        psf = psf if np.allclose(psf.voxel_um, voxel_um, rtol=1e-3) else psf.resample(voxel_um)
    dimensions = len(voxel_um or ()) or (3 if psf is None else psf.array.ndim)
    sizes = tuple(voxel_um or (psf and psf.voxel_um) or (1.0,) * dimensions)
    radii = (1,) * dimensions if psf is None else radii_of(psf)
    return tuple(math.ceil(method.reach(radius, min(sizes) / size)) for radius, size in zip(radii, sizes, strict=True))


def radii_of(psf: PSF, energy: float = ENERGY) -> tuple[int, ...]:
    """For each axis the least r so that planes up to r from the PSF's centre hold ``energy`` of its light."""
    radii = []
    for axis, n in enumerate(psf.shape):
        light = psf.array.sum(axis=tuple(a for a in range(psf.array.ndim) if a != axis), dtype=np.float64)
        distance = np.abs(np.arange(n) - n // 2)
        within = np.cumsum(np.bincount(distance, weights=light))
        radii.append(int(np.searchsorted(within, energy * within[-1])))
    return tuple(radii)


def check_divisible(method: Method, edges: str) -> None:
    """Refuse what cannot be restored part by part."""
    if not method.divisible:
        raise InputError(
            f"{method.name} depends on the whole image and cannot be done in parts; give memory for it, or restore "
            "another way."
        )
    if edges == "periodic":
        raise InputError(
            "With edges 'periodic' opposite faces touch, which they do not in parts of an image; use 'extend'."
        )
