"""Where a bead is: a 3-D Gaussian with free centre, widths, height and background, by least squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
# Half of the fitted box in standard deviations of the PSF: 4 x 3 x 3 voxels for NA 1.4 at (0.1, 0.065, 0.065) um.
BOX_SIGMAS = 2.0


@dataclass(frozen=True)
class GaussianFit:
    """``height`` exp(-sum ((x - centre) / sigma)^2 / 2) + ``background``; centre and sigma in voxels, (z, y, x)."""

    centre: Real
    sigma: Real
    height: float
    background: float

    @property
    def mass(self) -> float:
        """Integral above the background."""
        return float(self.height * np.prod(self.sigma) * (2 * np.pi) ** (len(self.sigma) / 2))


def fit_gaussian(image: NDArray[np.generic], near: Real, sigma: Real) -> GaussianFit | None:
    """Fit around the voxel ``near`` of ``image`` with the expected widths ``sigma`` (voxels).

    None where there is nothing but a constant, where the fit leaves its box, or has a width that is no bead's (outside
    0.2 to 5 times the expected one).
    """
    from scipy.optimize import least_squares

    half = np.maximum(np.ceil(BOX_SIGMAS * sigma - 0.25).astype(int), 1)
    low = np.maximum(np.rint(near).astype(int) - half, 0)
    high = np.minimum(np.rint(near).astype(int) + half + 1, image.shape)
    window = np.asarray(image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], np.float64)
    background, height = float(window.min()), float(np.ptp(window))
    if height == 0:
        return None
    window = (window - background) / height
    free = [a for a in range(window.ndim) if window.shape[a] >= 3]
    grid = [
        np.arange(low[a], high[a], dtype=np.float64).reshape([-1 if b == a else 1 for b in range(window.ndim)])
        for a in free
    ]

    def parts(p: Real) -> tuple[list[Real], Real]:
        offsets = [(g - c) / np.exp(s) for g, c, s in zip(grid, p[2::2], p[3::2], strict=True)]
        bell = np.ones(window.shape)
        for u in offsets:
            bell = bell * np.exp(-(u**2) / 2)
        return offsets, bell

    def residual(p: Real) -> Real:
        return np.asarray((p[0] * parts(p)[1] + p[1] - window).ravel())

    def jacobian(p: Real) -> Real:
        offsets, bell = parts(p)
        columns = [bell, np.ones_like(bell)]
        for u, log_sigma in zip(offsets, p[3::2], strict=True):
            columns += [p[0] * bell * u / np.exp(log_sigma), p[0] * bell * u**2]
        return np.stack([c.ravel() for c in columns], axis=1)

    start = [1.0, 0.0]
    for a in free:
        start += [float(near[a]), float(np.log(max(sigma[a], 0.4)))]
    try:
        found = least_squares(residual, start, jacobian, method="lm", max_nfev=200).x
    except ValueError:  # fewer voxels than parameters, or numbers that left the range of floats
        return None
    centre, width = np.array(near, np.float64), np.array(sigma, np.float64)
    centre[free], width[free] = found[2::2], np.exp(np.clip(found[3::2], -20, 20))
    is_inside = np.all((centre >= low - 0.5) & (centre <= high - 0.5))
    is_bead = found[0] > 0 and np.all((width > 0.2 * sigma) & (width < 5 * sigma))
    if not (is_inside and is_bead):
        return None
    return GaussianFit(centre, width, float(found[0] * height), float(found[1] * height + background))
