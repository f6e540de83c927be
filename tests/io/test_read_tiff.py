"""TIFF files as other programs write them."""

import errno
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from gpudecon import io
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.image import Channel, Image


def values(*shape, dtype="u2"):
    return np.arange(1, 1 + np.prod(shape), dtype=dtype).reshape(shape)


def check(image, axes, expected):
    assert image.axes == axes
    assert image.shape == expected.shape
    np.testing.assert_array_equal(np.asarray(image.data), expected)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"compression": "zlib"}, {"rowsperstrip": 4}])
def test_ome_in_another_order_and_other_units(tmp_path, layout):
    stored = values(2, 3, 4, 37, 41)  # z, c, t
    metadata = {
        "axes": "ZCTYX",
        "PhysicalSizeX": 65.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 6.6e-5,
        "PhysicalSizeYUnit": "mm",
        "PhysicalSizeZ": 0.25,
        "TimeIncrement": 500.0,
        "TimeIncrementUnit": "ms",
        "Channel": {
            "Name": ["DAPI", "GFP", "Cy5"],
            "EmissionWavelength": [461, 0.509, 666.0],
            "EmissionWavelengthUnit": ["nm", "µm", "nm"],
            "Color": [65535, 16711935, -16776961],
        },
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", stored, ome=True, metadata=metadata, photometric="minisblack", **layout)
    image = io.read(tmp_path / "a.ome.tif")
    expected = stored.transpose(2, 1, 0, 3, 4)
    check(image, "tczyx", expected)
    region = (slice(1, 3), slice(0, 2), slice(1, 2), slice(5, 35), slice(30, 41))
    np.testing.assert_array_equal(image.data[region], expected[region])
    assert image.voxel_um == pytest.approx((0.25, 0.066, 0.065), rel=1e-12)
    assert image.time_step_s == 0.5
    assert [channel.name for channel in image.channels] == ["DAPI", "GFP", "Cy5"]
    assert [channel.emission_nm for channel in image.channels] == pytest.approx([461, 509, 666])
    assert [channel.color for channel in image.channels] == ["0000FF", "00FF00", "FF0000"]


def test_ome_without_metadata(tmp_path):
    stored = values(5, 7, 9)
    tifffile.imwrite(tmp_path / "a.ome.tif", stored, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")
    image = io.read(tmp_path / "a.ome.tif")
    check(image, "zyx", stored)
    assert (image.voxel_um, image.channels, image.time_step_s, image.provenance) == (None, (), None, {})


@pytest.mark.parametrize("unit", ["pixel", "nonsense", "inch"])
def test_a_unit_that_is_no_length(tmp_path, unit):
    metadata = {"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeXUnit": unit, "PhysicalSizeY": 1.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", values(7, 9), ome=True, metadata=metadata)
    assert io.read(tmp_path / "a.ome.tif").voxel_um is None


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m"])
def test_imagej(tmp_path, unit):
    stored = values(2, 5, 3, 11, 13)
    metadata = {"axes": "TZCYX", "spacing": 0.2, "unit": unit, "finterval": 1.5}
    tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, resolution=(10.0, 8.0), metadata=metadata)
    image = io.read(tmp_path / "a.tif")
    check(image, "tczyx", stored.transpose(0, 2, 1, 3, 4))
    assert image.voxel_um == pytest.approx((0.2, 0.125, 0.1))
    assert image.time_step_s == 1.5
    assert image.dtype.isnative  # ImageJ writes big-endian
    assert image.name == "a"


def test_imagej_channel_names_and_lookup_table(tmp_path):
    stored = values(3, 11, 13, dtype="u1")
    table = np.zeros((3, 256), "u1")
    metadata = {"axes": "CYX", "Labels": ["DAPI", "GFP", "Cy5"], "unit": "pixel"}
    tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, colormap=table, metadata=metadata)
    image = io.read(tmp_path / "a.tif")
    check(image, "cyx", stored)
    assert image.channels == (Channel("DAPI"), Channel("GFP"), Channel("Cy5"))
    assert image.voxel_um is None


def test_imagej_stack_without_spacing_has_no_voxel_size(tmp_path):
    metadata = {"axes": "ZYX", "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", values(3, 5, 7), imagej=True, resolution=(10, 10), metadata=metadata)
    assert io.read(tmp_path / "a.tif").voxel_um is None


@pytest.mark.parametrize("metadata", [None, {}])
def test_plain(tmp_path, metadata):
    stored = values(6, 5, 7)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, metadata=metadata, photometric="minisblack", resolution=(300, 300), resolutionunit=2
    )
    image = io.read(tmp_path / "a.tif")
    check(image, "zyx", stored)
    assert image.voxel_um is None  # 300 dpi is a size on paper
    check(io.read(tmp_path / "a.tif", axes="tyx"), "tyx", stored)
    check(io.read(tmp_path / "a.tif", axes="ycx"), "cyx", stored.transpose(1, 0, 2))


def test_axes_are_asked_for(tmp_path):
    stored = values(2, 3, 5, 7)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack")
    with pytest.raises(InputError, match=r"a\.tif, of shape \(2, 3, 5, 7\).*--axes tczyx on the command.*axes= in"):
        io.read(tmp_path / "a.tif")
    check(io.read(tmp_path / "a.tif", axes="zcyx"), "czyx", stored.transpose(1, 0, 2, 3))
    for axes, message in {
        "zyx": "one letter of 'tczyx' per dimension",
        "zzyx": "needs y and x and each once",
        "tczx": "needs y and x and each once",
        "qzyx": "use the letters of 'tczyx'",
    }.items():
        with pytest.raises(InputError, match=message):
            io.read(tmp_path / "a.tif", axes=axes)


def test_axes_with_and_without_those_of_length_1(tmp_path):
    stored = values(1, 3, 1, 5, 7)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack")
    check(io.read(tmp_path / "a.tif"), "zyx", stored[0, :, 0])
    check(io.read(tmp_path / "a.tif", axes="cyx"), "cyx", stored[0, :, 0])
    check(io.read(tmp_path / "a.tif", axes="tzcyx"), "tczyx", stored.transpose(0, 2, 1, 3, 4))


def test_several_series(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for n in (5, 6, 7):
            tif.write(values(2, n, 4), photometric="minisblack")
    with pytest.warns(GpudeconWarning, match=r"a\.tif holds 3 images; the first is used, the other 2 are left") as seen:
        image = io.read(tmp_path / "a.tif")
    check(image, "zyx", values(2, 5, 4))
    assert seen[0].filename == __file__


def test_only_the_full_resolution_of_a_pyramid(tmp_path):
    stored = values(3, 32, 48)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(stored, subifds=1, tile=(16, 16), metadata={"axes": "ZYX"}, photometric="minisblack")
        tif.write(stored[:, ::2, ::2], subfiletype=1, tile=(16, 16), photometric="minisblack")
    check(io.read(tmp_path / "a.ome.tif"), "zyx", stored)


def test_suffix_of_another_program(tmp_path):
    tifffile.imwrite(tmp_path / "a.lsm", values(5, 7))
    check(io.read(tmp_path / "a.lsm"), "yx", values(5, 7))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_photograph(tmp_path, planar):
    stored = values(3, 5, 7, dtype="u1") if planar == "separate" else values(5, 7, 3, dtype="u1")
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    with pytest.raises(InputError, match=r"a\.tif is a colour photograph \(RGB\).*grey values"):
        io.read(tmp_path / "a.tif")
    expected = stored if planar == "separate" else stored.transpose(2, 0, 1)
    check(io.read(tmp_path / "a.tif", axes="cyx" if planar == "separate" else "yxc"), "cyx", expected)


def test_pixels_that_are_no_grey_values(tmp_path):
    tifffile.imwrite(tmp_path / "palette.tif", values(5, 7, dtype="u1"), colormap=np.zeros((3, 256), "u2"))
    tifffile.imwrite(tmp_path / "bool.tif", np.eye(8, dtype=bool))
    tifffile.imwrite(tmp_path / "complex.tif", np.eye(8, dtype="c8"), photometric="minisblack")
    for name, message in {
        "palette": "is a palette image.*grey",
        "bool": "bool pixels.*grey",
        "complex": "complex64.*grey",
    }.items():
        with pytest.raises(InputError, match=rf"{name}\.tif.*{message}"):
            io.read(tmp_path / f"{name}.tif")


def own(path):
    io.write(path, Image(values(8, 30, 40), "zyx", voxel_um=(0.2, 0.1, 0.1)), provenance={"iterations": 30})


def interleaved(path):
    """As LibTIFF writes: each page's directory before the pixels of the next page."""
    with tifffile.TiffWriter(path) as tif:
        for plane in values(8, 30, 40):
            tif.write(plane, contiguous=False, metadata=None)


Z = {"axes": "ZYX"}
WRITERS = {
    "own": own,
    "interleaved": interleaved,
    "plain": lambda path: tifffile.imwrite(path, values(8, 30, 40), metadata=None, photometric="minisblack"),
    "shaped": lambda path: tifffile.imwrite(path, values(8, 30, 40), photometric="minisblack"),
    "imagej": lambda path: tifffile.imwrite(path, values(8, 30, 40), imagej=True, metadata=Z),
    "ome": lambda path: tifffile.imwrite(path, values(8, 30, 40), ome=True, photometric="minisblack", metadata=Z),
    "packed": lambda path: tifffile.imwrite(path, values(8, 30, 40), compression="zlib", photometric="minisblack"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_truncated_anywhere(tmp_path, kind):
    path = tmp_path / "a.tif"
    WRITERS[kind](path)
    whole = io.read(path)
    check(whole, "zyx", values(8, 30, 40))
    content = path.read_bytes()
    refused = {}
    sizes = {*range(0, len(content), 333), *range(len(content) - 40, len(content))}
    for size in sizes:
        path.write_bytes(content[:size])
        try:
            image = io.read(path)
        except InputError as error:
            refused[size] = str(error)
        else:  # what is missing was not needed
            check(image, "zyx", values(8, 30, 40))
            assert image == replace(whole, data=image.data)
    assert all(re.fullmatch(rf"{path} .*get a fresh copy.*", message) for message in refused.values())
    assert refused.keys() >= {size for size in sizes if size < len(content) - 100}


def test_no_tiff(tmp_path, caplog):
    for content in (b"", b"GIF89a and so on", b"II*\0", b"II*\0\xff\xff\xff\xff" + bytes(99)):
        (tmp_path / "a.gif").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.gif cannot be read as an image .*OME-Zarr and TIFF.*export it"):
            io.read(tmp_path / "a.gif")
    assert not caplog.records


@pytest.mark.parametrize("error", [OSError(errno.EIO, ""), PermissionError(13, ""), TimeoutError(), ConnectionError()])
def test_not_to_be_had(tmp_path, monkeypatch, error):
    """Which a fresh copy would not mend."""

    def failing(*_, **__):
        raise error

    tifffile.imwrite(tmp_path / "a.tif", values(30, 40), photometric="minisblack")
    monkeypatch.setattr(tifffile, "TiffFile", failing)
    with pytest.raises(InputError, match=r"a\.tif cannot be read \(.+\); see whether it is there and .+ try again\.$"):
        io.read(tmp_path / "a.tif")


def test_damage_that_shows_when_pixels_are_read(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values(4, 30, 40), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[2].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(20))
    image = io.read(path)
    assert image.data[0:1, 0:1, 0:1] == 1
    with pytest.raises(InputError, match=r"a\.tif is damaged: its pixels cannot be read.*fresh copy"):
        np.asarray(image.data)


def test_missing_plane_and_broken_xml(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, values(4, 30, 40), ome=True, photometric="minisblack", metadata={"axes": "ZYX"})
    xml = tifffile.tiffcomment(path)
    tifffile.tiffcomment(path, xml.replace('SizeZ="4"', 'SizeZ="5"'))
    with pytest.raises(InputError, match=r"a\.ome\.tif is truncated or damaged"):
        io.read(path)
    tifffile.tiffcomment(path, xml.replace("<Pixels", "<Pixel"))
    with pytest.raises(InputError, match=r"a\.ome\.tif is truncated or damaged"):
        io.read(path)


def test_messages_of_tifffile_survive_success(tmp_path, caplog):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values(4, 30, 40), metadata=None, photometric="minisblack", software="x" * 20)
    with tifffile.TiffFile(path) as tif:
        entry = tif.pages[0].tags["Software"].offset
    with path.open("r+b") as file:
        file.seek(entry + 2)
        file.write(b"\xff\xff")  # a data type that does not exist
    with caplog.at_level(logging.WARNING, logger="tifffile"):
        image = io.read(path)
    check(image, "zyx", values(4, 30, 40))
    assert "invalid data type" in caplog.text


def test_missing(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.tif does not exist; check the path"):
        io.read(tmp_path / "nowhere.tif")
