"""Files in and out: `read` takes what a microscope wrote, `write` chooses the format by the path."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from gpudecon.errors import InputError, RunError
from gpudecon.io.metadata import check_describable
from gpudecon.io.ome_tiff import export
from gpudecon.io.ome_xml import PIXEL_TYPES
from gpudecon.io.ome_zarr import read_zarr
from gpudecon.io.pixels import Converted
from gpudecon.io.remote import check_readable, is_address
from gpudecon.io.series import is_pattern, read_series
from gpudecon.io.staging import Staging
from gpudecon.io.staging import check_output as check_output
from gpudecon.io.store import whole_chunks, write_store
from gpudecon.io.tiff import read_tiff

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from gpudecon.image import Image

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
        is_tiff = urlsplit(name).path.lower().endswith(TIFF_SUFFIXES)
        image = read_tiff(name, axes) if is_tiff else read_zarr(name, axes)
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


def write(
    path: str | os.PathLike[str],
    image: Image,
    *,
    dtype: DTypeLike | None = None,
    overwrite: bool = False,
    ngff: str = "0.5",
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write an image, a part at a time; it appears under its name when it is complete.

    Parameters
    ----------
    path
        ``.ome.zarr`` or ``.zarr`` for OME-Zarr, ``.ome.tif``, ``.tif`` (or ``tiff``) for OME-TIFF.
    image
        What is written; ``data`` may be lazy.
    dtype
        Type of the pixels in the file; None keeps theirs.  Values that do not fit into an integer type are refused.
    overwrite
        Replace an existing output; it stays untouched until the new one is complete.
    ngff
        Version of OME-Zarr: "0.5", or "0.4" for older readers.
    provenance
        The record in the file; None keeps what the image came with.
    """
    target, kind = Path(path), np.dtype(image.dtype if dtype is None else dtype).newbyteorder("=")
    output_format = check_output(target, overwrite)
    if kind.name not in PIXEL_TYPES:
        raise InputError(f"Pixels of type {kind} cannot be written; use one of {', '.join(PIXEL_TYPES)}.")
    check_describable(image)
    record = image.provenance if provenance is None else provenance
    converted = replace(image, data=Converted(image.data, kind))
    try:
        staging = Staging(target, overwrite)
    except OSError as error:
        raise InputError(f"The output {target} cannot be written: {error.strerror}.") from error
    try:
        with staging:
            if output_format == "OME-TIFF":
                export(staging.path, converted, whole_chunks(converted), record)
            else:
                write_store(staging.path, converted, ngff, record)
            staging.commit()
    except OSError as error:
        raise RunError(f"Writing {target} failed: {error.strerror or error}; nothing was left behind.") from error
