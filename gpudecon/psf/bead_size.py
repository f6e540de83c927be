"""What the size of a bead does to its image, and how it is taken back.

A homogeneous ball of diameter d multiplies the OTF at the frequency k by (Hanser et al., J. Microsc. 216, 2004)

    B(k) = 3 (sin x - x cos x) / x^3,  x = pi k d,

whose first zero, x = 4.493, enters the passband of an objective (k = 2 NA / wavelength) for d > 0.715 wavelength / NA.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.optics import Optics
from gpudecon.psf.otf_support import otf_support

Real = NDArray[np.float64]

FIRST_ZERO = 4.493409457909064
# Below this factor at the cutoff the correction mostly amplifies noise.
WEAK = 0.3
# Added to B^2 in the division: the gain is then at most 1 / (2 * 0.05) even where B is 0.
DAMPING = 0.05**2


def ball_transfer(frequency: Real, diameter: float) -> Real:
    """B(k) for ``frequency`` in cycles per unit of ``diameter``."""
    x = np.pi * np.asarray(frequency, np.float64) * diameter
    small = x < 1e-2
    safe = np.where(small, 1.0, x)
    return np.where(small, 1 - x**2 / 10, 3 * (np.sin(safe) - safe * np.cos(safe)) / safe**3)


def grid_transfer(shape: tuple[int, ...], voxel_um: tuple[float, ...], diameter_um: float) -> Real:
    """B on the frequencies of ``rfftn`` of an array of ``shape``."""
    axes = [np.fft.fftfreq(n, v) for n, v in zip(shape[:-1], voxel_um[:-1], strict=True)]
    axes.append(np.fft.rfftfreq(shape[-1], voxel_um[-1]))
    squared = sum(k**2 for k in np.meshgrid(*axes, indexing="ij", sparse=True))
    return ball_transfer(np.sqrt(squared), diameter_um)


def check_bead_size(diameter_um: float, optics: Optics | None) -> None:
    """Refuse a bead whose image lacks frequencies that the objective passes; warn where they are weak.

    Confocal and other modalities pass more, but faintly: where B has its first zero there, `without_bead_size` damps.
    """
    if not np.isfinite(diameter_um) or diameter_um <= 0:
        raise InputError(f"bead_diameter_um is {diameter_um!r}; give the diameter of the beads in micrometres.")
    if optics is None:
        return
    cutoff = 2 * optics.na / (optics.emission_nm * 1e-3)
    largest = FIRST_ZERO / (np.pi * cutoff)
    if diameter_um > largest:
        raise InputError(
            f"Beads of {diameter_um:g} um are too large for a PSF: above {largest:.3g} um the image of a ball lacks "
            f"details that these optics resolve; image beads of {0.6 * largest:.2g} um or less."
        )
    left = float(ball_transfer(np.array(cutoff), diameter_um))
    support = otf_support(optics)
    dark = FIRST_ZERO / (np.pi * diameter_um)
    if left < WEAK:
        _warn(
            f"Beads of {diameter_um:g} um leave {left:.0%} of the finest details in their image; correcting for their "
            f"size amplifies noise there. Beads of {0.6 * largest:.2g} um or less would be better."
        )
    elif support is not None and dark < support.cutoff[1]:
        _warn(
            f"Beads of {diameter_um:g} um lack details of about {1 / dark:.2g} um, which these optics pass faintly; "
            f"they stay weak in the PSF. Beads of {diameter_um * dark / support.cutoff[1]:.2g} um or less have them."
        )


def without_bead_size(spectrum: NDArray[np.complex128], transfer: Real) -> NDArray[np.complex128]:
    """``spectrum`` divided by B, damped where B is small; the sum (frequency 0) is kept."""
    return np.asarray(spectrum * transfer * (1 + DAMPING) / (transfer**2 + DAMPING))


def _warn(message: str) -> None:
    warnings.warn(message, GpudeconWarning, stacklevel=4)
