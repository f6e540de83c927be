"""Projections of a part of a stack that may be larger than memory, read a few planes at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import InputError
from gpudecon.image import Image

MOST = (128, 512, 512)  # voxels (z, y, x) that are shown at most: the middle of a larger stack, at full resolution
PLANES = 32  # read at a time: as many as a chunk has

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Stack:
    """One time point and channel of an image; its values are those of the file times ``scale`` plus ``offset``."""

    image: Image
    t: int = 0
    c: int = 0
    scale: float = 1.0
    offset: float = 0.0

    def read(self, box: Box) -> NDArray[np.float32]:
        """The values in a box (z, y, x)."""
        values = np.asarray(self.image.data[self.image.region(self.t, self.c, box)])
        shape = [part.stop - part.start for part in box]
        return values.reshape(shape).astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)


@dataclass(frozen=True)
class Projection:
    """The highest values of a box along z, ``top`` (y, x), and along y, ``side`` (z, x); lowest, mean and highest of
    all; and the place (z, y, x) of the highest in the stack.  Of ``missing`` voxels, which are NaN or infinite, nothing
    is seen; where a line has no others it has the lowest value.
    """

    top: NDArray[np.float32]
    side: NDArray[np.float32]
    low: float
    mean: float
    high: float
    place: tuple[int, int, int]
    missing: int = 0


def middle(shape: tuple[int, ...]) -> Box:
    """The middle of a stack (z, y, x) or plane (y, x), at most `MOST`."""
    starts = [(max(n - most, 0) // 2, min(n, most)) for n, most in zip((1, *shape)[-3:], MOST, strict=True)]
    z, y, x = (slice(start, start + length) for start, length in starts)
    return z, y, x


def project(stack: Stack, box: Box) -> Projection:
    """The projections of a box of a stack; `InputError` where no voxel in it has a finite value."""
    nz, ny, nx = (part.stop - part.start for part in box)
    top, side = np.full((ny, nx), -np.inf, np.float32), np.empty((nz, nx), np.float32)
    low, high, total, seen, place = np.inf, -np.inf, 0.0, 0, (0, 0, 0)
    for first in range(0, nz, PLANES):
        planes = slice(box[0].start + first, box[0].start + min(first + PLANES, nz))
        block = stack.read((planes, box[1], box[2]))
        finite = np.isfinite(block)
        low = min(low, float(block.min(where=finite, initial=np.inf)))
        total += float(block.sum(where=finite, dtype=np.float64))
        seen += int(finite.sum())
        block[~finite] = -np.inf
        np.maximum(top, block.max(axis=0), out=top)
        side[first : first + len(block)] = block.max(axis=1)
        if block.max() > high:
            high = float(block.max())
            z, y, x = (int(i) for i in np.unravel_index(block.argmax(), block.shape))
            place = (planes.start + z, box[1].start + y, box[2].start + x)
    if seen == 0:
        raise InputError(f"The image {stack.image.name!r} has no finite value in its middle; there is nothing to show.")
    for flat in (top, side):
        np.maximum(flat, low, out=flat)
    return Projection(top, side, low, total / seen, high, place, nz * ny * nx - seen)
