"""Resolution levels of an image: their shapes, their units of writing, and the mean that makes one from another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gpudecon.image import Region

BLOCK_VOXELS = 2**25  # that are held at once where a whole image is copied; 128 MiB of float32
LARGEST_OVERVIEW = 256  # pixels; the last level is at most as wide and as high


@dataclass(frozen=True)
class Level:
    """One resolution: ``step`` voxels of the level before along each axis are one of this, ``factor`` of the image."""

    shape: tuple[int, ...]
    step: tuple[int, ...]
    factor: tuple[int, ...]


def levels(shape: tuple[int, ...], axes: str, voxel_um: tuple[float, ...] | None) -> tuple[Level, ...]:
    """The levels of an image on ``axes``, itself the first; y and x are halved until both are `LARGEST_OVERVIEW`.

    z is halved with them where its voxel is not longer than the shorter lateral one of the level before: while voxels
    are flat or long along z, they approach cubes.  An unknown voxel is taken as a cube, which is what its scale of 1 in
    the metadata says.  Odd lengths are rounded up.
    """
    spatial = [a for a in axes if a in "zyx"]
    size = dict(zip(spatial, voxel_um or (1.0,) * len(spatial), strict=True))
    once = (1,) * len(shape)
    found = [Level(tuple(shape), once, once)]
    while max(found[-1].shape[-2:]) > LARGEST_OVERVIEW:
        last = found[-1]
        flat = "z" in size and size["z"] <= min(size["y"], size["x"])
        halved = {"y", "x", *("z" if flat else "")}
        step = tuple(2 if a in halved and n > 1 else 1 for a, n in zip(axes, last.shape, strict=True))
        size = {a: um * step[axes.index(a)] for a, um in size.items()}
        shape = tuple(-(-n // s) for n, s in zip(last.shape, step, strict=True))
        found.append(Level(shape, step, tuple(f * s for f, s in zip(last.factor, step, strict=True))))
    return tuple(found)


def block_mean(block: NDArray[Any], step: tuple[int, ...]) -> NDArray[Any]:
    """Means over blocks of ``step`` (1 or 2 per axis) voxels, at an odd end over the voxels that are there.

    Computed in double precision, one or two planes at a time, and rounded once; to integers to the nearest, halves to
    even.
    """
    shape = [-(-n // s) for n, s in zip(block.shape, step, strict=True)]
    mean = np.empty(shape, block.dtype)
    slow = max(block.ndim - 3, 0)
    ahead = (slice(None),) * slow
    for i in range(shape[slow]):
        planes = block[(*ahead, slice(i * step[slow], (i + 1) * step[slow]))].astype(np.float64)
        for axis, two in enumerate(step):
            if two == 2:
                planes = _halved(planes, axis)
        mean[(*ahead, slice(i, i + 1))] = np.rint(planes) if block.dtype.kind in "iu" else planes
    return mean


def _halved(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Means of pairs along an axis; one that is left over stays."""
    ahead = (slice(None),) * axis
    halved, second = values[(*ahead, slice(0, None, 2))].copy(), values[(*ahead, slice(1, None, 2))]
    pairs = halved[(*ahead, slice(second.shape[axis]))]
    pairs += second
    pairs *= 0.5
    return halved


@dataclass(frozen=True)
class Units:
    """The regions of whole units that an array of ``shape`` consists of, in C order; computed when asked for."""

    shape: tuple[int, ...]
    unit: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(-(-n // u) for n, u in zip(self.shape, self.unit, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, index: int) -> Region:
        position = np.unravel_index(range(len(self))[index], self.counts)
        starts = [int(i) * u for i, u in zip(position, self.unit, strict=True)]
        return tuple(slice(i, min(i + u, n)) for i, u, n in zip(starts, self.unit, self.shape, strict=True))

    def __iter__(self) -> Iterator[Region]:
        return map(self.__getitem__, range(len(self)))

    def joined(self, voxels: int) -> Units:
        """Larger units, each made of whole ones of these: as many as ``voxels`` hold, along the last axes first."""
        unit = list(self.unit)
        for axis in reversed(range(len(unit))):
            needed = -(-self.shape[axis] // unit[axis])
            taken = min(needed, max(1, voxels // math.prod(unit)))
            unit[axis] *= taken
            if taken < needed:
                break
        return Units(self.shape, tuple(unit))

    def check(self, region: Region) -> None:
        """Refuse a region that is not made of whole units: where two writers share one, the later undoes the other."""
        for part, n, u in zip(region, self.shape, self.unit, strict=True):
            start, stop, _ = part.indices(n)
            if start % u or (stop % u and stop != n):
                raise ValueError(
                    f"The region {_text(region)} of an array of shape {self.shape} is not made of whole units of "
                    f"{self.unit}; begin and end at multiples of them or at the end of the array."
                )


def _text(region: Region) -> str:
    return "[" + ", ".join(f"{part.start}:{part.stop}" for part in region) + "]"


@dataclass(frozen=True)
class PyramidTask:
    """One whole unit of a level above the first, to be made from the level before it."""

    level: int
    region: Region


@dataclass(frozen=True)
class PyramidTasks:
    """All that is to be made above the first level, level by level; those of one level do not depend on each other."""

    units: tuple[Units, ...]  # of the levels from the second on

    def __len__(self) -> int:
        return sum(map(len, self.units))

    def __getitem__(self, index: int) -> PyramidTask:
        rest = range(len(self))[index]
        for level, units in enumerate(self.units, 1):
            if rest < len(units):
                return PyramidTask(level, units[rest])
            rest -= len(units)
        raise AssertionError("range() refuses an index beyond the last task")

    def __iter__(self) -> Iterator[PyramidTask]:
        return (PyramidTask(level, region) for level, units in enumerate(self.units, 1) for region in units)
