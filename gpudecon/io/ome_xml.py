"""OME-XML, the metadata of OME-TIFF: read into `Metadata` and composed from an `Image`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from gpudecon.image import Channel, Image
from gpudecon.io.metadata import Metadata, color, length, printable, seconds

if TYPE_CHECKING:
    import numpy as np

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
BLOCK_NAMESPACE = "gpudecon"
PIXEL_TYPES = {
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "float32": "float",
    "float64": "double",
}


def parse(xml: str) -> Metadata:
    """Metadata of the first image; units as the schema defaults them (um, nm, s) where the file names none.

    Raises ``xml.etree.ElementTree.ParseError`` where ``xml`` is not well-formed.
    """
    root = ET.fromstring(xml)
    image = root.find("{*}Image")
    pixels = None if image is None else image.find("{*}Pixels")
    if image is None or pixels is None:
        return Metadata()
    channels = tuple(_channel(element) for element in pixels.iterfind("{*}Channel"))
    return Metadata(
        name=image.get("Name", ""),
        size_um={
            a.lower(): length(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "ZYX"
        },
        channels=channels if any(channel != Channel() for channel in channels) else (),
        time_step_s=seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s")),
        block=_block(root),
    )


def described_in(xml: str) -> str | None:
    """The file that describes the image, where this one is said to hold nothing but pixels of it."""
    pointer = ET.fromstring(xml).find("{*}BinaryOnly")
    return None if pointer is None else pointer.get("MetadataFile", "another file")


def _channel(element: ET.Element) -> Channel:
    emission, excitation = (
        length(element.get(f"{kind}Wavelength"), element.get(f"{kind}WavelengthUnit", "nm"), into="nm")
        for kind in ("Emission", "Excitation")
    )
    try:  # a signed 32-bit integer, red first and opacity last
        rgb = f"{int(element.attrib['Color']) % 2**32 >> 8:06X}"
    except (KeyError, ValueError):
        rgb = None
    return Channel(element.get("Name", ""), emission, excitation, rgb)


def _block(root: ET.Element) -> dict[str, Any]:
    for annotation in root.iterfind(f"{{*}}StructuredAnnotations/{{*}}MapAnnotation[@Namespace='{BLOCK_NAMESPACE}']"):
        entries = {entry.get("K", ""): entry.text or "" for entry in annotation.iterfind("{*}Value/{*}M")}
        try:
            return {key: json.loads(text) for key, text in entries.items()}
        except ValueError:  # not ours after all
            return {}
    return {}


def compose(image: Image, dtype: np.dtype[Any], block: dict[str, Any]) -> bytes:
    """OME-XML in ASCII for planes stored t slowest, then c, then z; ``block`` becomes a MapAnnotation of JSON texts."""
    sizes = image.sizes
    root = ET.Element("OME", {"xmlns": NAMESPACE, "xmlns:xsi": _SCHEMA_INSTANCE})
    root.set("xsi:schemaLocation", f"{NAMESPACE} {NAMESPACE}/ome.xsd")
    element = ET.SubElement(root, "Image", ID="Image:0", Name=printable(image.name))
    pixels = ET.SubElement(element, "Pixels", ID="Pixels:0", DimensionOrder="XYZCT", Type=PIXEL_TYPES[dtype.name])
    for a in "xyzct":
        pixels.set(f"Size{a.upper()}", str(sizes[a]))
    for a, size in zip(image.spatial_axes, image.voxel_um or (), strict=image.voxel_um is not None):
        pixels.set(f"PhysicalSize{a.upper()}", repr(float(size)))
        pixels.set(f"PhysicalSize{a.upper()}Unit", "µm")
    if image.time_step_s is not None:
        pixels.set("TimeIncrement", repr(float(image.time_step_s)))
        pixels.set("TimeIncrementUnit", "s")
    for c, channel in enumerate(image.channels or (Channel(),) * sizes["c"]):
        _compose_channel(pixels, c, channel)
    ET.SubElement(pixels, "TiffData", IFD="0", PlaneCount=str(sizes["t"] * sizes["c"] * sizes["z"]))
    if block:
        ET.SubElement(element, "AnnotationRef", ID="Annotation:0")
        annotations = ET.SubElement(root, "StructuredAnnotations")
        own = ET.SubElement(annotations, "MapAnnotation", ID="Annotation:0", Namespace=BLOCK_NAMESPACE)
        value = ET.SubElement(own, "Value")
        for key, entry in block.items():
            ET.SubElement(value, "M", K=printable(key)).text = json.dumps(entry)
    # TIFF wants 7-bit text; in ASCII the serializer escapes everything else
    text: bytes = ET.tostring(root, encoding="us-ascii", xml_declaration=False)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + text


def _compose_channel(pixels: ET.Element, c: int, channel: Channel) -> None:
    element = ET.SubElement(pixels, "Channel", ID=f"Channel:0:{c}", SamplesPerPixel="1")
    if channel.name:
        element.set("Name", printable(channel.name))
    for kind, nm in (("Emission", channel.emission_nm), ("Excitation", channel.excitation_nm)):
        if nm is not None:
            element.set(f"{kind}Wavelength", repr(float(nm)))
            element.set(f"{kind}WavelengthUnit", "nm")
    rgb = color(channel.color)
    if rgb is not None:
        opaque = int(rgb + "FF", 16)
        element.set("Color", str(opaque - 2**32 if opaque >= 2**31 else opaque))
