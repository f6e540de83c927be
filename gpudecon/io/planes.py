"""The pixels of a TIFF series, a few planes at a time: what is not asked for is neither read nor held."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray
    from tifffile import TiffFile, TiffPageSeries

DECODED_BYTES = 2**25  # of strips or tiles at the same time


class Planes:
    """The array ``source`` of a TIFF file, read as its last two dimensions lie in the file.

    Pixels that are ``stored`` as they are (None: they are not) are read from their place, row by row.  Otherwise strips
    or tiles are decoded, no more than `DECODED_BYTES` at once: a strip may be a whole plane.  Any number of threads
    may read.
    """

    def __init__(self, source: zarr.Array[Any], stored: Stored | None) -> None:
        self._source = source
        self._stored = stored
        self.shape: tuple[int, ...] = source.shape
        self.dtype: np.dtype[Any] = source.dtype
        self._at_once = max(1, DECODED_BYTES // (math.prod(source.chunks) * source.dtype.itemsize))

    def __getitem__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        parts = [part if isinstance(part, slice) else slice(part, part + 1) for part in index]
        *leading, rows, columns = (range(*part.indices(n)) for part, n in zip(parts, self.shape, strict=True))
        block = np.empty([*map(len, leading), len(rows), len(columns)], self.dtype)
        if self._stored is not None:
            for here in np.ndindex(*map(len, leading)):
                plane = [span[i] for span, i in zip(leading, here, strict=True)]
                number = int(np.ravel_multi_index(plane, self.shape[:-2])) if plane else 0
                block[here] = self._stored.rows(number, rows)[:, columns.start : columns.stop]
        else:
            *outer, planes = leading or [range(1)]
            for here in np.ndindex(*map(len, outer)):
                at = [span[i] for span, i in zip(outer, here, strict=True)]
                for start in range(0, len(planes), self._at_once):
                    some = slice(start, start + self._at_once)
                    within = [slice(planes[some].start, planes[some].stop)] if leading else []
                    target = (*here, some) if leading else ...
                    block[target] = self._source[(*at, *within, *parts[-2:])]
        return block[tuple(slice(None) if isinstance(part, slice) else 0 for part in index)]


@dataclass(frozen=True)
class Stored:
    """Planes of ``shape`` that lie in ``file`` as they are in memory, each beginning at its one of ``offsets``."""

    file: Any  # open, unbuffered
    offsets: NDArray[np.int64]
    shape: tuple[int, int]
    dtype: np.dtype[Any]  # with the file's order of bytes

    @classmethod
    def of(cls, tif: TiffFile, series: TiffPageSeries, shape: tuple[int, ...], path: Path) -> Stored | None:
        """Those of a series of this shape, or None: compressed, in tiles, packed, or in several files."""
        page = series.keyframe
        if series.is_multifile or not page.is_final:
            return None
        dtype = np.dtype(page.dtype).newbyteorder(tif.byteorder)
        rows, columns = shape[-2:]
        first = series.dataoffset
        if first is not None:
            offsets = first + np.arange(math.prod(shape[:-2]), dtype=np.int64) * (rows * columns * dtype.itemsize)
        elif page.shape == (rows, columns):
            offsets = np.array([each.dataoffsets[0] for each in series if each is not None], np.int64)
        else:
            return None
        return cls(path.open("rb", buffering=0), offsets, (rows, columns), dtype)

    def rows(self, plane: int, rows: range) -> NDArray[Any]:
        """Whole rows of a plane."""
        size = self.shape[1] * self.dtype.itemsize
        place, wanted = int(self.offsets[plane]) + rows.start * size, len(rows) * size
        content = os.pread(self.file.fileno(), wanted, place)
        while len(content) < wanted:  # one call gives 2 GiB at most
            more = os.pread(self.file.fileno(), wanted - len(content), place + len(content))
            if not more:
                raise EOFError("the file ends before its pixels do")
            content += more
        return np.frombuffer(content, self.dtype).reshape(len(rows), self.shape[1])
