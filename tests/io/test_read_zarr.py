"""OME-Zarr stores as other programs write them, made by hand."""

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from gpudecon import io
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.image import Channel

AXES = [
    {"name": "t", "type": "time", "unit": "millisecond"},
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "nanometer"},
    {"name": "x", "type": "space", "unit": "millimeter"},
]
VALUES = np.arange(1, 1 + 2 * 2 * 3 * 5 * 7, dtype="u2").reshape(2, 2, 3, 5, 7)


def multiscales(axes=AXES, scale=(1, 1, 0.5, 65.0, 3.3e-5), whole=(500, 1, 0.5, 1, 2)):
    transforms = [{"type": "scale", "scale": list(scale)}, {"type": "translation", "translation": [0] * len(scale)}]
    half = [{"type": "scale", "scale": [2 * s for s in scale]}]
    datasets = [
        {"path": "full", "coordinateTransformations": transforms},
        {"path": "half", "coordinateTransformations": half},
    ]
    return [
        {"axes": axes, "datasets": datasets, "coordinateTransformations": [{"type": "scale", "scale": list(whole)}]}
    ]


def store(path, version="0.5", values=VALUES, extra=None, compressors="auto", shards=None, **kwargs):
    """A store with two levels; its voxels are 0.25 um x 65 nm x 66 nm, its time step is 0.5 s."""
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    form = {"compressors": compressors, "shards": shards}
    group.create_array("full", data=values, chunks=(2,) * values.ndim, **form)
    group.create_array("half", data=values[..., ::2, ::2])
    ome = {"multiscales": multiscales(**kwargs)} | (extra or {})
    group.attrs.update(ome if version == "0.4" else {"ome": {"version": "0.5", **ome}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_two_levels_of_scale_and_three_units(tmp_path, version):
    omero = {"channels": [{"label": "GFP", "color": "00ff00"}, {"label": "µ", "color": "#FF0000", "window": {}}]}
    image = io.read(store(tmp_path / "a.ome.zarr", version, extra={"omero": omero}))
    assert image.axes == "tczyx"
    np.testing.assert_array_equal(np.asarray(image.data), VALUES)
    np.testing.assert_array_equal(image.data[0:1, 1:2, 1:3, 2:5, 0:4], VALUES[0:1, 1:2, 1:3, 2:5, 0:4])
    assert image.voxel_um == pytest.approx((0.25, 0.065, 0.066))
    assert image.time_step_s == pytest.approx(0.5)
    assert image.channels == (Channel("GFP", color="00FF00"), Channel("µ", color="FF0000"))
    assert (image.name, image.provenance) == ("a", {})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("unit", [None, "pixel"])
def test_a_unit_that_is_no_length(tmp_path, version, unit):
    axes = [{"name": a, "type": "space", "unit": unit} for a in "zyx"]
    path = store(tmp_path / "a.zarr", version, VALUES[0, 0], axes=axes, scale=(1, 1, 1), whole=(1, 1, 1))
    image = io.read(path)
    assert (image.axes, image.voxel_um, image.time_step_s) == ("zyx", None, None)


def test_space_in_another_order(tmp_path):
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "xyz"]
    path = store(tmp_path / "a.zarr", values=VALUES[0, 0], axes=axes, scale=(1, 2, 3), whole=(1, 1, 1))
    image = io.read(path)
    assert (image.axes, image.voxel_um) == ("zyx", (3, 2, 1))
    np.testing.assert_array_equal(np.asarray(image.data), VALUES[0, 0].T)
    assert io.read(path, axes="zyx").shape == VALUES[0, 0].shape


def test_other_axes(tmp_path):
    axes = [*AXES[:1], {"name": "angle"}, *AXES[2:]]
    with pytest.raises(InputError, match=r"a\.zarr, of shape \(2, 2, 3, 5, 7\), are not all known; name its axes"):
        io.read(store(tmp_path / "a.zarr", axes=axes))
    image = io.read(store(tmp_path / "b.zarr", values=VALUES[:, :1], axes=axes))
    assert image.axes == "tzyx"
    np.testing.assert_array_equal(np.asarray(image.data), VALUES[:, 0])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_bioformats2raw(tmp_path, version):
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2 if version == "0.4" else 3)
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update(layout if version == "0.4" else {"ome": {"version": "0.5", **layout}})
    store(tmp_path / "a.zarr" / "0", version)
    np.testing.assert_array_equal(np.asarray(io.read(tmp_path / "a.zarr").data), VALUES)
    store(tmp_path / "a.zarr" / "1", version)
    with pytest.warns(GpudeconWarning, match=r"a\.zarr holds 2 images; the first is used") as seen:
        io.read(tmp_path / "a.zarr")
    assert seen[0].filename == __file__


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plate_and_well(tmp_path, version):
    for kind, example in (("plate", "A/1/0"), ("well", "0")):
        group = zarr.create_group(tmp_path / f"{kind}.zarr", zarr_format=2 if version == "0.4" else 3)
        group.attrs.update({kind: {}} if version == "0.4" else {"ome": {kind: {}}})
        with pytest.raises(
            InputError, match=rf"{kind}\.zarr is the {kind} of a screen; give .*{kind}.zarr/{example}\."
        ):
            io.read(tmp_path / f"{kind}.zarr")


def test_folders_that_are_no_image(tmp_path):
    (tmp_path / "plain").mkdir()
    zarr.create_group(tmp_path / "group")
    zarr.create_array(tmp_path / "array", data=VALUES)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zarr.json").write_text("{")
    for name in ("plain", "group", "array", "broken"):
        with pytest.raises(InputError, match=rf"{name} is .*no OME-Zarr image.*give the path of an image group"):
            io.read(tmp_path / name)


@pytest.mark.parametrize(
    "damage",
    [
        {"multiscales": []},
        {"multiscales": [{"axes": AXES}]},
        {"multiscales": [{"axes": AXES, "datasets": [{"path": "elsewhere"}]}]},
        {"multiscales": [{"axes": AXES[1:], "datasets": [{"path": "full"}]}]},
        {"multiscales": multiscales(scale=(1, 2))},
        {"multiscales": 7},
    ],
)
def test_malformed_metadata(tmp_path, damage):
    with pytest.raises(InputError, match=r"The metadata in .*a\.zarr are not those of OME-Zarr 0\.4 or 0\.5") as caught:
        io.read(store(tmp_path / "a.zarr", extra=damage))
    assert "\n" not in str(caught.value)


def test_pixels_that_are_no_grey_values(tmp_path):
    with pytest.raises(InputError, match=r"a\.zarr holds bool pixels; deconvolution needs grey values"):
        io.read(store(tmp_path / "a.zarr", values=VALUES > 5))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_damaged_chunk(tmp_path, version):
    path = store(tmp_path / "a.zarr", version)
    image = io.read(path)
    chunk = path / "full" / ("c/0/0/0/0/0" if version == "0.5" else "0.0.0.0.0")
    chunk.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"a\.zarr is damaged: its pixels cannot be read.*fresh copy"):
        np.asarray(image.data)


BLOSC = {"cname": "lz4", "shuffle": "noshuffle"}
LAYOUTS = {
    "Blosc 0.4": {"compressors": {"id": "blosc"}},
    "Blosc": {"compressors": BloscCodec(**BLOSC)},
    "Zstandard": {"compressors": ZstdCodec()},
    "shards": {"compressors": BloscCodec(**BLOSC), "shards": (2, 2, 4, 4, 8)},
    "shards, index first": {
        "compressors": BloscCodec(**BLOSC),
        "shards": {"shape": (2, 2, 4, 4, 8), "index_location": "start"},
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", [(slice(None),) * 5, (slice(0, 2),) * 5])
def test_a_chunk_of_any_shorter_length_is_refused(tmp_path, layout, part):
    """Blosc reads on behind what it is given, and what it finds there may pass for an image."""
    version = "0.4" if "0.4" in layout else "0.5"
    path = store(tmp_path / "a.zarr", version, **LAYOUTS[layout])
    chunk = path / "full" / ("c/0/0/0/0/0" if version == "0.5" else "0.0.0.0.0")
    whole = chunk.read_bytes()
    pixels = io.read(path).data
    np.testing.assert_array_equal(np.asarray(pixels[part]), VALUES[part])
    for length in range(0, len(whole), max(1, len(whole) // 100)):
        chunk.write_bytes(whole[:length])
        try:
            read = np.asarray(pixels[part])
        except InputError:
            continue
        assert "shards" in layout, length  # what is cut off may be of another chunk
        assert part[0].stop == 2, length
        np.testing.assert_array_equal(read, VALUES[part])


def test_block_of_another_image_is_no_source_of_channels(tmp_path):
    omero = {"channels": [{"label": "a", "color": "00FF00"}, {"label": "b", "color": "0000FF"}]}
    path = store(tmp_path / "a.zarr", extra={"omero": omero})
    for block in ({"channels": [{"name": "one only"}]}, {"channels": 3}, {"channels": [{"unknown": 1}] * 2}, "text"):
        zarr.open_group(path, mode="r+").attrs.update({"gpudecon": block})
        assert [channel.name for channel in io.read(path).channels] == ["a", "b"]
