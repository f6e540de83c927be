"""A PSF from the image of one point source: background removed, centred, normalised; every repair is said."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.psf.align import fourier_shift
from gpudecon.psf.psf import PSF, SUM_TOLERANCE

# A centre found closer to n // 2 than this is left alone: a fit to a noisy bead is not better than that.
CENTRE_TOLERANCE = 0.05
# Changes of less than this fraction of the light are not worth a warning; in single voxels they may be far fainter.
NOTICEABLE = 1e-3
# A local mean below this many standard deviations of its own noise is no signal.
NOISE_SIGMAS = 3.0
# Sizes (z, y, x) of the local means that are tried, finest first: the wide cone of light out of focus is faint in every
# voxel but strong in the mean of many.
SCALES = ((3, 3, 3), (3, 7, 7), (5, 15, 15), (5, 31, 31))


def measured_psf(array: NDArray[Any], voxel_um: tuple[float, ...] | None, name: str = "PSF") -> PSF:
    """Clean the image of a point source, (z, y, x) or (y, x), into a `PSF`.

    1. Background: the median of the lateral frame of the middle planes (the outer planes of a widefield PSF are full of
       its own light) is subtracted.
    2. Noise: a voxel keeps its value where the mean of its 3 x 3 x 3 surroundings is above 3 standard deviations of
       that mean's noise; else it takes the first mean over wider surroundings that is, and 0 where none is.
    3. Centre: a Gaussian with free centre, widths and offset is fitted around the peak and the PSF shifted, by whole
       voxels and a Fourier phase, to n // 2.
    4. Sum 1.

    Each step that changes the PSF noticeably raises a `GpudeconWarning` that says by how much.
    """
    data = np.asarray(array, np.float64)
    if data.ndim not in (2, 3):
        raise InputError(f"{name} has shape {data.shape}; it must be (z, y, x) or (y, x).")
    if not np.isfinite(data).all():
        raise InputError(f"{name} holds {int((~np.isfinite(data)).sum())} NaN or infinite values; give finite ones.")
    if not data.any():
        raise InputError(f"{name} is zero everywhere; give the image of a point source.")
    if data.max() <= 0:
        raise InputError(f"{name} has no positive value (highest {data.max():.3g}); is it inverted?")

    data = _without_background(data, name)
    data = _centred(data, name)
    total = float(data.sum())
    original = float(np.sum(array, dtype=np.float64))
    if abs(original - 1) > SUM_TOLERANCE:
        _warn(f"{name}: divided by its sum {total:.6g}, so that intensities are kept.")
    return PSF(data.astype(np.float32), voxel_um, {"file": name})


def _without_background(data: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    frame = lateral_frame(data)
    background = float(np.median(frame))
    noise = float(1.4826 * np.median(np.abs(frame - background)))
    peak = float(data.max())
    if background >= 0.5 * peak:
        raise InputError(
            f"{name} does not stand out: its border is at {background:.4g}, its peak at {peak:.4g}; crop around one "
            "point source, or subtract what surrounds it."
        )
    cleaned = _significant(data - background, noise)
    if not cleaned.any():
        raise InputError(f"{name}: nothing is left above the background {background:.4g} and its noise.")
    changed = float(np.abs(data - cleaned).sum() / np.abs(data).sum())
    if changed > NOTICEABLE:
        _warn(
            f"{name}: background {background:.4g} ({background / peak:.1%} of the peak) subtracted; "
            f"{np.mean(cleaned == 0):.0%} of the voxels do not stand out of the noise {noise:.3g} and were set to 0. "
            f"Together this changed {changed:.1%} of its light."
        )
    elif data.min() < 0:
        _warn(f"{name}: negative values (lowest {data.min():.3g}) set to 0.")
    return cleaned


def lateral_frame(data: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the outermost two pixels of the planes in the middle half of z."""
    ny, nx = data.shape[-2:]
    border = np.ones((ny, nx), bool)
    if ny > 4 and nx > 4:
        border[2:-2, 2:-2] = False
    if data.ndim == 2:
        return data[border]
    nz = len(data)
    return data[nz // 4 : max(nz - nz // 4, nz // 4 + 1)][:, border]


def _significant(signal: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """The signal where it stands out of the noise by itself, its mean at the finest of `SCALES` where that does."""
    from scipy.ndimage import uniform_filter

    cleaned = np.zeros_like(signal)
    rest = np.ones(signal.shape)  # 1 where nothing has stood out yet: what has must not spill into wider means
    for i, scale in enumerate(SCALES):
        size = [min(width, n) for width, n in zip(scale[-signal.ndim :], signal.shape, strict=True)]
        share = np.maximum(uniform_filter(rest, size, mode="nearest"), 1e-12)
        mean = uniform_filter(signal * rest, size, mode="nearest") / share
        stands_out = (rest > 0) & (mean > NOISE_SIGMAS * noise / np.sqrt(share * np.prod(size)))
        cleaned[stands_out] = signal[stands_out] if i == 0 else mean[stands_out]
        rest[stands_out] = 0
    return np.maximum(cleaned, 0)


def _centred(data: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    centre = fitted_centre(data)
    target = np.array(data.shape) // 2
    shift = target - centre
    if np.all(np.abs(shift) < CENTRE_TOLERANCE):
        return data
    if np.any(np.abs(shift) > np.maximum(np.array(data.shape) / 4, 1)):
        _warn(f"{name}: the point lies far from the middle; what leaves the frame in centring is lost.")
    _warn(f"{name}: centre at {_listed(centre)}, shifted by {_listed(shift)} voxels to {_listed(target)}.")
    whole = np.rint(shift).astype(int)
    moved = _shifted_whole(data, whole)
    return np.maximum(_shifted_fraction(moved, shift - whole), 0)


def fitted_centre(data: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre in voxels of a Gaussian fitted by least squares to the surroundings of the peak."""
    from scipy.optimize import least_squares

    peak = np.array(np.unravel_index(int(data.argmax()), data.shape))
    height = float(data.max())
    widths = np.array([half_width(data, peak, axis) for axis in range(data.ndim)])
    reach = np.maximum(np.ceil(1.5 * widths).astype(int), 2)
    box = tuple(slice(max(p - r, 0), p + r + 1) for p, r in zip(peak, reach, strict=True))
    window = data[box] / height
    grid = [
        np.arange(window.shape[a], dtype=float).reshape([-1 if b == a else 1 for b in range(data.ndim)])
        for a in range(data.ndim)
    ]
    start = peak - [b.start for b in box]
    free = [a for a in range(data.ndim) if window.shape[a] >= 3]

    def residual(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        amplitude, offset = parameters[:2]
        exponent = np.zeros(window.shape)
        for i, axis in enumerate(free):
            centre, log_sigma = parameters[2 + 2 * i : 4 + 2 * i]
            exponent = exponent + ((grid[axis] - centre) / np.exp(log_sigma)) ** 2
        model = amplitude * np.exp(-exponent / 2) + offset
        return np.asarray((model - window).ravel())

    first = [1.0, 0.0]
    for axis in free:
        first += [float(start[axis]), float(np.log(max(widths[axis], 0.6) / 1.18))]
    found = least_squares(residual, first).x
    centre = peak.astype(np.float64)
    for i, axis in enumerate(free):
        fitted = box[axis].start + found[2 + 2 * i]
        if abs(fitted - peak[axis]) <= reach[axis]:  # a fit that ran away is no centre
            centre[axis] = fitted
    return centre


def half_width(data: NDArray[np.float64], peak: NDArray[np.intp], axis: int) -> float:
    """Half of the full width at half maximum of the line through the peak, in voxels."""
    line = data[tuple(slice(None) if a == axis else int(peak[a]) for a in range(data.ndim))]
    above = line >= 0.5 * line[peak[axis]]
    low = high = int(peak[axis])
    while low > 0 and above[low - 1]:
        low -= 1
    while high < len(line) - 1 and above[high + 1]:
        high += 1
    return (high - low + 1) / 2


def _shifted_whole(data: NDArray[np.float64], shift: NDArray[np.intp]) -> NDArray[np.float64]:
    """Shift by whole voxels; what leaves is lost, what enters is 0."""
    moved = np.zeros_like(data)
    source = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in zip(shift, data.shape, strict=True))
    target = tuple(slice(max(s, 0), n - max(-s, 0)) for s, n in zip(shift, data.shape, strict=True))
    moved[target] = data[source]
    return moved


def _shifted_fraction(data: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift by less than a voxel with a Fourier phase, in a margin of zeros so that nothing wraps around."""
    margin = [(8, 8) if n > 1 else (0, 0) for n in data.shape]
    shifted = fourier_shift(np.pad(data, margin), shift)
    return shifted[tuple(slice(m[0], m[0] + n) for m, n in zip(margin, data.shape, strict=True))]


def _listed(values: NDArray[Any]) -> str:
    return "(" + ", ".join(f"{v:g}" if float(v).is_integer() else f"{v:.2f}" for v in values) + ")"


def _warn(message: str) -> None:
    warnings.warn(message, GpudeconWarning, stacklevel=4)
