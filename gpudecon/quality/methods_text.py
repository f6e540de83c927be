"""The record of a restoration in sentences, for the methods section of a paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gpudecon.image import Image
from gpudecon.methods import METHODS


def methods_text(output: Image) -> str:
    """What was done, in sentences that a paper can take over."""
    record = output.provenance
    settings, found = record["settings"], record.get("found", [])
    name = record["method"]
    options = _chosen(name, record["options"])
    said = f"{record['source']} was restored with gpudecon {record['version']} by {_called(name)}"
    if output.voxel_um is not None:
        sizes = " x ".join(f"{v:g}" for v in output.voxel_um)
        said += f" on voxels of {sizes} um ({', '.join(output.spatial_axes)})"
    if record.get("stopped"):
        counts = sorted({stop["iterations"] for stop in record["stopped"]})
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        said += f", {span} iterations, chosen by held-out photo-electrons"
    elif "iterations" in record["options"]:
        said += f", {record['options']['iterations']} iterations"
    said += f" ({', '.join(f'{option} {value}' for option, value in options.items())})." if options else "."
    if record.get("psf"):
        edges = {
            "extend": "with light from outside the frame estimated",
            "reflect": "with the image mirrored at its faces",
            "periodic": "with the image taken as periodic",
        }
        if "iterations" not in record["options"]:  # direct filters know no outside
            edges["extend"] = "with the image continued by its mirror image, which fades"
        origins = "; and ".join(dict.fromkeys(_origin(psf) for psf in record["psf"]))
        said += f" The point spread function was {origins}. Edges: {edges[settings['edges']]}."
    levels = [entry["background"] for entry in found if "background" in entry]
    if settings["background"] == "auto" and levels:
        span = f"{min(levels):.4g}" if min(levels) == max(levels) else f"{min(levels):.4g} to {max(levels):.4g}"
        said += f" The background, {span} grey values, was estimated from the image."
    elif settings["background"]:
        said += f" The background was {settings['background']} grey values."
    if settings["camera"]:
        camera = settings["camera"]
        said += (
            f" The camera's offset was {camera['offset']:g}, its gain {camera['gain']:g} grey values per "
            f"photo-electron, its read noise {camera['read_noise']:g} electrons."
        )
    if "intensity" in record:
        return said + " Intensities are stored in 16 bits with one scale for all, which the file records."
    return said + " Intensities were not rescaled."


def _called(name: str) -> str:
    """The method as its class calls it, with its source."""
    described = " ".join((METHODS[name].__doc__ or name).partition("\n\n")[0].split()) if name in METHODS else name
    return described.rstrip(":.")


def _chosen(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not the method's defaults, the number of iterations apart."""
    if name not in METHODS:  # of another version
        return dict(options)
    defaults = {field.name: field.default for field in dataclasses.fields(METHODS[name])}
    return {
        option: value
        for option, value in options.items()
        if option != "iterations" and value != defaults.get(option, dataclasses.MISSING)
    }


def _origin(psf: Mapping[str, Any]) -> str:
    """What a PSF was made of, and its widths."""
    origin = psf.get("origin", {})
    optics = ", ".join(f"{name} {in_words(value)}" for name, value in (origin.get("optics") or {}).items())
    if "file" in origin:
        said = f"read from {origin['file']}" + (f" ({origin['command']})" if "command" in origin else "")
    elif "beads" in origin:
        said = f"distilled from {origin['beads']} beads"
    else:
        said = f"computed ({origin['model']})" if "model" in origin else "given as an array"
    widths = "" if None in psf.get("fwhm_um", []) else " x ".join(f"{w:.3g}" for w in psf.get("fwhm_um", []))
    return said + (f", {optics}" if optics else "") + (f", {widths} um wide at half its maximum" if widths else "")


def in_words(value: Any) -> str:
    """A value of a record."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_words(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) if len(value) <= 12 else f"{value[0]}, {value[1]}, ..., {value[-1]}"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
