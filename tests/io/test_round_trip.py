"""What is written is read back: every voxel, the axes and all metadata, in each format."""

import itertools
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import ome_types
import pytest
import tifffile
import yaozarrs
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudecon import io
from gpudecon.image import Blank, Channel, Image
from gpudecon.io.metadata import printable
from gpudecon.io.ome_tiff import OmeTiff
from gpudecon.io.store import Store

FORMATS = [("out.ome.tif", "0.5"), ("out.ome.zarr", "0.4"), ("out.ome.zarr", "0.5")]
LENGTHS_UM = st.floats(1e-3, 1e3)
WAVELENGTHS_NM = st.none() | st.integers(300, 900) | st.floats(300, 900)
COLORS = st.none() | st.from_regex(r"[0-9A-F]{6}", fullmatch=True)
CHANNELS = st.builds(Channel, st.text(max_size=9), WAVELENGTHS_NM, WAVELENGTHS_NM, COLORS)
FACTORS = {"uint8": 1, "uint16": 250, "int16": -100, "float32": -0.37}


@st.composite
def images(draw):
    """Small images of every kind; no voxel is zero, so that one that was never written shows."""
    axes = "".join(a for a in "tcz" if draw(st.booleans())) + "yx"
    shape = tuple(draw(st.sampled_from((1, 3, 4, 7) if a in "zyx" else (1, 2, 3))) for a in axes)
    dtype = draw(st.sampled_from(list(FACTORS)))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(1, 255, shape)
    channels = draw(st.lists(CHANNELS, min_size=1, max_size=1)) * dict(zip(axes, shape, strict=True)).get("c", 1)
    return Image(
        (values * FACTORS[dtype]).astype(dtype),
        axes,
        voxel_um=draw(st.none() | st.tuples(*[LENGTHS_UM] * (3 if "z" in axes else 2))),
        channels=draw(st.sampled_from([(), tuple(channels)])),
        name=draw(st.text(min_size=1, max_size=9)),
        time_step_s=draw(st.none() | st.floats(1e-3, 1e4)) if "t" in axes else None,
    )


@st.composite
def partitions(draw, image, name):
    """Disjoint regions that cover an image, in random order; for OME-Zarr of whole stacks."""
    cuts = [
        {0, n} if a in "zyx" and name.endswith("zarr") else {0, n, *draw(st.lists(st.integers(0, n), max_size=2))}
        for a, n in zip(image.axes, image.shape, strict=True)
    ]
    regions = [()]
    for bounds in cuts:
        parts = [slice(lo, hi) for lo, hi in itertools.pairwise(sorted(bounds))]
        regions = [(*region, part) for region in regions for part in parts]
    random.Random(draw(st.integers(0, 99))).shuffle(regions)
    return regions


def described(image):
    """The metadata of an image as files can hold them: an empty channel says nothing."""
    channels = tuple(replace(channel, name=printable(channel.name)) for channel in image.channels)
    channels = channels if any(channel != Channel() for channel in channels) else ()
    return image.axes, image.shape, image.dtype, image.voxel_um, printable(image.name), image.time_step_s, channels


@pytest.mark.parametrize(("name", "ngff"), FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_regions_in_any_order(name, ngff, data):
    image = data.draw(images())
    regions = data.draw(partitions(image, name))
    output = replace(image, data=Blank(image.shape, image.dtype))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        is_zarr = name.endswith("zarr")
        file = Store.create(path, output, ngff=ngff, durable=False) if is_zarr else OmeTiff(path, output)
        for region in regions:
            file.write(region, image.data[region])
        file.complete({"iterations": 7, "µ": [1.5, None]})
        read = io.read(path)
        np.testing.assert_array_equal(np.asarray(read.data), image.data)
        for region in regions[:3]:
            np.testing.assert_array_equal(read.data[region], image.data[region])
        assert described(read) == described(image)
        assert read.provenance["iterations"] == 7
        assert read.provenance["µ"] == [1.5, None]
        assert list(Path(folder).iterdir()) == [path]
        if is_zarr:
            yaozarrs.validate_zarr_store(str(path))
        else:
            ome_types.from_tiff(path)  # validates against the schema of OME


@pytest.fixture
def image(rng):
    return Image(
        rng.integers(1, 60000, (2, 3, 5, 9, 7)).astype("u2"),
        "tczyx",
        voxel_um=(0.25, 0.065, 0.066),
        channels=(
            Channel("DAPI", 461, 405, "0000FF"),
            Channel("µ-tubulin 微管", 520.5, None, "00FF00"),
            Channel("far red", None, 640, "FF0000"),
        ),
        name="cell 1",
        time_step_s=2.5,
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_ome_tiff_as_others_read_it(tmp_path, image):
    io.write(tmp_path / "out.ome.tif", image, provenance={"method": "rl", "voxels": np.float32(2.0)})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.ome.tif"), image.data)
    ome = ome_types.from_tiff(tmp_path / "out.ome.tif")
    pixels = ome.images[0].pixels
    assert ome.images[0].name == "cell 1"
    assert (pixels.size_t, pixels.size_c, pixels.size_z, pixels.size_y, pixels.size_x) == image.shape
    assert (pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x) == image.voxel_um
    assert {pixels.physical_size_x_unit.value, pixels.physical_size_z_unit.value} == {"µm"}
    assert (pixels.time_increment, pixels.time_increment_unit.value) == (2.5, "s")
    assert [channel.name for channel in pixels.channels] == ["DAPI", "µ-tubulin 微管", "far red"]
    assert [channel.emission_wavelength for channel in pixels.channels] == [461, 520.5, None]
    assert [channel.excitation_wavelength for channel in pixels.channels] == [405, None, 640]
    assert [channel.color.as_rgb_tuple() for channel in pixels.channels] == [(0, 0, 255), (0, 255, 0), (255, 0, 0)]
    annotation = ome.structured_annotations.map_annotations[0]
    assert annotation.namespace == "gpudecon"
    entries = {entry.k: entry.value for entry in annotation.value.ms}
    assert (entries["method"], entries["voxels"]) == ('"rl"', "2.0")


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_ome_zarr_as_others_read_it(tmp_path, image, ngff):
    io.write(tmp_path / "out.ome.zarr", image, ngff=ngff, provenance={"method": "rl", "residual": float("nan")})
    group = yaozarrs.validate_zarr_store(str(tmp_path / "out.ome.zarr"))
    assert group.ome_version() == ngff
    metadata = group.ome_metadata()
    multiscale = metadata.multiscales[0]
    assert [(axis.name, axis.unit) for axis in multiscale.axes] == [
        ("t", "second"), ("c", None), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer"),
    ]  # fmt: skip
    assert multiscale.datasets[0].coordinateTransformations[0].scale == [2.5, 1.0, 0.25, 0.065, 0.066]
    assert [channel.label for channel in metadata.omero.channels] == ["DAPI", "µ-tubulin 微管", "far red"]
    assert [channel.color for channel in metadata.omero.channels] == ["0000FF", "00FF00", "FF0000"]
    windows = [(channel.window.start, channel.window.end) for channel in metadata.omero.channels]
    assert windows == [(image.data[:, c].min(), image.data[:, c].max()) for c in range(3)]
    attributes = group.attrs["gpudecon"]
    assert (attributes["method"], attributes["residual"]) == ("rl", "NaN")  # NaN is no JSON


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_every_chunk_exists(tmp_path, ngff):
    path = tmp_path / "zeros.zarr"
    io.write(path, Image(np.zeros((33, 257, 3), "f4"), "zyx"), ngff=ngff)
    folder = path / "0" / "c" if ngff == "0.5" else path / "0"
    chunks = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.name.isdecimal() and file.is_file()}
    assert chunks == {f"{z}/{y}/0" for z in (0, 1) for y in (0, 1)}


def test_provenance_is_kept(tmp_path, image):
    io.write(tmp_path / "a.zarr", image, provenance={"iterations": 30})
    io.write(tmp_path / "b.tif", io.read(tmp_path / "a.zarr"))
    again = io.read(tmp_path / "b.tif")
    assert again.provenance["iterations"] == 30
    assert described(again) == described(image)


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_integers_on_request(tmp_path, name):
    values = np.array([[0.4, 1.6], [254.5, 3.0]], "f4")
    io.write(tmp_path / name, Image(values, "yx"), dtype="uint8")
    np.testing.assert_array_equal(np.asarray(io.read(tmp_path / name).data), [[0, 2], [254, 3]])


def test_big_tiff_where_needed(tmp_path, monkeypatch):
    monkeypatch.setattr("os.posix_fallocate", lambda *_: None)  # the file stays sparse
    huge = Image(Blank((13, 2**14, 2**14), np.dtype("u1")), "zyx")
    file = OmeTiff(tmp_path / "huge.tif", huge)
    file.write((slice(12, 13), slice(2**14 - 1, 2**14), slice(2**14 - 2, 2**14)), np.array([[[5, 6]]], "u1"))
    file.complete({})
    with tifffile.TiffFile(tmp_path / "huge.tif") as tif:
        assert tif.is_bigtiff
    corner = io.read(tmp_path / "huge.tif").data[12:13, -1:, -3:]
    np.testing.assert_array_equal(corner, [[[0, 5, 6]]])


def test_file_stays_as_it_was_for_an_open_reader(tmp_path, image):
    path = tmp_path / "same.tif"
    io.write(path, image)
    first = io.read(path)
    io.write(path, replace(image, data=image.data + 1), overwrite=True)
    np.testing.assert_array_equal(np.asarray(first.data), image.data)


def test_import_is_light():
    code = "import sys, gpudecon.io; print({'zarr', 'tifffile', 'yaozarrs'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
