"""The mean of a PSF over the angle around its axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]

FINER = 3  # of the Fourier interpolation before the splines, which are then exact to 1e-4 for what a camera resolves
RADIAL_STEP = 0.25  # of the profile, in pixels


def radial_mean(array: NDArray[np.generic], pixel: tuple[float, float]) -> Real:
    """Every plane of ``array``, (..., y, x), replaced by its mean over circles around n // 2.

    ``pixel`` is the size (y, x) in any unit.  The planes are interpolated by a Fourier series and then by cubic
    splines: averaging in bins of the pixels' radii would blur by 5 %.  In the corners, where circles leave the plane,
    the mean is over the part inside.
    """
    from scipy import interpolate

    planes = np.asarray(array, np.float64).reshape(-1, *array.shape[-2:])
    ny, nx = planes.shape[1:]
    unit = min(pixel)
    y, x = ((np.arange(n) - n // 2) * p / unit for n, p in zip((ny, nx), pixel, strict=True))
    pixel_radius = np.hypot(y[:, None], x)
    radius = np.arange(0, pixel_radius.max() + 2 * RADIAL_STEP, RADIAL_STEP)
    profile = np.stack([_profile(plane, radius, (y, x)) for plane in planes], axis=-1)
    spline = interpolate.make_interp_spline(radius, profile, k=3)
    return np.asarray(np.moveaxis(spline(pixel_radius), -1, 0).reshape(array.shape))


def _profile(plane: Real, radius: Real, axes: tuple[Real, Real]) -> Real:
    """Mean of the plane over the circles of ``radius``, as far as they lie inside."""
    from scipy import ndimage

    fine = _finer(plane)
    angles = 4 * max(plane.shape)
    phi = 2 * np.pi * (np.arange(angles) + 0.5) / angles
    places = []
    inside = np.ones((len(radius), angles), bool)
    for axis, direction in zip(axes, (np.sin(phi), np.cos(phi)), strict=True):
        position = radius[:, None] * direction
        step = axis[1] - axis[0] if len(axis) > 1 else 1.0
        inside &= (position >= axis[0] - step / 2) & (position <= axis[-1] + step / 2)
        places.append((position - axis[0]) / step * FINER)
    values = ndimage.map_coordinates(fine, places, order=3, mode="nearest")
    count = inside.sum(axis=1)
    mean = np.where(inside, values, 0).sum(axis=1) / np.maximum(count, 1)
    last = int(np.flatnonzero(count)[-1])
    mean[last:] = mean[last]
    return np.asarray(mean)


def _finer(plane: Real) -> Real:
    """Fourier interpolation to ``FINER`` times as many samples, the old ones among them."""
    from scipy import fft

    ny, nx = plane.shape
    spectrum = fft.fft2(plane)
    padded = np.zeros((ny * FINER, nx * FINER), complex)
    ky, kx = (np.rint(fft.fftfreq(n) * n).astype(int) for n in (ny, nx))
    # the Nyquist term of an even length is split between both signs by taking the real part
    padded[np.ix_(ky % (ny * FINER), kx % (nx * FINER))] = spectrum
    return np.asarray(fft.ifft2(padded).real) * FINER**2
