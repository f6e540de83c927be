"""The mean of several beads, each moved, scaled and freed of background as it fits the mean best."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.psf.align import Registration, Shiftable, fourier_shift, register, robust_mean
from gpudecon.psf.finish import core_of, in_passband, without_offset
from gpudecon.psf.measured import fitted_centre, lateral_frame
from gpudecon.psf.otf_support import OTFSupport
from gpudecon.psf.selection import Found

Real = NDArray[np.float64]

MARGIN = 3  # voxels around the window that the Fourier shift may spoil
ROUNDS = 2  # of registration to the mean
UNLIKE = 0.15  # relative deviation from the mean, beyond noise, of a bead that is something else
CORE_SIGMAS = 3.0  # of the ellipsoid in which beads are compared


def window_shape(half: NDArray[np.intp]) -> tuple[int, int, int]:
    """Shape of the windows that are averaged: the half window on both sides, and the margin."""
    z, y, x = (int(2 * (h + MARGIN) + 1) for h in half)
    return z, y, x


def mean_of_beads(
    image: NDArray[Any],
    beads: list[Found],
    half: NDArray[np.intp],
    sigma: Real,
    voxel_um: tuple[float, ...],
    theory: Real | None,
    support: OTFSupport | None,
) -> Real:
    """The mean, of peak about 1 and free of offset, with its centre at n // 2 of a window of 2 ``half`` + 1 voxels.

    ``theory`` is on `window_shape`.  Beads unlike the mean are marked as rejected and leave it; the others learn their
    place, height and background.
    """
    windows = [_window(image, b, half + MARGIN) for b in beads]
    noise = [_noise(w) for w in windows]
    found = [_by_gaussian(b, w) for b, w in zip(beads, windows, strict=True)]
    core = core_of(window_shape(half), sigma, CORE_SIGMAS)

    def average(used: list[int]) -> Real:
        raw = robust_mean([windows[i] for i in used], [found[i] for i in used])
        return in_passband(without_offset(raw, theory, sigma), voxel_um, support)

    used = list(range(len(beads)))
    mean = average(used)
    for _ in range(ROUNDS):
        template = Shiftable(mean)
        for i in used:
            found[i] = register(windows[i], template, found[i].shift, noise[i], core)
        gain = float(np.median([found[i].gain for i in used]))
        for i in used:
            deviation = found[i].deviation(gain)
            if len(used) > 2 and deviation > UNLIKE:
                beads[i].rejected = f"unlike the others: differs by {deviation:.0%} from their mean"
        used = [i for i in used if beads[i].rejected is None]
        mean = average(used)
    for i in used:
        beads[i].place = beads[i].voxel + found[i].shift
        beads[i].height, beads[i].background = found[i].amplitude * float(mean.max()), found[i].background
    inner = tuple(slice(MARGIN, -MARGIN) for _ in range(3))
    shift = np.array(mean[inner].shape) // 2 - fitted_centre(mean[inner])
    return fourier_shift(mean, shift)[inner]


def _window(image: NDArray[Any], bead: Found, reach: NDArray[np.intp]) -> Real:
    """The surroundings of the bead; where the margin leaves the image its faces are repeated."""
    index = [
        np.clip(np.arange(v - r, v + r + 1), 0, n - 1) for v, r, n in zip(bead.voxel, reach, image.shape, strict=True)
    ]
    return np.asarray(image[np.ix_(*index)], np.float64)


def _noise(window: Real) -> float:
    frame = lateral_frame(window)
    return 1.4826 * float(np.median(np.abs(frame - np.median(frame))))


def _by_gaussian(bead: Found, window: Real) -> Registration:
    """Where to start: place and height of the Gaussian, background of the window's frame."""
    assert bead.fit is not None  # others are rejected
    background = float(np.median(lateral_frame(window)))
    return Registration(bead.fit.centre - bead.voxel, bead.fit.height, background, 0.0, 0.0, 0.0, 0.0, 1)
