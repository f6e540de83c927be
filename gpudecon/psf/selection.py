"""Which of the found beads make up the PSF, and why the others do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.psf.detect import Candidates
from gpudecon.psf.localise import FWHM_PER_SIGMA, GaussianFit, fit_gaussian

Real = NDArray[np.float64]

MADS = 3.0 * 1.4826  # three standard deviations, from the median absolute deviation
CLUMP_LIGHT = 1.5  # times the median bead's; two beads have twice
CLUMP_WIDTH = 1.1  # times the median bead's: two beads of a half width's distance
NARROW = 0.75
DIM = 5.0  # height in standard deviations of the noise
PLATEAU = 3  # equal highest values in one bead that show the end of the camera's range


@dataclass(frozen=True)
class Bead:
    """A bead, or what looked like one.

    ``position_um`` (z, y, x) counts from the middle of the image's first voxel; ``height`` and ``background`` are in
    the image's units, ``fwhm_um`` (z, y, x) is that of the fitted Gaussian, and all of them are None where no Gaussian
    fits.  ``rejected`` is None for the beads that were used, and says why for the others.
    """

    position_um: tuple[float, float, float]
    height: float | None = None
    background: float | None = None
    fwhm_um: tuple[float, float, float] | None = None
    rejected: str | None = None


@dataclass
class Found:
    """A candidate on its way: the voxel of its maximum, the fit, the verdict; place (voxels), height, background."""

    voxel: NDArray[np.intp]
    fit: GaussianFit | None
    rejected: str | None = None
    place: Real | None = None
    height: float | None = None
    background: float | None = None

    def bead(self, voxel_um: tuple[float, ...]) -> Bead:
        """As the result shows it."""
        fit = self.fit
        place = self.voxel if fit is None else fit.centre if self.place is None else self.place
        z, y, x = (float(p * v) for p, v in zip(place, voxel_um, strict=True))
        if fit is None:
            return Bead((z, y, x), rejected=self.rejected)
        wz, wy, wx = (float(FWHM_PER_SIGMA * s * v) for s, v in zip(fit.sigma, voxel_um, strict=True))
        height = fit.height if self.height is None else self.height
        background = fit.background if self.background is None else self.background
        return Bead((z, y, x), height, background, (wz, wy, wx), self.rejected)


def measured_candidates(image: NDArray[Any], candidates: Candidates, sigma: Real) -> list[Found]:
    """Each candidate with its Gaussian fit."""
    return [Found(v, fit_gaussian(image, v.astype(np.float64), sigma)) for v in candidates.voxel]


def reject_saturated(found: list[Found], image: NDArray[Any], sigma: Real, saturation: float | None) -> None:
    """Beads that reach ``saturation``; None: the integer type's highest value, or the image's if it is a plateau."""
    limit = float(image.max()) if saturation is None else saturation
    is_end = saturation is not None or (image.dtype.kind in "ui" and limit == np.iinfo(image.dtype).max)
    for bead in found:
        count = int((_surroundings(image, bead.voxel, 1.5 * sigma) >= limit).sum())
        if count >= (1 if is_end else PLATEAU):
            bead.rejected = f"saturated: {count} voxels at {limit:g}"


def reject_neighbours(found: list[Found], isolation: float, aspect: float, reach_z: float, voxel_x_um: float) -> None:
    """Beads with another one nearer than ``isolation`` laterally (voxels of x) and ``reach_z`` planes."""
    from scipy.spatial import cKDTree

    lateral = np.array([b.voxel[1:] * [aspect, 1.0] for b in found])
    for i, j in cKDTree(lateral).query_pairs(isolation):
        if abs(int(found[i].voxel[0]) - int(found[j].voxel[0])) <= reach_z:
            distance = float(np.hypot(*(lateral[i] - lateral[j]))) * voxel_x_um
            for bead in (found[i], found[j]):
                bead.rejected = bead.rejected or f"neighbour at {distance:.2f} um"


def reject_at_border(found: list[Found], half: NDArray[np.intp], shape: tuple[int, ...]) -> None:
    """Beads whose window does not lie in the image."""
    for bead in found:
        room = np.minimum(bead.voxel, np.array(shape) - 1 - bead.voxel)
        for axis in np.flatnonzero(room < half):
            bead.rejected = (
                bead.rejected or f"border: {room[axis]} voxels to the end of {'zyx'[axis]}, {half[axis]} needed"
            )


def reject_misfits(found: list[Found], image: NDArray[Any], sigma: Real) -> None:
    """Clumps, hot pixels and what is too dim: by light and width against the medians of the rest."""
    for bead in found:
        if bead.fit is None:
            bead.rejected = bead.rejected or "no Gaussian fits"
    good = [b.fit for b in found if b.rejected is None and b.fit is not None]
    if not good:
        return
    masses = np.array([f.mass for f in good])
    widths = np.array([f.sigma for f in good])
    mass, width = float(np.median(masses)), np.median(widths, axis=0)
    mass_limit = max(CLUMP_LIGHT * mass, mass + MADS * float(np.median(np.abs(masses - mass))))
    width_limit = np.maximum(CLUMP_WIDTH * width, width + MADS * np.median(np.abs(widths - width), axis=0))
    for bead in found:
        if bead.rejected is not None or bead.fit is None:
            continue
        fit = bead.fit
        noise = _noise_around(image, bead.voxel, sigma)
        if np.any(fit.sigma < NARROW * width):
            bead.rejected = f"{float(np.min(fit.sigma / width)):.2f} times as wide as the others: a hot pixel"
        elif fit.mass > mass_limit:
            bead.rejected = f"clump: {fit.mass / mass:.1f} times the light of the others"
        elif np.any(fit.sigma > width_limit):
            bead.rejected = f"clump: {float(np.max(fit.sigma / width)):.2f} times as wide as the others"
        elif fit.height < DIM * noise:
            bead.rejected = f"dim: height {fit.height:.3g} with noise {noise:.3g}"


def _surroundings(image: NDArray[Any], voxel: NDArray[np.intp], reach: Real) -> NDArray[Any]:
    r = np.maximum(np.ceil(reach).astype(int), 1)
    return image[tuple(slice(max(v - h, 0), v + h + 1) for v, h in zip(voxel, r, strict=True))]


def _noise_around(image: NDArray[Any], voxel: NDArray[np.intp], sigma: Real) -> float:
    """Standard deviation around the bead, of the lateral frame 6 to 9 sigma away in its plane."""
    plane = np.asarray(_surroundings(image, voxel, np.array([0, 9, 9]) * sigma), np.float64)[0]
    inner = np.ceil(3 * sigma).astype(int)
    border = np.ones(plane.shape, bool)
    border[inner[1] : -inner[1], inner[2] : -inner[2]] = False
    values = plane[border]
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
