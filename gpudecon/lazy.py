"""Lazy restoration of Dask arrays, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import InputError


def is_lazy(image: Any) -> bool:
    """Whether it is a Dask array, without importing Dask."""
    return hasattr(image, "__dask_graph__") and hasattr(image, "numblocks")


def check_lazy(image: Any) -> None:
    """Refuse what is no stack and no plane, or is not known to be one."""
    if image.ndim not in (2, 3) or any(np.isnan(image.shape)):
        raise InputError(f"The Dask array has shape {image.shape}; give one (z, y, x) or (y, x) of known size.")


def blockwise(image: Any, halo: tuple[int, ...], restore: Callable[[Array], Array]) -> Any:
    """A Dask array, float32, of the image's shape and chunks: each block restored within ``halo`` voxels more.

    One task restores a block; what it takes from its neighbours are slices of the input, which Dask computes once.
    """
    import dask.array as da
    from dask.delayed import delayed

    restored_part, shared = delayed(_restored_part), delayed(restore)
    blocks = np.empty(image.numblocks, object)
    ends = [np.cumsum((0, *sizes)) for sizes in image.chunks]
    for index in np.ndindex(*image.numblocks):
        read, core = [], []
        for end, i, margin, n in zip(ends, index, halo, image.shape, strict=True):
            start, stop = max(int(end[i]) - margin, 0), min(int(end[i + 1]) + margin, n)
            read.append(slice(start, stop))
            core.append(slice(int(end[i]) - start, int(end[i + 1]) - start))
        part = restored_part(shared, image[tuple(read)], tuple(core))
        blocks[index] = da.from_delayed(part, tuple(c.stop - c.start for c in core), np.float32)
    return da.block(blocks.tolist())


def _restored_part(restore: Callable[[Array], Array], part: Array, core: tuple[slice, ...]) -> Array:
    return restore(part)[core]
