"""Median filter: removes hot, dead and cosmic-ray voxels, everywhere or only where they stand out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread

MAD_TO_SIGMA = 1.4826  # standard deviation over median absolute deviation of normal noise
TAIL, TAIL_TO_SIGMA = 0.9, 1 / 1.6449  # 90 % of normal noise is within 1.645 standard deviations
LEVELS = 32  # of brightness at most, for which noise is measured
EACH = 300  # voxels of a level at least: the standard deviation from their tail is right to 10 %
SAMPLE = 1_000_000  # voxels that suffice for that


@dataclass(frozen=True)
class Median:
    """Median filter (Tukey 1977), conditional (Sun & Neuvo, Pattern Recognit. Lett. 15, 1994)::

        f = m where |g - m| > threshold s, else g;   m = median of g, s = 1.4826 median of |g - m|

    with medians over the voxel's neighbourhood, the image continued by its mirror image.  s is the noise where the
    image is smooth and the structure where it is not.  It is at least the noise that is usual at that brightness in
    this image, and with a known camera at least the shot noise of m, or of one photo-electron.  Needs no PSF.

    Parameters
    ----------
    size
        Length of the neighbourhood along the finest axis in voxels, odd.  Along the others the odd number of voxels
        that comes nearest to the same length in um, at least 1: planes far apart are not mixed.
    threshold
        How many standard deviations s a voxel may differ from its neighbourhood; 0 replaces all voxels.
    """

    name: ClassVar[str] = "median"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = False
    takes_mask: ClassVar[bool] = False
    divisible: ClassVar[bool] = True
    promises: ClassVar[frozenset[str]] = frozenset()

    size: int = 3
    threshold: float = 4.0

    def __post_init__(self) -> None:
        check_options(self)
        if self.size < 1 or self.size % 2 == 0:
            raise InputError(f"median: size is {self.size}; it must be an odd number of voxels, such as 3.")
        if not 0 <= self.threshold < float("inf"):
            raise InputError(f"median: threshold is {self.threshold}; it must be 0 (replace all voxels) or positive.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 2.0 if self.threshold == 0 else 4.0

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        return 2 * (self._length(spread.scale) // 2)

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the filtered image once."""
        xp, median_filter = problem.backend.xp, problem.backend.ndimage.median_filter
        size = self.neighbourhood(problem)
        image = problem.image.astype(np.float32)
        median = median_filter(image, size=size, mode="reflect")
        if self.threshold == 0:
            filtered = median
        else:
            deviation = xp.abs(image - median)
            spread = median_filter(deviation, size=size, mode="reflect")
            curve = problem.record.numbers(
                "noise_by_level", lambda: np.concatenate(_noise_by_level(problem, median, deviation)).tolist()
            )
            levels, noise = map(problem.backend.upload, np.split(np.array(curve, np.float32), 2))
            filtered = image
            for z in range(len(image)):
                usual = xp.interp(median[z].ravel(), levels, noise).reshape(median[z].shape)
                sigma = xp.maximum(spread[z] * np.float32(MAD_TO_SIGMA), usual)
                if problem.gain is not None:
                    sigma = xp.maximum(sigma, xp.sqrt(problem.gain * xp.maximum(median[z], problem.gain)))
                filtered[z] = xp.where(deviation[z] > self.threshold * sigma, median[z], image[z])
        problem.take_background_from(filtered)
        yield filtered

    def neighbourhood(self, problem: Problem) -> tuple[int, ...]:
        """Voxels along z, y and x."""
        axes = list(zip(problem.image.shape, problem.voxel_um, strict=True))
        finest = min((v for n, v in axes if n > 1), default=1.0)
        return tuple(1 if n == 1 else self._length(finest / v) for n, v in axes)

    def _length(self, scale: float) -> int:
        return 2 * max(round((self.size * scale - 1) / 2), 0) + 1


def _noise_by_level(
    problem: Problem, median: Array, deviation: Array
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(brightness, standard deviation there), from the 90 % smallest deviations of the voxels of like brightness."""
    every = -(-median.size // SAMPLE)
    level, apart = (problem.backend.download(a.ravel()[::every]) for a in (median, deviation))
    levels = int(np.clip(level.size // EACH, 1, LEVELS))
    edges = np.unique(np.quantile(level, np.linspace(0, 1, levels + 1)))
    index = np.searchsorted(edges[1:-1], level, side="right")
    filled = np.unique(index)
    middles = [level[index == i].mean(dtype=np.float64) for i in filled]
    noise = [np.quantile(apart[index == i], TAIL) * TAIL_TO_SIGMA for i in filled]
    return np.array(middles, np.float32), np.array(noise, np.float32)
