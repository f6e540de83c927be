"""PSFs computed from the optics."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import InputError
from gpudecon.image import checked_voxel_um
from gpudecon.optics import Optics
from gpudecon.psf.psf import PSF


def theoretical_psf(
    optics: Optics,
    shape: tuple[int, ...],
    voxel_um: tuple[float, ...],
    *,
    model: Literal["gaussian"] = "gaussian",
    pixel_integration: bool = True,
) -> PSF:
    """The PSF of ``optics`` on ``shape`` voxels, (z, y, x) or (y, x) in focus, of size ``voxel_um``.

    ``model="gaussian"``: the Gaussian of least square distance to the non-paraxial widefield PSF (Zhang, Zerubia &
    Olivo-Marin, Appl. Opt. 46, 2007); right in width, without the rings and the cone of light out of focus.
    ``pixel_integration`` averages over the area of each pixel, as a camera does; planes are sampled at their depth.
    """
    if model != "gaussian":
        raise InputError(f"Unknown PSF model {model!r}; 'gaussian' is what there is.")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"shape is {shape}; it must be (z, y, x) or (y, x), each at least 1.")
    voxel = checked_voxel_um(voxel_um, len(shape))
    sigma_xy, sigma_z = gaussian_sigma_um(optics)
    lines = [_line(n, v, sigma_xy, integrate=pixel_integration) for n, v in zip(shape[-2:], voxel[-2:], strict=True)]
    array = np.multiply.outer(*lines)
    if len(shape) == 3:
        array = np.multiply.outer(_line(shape[0], voxel[0], sigma_z, integrate=False), array)
    return PSF(array.astype(np.float32), voxel)


def gaussian_sigma_um(optics: Optics) -> tuple[float, float]:
    """Standard deviations (lateral, axial) in um; Zhang et al. 2007, table 1, non-paraxial widefield, 3-D.

    With n the specimen's index, k = 2 pi n / emission and cos a from sin a = na / n.  For low NA they tend to
    sqrt(2) / (k_0 na) and 2 sqrt(6) n / (k_0 na^2).
    """
    n = optics.immersion_index if optics.sample_index is None else optics.sample_index
    k = 2 * np.pi * n / (optics.emission_nm * 1e-3)
    c = np.sqrt(1 - min(optics.na / n, 0.999) ** 2)  # light beyond the critical angle does not come from the depth
    lateral = (4 - 7 * c**1.5 + 3 * c**3.5) / (7 * (1 - c**1.5))
    axial = 4 * c**5 - 25 * c**3.5 + 42 * c**2.5 - 25 * c**1.5 + 4
    return float(1 / (k * np.sqrt(lateral))), float(5 * np.sqrt(7) * (1 - c**1.5) / (np.sqrt(6) * k * np.sqrt(axial)))


def _line(n: int, voxel: float, sigma: float, *, integrate: bool) -> NDArray[np.float64]:
    """The Gaussian at the n sample positions around n // 2, or its mean over each sample's width."""
    x = (np.arange(n) - n // 2) * voxel
    if not integrate:
        return np.asarray(np.exp(-((x / sigma) ** 2) / 2))
    from scipy.special import erf

    low, high = (x - voxel / 2) / (sigma * np.sqrt(2)), (x + voxel / 2) / (sigma * np.sqrt(2))
    return np.asarray(erf(high) - erf(low))
