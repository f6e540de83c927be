"""OME-TIFF out: regions in any order, as from a finished `Store`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpudecon.errors import StoppedError
from gpudecon.image import AXES
from gpudecon.io import ome_xml
from gpudecon.io.durable import flush
from gpudecon.io.metadata import own_block
from gpudecon.io.pixels import fitted
from gpudecon.io.pyramid import BLOCK_VOXELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gpudecon.image import Image, Region
    from gpudecon.io.pyramid import Units

CLASSIC_BYTES = 3 * 2**30  # a TIFF that is not a BigTIFF ends at 4 GiB, metadata included


class OmeTiff:
    """An OME-TIFF of planes, t slowest, then c, then z, without compression; BigTIFF from 3 GiB on.

    Without compression every voxel has its place before it is known, so regions come as they come, nothing is held
    back to be put in order, and readers can map the file.  Memory is what one `write` takes.
    """

    def __init__(self, path: str | os.PathLike[str], image: Image) -> None:
        """Make the file, of the size that it will have.  ``image`` describes it; its pixels are not read."""
        import tifffile

        self._path = Path(path)
        self._image = image
        self._dtype = image.dtype.newbyteorder("=")
        self._shape = tuple(image.sizes[a] for a in AXES)
        pixel_bytes, directory_bytes = math.prod(self._shape) * self._dtype.itemsize, 1024 * math.prod(self._shape[:3])
        mapped = tifffile.memmap(
            self._path,
            shape=self._shape,
            dtype=self._dtype,
            bigtiff=pixel_bytes + directory_bytes > CLASSIC_BYTES,
            photometric="minisblack",
            metadata=None,  # OME-XML is ours, see `complete`
            description=ome_xml.compose(image, self._dtype, {}),
            software="gpudecon",
        )
        self._offset = mapped.offset
        # Where the disk is full, a write into a map would kill the process; this raises an OSError instead.
        with self._path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, self._path.stat().st_size)

    def write(self, region: Region, block: NDArray[Any]) -> None:
        """Put ``block`` at ``region``, one slice per axis of the image."""
        block = fitted(block, region, self._image.shape, self._dtype)
        parts = dict(zip(self._image.axes, region, strict=True))
        # A map of its own for each block: pages of one that stayed open would count as memory of this process.
        mapped = np.memmap(self._path, self._dtype, "r+", self._offset, self._shape)
        mapped[tuple(parts.get(a, 0) for a in AXES)] = block

    def complete(self, provenance: dict[str, Any]) -> None:
        """Write the metadata with ``provenance``; from its return on the file outlasts a loss of power."""
        import tifffile

        tifffile.tiffcomment(self._path, ome_xml.compose(self._image, self._dtype, own_block(self._image, provenance)))
        flush(self._path)


def export(
    path: str | os.PathLike[str],
    image: Image,
    units: Units,
    provenance: dict[str, Any],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Write ``image``, such as that of a `Store` with these ``units``, to a new OME-TIFF, some units at a time.

    Each unit is read once, as many side by side as `BLOCK_VOXELS` hold.  An image of a store with `Scaled` pixels
    is exported in uint16.  Once ``stop`` says True, `StoppedError` is raised, and the file is of no use.
    """
    file = OmeTiff(path, image)
    for region in units.joined(BLOCK_VOXELS):
        if stop():
            raise StoppedError("Stopped as asked.")
        file.write(region, image.data[region])
    file.complete(provenance)
