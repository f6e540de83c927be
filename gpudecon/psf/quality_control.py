"""Figures that say what a PSF is like: widths, asymmetries, agreement with theory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]

DIRECTIONS = 24  # in which the lateral width is measured


@dataclass(frozen=True)
class QualityControl:
    """What the beads and the PSF made of them are like.

    ``fwhm_um`` (z, y, x): full widths at half maximum through the centre.  ``asymmetry``: the longest lateral width
    over the shortest, 1 for a round PSF.  ``axial_skew``: (light above - light below the focus) / both, in a cylinder
    as wide as the focus; positive where planes of higher index have more; 0 without spherical aberration.
    ``signal_to_background``: median of the beads' heights over their backgrounds (camera offset included).
    ``theory_ratio`` (z, y, x): widths over those of theory, and ``theory_correlation`` Pearson's with it; None without
    optics.
    """

    beads_found: int
    beads_used: int
    fwhm_um: tuple[float, float, float]
    asymmetry: float
    axial_skew: float
    signal_to_background: float
    theory_ratio: tuple[float, float, float] | None = None
    theory_correlation: float | None = None


def measured_quality(
    array: NDArray[np.generic],
    voxel_um: tuple[float, ...],
    theory: NDArray[np.generic] | None,
    beads_found: int,
    beads_used: int,
    signal_to_background: float,
) -> QualityControl:
    """The figures of a PSF (z, y, x), centred, beside those of ``theory`` on the same grid."""
    wz, wy, wx = fwhm_um(array, voxel_um)
    ratio = agreement = None
    if theory is not None:
        tz, ty, tx = fwhm_um(theory, voxel_um)
        ratio, agreement = (wz / tz, wy / ty, wx / tx), correlation(array, theory)
    return QualityControl(
        beads_found,
        beads_used,
        (wz, wy, wx),
        lateral_asymmetry(array[array.shape[0] // 2], (voxel_um[1], voxel_um[2])),
        axial_skew(array, voxel_um, (wy + wx) / 4),
        signal_to_background,
        ratio,
        agreement,
    )


def fwhm_um(array: NDArray[np.generic], voxel_um: tuple[float, ...]) -> tuple[float, ...]:
    """Full width at half maximum of the line along each axis through n // 2, by cubic splines, in um.

    A side that does not fall to half within the window counts to its end.
    """
    centre = tuple(n // 2 for n in array.shape)
    widths = []
    for axis, v in enumerate(voxel_um):
        index = tuple(slice(None) if a == axis else c for a, c in enumerate(centre))
        line = np.asarray(array[index], np.float64)
        widths.append(_width((np.arange(len(line)) - centre[axis]) * v, line, v))
    return tuple(widths)


def _width(x: Real, line: Real, step: float) -> float:
    """FWHM of samples ``line`` at ``x``, ``step`` apart, around the maximum nearest to x = 0."""
    from scipy import interpolate

    if len(x) < 4:
        return len(x) * step
    fine = np.linspace(x[0], x[-1], 40 * (len(x) - 1) + 1)
    values = interpolate.make_interp_spline(x, line, k=3)(fine)
    near = np.abs(fine) <= 1.5 * step
    top = int(np.flatnonzero(near)[values[near].argmax()])
    below = values < values[top] / 2
    left, right = np.flatnonzero(below[:top]), np.flatnonzero(below[top:])
    low = fine[left[-1]] if len(left) else fine[0]
    high = fine[top + right[0]] if len(right) else fine[-1]
    return float(high - low)


def lateral_asymmetry(plane: NDArray[np.generic], pixel_um: tuple[float, float]) -> float:
    """Longest over shortest width of a plane (y, x) around n // 2, of w0 (1 + a cos 2 phi + b sin 2 phi)."""
    from scipy import ndimage

    reach = min(n // 2 * p for n, p in zip(plane.shape, pixel_um, strict=True))
    step = min(pixel_um) / 2
    x = np.arange(-reach, reach + 1e-9, step)
    widths = []
    phi = np.arange(DIRECTIONS) * np.pi / DIRECTIONS
    data = np.asarray(plane, np.float64)
    for angle in phi:
        places = [
            np.clip(d * x / p + n // 2, 0, n - 1)
            for n, p, d in zip(plane.shape, pixel_um, (np.sin(angle), np.cos(angle)), strict=True)
        ]
        widths.append(_width(x, ndimage.map_coordinates(data, places, order=3, mode="nearest"), step))
    harmonic = abs(np.mean(np.array(widths) * np.exp(2j * phi))) * 2 / np.mean(widths)
    return float((1 + harmonic) / max(1 - harmonic, 1e-6))


def axial_skew(array: NDArray[np.generic], voxel_um: tuple[float, ...], radius_um: float) -> float:
    """(light above - light below) / both, within ``radius_um`` of the axis and equally far on both sides."""
    nz, ny, nx = array.shape
    y, x = ((np.arange(n) - n // 2) * v for n, v in zip((ny, nx), voxel_um[1:], strict=True))
    line = np.asarray(array, np.float64)[:, np.hypot(y[:, None], x) <= radius_um].sum(axis=1)
    reach = min(nz // 2, nz - 1 - nz // 2)
    below, above = line[nz // 2 - reach : nz // 2].sum(), line[nz // 2 + 1 : nz // 2 + 1 + reach].sum()
    return float((above - below) / max(above + below, 1e-30))


def correlation(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Pearson's correlation of two arrays of one shape."""
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])
