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
# Relative deviation from the mean, beyond noise, of a bead that is something else; and how many times that of the
# others, so that what varies over a field of view stays.
UNLIKE, MORE_THAN_OTHERS = 0.1, 3.0
CORE_SIGMAS = 3.0  # of the ellipsoid in which beads are compared


def window_reach(half: NDArray[np.intp]) -> NDArray[np.intp]:
    """``half`` and a margin of at least `MARGIN` voxels, so that 2 n + 1 voxels have a fast Fourier transform."""
    return np.array([next(n for n in range(h + MARGIN, 2 * h + 99) if _is_fast(2 * n + 1)) for h in half])


def _is_fast(length: int) -> bool:
    for prime in (3, 5, 7, 11):
        while length % prime == 0:
            length //= prime
    return length == 1


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

    ``theory`` is on 2 `window_reach` + 1 voxels.  Beads unlike the mean are marked as rejected and leave it; the others
    learn their place, height and background.
    """
    reach = window_reach(half)
    windows = [_window(image, b, reach) for b in beads]
    noise = [_noise(w) for w in windows]
    found = [_by_gaussian(b, w) for b, w in zip(beads, windows, strict=True)]
    core = core_of(windows[0].shape, sigma, CORE_SIGMAS)
    inner = tuple(slice(r - h, r + h + 1) for r, h in zip(reach, half, strict=True))
    inside = np.zeros(core.shape, bool)
    inside[inner] = True

    def average(used: list[int]) -> Real:
        raw = robust_mean([windows[i] for i in used], [found[i] for i in used])
        return in_passband(without_offset(raw, theory, sigma, inside), voxel_um, support)

    used = list(range(len(beads)))
    mean = average(used)
    for _ in range(ROUNDS):
        template = Shiftable(mean)
        for i in used:
            found[i] = register(windows[i], template, found[i].shift, noise[i], core, inside)
        gain = float(np.median([found[i].gain for i in used]))
        deviations = {i: found[i].deviation(gain) for i in used}
        limit = max(UNLIKE, MORE_THAN_OTHERS * float(np.median(list(deviations.values()))))
        for i, deviation in deviations.items():
            if len(used) > 2 and deviation > limit:
                beads[i].rejected = f"unlike the others: differs by {deviation:.0%} from their mean"
        used = [i for i in used if beads[i].rejected is None]
        mean = average(used)
    for i in used:
        beads[i].place = beads[i].voxel + found[i].shift
        beads[i].height, beads[i].background = found[i].amplitude * float(mean.max()), found[i].background
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
