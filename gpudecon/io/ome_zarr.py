"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3): images read lazily, and the metadata of those that `Store` writes."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.image import AXES, Channel, Image
from gpudecon.io.metadata import Metadata, color, length, printable, restored_channels, seconds
from gpudecon.io.pixels import FilePixels, canonical_axes, check_sample_type
from gpudecon.io.pyramid import Level

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import zarr

NGFF_VERSIONS = ("0.4", "0.5")
BLOCK = "gpudecon"


def read_zarr(path: Path | str, axes: str | None = None) -> Image:
    """The image in an OME-Zarr folder or at an address, at full resolution, read lazily; of several (bioformats2raw),
    the first.  ``axes`` replaces what the file says about its axes.
    """
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
    except Exception as error:  # stores and metadata make zarr raise all kinds
        kind = "is not to be had or" if isinstance(path, str) else "is a folder but"
        raise InputError(
            f"{path} {kind} no OME-Zarr image ({type(error).__name__}); give the path of an image group."
        ) from error
    try:
        return _image(_image_group(group, path), path, axes)
    except InputError:
        raise
    except Exception as error:  # whatever malformed metadata lead to
        raise InputError(
            f"The metadata in {path} are not those of OME-Zarr {' or '.join(NGFF_VERSIONS)} "
            f"({type(error).__name__}: {error}); write the image again."
        ) from error


def _ome(group: zarr.Group) -> dict[str, Any]:
    """What OME-Zarr says about a group: 0.5 keeps it under "ome", 0.4 beside other attributes."""
    attributes: dict[str, Any] = group.attrs.asdict()
    ome: dict[str, Any] = attributes.get("ome", attributes)
    return ome


def _image_group(group: zarr.Group, path: Path | str) -> zarr.Group:
    """``group`` or, in the layout of bioformats2raw, its first series."""
    import zarr

    ome = _ome(group)
    if "multiscales" in ome:
        return group
    for kind, example in (("plate", "A/1/0"), ("well", "0")):
        if kind in ome:
            raise InputError(f"{path} is the {kind} of a screen; give the path of one field, such as {path}/{example}.")
    first = group.get("0")
    if not isinstance(first, zarr.Group) or "multiscales" not in _ome(first):
        raise InputError(f"{path} is a Zarr group but no OME-Zarr image; give the path of an image group.")
    count = next(n for n in itertools.count(1) if str(n) not in group)  # not every server lists what it has
    if count > 1:
        warnings.warn(
            f"{path} holds {count} images; the first is used, the other {count - 1} are left.",
            GpudeconWarning,
            stacklevel=4,
        )
    return first


def _image(group: zarr.Group, path: Path | str, axes: str | None) -> Image:
    from gpudecon.io.short_chunks import refusing_short_chunks

    ome = _ome(group)
    multiscale = ome["multiscales"][0]
    level = multiscale["datasets"][0]
    found: Any = group[level["path"]]
    source: Any = refusing_short_chunks(found)
    check_sample_type(np.dtype(source.dtype), path)
    units = [axis.get("unit") for axis in multiscale["axes"]]
    scale = [
        math.prod(factors)
        for factors in zip(*(_scale(part, len(source.shape)) for part in (level, multiscale)), strict=True)
    ]
    letters, dims = canonical_axes(
        "".join(map(_letter, multiscale["axes"])), source.shape, given=axes, kept=AXES, path=path
    )
    dim = dict(zip(letters, dims, strict=True))
    block = group.attrs.asdict().get(BLOCK)
    block = block if isinstance(block, dict) else {}
    described = (restored_channels(block), _omero_channels(ome))
    count = source.shape[dim["c"]] if "c" in dim else 1
    return Metadata(
        name=multiscale.get("name") or "",
        size_um={a: length(scale[d], units[d]) for a, d in dim.items()},
        channels=next((channels for channels in described if len(channels) == count), ()),
        time_step_s=seconds(scale[dim["t"]], units[dim["t"]]) if "t" in dim else None,
        block=block,
    ).image(FilePixels(source, dims, path), letters)


def _letter(axis: dict[str, Any]) -> str:
    """The letter of an axis, "?" for one that is none of "tczyx"."""
    letter = {"time": "t", "channel": "c"}.get(axis.get("type", ""), axis["name"].lower())
    return letter if len(letter) == 1 else "?"


def _scale(described: dict[str, Any], ndim: int) -> list[float]:
    transforms = described.get("coordinateTransformations") or ()
    return next((t["scale"] for t in transforms if t["type"] == "scale"), [1.0] * ndim)


def _omero_channels(ome: dict[str, Any]) -> tuple[Channel, ...]:
    entries = (ome.get("omero") or {}).get("channels") or ()
    return tuple(Channel(str(entry.get("label") or ""), color=color(entry.get("color"))) for entry in entries)


def attributes(
    image: Image, levels: Sequence[Level], ngff: str, windows: Sequence[tuple[float, float]], block: dict[str, Any]
) -> dict[str, Any]:
    """Attributes of the group of an image, through the models of yaozarrs and so valid by construction.

    ``windows`` holds lowest and highest value of each described channel.  A voxel of a level lies at the mean of
    those that it is made of, so level n with its factor f is moved by (f - 1)/2 voxels of the image.
    """
    from yaozarrs import v04, v05

    model: Any = v04 if ngff == "0.4" else v05
    known = dict(zip(image.spatial_axes, image.voxel_um or (), strict=image.voxel_um is not None))
    measures = {a: (um, "micrometer") for a, um in known.items()}
    if image.time_step_s is not None:
        measures["t"] = (image.time_step_s, "second")
    kinds = {"t": "time", "c": "channel"}
    units = [measures.get(a, (1.0, None)) for a in image.axes]
    axes = [{"name": a, "type": kinds.get(a, "space"), "unit": u} for a, (_, u) in zip(image.axes, units, strict=True)]
    datasets = []
    for n, level in enumerate(levels):
        sizes = [(f, size) for f, (size, _) in zip(level.factor, units, strict=True)]
        scale = [{"type": "scale", "scale": [f * size for f, size in sizes]}]
        moved = [{"type": "translation", "translation": [(f - 1) / 2 * size for f, size in sizes]}] if n else []
        datasets.append({"path": str(n), "coordinateTransformations": scale + moved})
    method = {"type": "mean"} if len(levels) > 1 else {}
    multiscale = model.Multiscale(name=printable(image.name), axes=axes, datasets=datasets, **method)
    channels = [
        _omero_channel(model, channel, *window) for channel, window in zip(image.channels, windows, strict=True)
    ]
    omero = model.Omero(channels=channels) if channels else None
    ome = model.Image(multiscales=[multiscale], omero=omero).model_dump(mode="json", exclude_none=True)
    return (ome if ngff == "0.4" else {"ome": ome}) | {BLOCK: block}


def _omero_channel(model: Any, channel: Channel, low: float, high: float) -> Any:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        low, high = 0.0, 1.0
    window = model.OmeroWindow(start=low, min=low, end=high, max=high)
    return model.OmeroChannel(
        label=printable(channel.name), color=color(channel.color) or "FFFFFF", window=window, active=True
    )
