"""Chunks that a broken copy or a full disk has left shorter than they were written."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import zarr
from zarr.abc.store import RangeByteRequest
from zarr.codecs import ShardingCodec
from zarr.storage import WrapperStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

HEADER = 16  # bytes of a Blosc buffer's header; the last four are the length of the whole buffer
METADATA = ("zarr.json", ".zarray", ".zattrs")


def refusing_short_chunks(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array, from which a chunk that is too short cannot be read.

    Most codecs notice.  But Blosc takes the length that its header says and decodes what lies behind the bytes it was
    given, which may look like an image, and zarr takes an empty file for a shard of zeros.
    """
    return zarr.open_array(_Checked(array.store, _length_of(array)), path=array.path, mode="r")


class _Checked(WrapperStore["Store"]):
    """Answers as ``store``; ValueError where a file, or the part of one that is asked for, is cut off.

    ``length`` tells from what there is of a file how long it must be at least.
    """

    def __init__(self, store: Store, length: Callable[[Buffer], int]) -> None:
        super().__init__(store)
        self._length = length

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._length)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        return self._checked(key, await super().get(key, prototype, byte_range), byte_range)

    # newer versions of zarr read by these, too

    def get_sync(self, key: str, *, byte_range: ByteRequest | None = None, **options: Any) -> Buffer | None:
        store: Any = self._store
        return self._checked(key, store.get_sync(key, byte_range=byte_range, **options), byte_range)

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], **options: Any
    ) -> AsyncIterator[list[tuple[int, Buffer | None]]]:
        store: Any = self._store
        async for group in store.get_ranges(key, byte_ranges, **options):
            yield [(i, self._checked(key, found, byte_ranges[i])) for i, found in group]

    def get_ranges_sync(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], **options: Any
    ) -> Iterator[tuple[int, Buffer | None]]:
        store: Any = self._store
        for i, found in store.get_ranges_sync(key, byte_ranges, **options):
            yield i, self._checked(key, found, byte_ranges[i])

    def _checked(self, key: str, found: Buffer | None, byte_range: ByteRequest | None) -> Buffer | None:
        if found is None or key.rpartition("/")[2] in METADATA:
            return found
        wanted = 1
        if isinstance(byte_range, RangeByteRequest):  # of a chunk in a shard
            wanted = byte_range.end - byte_range.start
        elif byte_range is None:
            wanted = max(wanted, self._length(found))
        if len(found) < wanted:
            raise ValueError(f"{key} is cut off: {len(found)} of {wanted} bytes are there")
        return found


def _length_of(array: zarr.Array[Any]) -> Callable[[Buffer], int]:
    """What tells the least length of the files of ``array``."""
    first = getattr(array.metadata, "codecs", (None,))[0]
    if isinstance(first, ShardingCodec):
        described: dict[str, Any] = first.to_dict()  # the attribute is a word or a member of an enumeration by version
        if described["configuration"]["index_location"] == "end":
            return lambda _: 1  # a file that is cut off has no index, which has a checksum
        return functools.partial(_shard, chunks=math.prod(array.shards or ()) // math.prod(array.chunks))
    outermost = array.compressors[-1:]
    return _blosc if any("blosc" in type(codec).__name__.lower() for codec in outermost) else lambda _: 1


def _blosc(found: Buffer) -> int:
    return max(HEADER, int.from_bytes(found[HEADER - 4 : HEADER].to_bytes(), "little"))


def _shard(found: Buffer, chunks: int) -> int:
    """By an index at the start: offset and length of each chunk, both 2^64 - 1 for one that is not there."""
    index = found[: 16 * chunks].to_bytes()
    if len(index) < 16 * chunks:
        return 16 * chunks
    places = np.frombuffer(index, "<u8").reshape(-1, 2)
    ends = places[places[:, 0] != np.iinfo(np.uint64).max].sum(axis=1)
    return int(ends.max(initial=0))
