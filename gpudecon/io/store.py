"""The OME-Zarr that is written: by many threads and processes at once, in whole units, with its pyramid."""

from __future__ import annotations

import hashlib
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gpudecon.errors import InputError
from gpudecon.io.durable import flush
from gpudecon.io.metadata import own_block
from gpudecon.io.ome_zarr import NGFF_VERSIONS, attributes, read_zarr
from gpudecon.io.pixels import fitted
from gpudecon.io.pyramid import BLOCK_VOXELS, Level, PyramidTask, PyramidTasks, Units, block_mean, levels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import zarr
    from numpy.typing import DTypeLike, NDArray

    from gpudecon.image import Image, Pixels, Region

CHUNK = (32, 256, 256)  # (z, y, x); 8 MiB of float32
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial")  # how Zarr names what it has not finished


class Store:
    """An OME-Zarr image with all its levels, open for writing.

    A **unit** is what one file holds: a shard where there are any, else a chunk.  Writers of different units do not
    disturb each other, in any number of threads and processes; two in one unit would silently undo each other's work,
    so `write` takes whole units only.  Each chunk exists once it is written, be it all zeros.  With ``durable``, what a
    method has written outlasts a loss of power from its return on.

    `create` makes it, `open` opens it, here or in another process; `write` fills the first level; the tasks of
    `pyramid_tasks` fill the others; `complete` says in the metadata what it is.
    """

    def __init__(self, path: Path, image: Image, found: Sequence[Level], ngff: str, *, durable: bool) -> None:
        import zarr

        self.path = path
        self.image = image  # its data are the first level, read lazily
        self.levels = tuple(found)
        self.ngff = ngff
        self._durable = durable
        self._group = zarr.open_group(path, mode="r+")
        self._arrays = [self._array(n) for n in range(len(self.levels))]
        self._units = tuple(Units(a.shape, tuple(a.shards or a.chunks)) for a in self._arrays)
        self._synced: set[Path] = set()

    def _array(self, level: int) -> zarr.Array[Any]:
        array: Any = self._group[str(level)]
        return array.with_config({"write_empty_chunks": True})  # type: ignore[no-any-return]

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        image: Image,
        *,
        dtype: DTypeLike | None = None,
        ngff: str = "0.5",
        chunk: Sequence[int] = CHUNK,
        shard: Sequence[int] | None = None,
        pyramid: bool = True,
        durable: bool = True,
    ) -> Self:
        """Make an empty store in the new folder ``path``.

        Parameters
        ----------
        image
            Describes what the store will hold; its pixels are not read.
        dtype
            Of the pixels; None for the image's.
        ngff
            Version of OME-Zarr, "0.5" or "0.4".
        chunk, shard
            Shapes (z, y, x) of the compressed pieces and of the files that hold many of them (0.5 only); z is ignored
            for images without.  Both are cut to what the image needs; above the first level a shard is half as long,
            so that a unit there is made from about one unit of the first.
        pyramid
            With levels of lower resolution; False for a store that is only an intermediate.
        """
        import zarr

        folder, kind = Path(path), np.dtype(image.dtype if dtype is None else dtype).newbyteorder("=")
        if ngff not in NGFF_VERSIONS:
            raise InputError(f"The version of OME-Zarr is given as {ngff!r}; use one of {', '.join(NGFF_VERSIONS)}.")
        if shard is not None and (ngff == "0.4" or any(s % c for s, c in zip(shard, chunk, strict=True))):
            raise InputError(
                f"Shards of {tuple(shard)} with chunks of {tuple(chunk)} were asked for in OME-Zarr {ngff}; "
                "they need version 0.5, and along each axis a whole number of chunks."
            )
        found = levels(image.shape, image.axes, image.voxel_um)[: None if pyramid else 1]
        said = attributes(image, found, ngff, _unknown(image), own_block(image, {}))  # errors show before the work
        group = zarr.create_group(folder, zarr_format=2 if ngff == "0.4" else 3)
        for n, level in enumerate(found):
            cut = _cut(level.shape, image.axes, chunk, shard, halved=n > 0)
            group.create_array(str(n), shape=level.shape, dtype=kind, fill_value=0, **cut, **_layout(image, ngff))
        group.attrs.update(said)
        store = cls.open(folder, durable=durable)
        store._sync(file for file in folder.rglob("*") if file.is_file())
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, durable: bool = True) -> Self:
        """Open what `create` made, complete or not."""
        import zarr

        folder = Path(path)
        image = read_zarr(folder)
        said: Any = zarr.open_group(folder, mode="r").attrs.asdict()
        ngff = "0.5" if "ome" in said else "0.4"
        datasets = said.get("ome", said)["multiscales"][0]["datasets"]
        scales = [np.array(each["coordinateTransformations"][0]["scale"]) for each in datasets]
        factors = [tuple(int(f) for f in np.rint(scale / scales[0])) for scale in scales]
        found: list[Level] = []
        for factor in factors:
            step = tuple(f // g for f, g in zip(factor, found[-1].factor if found else factor, strict=True))
            shape = tuple(-(-n // f) for n, f in zip(image.shape, factor, strict=True))
            found.append(Level(shape, step, factor))
        return cls(folder, image, found, ngff, durable=durable)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.image.dtype

    @property
    def write_unit(self) -> tuple[int, int, int]:
        """The unit of the first level along (z, y, x); 1 along z for an image without."""
        unit = dict(zip(self.image.axes, self._units[0].unit, strict=True))
        return unit.get("z", 1), unit["y"], unit["x"]

    def units(self, level: int = 0) -> Units:
        """All units of a level, as regions in the order of the image's axes."""
        return self._units[level]

    def write(self, region: Region, block: NDArray[Any], level: int = 0) -> None:
        """Put ``block`` at ``region``, made of whole units; axes of length 1 may be missing in the block."""
        self._units[level].check(region)
        self._arrays[level][region] = fitted(block, region, self.levels[level].shape, self.dtype)
        self._sync(self._files(level, region))

    def read(self, region: Region, level: int = 0) -> NDArray[Any]:
        """The pixels at ``region``, any region; where nothing was written, zeros."""
        return np.asarray(self._arrays[level][region])

    def checksum(self, region: Region) -> str:
        """`checksum` of the pixels at ``region`` of the first level, as they are read back."""
        return checksum(self.read(region))

    def pyramid_tasks(self) -> PyramidTasks:
        """What `reduce` has to do, level by level: a level can be made when the one before it is complete."""
        return PyramidTasks(self._units[1:])

    def reduce(self, task: PyramidTask) -> NDArray[Any]:
        """Make one unit of a level from the level before it; returns what was written."""
        above, step = self.levels[task.level - 1].shape, self.levels[task.level].step

        def mean(part: Region) -> NDArray[Any]:
            spans = zip(part, step, above, strict=True)
            return block_mean(
                self.read(tuple(slice(p.start * s, min(p.stop * s, n)) for p, s, n in spans), task.level - 1), step
            )

        return self._fill(task.region, mean, task.level)

    def copy(self, region: Region, pixels: Pixels) -> NDArray[Any]:
        """Write ``region``, made of whole units, of ``pixels`` of the image's shape; returns what was written."""
        return self._fill(region, lambda part: pixels[part])

    def _fill(self, region: Region, make: Callable[[Region], NDArray[Any]], level: int = 0) -> NDArray[Any]:
        """Write what ``make`` says of ``region``, asked for one row of chunks at a time: it may need more memory."""
        block = np.empty([part.stop - part.start for part in region], self.dtype)
        slow = block.ndim - len(self.image.spatial_axes)
        height = self._arrays[level].chunks[slow]
        first, end = region[slow].start, region[slow].stop
        for start in range(first, end, height):
            rows = slice(start, min(start + height, end))
            here = (slice(None),) * slow + (slice(rows.start - first, rows.stop - first),)
            block[here] = make((*region[:slow], rows, *region[slow + 1 :]))
        self.write(region, block, level)
        return block

    def complete(self, provenance: dict[str, Any], windows: Sequence[tuple[float, float]] | None = None) -> None:
        """Write the metadata: ``provenance``, and the lowest and highest value of each channel for viewers."""
        known = _unknown(self.image) if windows is None or not self.image.channels else windows
        said = attributes(self.image, self.levels, self.ngff, known, own_block(self.image, provenance))
        self._group.attrs.update(said)
        self._sync(self.path / name for name in ("zarr.json", ".zattrs") if (self.path / name).exists())

    def sweep(self) -> int:
        """Remove what killed writers have left half-written, and say how many files; while nobody else writes."""
        stray = [file for file in self.path.rglob("*.partial") if _PARTIAL.search(file.name)]
        for file in stray:
            file.unlink()
        return len(stray)

    def _files(self, level: int, region: Region) -> Iterator[Path]:
        """The files of the units in ``region``."""
        units = self._units[level]
        folder = self.path / str(level) / ("c" if self.ngff == "0.5" else "")
        spans = [
            range(part.indices(n)[0] // u, -(-part.indices(n)[1] // u))
            for part, n, u in zip(region, units.shape, units.unit, strict=True)
        ]
        for position in np.ndindex(*map(len, spans)):
            yield folder.joinpath(*(str(span[i]) for span, i in zip(spans, position, strict=True)))

    def _sync(self, files: Iterable[Path]) -> None:
        """Force ``files`` to the disk, with their entries in folders and those of the folders, up to the store's."""
        if not self._durable:
            return
        folders = set()
        for file in files:
            flush(file)
            folders.add(file.parent)
        new = folders - self._synced  # an entry of a folder is forced once, those of the files in it every time
        above = {parent for folder in new for parent in folder.parents if parent.is_relative_to(self.path.parent)}
        for folder in folders | above:
            flush(folder)
        self._synced |= folders


def write_store(path: Path, image: Image, ngff: str, provenance: dict[str, Any]) -> None:
    """Write ``image`` to a new store, a part at a time, with its pyramid and the range of each channel."""
    store = Store.create(path, image, ngff=ngff, durable=False)
    low, high = np.full(image.sizes["c"], np.inf), np.full(image.sizes["c"], -np.inf)
    c = image.axes.find("c")
    for region in store.units().joined(BLOCK_VOXELS):
        block = store.copy(region, image.data)
        span = slice(None) if c < 0 else region[c]
        others = tuple(axis for axis in range(block.ndim) if axis != c)
        low[span] = np.fmin(low[span], np.fmin.reduce(block, axis=others))
        high[span] = np.fmax(high[span], np.fmax.reduce(block, axis=others))
    for task in store.pyramid_tasks():
        store.reduce(task)
    store.complete(provenance, list(zip(low.tolist(), high.tolist(), strict=True)))


def whole_chunks(image: Image) -> Units:
    """Units in which an image that is in no store is read."""
    spatial = CHUNK[-len(image.spatial_axes) :]
    return Units(image.shape, (1,) * (len(image.shape) - len(spatial)) + spatial)


def checksum(block: NDArray[Any]) -> str:
    """BLAKE2b of the pixels in C order, 32 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(block).data, digest_size=16).hexdigest()


def _unknown(image: Image) -> list[tuple[float, float]]:
    return [(math.nan, math.nan)] * len(image.channels)


def _cut(
    shape: tuple[int, ...], axes: str, chunk: Sequence[int], shard: Sequence[int] | None, halved: bool
) -> dict[str, Any]:
    """Chunks and shards of one level, on its axes and no longer than it needs."""
    wanted = dict(zip("zyx", chunk, strict=True))
    chunks = tuple(min(wanted.get(a, 1), n) for a, n in zip(axes, shape, strict=True))
    if shard is None:
        return {"chunks": chunks}
    held = {a: max(1, s // c // (1 + halved)) for a, s, c in zip("zyx", shard, chunk, strict=True)}
    shards = tuple(c * min(held.get(a, 1), -(-n // c)) for a, c, n in zip(axes, chunks, shape, strict=True))
    return {"chunks": chunks, "shards": shards}


def _layout(image: Image, ngff: str) -> dict[str, Any]:
    from zarr.codecs import BloscCodec

    if ngff == "0.4":
        return {
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
            "compressors": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1},
        }
    return {
        "dimension_names": tuple(image.axes),
        "compressors": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
    }
