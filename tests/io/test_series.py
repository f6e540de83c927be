"""Images in many files, one for each plane, channel or time point."""

import itertools
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudecon import io
from gpudecon.errors import InputError
from gpudecon.image import Channel, Image
from gpudecon.io.fingerprint import fingerprint


def planes(folder, shape=(2, 3, 4, 5, 7), names="img_t{:02d}_c{}_z{:03d}.tif", start=1):
    """A file for each (t, c, z), counted from ``start``."""
    values = np.arange(1, 1 + np.prod(shape), dtype="u2").reshape(shape)
    for index in np.ndindex(shape[:3]):
        path = folder / names.format(*(i + start for i in index))
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, values[index], photometric="minisblack")
    return values


def test_planes(tmp_path):
    values = planes(tmp_path)
    (tmp_path / "img_t1_c1_z1.txt").write_text("")
    (tmp_path / "img_tx_c1_z1.tif").write_text("")
    image = io.read(tmp_path / "img_t{t}_c{c}_z{z}.tif")
    assert (image.axes, image.dtype, image.channels, image.voxel_um) == ("tczyx", values.dtype, (), None)
    np.testing.assert_array_equal(np.asarray(image.data), values)
    region = (slice(1, 2), slice(1, 3), slice(0, 3), slice(2, 5), slice(1, 6))
    np.testing.assert_array_equal(image.data[region], values[region])
    assert image.name == "img_t{t}_c{c}_z{z}"


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_split_into_files(data):
    """Any of t, c, z in the names, in any order, the rest in the files, written in any order."""
    axes = "".join(a for a in "tcz" if data.draw(st.booleans())) + "yx"
    shape = (*(data.draw(st.integers(1, 3)) for _ in axes[:-2]), 5, 7)
    outer = data.draw(st.sets(st.sampled_from(axes[:-2]), min_size=1)) if len(axes) > 2 else set()
    if not outer:
        return
    order = data.draw(st.permutations(sorted(outer)))
    starts, steps = ({a: data.draw(st.integers(low, 3)) for a in order} for low in (0, 1))
    values = np.arange(1, 1 + np.prod(shape), dtype="f4").reshape(shape)
    inner = "".join(a for a in axes if a not in outer)
    with tempfile.TemporaryDirectory() as folder:
        indices = list(itertools.product(*(range(shape[axes.index(a)]) for a in order)))
        random.Random(0).shuffle(indices)
        for index in indices:
            along = dict(zip(order, index, strict=True))
            name = "_".join(f"{a}{starts[a] + steps[a] * i}" for a, i in along.items())
            part = values[tuple(along.get(a, slice(None)) for a in axes)]
            io.write(Path(folder) / f"s_{name}.tif", Image(part, inner, time_step_s=None))
        image = io.read(Path(folder) / ("s_" + "_".join(f"{a}{{{a}}}" for a in order) + ".tif"))
        assert image.axes == axes
        region = tuple(slice(*sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in shape)
        np.testing.assert_array_equal(image.data[region], values[region])
        np.testing.assert_array_equal(np.asarray(image.data), values)


def test_stacks_with_metadata_and_named_channels(tmp_path):
    stacks = np.arange(2 * 4 * 5 * 7, dtype="u2").reshape(2, 4, 5, 7)
    for name, stack in zip(("GFP", "DAPI"), stacks, strict=True):
        image = Image(stack, "zyx", (0.3, 0.1, 0.1), (Channel("", 400.0 + len(name)),))
        io.write(tmp_path / f"cell [1] {name}.ome.tif", image, provenance={"method": "rl"})
    image = io.read(tmp_path / "cell [1] {c}.ome.tif")
    assert (image.axes, image.voxel_um, image.provenance) == ("czyx", (0.3, 0.1, 0.1), {})
    assert image.channels == (Channel("DAPI", 404.0), Channel("GFP", 403.0))
    np.testing.assert_array_equal(np.asarray(image.data), stacks[::-1])


def test_folders_and_zarr(tmp_path):
    values = np.arange(3 * 4 * 5 * 7, dtype="u2").reshape(3, 4, 5, 7)
    for t, stack in enumerate(values):
        (tmp_path / f"time {t}").mkdir()
        io.write(tmp_path / f"time {t}" / f"{t}.zarr", Image(stack, "zyx"))
    image = io.read(tmp_path / "time {t}" / "{t}.zarr")
    assert image.axes == "tzyx"
    np.testing.assert_array_equal(np.asarray(image.data), values)


def test_missing_files_are_named(tmp_path):
    planes(tmp_path)
    pattern = tmp_path / "img_t{t}_c{c}_z{z}.tif"
    (tmp_path / "img_t02_c3_z002.tif").unlink()
    with pytest.raises(InputError, match=r"are missing: t = 2, c = 3, z = 2; complete the series"):
        io.read(pattern)
    for t, c in itertools.product((1, 2), (1, 2, 3)):
        (tmp_path / f"img_t{t:02d}_c{c}_z003.tif").unlink()
    with pytest.raises(InputError, match=r"missing: t = 1, c = 1, z = 3; t = 1, c = 2, z = 3; .*, and 4 more"):
        io.read(pattern)
    with pytest.raises(InputError, match=r"No file matches the pattern .*img_t\{t\}\.png"):
        io.read(tmp_path / "img_t{t}.png")


def test_doubled_and_unknown(tmp_path):
    planes(tmp_path)
    tifffile.imwrite(tmp_path / "img_t1_c1_z001.tif", np.zeros((5, 7), "u2"))
    with pytest.raises(InputError, match=r"img_t01_c1_z001\.tif and .*img_t1_c1_z001\.tif are the same index"):
        io.read(tmp_path / "img_t{t}_c{c}_z{z}.tif")
    for pattern, name in {"img_t{time}.tif": "time", "img_{y}.tif": "y", "img_{}.tif": ""}.items():
        with pytest.raises(InputError, match=rf"has \{{{name}\}}; braces name one of t, c, z"):
            io.read(tmp_path / pattern)


def test_an_axis_in_both(tmp_path):
    for z in range(2):
        tifffile.imwrite(tmp_path / f"{z}.tif", np.zeros((3, 5, 7), "u2"), photometric="minisblack")
    with pytest.raises(InputError, match=r"axis z is in the pattern .*0\.tif itself holds 3 of it.*name its axes"):
        io.read(tmp_path / "{z}.tif")
    assert io.read(tmp_path / "{z}.tif", axes="cyx").axes == "czyx"


def test_a_file_of_another_shape(tmp_path):
    planes(tmp_path)
    tifffile.imwrite(tmp_path / "img_t02_c1_z001.tif", np.zeros((5, 6), "u2"))
    image = io.read(tmp_path / "img_t{t}_c{c}_z{z}.tif")
    assert image.volume(0, 0).shape == (4, 5, 7)
    with pytest.raises(InputError, match=r"img_t02_c1_z001\.tif is uint16 of shape \(5, 6\), but .*z001\.tif"):
        image.volume(1, 0)


def test_fingerprint_is_that_of_all_files(tmp_path):
    planes(tmp_path)
    pattern = tmp_path / "img_t{t}_c{c}_z{z}.tif"
    before = fingerprint(pattern)
    assert fingerprint(pattern) == before
    tifffile.imwrite(tmp_path / "img_t02_c3_z004.tif", np.ones((5, 7), "u2"), software="other")
    assert fingerprint(pattern) != before


def test_a_name_with_braces_is_a_name(tmp_path):
    io.write(tmp_path / "a{t}.tif", Image(np.ones((5, 7), "u2"), "yx"))
    assert io.read(tmp_path / "a{t}.tif").axes == "yx"
