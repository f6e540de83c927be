"""From the mean of the beads to a PSF: offset, bead size, passband, pixels, extent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpudecon.psf.bead_size import grid_transfer, without_bead_size
from gpudecon.psf.measured import lateral_frame
from gpudecon.psf.otf_support import OTFSupport

Real = NDArray[np.float64]

# Half axes, in standard deviations of the focus, of the ellipsoid in which aberrations decide; theory is for outside.
CORE_SIGMAS = 4.0


def core_of(shape: tuple[int, ...], sigma: Real, times: float = CORE_SIGMAS) -> NDArray[np.bool_]:
    """The ellipsoid of ``times`` ``sigma`` (voxels) around n // 2."""
    squared = np.zeros(shape)
    for axis, (n, s) in enumerate(zip(shape, sigma, strict=True)):
        u = (np.arange(n) - n // 2) / (times * s)
        squared = squared + (u**2).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return squared <= 1


def without_offset(mean: Real, theory: Real | None, sigma: Real, inside: NDArray[np.bool_]) -> Real:
    """``mean`` less the constant that is no light of the bead.

    The far light of a widefield PSF has no end within a window, so a constant cannot be told from it without knowing
    how it fades: the mean outside the core is fitted by a theory + b, and b subtracted.  Without theory b is the median
    of the lateral frame of the middle planes.  ``inside`` marks the voxels that hold recorded values.
    """
    if theory is None:
        return mean - float(np.median(lateral_frame(mean)))
    outside = inside & ~core_of(mean.shape, sigma)
    t, m = theory[outside], mean[outside]
    slope = float(((t - t.mean()) * (m - m.mean())).sum() / max(((t - t.mean()) ** 2).sum(), 1e-30))
    return mean - float(m.mean() - max(slope, 0.0) * t.mean())


def in_passband(array: Real, voxel_um: tuple[float, ...], support: OTFSupport | None) -> Real:
    """``array`` without the frequencies that the optics cannot pass: noise."""
    from scipy import fft

    if support is None:
        return array
    return np.asarray(fft.irfftn(fft.rfftn(array) * support.mask(array.shape, voxel_um), array.shape))


def without_bead(array: Real, voxel_um: tuple[float, ...], diameter_um: float) -> Real:
    """The image of a point from that of a ball; see `gpudecon.psf.bead_size`."""
    from scipy import fft

    spectrum = without_bead_size(fft.rfftn(array), grid_transfer(array.shape, voxel_um, diameter_um))
    return np.asarray(fft.irfftn(spectrum, array.shape))


def with_pixels(array: Real, old_um: tuple[float, ...], new_um: tuple[float, ...]) -> Real:
    """The PSF of a camera with pixels ``new_um`` from that with smaller ones ``old_um``, still sampled as it was.

    A pixel of width p multiplies the OTF by sinc(k p), so this is a factor sinc(k p_new) / sinc(k p_old) along y and x.
    """
    from scipy import fft

    spectrum = fft.rfftn(array)
    for axis in (1, 2):
        n = array.shape[axis]
        k = (fft.rfftfreq if axis == 2 else fft.fftfreq)(n, old_um[axis])
        ratio = np.sinc(k * new_um[axis]) / np.sinc(k * old_um[axis])
        spectrum *= ratio.reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
    return np.asarray(fft.irfftn(spectrum, array.shape))


def nonnegative(array: Real) -> Real:
    """The nearest array of the same sum without negative values: max(array - t, 0) with the t that keeps the sum.

    Setting negative noise to 0 alone would leave the positive half of it as light, over a whole window much of it.
    """
    total = float(array.sum())
    falling = np.sort(array.ravel())[::-1]
    levels = (np.cumsum(falling) - total) / np.arange(1, falling.size + 1)
    last = int(np.flatnonzero(falling > levels)[-1])
    return np.asarray(np.maximum(array - levels[last], 0))


def cropped(array: NDArray[np.float32], energy: float) -> NDArray[np.float32]:
    """The smallest window around n // 2 that keeps ``energy`` of the sum: the darkest pair of faces goes first."""
    half = [n // 2 for n in array.shape]
    centre = list(half)
    allowed = (1 - energy) * float(array.sum())
    while True:
        window = array[tuple(slice(c - h, c + h + 1) for c, h in zip(centre, half, strict=True))]
        losses = []
        for axis, h in enumerate(half):
            faces = np.take(window, [0, -1], axis=axis)
            losses.append((float(faces.sum()), axis) if h > 1 else (np.inf, axis))
        # per voxel, so that long axes are not preferred
        loss, axis = min(losses, key=lambda item: item[0] * window.shape[item[1]] / window.size)
        if loss > allowed:
            return window
        allowed -= loss
        half[axis] -= 1
