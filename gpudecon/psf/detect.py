"""Find beads in a stack: local maxima of a band-passed image that stand out from its noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import InputError
from gpudecon.psf.localise import fit_gaussian

Real = NDArray[np.float64]

BAND = 1.6  # ratio of the widths whose difference makes the band pass, close to a Laplacian of a Gaussian
NOISE_SIGMAS = 6.0
# Maxima this much lower than a brighter one are its own: rings beside it, secondary foci above and below it.
RING, SECONDARY_FOCUS = 0.15, 0.5
# Of the typical bead; what is fainter is the rim of a cone of light, and not distinguished from a very dim bead.
FAINTEST = 0.1


@dataclass(frozen=True)
class Candidates:
    """Maxima, brightest first: ``voxel`` (n, 3) and ``height`` (n,) in the band-passed image."""

    voxel: NDArray[np.intp]
    height: Real


def find_candidates(image: NDArray[np.generic], sigma: Real, isolation: float, aspect: float) -> Candidates:
    """Maxima of the image (z, y, x) at the scale ``sigma`` (voxels) that are not side lobes of brighter ones.

    The band-passed image is G(sigma) - G(1.6 sigma); what counts exceeds 6 standard deviations of its noise, measured
    as the median absolute deviation.  ``isolation`` is the lateral distance in voxels of x within which a maximum can
    be a side lobe; ``aspect`` is a voxel's length in y over that in x.
    """
    from scipy import ndimage

    data = np.asarray(image, np.float32)
    band: NDArray[np.float32] = ndimage.gaussian_filter(data, sigma, mode="nearest", truncate=3)
    band -= ndimage.gaussian_filter(data, BAND * sigma, mode="nearest", truncate=3)
    sample = band[:: max(1, len(band) // 16), ::2, ::2]
    middle = np.median(sample)
    noise = 1.4826 * float(np.median(np.abs(sample - middle)))
    size = tuple(2 * int(max(s, 1)) + 1 for s in sigma)
    is_peak = (ndimage.maximum_filter(band, size, mode="nearest") == band) & (band > middle + NOISE_SIGMAS * noise)
    voxel = np.argwhere(is_peak)
    if not len(voxel):
        raise InputError(
            f"No bead stands out of the noise in the stack of shape {data.shape}; check the channel and the contrast."
        )
    height = band[is_peak].astype(np.float64)
    order = np.argsort(-height, kind="stable")
    voxel, height = voxel[order], height[order]
    # typical is where half of all height is reached: many faint maxima do not change it
    typical = height[np.searchsorted(np.cumsum(height), height.sum() / 2)]
    bright = height >= FAINTEST * typical
    voxel, height = voxel[bright], height[bright]
    kept = _own_maxima(voxel, height, sigma, isolation, aspect)
    return Candidates(voxel[kept], height[kept])


def _own_maxima(
    voxel: NDArray[np.intp], height: Real, sigma: Real, isolation: float, aspect: float
) -> NDArray[np.intp]:
    """Indices of the maxima that are not side lobes of a brighter one that was kept."""
    from scipy.spatial import cKDTree

    lateral = voxel[:, 1:] * [aspect, 1.0]
    neighbours = cKDTree(lateral).query_ball_point(lateral, isolation)
    kept = np.ones(len(voxel), bool)
    for i in range(len(voxel)):
        brighter = [j for j in neighbours[i] if j < i and kept[j]]
        for j in brighter:
            is_above = np.hypot(*(lateral[i] - lateral[j])) < 2 * sigma[2]
            if height[i] < (SECONDARY_FOCUS if is_above else RING) * height[j]:
                kept[i] = False
    return np.flatnonzero(kept)


def estimated_sigma(image: NDArray[np.generic]) -> Real:
    """Widths in voxels of what is brightest in the stack, where the optics are not known: medians of Gaussian fits."""
    start = np.array([2.0, 1.5, 1.5])
    found = find_candidates(image, start, isolation=10.0, aspect=1.0)
    fits = [fit_gaussian(image, v.astype(float), start) for v in found.voxel[:50]]
    sigmas = [f.sigma for f in fits if f is not None]
    if not sigmas:
        raise InputError("The width of the beads could not be found; say the optics, or crop around clear beads.")
    sigma = np.median(sigmas, axis=0)
    sigma[1:] = sigma[1:].mean()
    return np.asarray(sigma)
