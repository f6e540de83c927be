"""Tiling: how a stack is cut into pieces that are restored on their own.  Geometry only, no arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from gpudecon.errors import InputError

Shape = tuple[int, int, int]  # (z, y, x)
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Tile:
    """One piece of a stack: ``core`` is written, ``read`` is read for it, ``crop`` is the core within what is read.

    ``core`` and ``read`` are boxes of the stack, ``crop`` is one of an array of `Tiling.read_shape`.
    """

    index: int
    core: Box
    read: Box
    crop: Box


@dataclass(frozen=True)
class Tiling:
    """A stack (z, y, x) cut into cores of one shape, the last along an axis being what is left.

    What is read for a core is wider by ``halo`` on every side, as far as the stack goes.  All tiles read the same
    shape, so one plan and one transfer function serve all: at the stack's faces the window is moved inward, not cut.
    Cores are whole write units (``unit``), but for the last along an axis, so that no two tiles write into the same
    chunk or shard.  Tiles are counted along x first and computed when asked for: a million of them take no memory.
    """

    stack: Shape
    core_shape: Shape
    halo: Shape = (0, 0, 0)
    unit: Shape = (1, 1, 1)

    def __post_init__(self) -> None:
        if min(self.stack) < 1 or min(self.core_shape) < 1 or min(self.halo) < 0 or min(self.unit) < 1:
            raise InputError(
                f"A stack of {self.stack} voxels cannot be cut into cores of {self.core_shape} with a halo of "
                f"{self.halo} and write units of {self.unit}; sizes are at least 1, a halo at least 0."
            )
        for length, core, unit in zip(self.stack, self.core_shape, self.unit, strict=True):
            if core < length and core % unit:
                raise InputError(
                    f"Cores of {self.core_shape} voxels are not whole write units of {self.unit}; make them multiples."
                )

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, index: int) -> Tile:
        if not 0 <= index < len(self):
            raise IndexError(f"Tile {index} of {len(self)}.")
        position = []
        rest = index
        for count in reversed(self.counts):
            rest, place = divmod(rest, count)
            position.append(place)
        parts = [self._along(axis, place) for axis, place in enumerate(reversed(position))]
        (z, y, x) = parts
        return Tile(index, (z[0], y[0], x[0]), (z[1], y[1], x[1]), (z[2], y[2], x[2]))

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def counts(self) -> Shape:
        """Tiles along z, y and x."""
        z, y, x = (-(-n // core) for n, core in zip(self.stack, self.core_shape, strict=True))
        return z, y, x

    @cached_property
    def read_shape(self) -> Shape:
        """What every tile reads."""
        z, y, x = (
            min(n, min(n, core) + 2 * halo)
            for n, core, halo in zip(self.stack, self.core_shape, self.halo, strict=True)
        )
        return z, y, x

    def _along(self, axis: int, place: int) -> tuple[slice, slice, slice]:
        """(core, read, crop) along one axis."""
        length, core, width = self.stack[axis], self.core_shape[axis], self.read_shape[axis]
        start = place * core
        stop = min(start + core, length)
        first = min(max(start - self.halo[axis], 0), length - width)
        return slice(start, stop), slice(first, first + width), slice(start - first, stop - first)
