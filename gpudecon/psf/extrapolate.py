"""Planes that were not recorded, from an aberrated pupil fitted to those that were."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpudecon.optics import Optics
from gpudecon.psf.fit import fit_pupil
from gpudecon.psf.pupil_model import PupilModel

Real = NDArray[np.float64]

FADE = 3  # recorded planes at either end in which the computed ones take over
FITTED_AIRY_DISCS = 2  # lateral reach of the fit; nearly all that tells an aberration from another is inside


def with_more_planes(
    array: Real, planes: int, voxel_um: tuple[float, ...], optics: Optics, photons: float, background: float
) -> Real:
    """``array`` (z, y, x), free of background, extended to ``planes`` around n // 2.

    ``photons`` of height and ``background`` per voxel say how much noise its values carry.
    """
    nz, ny, nx = array.shape
    height = float(array.max())
    reach = [int(np.ceil(FITTED_AIRY_DISCS * optics.airy_unit_um / v)) for v in voxel_um[1:]]
    middle = tuple(slice(max(n // 2 - r, 0), n // 2 + r + 1) for n, r in zip((ny, nx), reach, strict=True))
    fit = fit_pupil(array[:, *middle] * (photons / height) + background, optics, voxel_um)
    model = PupilModel(optics, (planes, ny, nx), voxel_um, tuple(fit.zernike_rad))
    computed = model.intensity(np.array([*fit.shift_um, *fit.zernike_rad.values()])) * (fit.photons * height / photons)
    first = planes // 2 - nz // 2
    recorded = np.zeros_like(computed)
    recorded[first : first + nz] = array
    inside = np.minimum(np.arange(planes) - first, first + nz - 1 - np.arange(planes)) + 1
    weight = np.clip(inside / (FADE + 1), 0, 1)[:, None, None]
    return np.asarray(weight * recorded + (1 - weight) * computed)
