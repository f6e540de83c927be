"""What a file says about its image, in the units of gpudecon: um, nm and s.  No format is known here."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from gpudecon.errors import InputError
from gpudecon.image import Channel, Image

# Powers of ten of the metre, by every name that OME-XML, OME-Zarr or ImageJ uses.  Inch, pixel and the like are left
# out on purpose: where a microscope image carries them, nobody has calibrated it.
_EXPONENTS = (
    dict.fromkeys(("pm", "picometer"), -12)
    | dict.fromkeys(("Å", "Å", "angstrom"), -10)
    | dict.fromkeys(("nm", "nanometer"), -9)
    | dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer"), -6)
    | dict.fromkeys(("mm", "millimeter"), -3)
    | dict.fromkeys(("cm", "centimeter"), -2)
    | dict.fromkeys(("m", "meter"), 0)
)
_SECONDS = (
    dict.fromkeys(("ns", "nanosecond"), 1e-9)
    | dict.fromkeys(("us", "µs", "μs", "microsecond"), 1e-6)
    | dict.fromkeys(("ms", "msec", "millisecond"), 1e-3)
    | dict.fromkeys(("s", "sec", "second"), 1.0)
    | dict.fromkeys(("min", "minute"), 60.0)
    | dict.fromkeys(("h", "hour"), 3600.0)
)
_COLOR = re.compile(r"[0-9A-Fa-f]{6}")
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def length(value: object, unit: object, into: str = "um") -> float | None:
    """``value`` of ``unit`` as a positive length in ``into``; None where number or unit mean nothing."""
    number, exponent = _positive(value), _EXPONENTS.get(str(unit))
    if number is None or exponent is None:
        return None
    return number * 10.0 ** (exponent - _EXPONENTS[into])


def seconds(value: object, unit: object) -> float | None:
    """``value`` of ``unit`` as a positive time in s; None where number or unit mean nothing."""
    number, factor = _positive(value), _SECONDS.get(str(unit))
    return None if number is None or factor is None else number * factor


def _positive(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def color(text: object) -> str | None:
    """``text`` as RRGGBB, with or without a leading "#"; None where it is no colour."""
    digits = str(text).removeprefix("#")
    return digits.upper() if _COLOR.fullmatch(digits) else None


def printable(text: str) -> str:
    """``text`` as XML and UTF-8 can hold it: control characters and lone surrogates become U+FFFD."""
    return _NOT_XML.sub("\ufffd", text)


@dataclass(frozen=True)
class Metadata:
    """Metadata of one image as its file gives it; whatever the file leaves open is empty or None."""

    name: str = ""
    size_um: dict[str, float | None] = field(default_factory=dict)  # by axis: {"z": 0.2, "y": 0.065, "x": 0.065}
    channels: tuple[Channel, ...] = ()
    time_step_s: float | None = None
    block: dict[str, Any] = field(default_factory=dict)  # what `own_block` put there

    def image(self, data: Any, axes: str) -> Image:
        """``data`` with these metadata; a voxel size is known as a whole or not at all."""
        sizes = dict(zip(axes, data.shape, strict=True))
        voxel = [self.size_um.get(a) for a in axes if a in "zyx"]
        return Image(
            data,
            axes,
            voxel_um=None if None in voxel else tuple(v for v in voxel if v is not None),
            channels=self.channels if len(self.channels) == sizes.get("c", 1) else (),
            name=self.name,
            time_step_s=self.time_step_s,
            provenance=self.block,
        )


def own_block(image: Image, provenance: dict[str, Any]) -> dict[str, Any]:
    """The block that gpudecon leaves in its outputs: ``provenance`` as plain JSON, plus "axes" and "channels".

    These two say what the formats have no field for: OME-TIFF cannot tell a missing axis from one of length 1, and
    OME-Zarr has no wavelengths.  NaN and infinities become strings, since strict readers of JSON refuse the rest.
    """
    described = provenance | {"axes": image.axes, "channels": [asdict(channel) for channel in image.channels]}
    plain: dict[str, Any] = json.loads(json.dumps(described, default=_plain), parse_constant=str)
    return plain


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays as Python ones; anything else as text, lest metadata cost a finished run."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def restored_channels(block: dict[str, Any]) -> tuple[Channel, ...]:
    """The channels in a block of `own_block`, or none where it holds no such thing."""
    try:
        return tuple(Channel(**entry) for entry in block["channels"])
    except (KeyError, TypeError):
        return ()


def check_describable(image: Image) -> None:
    """Refuse a description that no file could hold."""
    for channel in image.channels:
        if channel.color is not None and color(channel.color) is None:
            raise InputError(
                f"The colour of channel {channel.name!r} is {channel.color!r}; give six hexadecimal digits, RRGGBB."
            )
