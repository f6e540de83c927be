"""Image: pixels on named axes with their voxel size and channels.  No input or output here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import InputError

AXES = "tczyx"

Region = tuple[slice, ...]


@runtime_checkable
class Pixels(Protocol):
    """An array that is read piece by piece: what files give, and what a NumPy array can be wrapped into."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, region: Region, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Channel:
    """One colour of an image; wavelengths in nm, ``color`` as RRGGBB."""

    name: str = ""
    emission_nm: float | None = None
    excitation_nm: float | None = None
    color: str | None = None


@dataclass(frozen=True)
class Image:
    """Pixels with axes in the order of OME (a subset of "tczyx" in that order), voxel size and channels.

    ``data`` is a NumPy array or a lazy one (`Pixels`).  ``voxel_um`` has one entry per spatial axis, (z, y, x) or
    (y, x), in um; None where it is not known.  ``channels`` has one entry per index of the axis c, or is empty.
    ``provenance`` is what an earlier run of gpudecon recorded in the file.
    """

    data: Any
    axes: str
    voxel_um: tuple[float, ...] | None = None
    channels: tuple[Channel, ...] = ()
    name: str = "image"
    time_step_s: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        axes = self.axes
        if list(axes) != sorted(set(axes), key=AXES.find) or not set(axes) <= set(AXES) or not axes.endswith("yx"):
            raise InputError(f"Axes are {axes!r}; they must be letters of 'tczyx' in that order and end in 'yx'.")
        if len(axes) != len(self.shape):
            raise InputError(f"Axes {axes!r} name {len(axes)} dimensions but the pixels have shape {self.shape}.")
        if 0 in self.shape:
            raise InputError(f"The image is empty: shape {self.shape}.")
        if self.voxel_um is not None:
            object.__setattr__(self, "voxel_um", checked_voxel_um(self.voxel_um, len(self.spatial_axes)))
        if self.channels and len(self.channels) != self.sizes["c"]:
            raise InputError(
                f"{len(self.channels)} channels are described but the image has {self.sizes['c']}; "
                "describe each of them or none."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    @property
    def spatial_axes(self) -> str:
        """The axes of one stack: "zyx" or "yx"."""
        return "zyx" if "z" in self.axes else "yx"

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        return self.shape[-len(self.spatial_axes) :]

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every axis of "tczyx"; 1 where the image has none."""
        return dict.fromkeys(AXES, 1) | dict(zip(self.axes, self.shape, strict=True))

    def region(self, t: int = 0, c: int = 0, box: Sequence[slice] | None = None) -> Region:
        """Where one time point and channel is, or ``box`` (z, y, x) in it; its z is ignored where there is none."""
        parts = dict(zip("zyx", box or (slice(None),) * 3, strict=True)) | {"t": slice(t, t + 1), "c": slice(c, c + 1)}
        return tuple(parts[a] for a in self.axes)

    def volume(self, t: int = 0, c: int = 0) -> NDArray[Any]:
        """The stack (z, y, x) or plane (y, x) of one time point and channel, read into memory."""
        for name, index in (("t", t), ("c", c)):
            if not 0 <= index < self.sizes[name]:
                raise InputError(f"{name} is {index}, but the image has {self.sizes[name]} along {name}; count from 0.")
        return np.asarray(self.data[self.region(t, c)]).reshape(self.spatial_shape)

    def select(self, channels: Sequence[int], timepoints: Sequence[int]) -> Image:
        """The image described by these channels and time points; the pixels are not touched (``data`` is dropped
        to a `Blank` of the new shape), so this describes an output.  ``time_step_s`` is that between the chosen time
        points, None where they are not in ascending even steps.
        """
        length = {"t": len(timepoints), "c": len(channels)}
        shape = tuple(length.get(a, n) for a, n in zip(self.axes, self.shape, strict=True))
        kept = tuple(self.channels[c] for c in channels) if self.channels else ()
        steps = {after - before for before, after in itertools.pairwise(timepoints)} or {1}
        step = steps.pop()
        time_step_s = None if self.time_step_s is None or steps or step < 1 else self.time_step_s * step
        data = Blank(shape, self.dtype)
        return replace(self, data=data, channels=kept, time_step_s=time_step_s, provenance={})


@dataclass(frozen=True)
class Blank:
    """Pixels that are not there yet: the shape and type of an image that is to be written."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, region: Region, /) -> NDArray[Any]:
        raise InputError("This image is a description of an output; it has no pixels to read.")


def checked_voxel_um(voxel_um: object, ndim: int, name: str = "voxel_um") -> tuple[float, ...]:
    """``voxel_um`` as ``ndim`` positive finite numbers, or an error that says what is wanted."""
    wanted = "(z, y, x)" if ndim == 3 else "(y, x)"
    try:
        values = tuple(float(v) for v in voxel_um)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        values = ()
    if len(values) != ndim or not all(math.isfinite(v) and v > 0 for v in values):
        raise InputError(f"{name} is {voxel_um!r}; give {ndim} positive sizes in micrometres, {wanted}.")
    return values
