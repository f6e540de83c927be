"""TIFF in: OME-TIFF, ImageJ, LSM, STK and plain files."""

from __future__ import annotations

import errno
import logging
import math
import struct
import warnings
import weakref
from contextlib import ExitStack, contextmanager
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

import numpy as np

from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.image import Channel, Image
from gpudecon.io import ome_xml
from gpudecon.io.metadata import Metadata, length, seconds
from gpudecon.io.pixels import FilePixels, canonical_axes, check_sample_type
from gpudecon.io.planes import Planes, Stored
from gpudecon.io.remote import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tifffile import TiffFile, TiffPageSeries

DESCRIBING_TAGS = (270, 34412, 50838, 50839)  # ImageDescription, of LSM, of ImageJ: lengths and metadata


def read_tiff(path: Path | str, axes: str | None = None) -> Image:
    """The first series of a TIFF file, or of one at an address, at full resolution, read lazily.

    ``axes`` replaces what the file says about its axes.  The file stays open as long as the image's pixels live.
    """
    from tifffile import TiffFile

    with _log_withheld(), ExitStack() as cleanup:
        try:
            file = cleanup.enter_context(open_file(path)) if isinstance(path, str) else path
            tif = cleanup.enter_context(TiffFile(file))
            image = _first_image(tif, path, axes, cleanup)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # damaged files make tifffile raise all kinds
            if _is_not_to_be_had(error):
                raise InputError(
                    f"{path} cannot be read ({type(error).__name__}: {error}); see whether it is there and may be "
                    "read, and try again."
                ) from error
            raise InputError(
                f"{path} cannot be read as an image ({error}); gpudecon reads OME-Zarr and TIFF (OME, ImageJ, LSM, "
                "plain): get a fresh copy of the file or export it to OME-TIFF."
            ) from error
        weakref.finalize(image.data, cleanup.pop_all().close)
    others = sum(not series.keyframe.is_reduced for series in tif.series[1:])  # without thumbnails
    if others:
        warnings.warn(
            f"{path} holds {others + 1} images; the first is used, the other {others} are left.",
            GpudeconWarning,
            stacklevel=3,
        )
    return image


def _is_not_to_be_had(error: Exception) -> bool:
    """Whether a disk, a network or permissions have failed; a damaged file may ask for impossible places (EINVAL)."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def files_of(path: Path) -> tuple[Path, ...]:
    """Itself, and of an OME-TIFF in several files all others in which its first series has pages."""
    from tifffile import TiffFile

    if path.is_dir():
        return (path,)
    with _log_withheld(), TiffFile(path) as tif:
        series = _first_series(tif)[0]
        if not series.is_multifile:
            return (path,)
        return (path, *sorted({Path(page.parent.filehandle.path) for page in series if page is not None}))


@contextmanager
def _log_withheld() -> Iterator[None]:
    """Hold back what tifffile logs, and drop it on an error, which says it in one sentence."""
    logger = logging.getLogger("tifffile")
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        held.append(record)
        return False

    logger.addFilter(hold)
    try:
        yield
    finally:
        logger.removeFilter(hold)
    for record in held:
        logger.handle(record)


def _first_image(tif: TiffFile, path: Path | str, axes: str | None, cleanup: ExitStack) -> Image:
    import zarr
    from tifffile import PHOTOMETRIC

    _check_described_here(tif, path)
    series, file_axes, shape, keep_all = _first_series(tif)
    _check_complete(tif, series, path)
    check_sample_type(series.dtype, path)
    # ImageJ and OME keep grey values and use the palette for display; elsewhere the values are numbers of colours
    if series.keyframe.photometric == PHOTOMETRIC.PALETTE and series.kind not in ("imagej", "ome", "lsm"):
        raise InputError(f"{path} is a palette image: its values are numbers of colours; export the grey values.")
    metadata = _metadata(tif, series, path)
    letters, dims = canonical_axes(
        file_axes.lower(),
        shape,
        given=axes,
        kept="yx" + str(metadata.block.get("axes", "")),
        path=path,
    )
    source = zarr.open_array(series.aszarr(level=0, **keep_all), mode="r")
    stored = None if isinstance(path, str) else Stored.of(tif, series, source.shape, path)
    if stored is not None:
        cleanup.callback(stored.file.close)
    return metadata.image(FilePixels(Planes(source, stored), dims, path), letters)


def _first_series(tif: TiffFile) -> tuple[TiffPageSeries, str, tuple[int, ...], dict[str, Any]]:
    """The first series, its axes and shape with those of length 1, and what `aszarr` must be told to keep these."""
    if callable(tif.series):  # tifffile from 2026.5.2 on
        series = tif.series(squeeze=False)[0]
        return series, series.axes, series.shape, {}
    series = tif.series[0]
    return series, series.get_axes(squeeze=False), series.get_shape(squeeze=False), {"squeeze": False}


def _check_described_here(tif: TiffFile, path: Path | str) -> None:
    """Refuse a file of an OME-TIFF in several that is not the one which says what is where."""
    if not tif.is_ome or "BinaryOnly" not in (tif.ome_metadata or ""):
        return
    described = ome_xml.described_in(tif.ome_metadata or "")
    if described is not None:
        is_tiff = described.lower().endswith((".tif", ".tiff", ".btf"))
        raise InputError(
            f"{path} holds some pixels of an image that {described} describes; "
            + ("give that file." if is_tiff else "export the image as one OME-TIFF, such as by Fiji from that file.")
        )


def _check_complete(tif: TiffFile, series: TiffPageSeries, path: Path | str) -> None:
    """Refuse a file that lacks pages or pixels: tifffile would read them as zeros, or leave them out."""
    damaged = InputError(f"{path} is truncated or damaged: some of its pixels are not there; get a fresh copy of it.")
    link = tif.pages.next_page_offset
    if link is not None:
        tif.filehandle.seek(link)
        if tif.filehandle.read(tif.tiff.offsetsize) != bytes(tif.tiff.offsetsize):
            raise damaged  # the chain of pages leads out of the file
    if not _is_described(tif):
        raise damaged
    if series.kind in ("uniform", "generic") and (tif.is_ome or tif.is_imagej or tif.is_shaped):
        raise damaged  # tifffile fell back to reading bare pages, for they do not fit the file's description of them
    if series.dataoffset is not None and not series.is_multifile:
        nbytes = math.prod(series.shape) * series.dtype.itemsize
        if series.dataoffset + nbytes > tif.filehandle.size:
            raise damaged
        return
    for page in series:
        if page is None:
            raise damaged
        if max(map(add, page.dataoffsets, page.databytecounts), default=0) > page.parent.filehandle.size:
            raise damaged


def _is_described(tif: TiffFile) -> bool:
    """Whether the tags of the first page that describe the image lie inside the file.

    They often stand at its very end, and tifffile leaves out what it cannot read: the planes would look bare.
    """
    page, layout = tif.pages.first, tif.tiff
    tif.filehandle.seek(page.offset)
    (count,) = struct.unpack(layout.tagnoformat, tif.filehandle.read(layout.tagnosize))
    entries = tif.filehandle.read(count * layout.tagsize)
    for start in range(0, len(entries), layout.tagsize):
        (code,) = struct.unpack_from(f"{tif.byteorder}H", entries, start)
        if code in DESCRIBING_TAGS:
            tag = page.tags.get(code)
            if tag is None or tag.valueoffset + tag.valuebytecount > tif.filehandle.size:
                return False
    return True


def _metadata(tif: TiffFile, series: TiffPageSeries, path: Path | str) -> Metadata:
    """What the file says about its first image.  The resolution of a plain TIFF is one of print, not of an object."""
    if series.kind == "ome" and tif.ome_metadata:
        try:
            return ome_xml.parse(tif.ome_metadata)
        except ParseError as error:
            raise InputError(f"The OME-XML in {path} is not well-formed ({error}); export the image again.") from error
    if series.kind == "imagej":
        return _imagej_metadata(tif, series)
    if series.kind == "lsm":
        return _lsm_metadata(tif)
    if series.kind == "stk":
        return _stk_metadata(tif)
    return Metadata()


def _imagej_metadata(tif: TiffFile, series: TiffPageSeries) -> Metadata:
    """Size of voxels, names of channels and time step as ImageJ writes them into the first page."""
    said = tif.imagej_metadata or {}
    unit = str(said.get("unit", "")).replace("\\u00B5", "µ")  # ImageJ escapes what is not ASCII

    def pixel_um(axis: str) -> float | None:
        pixels, units = tif.pages.first.tags.valueof(f"{axis.upper()}Resolution", (0, 1))
        return length(units / pixels, said.get(f"{axis}unit", unit)) if pixels else None

    labels = said.get("Labels") or ()
    sizes = dict(zip(series.axes, series.shape, strict=True))
    named = isinstance(labels, list) and len(labels) == sizes.get("C")
    return Metadata(
        size_um={
            "z": length(abs(float(said.get("spacing", 0))), said.get("zunit", unit)),
            "y": pixel_um("y"),
            "x": pixel_um("x"),
        },
        channels=tuple(Channel(str(label)) for label in labels) if named else (),
        time_step_s=seconds(said.get("finterval"), said.get("tunit", "s")),
    )


def _lsm_metadata(tif: TiffFile) -> Metadata:
    """Size of voxels, channels and time step as Zeiss writes them, in metres and seconds."""
    said = tif.lsm_metadata or {}
    shown = said.get("ChannelColors") or {}
    named = zip(shown.get("ColorNames", ()), shown.get("Colors", ()), strict=False)
    return Metadata(
        size_um={a: length(said.get(f"VoxelSize{a.upper()}"), "m") for a in "zyx"},
        channels=tuple(Channel(name, color=bytes(rgb[:3]).hex().upper()) for name, rgb in named),
        time_step_s=seconds(said.get("TimeIntervall"), "s"),  # tifffile spells it as the format does
    )


def _stk_metadata(tif: TiffFile) -> Metadata:
    """Size of voxels as MetaMorph writes it: of pixels in a unit if they are calibrated, and steps along z in um."""
    said = tif.stk_metadata or {}
    unit = said.get("CalibrationUnits") if said.get("SpatialCalibration") else None
    steps = np.abs(np.atleast_1d(said.get("ZDistance", 0.0)))
    return Metadata(
        size_um={
            "z": length(steps[0], "um") if np.allclose(steps, steps[0], rtol=1e-3) else None,
            "y": length(said.get("YCalibration"), unit),
            "x": length(said.get("XCalibration"), unit),
        }
    )
