"""Half tiles, for a device that has less memory than was planned with: the same core from two smaller windows."""

from __future__ import annotations

from dataclasses import dataclass

from gpudecon.engine.tiling import Box, Shape, Tile, Tiling


@dataclass(frozen=True)
class Piece:
    """A part of a tile: ``window`` of what was read is restored, ``crop`` of the result is ``core`` of the tile's."""

    window: Box
    crop: Box
    core: Box


@dataclass(frozen=True)
class Halving:
    """Every tile of a tiling in two, along ``axis``; all windows have the shape ``window_shape``.

    The halo is kept, so that the result does not change beyond what another choice of tiles would have changed.
    """

    tiling: Tiling
    axis: int

    @classmethod
    def of(cls, tiling: Tiling) -> Halving | None:
        """Along the axis that leaves the smallest window; None where no axis makes it smaller."""
        found = [cls(tiling, axis) for axis in (2, 1, 0)]
        shrunk = [half.window_shape[half.axis] / tiling.read_shape[half.axis] for half in found]
        return found[shrunk.index(min(shrunk))] if min(shrunk) < 1 else None

    @property
    def half(self) -> int:
        """Length of the first part of a core along the axis."""
        return -(-min(self.tiling.core_shape[self.axis], self.tiling.stack[self.axis]) // 2)

    @property
    def window_shape(self) -> Shape:
        lengths = list(self.tiling.read_shape)
        lengths[self.axis] = min(lengths[self.axis], self.half + 2 * self.tiling.halo[self.axis])
        z, y, x = lengths
        return z, y, x

    def pieces(self, tile: Tile) -> list[Piece]:
        """The two parts; a core at the stack's end may be so short that one holds it all."""
        axis, length = self.axis, self.window_shape[self.axis]
        start, stop = tile.crop[axis].start, tile.crop[axis].stop
        pieces = []
        for low in range(start, stop, self.half):
            high = min(low + self.half, stop)
            first = min(max(low - self.tiling.halo[axis], 0), self.tiling.read_shape[axis] - length)
            window = _along(axis, slice(first, first + length), _whole(self.tiling.read_shape))
            crop = _along(axis, slice(low - first, high - first), tile.crop)
            core = _along(axis, slice(low - start, high - start), _whole(_lengths(tile.crop)))
            pieces.append(Piece(window, crop, core))
        return pieces


def _along(axis: int, part: slice, box: Box) -> Box:
    """The box with another part along one axis."""
    z, y, x = (part if a == axis else side for a, side in enumerate(box))
    return z, y, x


def _whole(shape: Shape) -> Box:
    z, y, x = (slice(0, n) for n in shape)
    return z, y, x


def _lengths(box: Box) -> Shape:
    z, y, x = (side.stop - side.start for side in box)
    return z, y, x
