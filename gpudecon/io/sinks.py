"""Outputs that one program writes from beginning to end: a `Store` or an `OmeTiff`, staged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpudecon.io.ome_tiff import OmeTiff
from gpudecon.io.staging import StagedSink, Staging
from gpudecon.io.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpudecon.image import Image, Region


class TiffSink(StagedSink):
    """OME-TIFF."""

    def __init__(self, staging: Staging, image: Image, dtype: np.dtype[Any]) -> None:
        super().__init__(staging, image, dtype)
        self._file = OmeTiff(staging.path, image, dtype=dtype)

    def _store(self, region: Region, block: NDArray[Any]) -> None:
        self._file.write(region, block)

    def _complete(self, block: dict[str, Any]) -> None:
        self._file.complete(block)


class ZarrSink(StagedSink):
    """OME-Zarr; regions are whole chunks, such as whole stacks, and the pyramid is made at the end."""

    def __init__(self, staging: Staging, image: Image, dtype: np.dtype[Any], ngff: str) -> None:
        super().__init__(staging, image, dtype)
        self._low = np.full(image.sizes["c"], np.inf)
        self._high = np.full(image.sizes["c"], -np.inf)
        self._file = Store.create(staging.path, image, dtype=dtype, ngff=ngff, durable=False)

    def _store(self, region: Region, block: NDArray[Any]) -> None:
        self._file.write(region, block)
        if self._image.channels and block.size:
            self._widen_windows(region, block)

    def _widen_windows(self, region: Region, block: NDArray[Any]) -> None:
        c = self._image.axes.find("c")
        by_channel, span = (block[np.newaxis], slice(None)) if c < 0 else (np.moveaxis(block, c, 0), region[c])
        others = tuple(range(1, by_channel.ndim))
        self._low[span] = np.fmin(self._low[span], np.fmin.reduce(by_channel, axis=others))
        self._high[span] = np.fmax(self._high[span], np.fmax.reduce(by_channel, axis=others))

    def _complete(self, block: dict[str, Any]) -> None:
        for task in self._file.pyramid_tasks():
            self._file.reduce(task)
        windows = list(zip(self._low.tolist(), self._high.tolist(), strict=True))
        self._file.complete(block, windows)
