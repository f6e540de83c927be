"""Seams: whether tiles fit together, by restoring some places between them again with more of what surrounds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.engine.tiling import Box, Tiling

# Where the result is darker than this fraction of what is bright in it, its local value is taken to be this fraction.
FAINT = 1e-2
BRIGHT = 0.999  # quantile of the absolute values
TOLERANCE = 1e-3  # of the local value: what the default halo promises
ACROSS, ALONG = 16, 64  # voxels to either side of a seam, and along it, that are looked at


@dataclass(frozen=True)
class Seam:
    """A place on a seam, and the largest difference there relative to the local value."""

    box: Box
    difference: float

    @property
    def is_tight(self) -> bool:
        """Whether the difference is within what the default halo promises."""
        return self.difference <= TOLERANCE


def brightness(values: NDArray[Any]) -> float:
    """What counts as bright: the 99.9th percentile of the absolute values."""
    return float(np.quantile(np.abs(values), BRIGHT))


def relative_difference(values: NDArray[Any], reference: NDArray[Any], bright: float) -> NDArray[np.float64]:
    """|values - reference| over the local value, which is max(|reference|, bright / 100)."""
    expected = np.asarray(reference, np.float64)
    local = np.maximum(np.abs(expected), max(FAINT * bright, np.finfo(np.float64).tiny))
    return np.asarray(np.abs(values - expected) / local)


def check_seams(
    tiling: Tiling,
    restore: Callable[[Box], NDArray[Any]],
    written: Callable[[Box], NDArray[Any]],
    *,
    most: int = 4,
) -> list[Seam]:
    """Restore up to ``most`` places on seams anew with twice the halo, and compare them with what was written.

    ``restore(box)`` reads a box of the stack and returns it restored with the run's constants, ``written(box)`` returns
    what the run has put there, in the same units.  The places are spread evenly over the seams of all directions, the
    same in every call.  What is bright is measured over all of them.
    """
    boxes = list(_places(tiling, most))
    wide = [2 * h if count > 1 else n for h, count, n in zip(tiling.halo, tiling.counts, tiling.stack, strict=True)]
    pairs = []
    for box in boxes:
        read, crop = _widened(box, wide, tiling.stack)
        pairs.append((np.asarray(restore(read)[crop], np.float64), written(box)))
    if not pairs:
        return []
    bright = brightness(np.concatenate([again.ravel() for again, _ in pairs]))
    return [
        Seam(box, float(relative_difference(before, again, bright).max()))
        for box, (again, before) in zip(boxes, pairs, strict=True)
    ]


def _places(tiling: Tiling, most: int) -> Iterator[Box]:
    """Boxes across the faces that two cores share, evenly over all of them."""
    directions = [axis for axis in range(3) if tiling.counts[axis] > 1]
    for turn, axis in enumerate(directions):
        faces = [count - (a == axis) for a, count in enumerate(tiling.counts)]
        total = int(np.prod(faces))
        wanted = min(total, most // len(directions) + (turn < most % len(directions)))
        for i in range(wanted):
            place = np.unravel_index(int((i + 0.5) * total / wanted), faces)
            yield _across(tiling, axis, tuple(int(p) for p in place))


def _across(tiling: Tiling, axis: int, place: tuple[int, ...]) -> Box:
    """Around the middle of the face between the core at ``place`` and the next one along ``axis``."""
    cuts = []
    for a, (p, core, length) in enumerate(zip(place, tiling.core_shape, tiling.stack, strict=True)):
        if a == axis:
            seam = (p + 1) * core
            cuts.append(slice(max(seam - ACROSS, seam - core), min(seam + ACROSS, length)))
        else:
            start, stop = p * core, min((p + 1) * core, length)
            middle = (start + stop) // 2
            cuts.append(slice(max(middle - ALONG // 2, start), min(middle + ALONG // 2, stop)))
    z, y, x = cuts
    return z, y, x


def _widened(box: Box, margin: list[int], stack: tuple[int, ...]) -> tuple[Box, Box]:
    """(the box with a margin, as far as the stack goes, the box within it)."""
    read = [slice(max(c.start - m, 0), min(c.stop + m, n)) for c, m, n in zip(box, margin, stack, strict=True)]
    crop = [slice(c.start - r.start, c.stop - r.start) for c, r in zip(box, read, strict=True)]
    return (read[0], read[1], read[2]), (crop[0], crop[1], crop[2])
