"""The report of a restoration: one HTML page that needs nothing else, with pictures, numbers and what was done."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import InputError
from gpudecon.image import Image
from gpudecon.quality.methods_text import in_words, methods_text
from gpudecon.quality.projection import Box, Projection, Stack, middle, project

WIDTH = 400  # pixels of a picture on the page
RANGE = (1, 99.9)  # percentiles of a projection that are shown as black and as white
TALLEST = 1200  # pixels, of a picture of an image that is narrow
MOST_CHANNELS = 8  # that are pictured
NOTHING = 1e-6  # of the highest value, below which one is shown as 0: float32 tells no more
NEEDED = {"method", "options", "settings", "plan"}  # what the record of a run has
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1300px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: 0 } h2 { font-size: 1.15em; margin: 2em 0 .5em }
table { border-collapse: collapse } th, td { text-align: left; padding: .15em 1.2em .15em 0; vertical-align: top }
th { font-weight: 600 }
.pictures { display: flex; flex-wrap: wrap; gap: 1.5em } figure { margin: 0 } figcaption { font-weight: 600 }
figure img { display: block; image-rendering: pixelated; margin-bottom: 4px }
.bar { height: 4px; background: #222; margin-top: 2px } .small { color: #666; font-size: .9em }
.warnings { background: #fff3cd; border-left: 4px solid #d39e00; padding: .5em 1em }
pre { background: #f6f6f6; padding: 1em; overflow: auto; font-size: .85em }
svg text { font: 11px system-ui, sans-serif }
"""


def report_page(
    output: Image, source: Image | None = None, others: Mapping[str, Image] | None = None, remark: str = ""
) -> str:
    """The page of an image that gpudecon has restored, from the record that its file has.

    Parameters
    ----------
    output
        The restored image, with its provenance; `InputError` if it has none.
    source
        The image that it was made of; None leaves it out.
    others
        More images of the same shape by what they are called, such as the truth of a simulation.
    remark
        Text above the pictures, its lines kept.

    The pictures are of the first time point of each channel: maximum projections along z and y of the whole stack, or
    of the middle of a larger one, so that the page and the memory it takes stay small.
    """
    record = output.provenance
    if not record.keys() >= NEEDED:
        raise InputError(f"The image {output.name!r} has no record of a restoration by gpudecon; give an output of it.")
    if source is not None:
        check_source(source, output)
    title = f"{record.get('source', output.name)}, restored"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p class=small>gpudecon {_text(record['version'])}, {_text(record['created'])}</p>",
        _warnings(record["warnings"]),
        f"<pre>{_text(remark)}</pre>" if remark else "",
        *_channels(output, source, others or {}),
        "<h2>Text for a methods section</h2>",
        f"<p>{_text(methods_text(output))}</p>",
        "<h2>What was done</h2>",
        _table(_settings(record)),
        *_psf_section(record),
        f"<details><summary>The record in the file</summary><pre>{_text(json.dumps(record, indent=1))}</pre></details>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(part for part in parts if part) + "\n</body></html>\n"
    )


def check_source(source: Image, output: Image) -> None:
    """InputError where the output cannot have been made of it."""
    settings = output.provenance["settings"]
    if source.spatial_shape != output.spatial_shape:
        raise InputError(
            f"The input has stacks of shape {source.spatial_shape} and the output of {output.spatial_shape}; give the "
            "image that the output was made of."
        )
    for axis, name in (("c", "channels"), ("t", "timepoints")):
        if source.sizes[axis] <= max(settings[name]):
            raise InputError(
                f"The input has {source.sizes[axis]} {name}, and number {max(settings[name])} of them was restored; "
                "give the image that the output was made of."
            )


def _channels(output: Image, source: Image | None, others: Mapping[str, Image]) -> Iterable[str]:
    record, box = output.provenance, middle(output.spatial_shape)
    intensity = record.get("intensity", {})
    channels, times = record["settings"]["channels"], record["settings"]["timepoints"]
    whole = all(part.stop - part.start == n for part, n in zip(box, (1, *output.spatial_shape)[-3:], strict=True))
    shown = "" if whole else ", the middle of the stack: voxels " + ", ".join(f"{p.start}:{p.stop}" for p in box)
    for position, channel in enumerate(channels[:MOST_CHANNELS]):
        stacks = {}
        if source is not None:
            stacks["input"] = Stack(source, times[0], channel)
        stacks["restored"] = Stack(output, 0, position, intensity.get("scale", 1.0), intensity.get("offset", 0.0))
        stacks |= {name: Stack(image, 0, position) for name, image in others.items()}
        projections = {name: project(stack, box) for name, stack in stacks.items()}
        name = (output.channels[position].name if output.channels else "") or f"Channel {channel}"
        yield f"<h2>{_text(name if len(times) == 1 else f'{name}, time point {times[0]}')}</h2>"
        yield f"<p class=small>Highest values along z and along y{_text(shown)}; black and white are the "
        yield f"{RANGE[0]}st and the {RANGE[1]}th percentile of each picture.</p>"
        pictures = [_figure(name, seen, output.voxel_um) for name, seen in projections.items()]
        yield f"<div class=pictures>{''.join(pictures)}</div>"
        yield _intensities(projections)
        if record.get("psf"):
            yield (
                "<p class=small>Restored light stands where it came from, also what the PSF has spread out of the "
                "frame: its mean may exceed the input's.</p>"
            )
        yield _profiles(stacks, box, projections["restored"].place, output)
    if len(channels) > MOST_CHANNELS:
        yield f"<p>{len(channels) - MOST_CHANNELS} more channels are not pictured.</p>"


def _figure(name: str, seen: Projection, voxel_um: tuple[float, ...] | None) -> str:
    """The two projections above each other, in proportion, with a scale bar."""
    dz, dy, dx = (1.0, *(voxel_um or (1.0, 1.0, 1.0)))[-3:]
    (ny, nx), nz = seen.top.shape, len(seen.side)
    unit = WIDTH / (nx * dx)
    pictures = _img(seen.top, ny * dy * unit, f"{name}, along z")
    if nz > 1:
        pictures += _img(seen.side, nz * dz * unit, f"{name}, along y")
    bar = ""
    if voxel_um is not None:
        length = _round_length(nx * dx / 4)
        bar = f'<div class=bar style="width:{length * unit:.1f}px"></div><span class=small>{length:g} µm</span>'
    return f"<figure><figcaption>{_text(name)}</figcaption>{pictures}{bar}</figure>"


def _img(values: NDArray[np.float32], height: float, words: str) -> str:
    from matplotlib import colormaps
    from PIL import Image as Picture

    low, high = np.percentile(values, RANGE)
    index = np.clip((values - low) / max(high - low, 1e-30) * 255, 0, 255).astype(np.uint8)
    picture = Picture.fromarray(index)  # with a palette, a third of the size that colours of each pixel take
    picture.putpalette((colormaps["inferno"](range(256), bytes=True)[:, :3]).tobytes())
    held = io.BytesIO()
    picture.save(held, "png")
    data = base64.b64encode(held.getvalue()).decode()
    size = f"width={WIDTH} height={min(max(height, 1), TALLEST):.0f}"
    return f'<img {size} alt="{_text(words)}" src="data:image/png;base64,{data}">'


def _round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above ``most``."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)))


def _intensities(projections: Mapping[str, Projection]) -> str:
    rows = [["", "lowest", "mean", "highest"]]
    for name, seen in projections.items():
        values = (seen.low, seen.mean, seen.high)
        rows.append([name, *(f"{v if abs(v) > NOTHING * abs(seen.high) else 0:.5g}" for v in values)])
        if seen.missing:
            rows[-1].append(f"and {seen.missing} voxels that are NaN or infinite")
    return _table(rows)


def _profiles(stacks: Mapping[str, Stack], box: Box, place: tuple[int, int, int], output: Image) -> str:
    """Lines along x and z through the brightest restored voxel, each over its largest value."""
    drawn = []
    for axis in "xz" if len(output.spatial_axes) == 3 else "x":
        i = "zyx".index(axis)
        at = [slice(p, p + 1) for p in place]
        at[i] = box[i]
        lines = {
            name: np.nan_to_num(stack.read((at[0], at[1], at[2])).ravel(), posinf=0, neginf=0)
            for name, stack in stacks.items()
        }
        if len(lines["restored"]) > 1:
            voxel = 1.0 if output.voxel_um is None else (1.0, *output.voxel_um)[-3:][i]
            drawn.append(_plot(lines, axis, voxel, "voxels" if output.voxel_um is None else "µm"))
    where = ", ".join(f"{axis} {p}" for axis, p in zip("zyx", place, strict=True))
    return (
        f"<p class=small>Through the brightest restored voxel ({where}); each line over its largest value.</p>"
        f"<div class=pictures>{''.join(drawn)}</div>"
    )


COLORS = ("#888888", "#c0392b", "#2471a3", "#1e8449")


def _plot(lines: Mapping[str, NDArray[np.float32]], axis: str, voxel: float, unit: str) -> str:
    width, height, left = 480, 160, 10
    low = min(0.0, *(float(line.min()) / _highest(line) for line in lines.values()))
    drawn = []
    for k, (name, line) in enumerate(lines.items()):
        x = left + np.arange(len(line)) * (width - 2 * left) / (len(line) - 1)
        y = 20 + (1 - line / _highest(line)) / (1 - low) * (height - 40)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        color = COLORS[k % len(COLORS)]
        drawn.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.3" points="{points}"/>')
        drawn.append(f'<text x="{left + 90 * k}" y="12" fill="{color}">{_text(name)}</text>')
    zero = 20 + (height - 40) / (1 - low)
    length = (len(lines["restored"]) - 1) * voxel
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="profile along {axis}">'
        f'<line x1="{left}" x2="{width - left}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="#ccc"/>{"".join(drawn)}'
        f'<text x="{width - left}" y="{height - 4}" text-anchor="end" fill="#666">{axis}: {length:.4g} {unit}</text>'
        "</svg>"
    )


def _highest(line: NDArray[np.float32]) -> float:
    return float(np.abs(line).max()) or 1.0


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return "<p>No warnings.</p>"
    return f"<div class=warnings><b>Warnings</b><ul>{''.join(f'<li>{_text(w)}</li>' for w in warnings)}</ul></div>"


def _settings(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, one after the other."""
    plan = record["plan"]
    rows = [("method", str(record["method"]))]
    rows += [(name.replace("_", " "), in_words(value)) for name, value in record["options"].items()]
    rows += [(name, in_words(value)) for name, value in record["settings"].items() if value is not None]
    for stop in record.get("stopped", []):
        rows.append((f"iterations, channel {stop['channel']}, time point {stop['timepoint']}", str(stop["iterations"])))
    for entry in record.get("found", []):
        where = ", ".join(f"{name} {entry[name]}" for name in ("channel", "timepoint") if name in entry)
        rows += [(f"{name}, {where}", f"{value:.5g}") for name, value in entry.items() if isinstance(value, float)]
    if "intensity" in record:
        scale = record["intensity"]
        rows.append(("value", f"stored number x {scale['scale']:.6g} + {scale['offset']:.6g}"))
    rows += [
        ("tiles", f"{plan['tiles']} of {_shape(plan['tile'])} voxels, halo {_shape(plan['halo'])}"),
        ("transformed", f"{_shape(plan['padded_shape'])} voxels"),
        ("device", in_words(record["device"])),
        ("seconds", f"{record['seconds']:g} of all tiles"),
    ]
    return rows


def _psf_section(record: Mapping[str, Any]) -> list[str]:
    if not record.get("psf"):
        return []
    rows = [("", "origin", "shape", "voxel (µm)", "full width at half maximum (µm)", "SHA-256")]
    for i, psf in enumerate(record["psf"]):
        widths = _shape(["?" if w is None else f"{w:.3f}" for w in psf.get("fwhm_um", [])])
        origin = in_words({name: value for name, value in psf.get("origin", {}).items() if value})
        rows.append((str(i), origin, _shape(psf["shape"]), _shape(psf["voxel_um"]), widths, psf["sha256"][:16]))
    axes = "y, x" if len(record["psf"][0]["shape"]) == 2 else "z, y, x"
    return ["<h2>Point spread function</h2>", f"<p class=small>Axes are {axes}.</p>", _table(rows)]


def _shape(numbers: Sequence[Any]) -> str:
    return " x ".join(map(str, numbers))


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows, and whose first row names its columns where it begins with ""."""
    lines = []
    for i, row in enumerate(rows):
        is_head = i == 0 and row[0] == ""
        cells = [f"<th>{_text(row[0])}</th>"]
        cells += [f"<th>{_text(c)}</th>" if is_head else f"<td>{_text(c)}</td>" for c in row[1:]]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _text(words: str) -> str:
    return html.escape(str(words))
