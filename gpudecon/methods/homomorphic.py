"""Homomorphic filter: evens out illumination, which multiplies the image, by filtering the logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.problem import Problem, check_options
from gpudecon.methods.reach import Spread

SHARE_OF_SIDE = 0.5  # of the image's shorter lateral side: length "auto"
# Counts are smoothed over this fraction of the length before the logarithm is taken: the logarithm of a count near zero
# tells of its noise, not of the light.
SMOOTHING = 0.2
DARKEST = 0.01  # of the mean: light below it is not told from none

Real = NDArray[np.float64]


@dataclass(frozen=True)
class Homomorphic:
    """Homomorphic filter (Oppenheim, Schafer & Stockham, Proc. IEEE 56, 1968)::

        f = exp(Phi log g),   Phi(k) = 1 - (1 - low_gain) exp(-(|k| length_um)^2 / 2),   k in the plane (y, x)

    for images that are specimen times illumination.  Illumination is taken to vary laterally and to be the same in all
    planes: it is estimated once, from the mean over z, and brightness along z is left alone.  The logarithm's quadratic
    trend in y and x counts as illumination whole; Phi acts on the rest, so that edges, continued by the mirror image,
    have no kink.  The image less its background is divided by exp of what is taken away, which is the same as above
    but keeps the sign of zero and negative values.  The sum is kept.  Give the background: only light above it is
    proportional to the illumination.

    Parameters
    ----------
    length_um
        What is longer counts as illumination; in um, in voxels where the voxel size is not known.  "auto": half of
        the image's shorter lateral side.
    low_gain
        What is left of the illumination's logarithm, from 0 (nothing) to 1 (all).
    """

    name: ClassVar[str] = "homomorphic"
    counts_only: ClassVar[bool] = False
    needs_psf: ClassVar[bool] = False
    takes_mask: ClassVar[bool] = False
    divisible: ClassVar[bool] = False
    promises: ClassVar[frozenset[str]] = frozenset({"flux"})

    length_um: float | Literal["auto"] = "auto"
    low_gain: float = 0.0

    def __post_init__(self) -> None:
        check_options(self)
        if self.length_um != "auto" and not 0 < self.length_um < float("inf"):
            raise InputError(f"homomorphic: length_um is {self.length_um}; it must be positive, or 'auto'.")
        if not 0 <= self.low_gain <= 1:
            raise InputError(f"homomorphic: low_gain is {self.low_gain}; it must be from 0 to 1.")

    @property
    def arrays(self) -> float:
        """See `Method`."""
        return 1.0

    def reach(self, spread: Spread) -> float:
        """See `Method`."""
        return math.inf

    def iterate(self, problem: Problem) -> Iterator[Array]:
        """Yield the filtered image once."""
        light = problem.light()
        before = float(light.sum(dtype=np.float64))
        if before <= 0:
            raise InputError(
                f"The image's mean is not above the background {problem.background:g}: no illumination can be seen; "
                "give a background below the image."
            )
        logarithm = self._illumination(problem, light, before / light.size)
        light *= problem.backend.xp.exp((self.low_gain - 1) * logarithm)
        after = float(light.sum(dtype=np.float64))
        if after > 0:
            light *= np.float32(before / after)
        yield light

    def _illumination(self, problem: Problem, light: Array, mean: float) -> Array:
        """The logarithm of the illumination (y, x) relative to its geometric mean.

        Of one plane, and so found on the host: the same on every device.
        """
        sizes = problem.voxel_um[1:]
        _, ny, nx = problem.image.shape
        length = SHARE_OF_SIDE * min(ny * sizes[0], nx * sizes[1]) if self.length_um == "auto" else self.length_um
        profile = problem.backend.download(light.mean(axis=0, dtype=np.float64)) / mean
        logarithm = np.log(np.maximum(_low_passed(profile, sizes, SMOOTHING * length), DARKEST))
        trend = _quadratic(logarithm)
        trend += _low_passed(logarithm - trend, sizes, math.sqrt(1 - SMOOTHING**2) * length)
        return problem.backend.upload(trend.astype(np.float32))


def _quadratic(plane: Real) -> Real:
    """The polynomial of second degree in y and x that fits ``plane`` (y, x) best."""
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in plane.shape)
    terms = [np.outer(y**i, x**j).ravel() for i in range(3) for j in range(3 - i)]
    basis = np.stack(terms)
    # least norm: along an axis of one or two samples the terms are not independent
    coefficients = np.linalg.lstsq(basis @ basis.T, basis @ plane.ravel(), rcond=1e-10)[0]
    fitted: Real = (coefficients @ basis).reshape(plane.shape)
    return fitted


def _low_passed(plane: Real, sizes: tuple[float, float], length: float) -> Real:
    """``plane`` (y, x) times exp(-(|k| length)^2 / 2) in frequency, its edges continued by the mirror image.

    That continuation is even about the faces, so that its Fourier series is the cosine transform.
    """
    from scipy import fft

    coefficients = fft.dctn(plane, norm="ortho")
    for axis, (n, size) in enumerate(zip(plane.shape, sizes, strict=True)):
        k = np.arange(n) / (2 * n * size)
        coefficients *= np.exp(-((k * length) ** 2) / 2).reshape((-1, 1) if axis == 0 else (1, -1))
    passed: Real = fft.idctn(coefficients, norm="ortho", overwrite_x=True)
    return passed
