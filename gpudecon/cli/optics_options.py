"""Options of the optics: made from the fields of `Optics`, so that none can be missing."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from typing import Any, Literal

from gpudecon.errors import InputError
from gpudecon.optics import MODALITIES, Optics

HELP = {
    "na": "numerical aperture",
    "emission_nm": "wavelength of the detected light",
    "excitation_nm": "wavelength of the excitation",
    "immersion_index": "1.0 air, 1.33 water, 1.47 glycerol, 1.515 oil",
    "sample_index": "refractive index of the specimen (default: that of the immersion)",
    "depth_um": "distance of the light source from the coverslip",
    "coverslip_um": "thickness, 0 for none",
    "pinhole_au": "diameter in Airy units",
    "pinhole_spacing_um": "distance of pinholes at the specimen's scale",
    "sheet_profile": "pairs of z in um and intensity",
    "sted_saturation": "highest intensity over that which depletes to 1 / e",
}


# What differs between the channels of one microscope.
OF_CHANNELS = ("emission_nm", "excitation_nm")


def add_optics_options(parser: argparse.ArgumentParser, *, several_channels: bool = False) -> None:
    """``--field-name`` for every field of `Optics`; with ``several_channels`` a wavelength for each."""
    group = parser.add_argument_group("optics")
    hints = typing.get_type_hints(Optics)
    for field in dataclasses.fields(Optics):
        flag = "--" + field.name.replace("_", "-")
        parts = [part for part in typing.get_args(hints[field.name]) if part is not type(None)]
        words = [word for part in (hints[field.name], *parts) for word in _words(part)]
        text = "; ".join(part for part in (HELP.get(field.name, ""), _use(field)) if part)
        if words:
            group.add_argument(flag, choices=words, help=text)
        elif field.name == "sheet_profile":
            group.add_argument(flag, type=float, nargs="+", metavar="Z I", help=text)
        elif field.name in OF_CHANNELS and several_channels:
            whole = f"{text}; one for all channels or one for each (default: the file's)"
            group.add_argument(flag, type=float, nargs="+", metavar="NM", help=whole)
        else:
            group.add_argument(flag, type=float, metavar=field.name.rsplit("_", 1)[-1].upper(), help=text)


def optics_options(args: argparse.Namespace) -> dict[str, Any]:
    """The fields that were given."""
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Optics) if getattr(args, f.name) is not None}
    profile = given.get("sheet_profile")
    if profile is not None:
        if len(profile) % 2:
            raise InputError(f"--sheet-profile has {len(profile)} numbers; give pairs of z and intensity.")
        given["sheet_profile"] = tuple(zip(profile[::2], profile[1::2], strict=True))
    return given


def optics_of(given: dict[str, Any], wanted_for: str) -> Optics:
    """`Optics` of the fields in ``given``; the ones that every microscope has are asked for by their options."""
    required = [f.name for f in dataclasses.fields(Optics) if f.default is dataclasses.MISSING]
    missing = ["--" + name.replace("_", "-") for name in required if name not in given]
    if missing:
        raise InputError(f"{wanted_for} needs the optics: {', '.join(missing)} missing.")
    return Optics(**given)


def _words(hint: Any) -> list[str]:
    return list(typing.get_args(hint)) if typing.get_origin(hint) is Literal else []


def _use(field: dataclasses.Field[Any]) -> str:
    """The default, or the modalities that the field belongs to."""
    owners = [name for name, p in MODALITIES.items() if field.name in p.required + p.optional]
    if owners:
        return "for " + ", ".join(owners)
    return "" if field.default in (None, dataclasses.MISSING) else f"default {field.default}"
