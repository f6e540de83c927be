"""Files in and out: `read` takes what a microscope wrote, `open_sink` and `write` choose the format by the path."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpudecon.errors import InputError
from gpudecon.io.metadata import check_describable
from gpudecon.io.ome_xml import PIXEL_TYPES
from gpudecon.io.ome_zarr import read_zarr
from gpudecon.io.remote import check_readable, is_address
from gpudecon.io.series import is_pattern, read_series
from gpudecon.io.sinks import TiffSink, ZarrSink
from gpudecon.io.staging import Sink as Sink
from gpudecon.io.staging import Staging
from gpudecon.io.staging import check_output as check_output
from gpudecon.io.tiff import read_tiff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

    from gpudecon.image import Image, Region

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk")


def read(path: str | os.PathLike[str], axes: str | None = None) -> Image:
    """The image in a file, its pixels read lazily: OME-Zarr, OME-TIFF, ImageJ, LSM, STK and plain TIFF.

    Parameters
    ----------
    path
        A TIFF file, an OME-Zarr folder, the address of either (https://, s3://, with the extra ``remote``), or the
        pattern of a series of files, "scan/t{t}/{c}_z{z}.tif".  Of several images in one file the first is taken, with
        a warning.
    axes
        The letters of "tczyx" in the order of the file's dimensions, where the file does not say or is wrong; with or
        without the dimensions of length 1.  Unasked, the one unknown axis of a plain file of three dimensions is z.

    Returns
    -------
    Image
        Axes in the order "tczyx"; those of length 1 are left out where the file is a TIFF of another program.
        ``data`` reads the regions that it is indexed with; ``np.asarray(image.data)`` reads all.  ``voxel_um`` (um)
        and ``channels`` (nm) are as far as the file knows them.
    """
    name = os.fspath(path)
    if is_address(name):
        check_readable(name)
        image = read_tiff(name, axes) if name.lower().endswith(TIFF_SUFFIXES) else read_zarr(name, axes)
    elif is_pattern(name):
        image = read_series(name, axes)
    elif not Path(name).exists():
        raise InputError(f"{name} does not exist; check the path.")
    else:
        image = read_zarr(Path(name), axes) if Path(name).is_dir() else read_tiff(Path(name), axes)
    return image if image.name else replace(image, name=re.sub(r"(\.ome)?\.[^.]+$", "", Path(name).name))


def located(path: str | os.PathLike[str]) -> str:
    """``path`` as it can be given to `read` in any working folder."""
    name = os.fspath(path)
    return name if is_address(name) else os.path.abspath(name)  # noqa: PTH100 -- resolve() would look for the braces


def open_sink(
    path: str | os.PathLike[str], image: Image, *, dtype: DTypeLike, overwrite: bool = False, ngff: str = "0.5"
) -> Sink:
    """Open an output for writing region by region; it appears under its name only when it is finalized.

    Parameters
    ----------
    path
        ``.ome.zarr`` or ``.zarr`` for OME-Zarr, ``.ome.tif``, ``.tif`` (or ``tiff``) for OME-TIFF.
    image
        Describes the output; its pixels are not read, so ``data`` may be a `gpudecon.image.Blank`.
    dtype
        Type of the pixels in the file.
    overwrite
        Replace an existing output; it stays untouched until the new one is finalized.
    ngff
        Version of OME-Zarr: "0.5", or "0.4" for older readers.
    """
    target, kind = Path(path), np.dtype(dtype).newbyteorder("=")
    output_format = check_output(target, overwrite)
    if kind.name not in PIXEL_TYPES:
        raise InputError(f"Pixels of type {kind} cannot be written; use one of {', '.join(PIXEL_TYPES)}.")
    check_describable(image)
    try:
        staging = Staging(target, overwrite)
    except OSError as error:
        raise InputError(f"The output {target} cannot be written: {error.strerror}.") from error
    try:
        return TiffSink(staging, image, kind) if output_format == "OME-TIFF" else ZarrSink(staging, image, kind, ngff)
    except BaseException as error:
        staging.discard()
        if isinstance(error, OSError):
            raise InputError(f"The output {target} cannot be written: {error.strerror}.") from error
        raise


def write(
    path: str | os.PathLike[str],
    image: Image,
    *,
    dtype: DTypeLike | None = None,
    overwrite: bool = False,
    ngff: str = "0.5",
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write a whole image, one stack (z, y, x) at a time; the arguments are those of `open_sink`.

    ``dtype`` None keeps the type of the pixels; values that do not fit into an integer type are refused.
    ``provenance`` None keeps what the image came with.
    """
    kind = image.dtype if dtype is None else np.dtype(dtype)
    with open_sink(path, image, dtype=kind, overwrite=overwrite, ngff=ngff) as sink:
        for region in _stacks(image):
            sink.write(region, _converted(np.asarray(image.data[region]), kind))
        sink.finalize(image.provenance if provenance is None else provenance)


def _stacks(image: Image) -> Iterator[Region]:
    """Regions that hold one time point and channel each."""
    leading = tuple(n for a, n in zip(image.axes, image.shape, strict=True) if a in "tc")
    for index in np.ndindex(leading):
        yield tuple(slice(i, i + 1) for i in index) + (slice(None),) * len(image.spatial_axes)


def _converted(block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind in "iu" and not np.can_cast(block.dtype, dtype, "safe"):
        block = np.rint(block)
        low, high, limits = block.min(), block.max(), np.iinfo(dtype)
        if not (low >= limits.min and high <= limits.max):  # also where NaN made both of them NaN
            raise InputError(f"Values from {low} to {high} do not fit into {dtype}; scale them or write float32.")
    return block.astype(dtype, copy=False)
