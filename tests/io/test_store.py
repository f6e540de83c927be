"""The store: every voxel of every level, in any order, from many writers, of whom some are killed."""

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudecon.errors import InputError
from gpudecon.image import Blank, Channel, Image
from gpudecon.io import pyramid
from gpudecon.io.pixels import Scaled
from gpudecon.io.store import Store, checksum

VERSIONS = ["0.4", "0.5"]
CUBE = ((8, 16, 16), (16, 32, 48))  # a chunk and a shard


def blank(shape, dtype="f4", axes=None, voxel_um=None, **more):
    axes = axes or "tczyx"[-len(shape) :]
    return Image(Blank(shape, np.dtype(dtype)), axes, voxel_um, name="cell", **more)


def fill(store, values):
    for region in store.units():
        store.write(region, values[region])
    for task in store.pyramid_tasks():
        store.reduce(task)


def brute_mean(values, factor):
    """Means over blocks of ``factor`` voxels, block by block; at an odd end over what is there."""
    mean = np.empty([-(-n // f) for n, f in zip(values.shape, factor, strict=True)])
    for index in np.ndindex(mean.shape):
        mean[index] = values[tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factor, strict=True))].mean()
    return mean


@st.composite
def layouts(draw):
    """A version, a chunk, and a shard or none."""
    chunk = tuple(draw(st.integers(3, 9)) for _ in "zyx")
    shard = draw(st.none() | st.tuples(*[st.integers(1, 3)] * 3))
    if shard is not None:
        return {"ngff": "0.5", "chunk": chunk, "shard": tuple(c * n for c, n in zip(chunk, shard, strict=True))}
    return {"ngff": draw(st.sampled_from(VERSIONS)), "chunk": chunk}


@st.composite
def described(draw):
    axes = "".join(a for a in "tcz" if draw(st.booleans())) + "yx"
    shape = tuple(draw(st.integers(1, 2 if a in "tc" else 13)) for a in axes)
    voxel = tuple(draw(st.sampled_from([0.1, 0.2, 0.25, 0.7])) for a in axes if a in "zyx")
    return blank(shape, draw(st.sampled_from(["u1", "u2", "i2", "f4"])), axes, draw(st.sampled_from([None, voxel])))


@settings(max_examples=12, deadline=None)
@given(image=described(), layout=layouts(), smallest=st.integers(3, 6), seed=st.integers(0, 9))
def test_no_voxel_of_any_level_is_unwritten(image, layout, smallest, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 120, image.shape).astype(image.dtype)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "LARGEST_OVERVIEW", smallest)
        store = Store.create(Path(folder) / "a.zarr", image, durable=False, **layout)
        for level in range(1, len(store.levels)):  # poison: a value that no mean can have
            array = zarr.open_array(store.path / str(level), mode="r+")
            array[...] = np.nan if image.dtype.kind == "f" else 127
        units = list(store.units())
        random.Random(seed).shuffle(units)
        for region in units:
            store.write(region, values[region])
        previous = values
        for level, tasks in itertools.groupby(store.pyramid_tasks(), key=lambda task: task.level):
            tasks = list(tasks)
            random.Random(seed).shuffle(tasks)
            for task in tasks:
                store.reduce(task)
            expected = brute_mean(previous, store.levels[level].step)
            expected = np.rint(expected) if image.dtype.kind in "iu" else expected
            previous = store.read((slice(None),) * values.ndim, level)
            np.testing.assert_allclose(previous, expected, rtol=2e-7)
        np.testing.assert_array_equal(store.read((slice(None),) * values.ndim), values)
        assert max(store.levels[-1].shape[-2:]) <= smallest
        store.complete({"method": "rl"})
        yaozarrs.validate_zarr_store(str(store.path))
        again = Store.open(store.path)
        assert (again.levels, again.write_unit, again.ngff) == (store.levels, store.write_unit, store.ngff)
        assert again.image.voxel_um == image.voxel_um


@pytest.mark.parametrize("layout", [{"ngff": "0.4"}, {}, {"shard": (32, 256, 256)}, {"shard": (64, 256, 512)}])
def test_odd_sizes(tmp_path, rng, layout):
    shape = (37, 203, 511)
    values = rng.integers(1, 60000, shape).astype("u2")
    image = blank(shape, "u2", voxel_um=(0.25, 0.1, 0.1))
    store = Store.create(tmp_path / "a.zarr", image, chunk=(16, 64, 64), durable=False, **layout)
    fill(store, values)
    assert [level.shape for level in store.levels] == [shape, (37, 102, 256)]
    second = store.read((slice(None),) * 3, 1)
    assert second.min() > 0
    padded = np.pad(values.astype(float), [(0, 0), (0, 1), (0, 1)], constant_values=np.nan)
    blocks = padded.reshape(37, 102, 2, 256, 2)
    np.testing.assert_array_equal(second, np.rint(np.nanmean(blocks, axis=(2, 4))))


def test_levels():
    """z stays while its voxel is the longer one; nothing has fewer than one voxel."""
    found = pyramid.levels((2, 99, 1001, 4000), "czyx", (0.3, 0.1, 0.1))
    assert [level.shape[1:] for level in found] == [
        (99, 1001, 4000), (99, 501, 2000), (99, 251, 1000), (50, 126, 500), (25, 63, 250),
    ]  # fmt: skip
    assert [level.factor for level in found] == [(1, 1, 1, 1), (1, 1, 2, 2), (1, 1, 4, 4), (1, 2, 8, 8), (1, 4, 16, 16)]
    assert [level.step[1] for level in found] == [1, 1, 1, 2, 2]
    flat = pyramid.levels((5, 300, 1100), "zyx", (0.1, 0.2, 0.2))
    assert [level.shape for level in flat] == [(5, 300, 1100), (3, 150, 550), (2, 75, 275), (1, 38, 138)]
    assert [level.shape for level in pyramid.levels((1, 1, 1025), "tyx", None)] == [
        (1, 1, n) for n in (1025, 513, 257, 129)
    ]
    assert len(pyramid.levels((700, 256, 256), "zyx", None)) == 1


def test_mean_is_rounded_once():
    values = np.array([[0, 1, 1], [1, 0, 2], [255, 254, 255]], "u1")
    np.testing.assert_array_equal(pyramid.block_mean(values, (2, 2)), [[0, 2], [254, 255]])  # 0.5 and 1.5 to even
    extremes = np.array([-32768, -32767, 32767, 32766], "i2")
    np.testing.assert_array_equal(pyramid.block_mean(extremes, (2,)), [-32768, 32766])
    assert pyramid.block_mean(np.full((2, 2), 2**32 - 1, "u4"), (2, 2)) == 2**32 - 1
    assert np.isnan(pyramid.block_mean(np.array([1, np.nan, 3, 5], "f4"), (2,))).tolist() == [True, False]


@pytest.mark.parametrize("ngff", VERSIONS)
def test_place_of_every_level(tmp_path, ngff):
    """A plane z = const of an image whose values are its coordinates has, at each level, the coordinates it says."""
    shape, voxel = (12, 700, 600), (0.3, 0.1, 0.2)
    image = blank(shape, "f4", voxel_um=voxel, channels=(Channel("GFP", 509.0),))
    store = Store.create(tmp_path / "a.zarr", image, ngff=ngff, durable=False)
    grids = np.meshgrid(*(np.arange(n) * v for n, v in zip(shape, voxel, strict=True)), indexing="ij")
    fill(store, (grids[0] + 10 * grids[1] + 100 * grids[2]).astype("f4"))
    store.complete({"method": "rl"}, [(0.0, 5.5)])
    group = yaozarrs.validate_zarr_store(str(store.path))
    ome = group.ome_metadata()
    assert ome.multiscales[0].type == "mean"
    assert (ome.omero.channels[0].window.start, ome.omero.channels[0].window.end) == (0.0, 5.5)
    assert group.attrs["gpudecon"]["method"] == "rl"
    assert len(ome.multiscales[0].datasets) == 3
    for dataset in ome.multiscales[0].datasets:
        scale, *rest = dataset.coordinateTransformations
        moved = rest[0].translation if rest else [0, 0, 0]
        array = zarr.open_array(store.path / dataset.path, mode="r")
        inner = tuple(slice(0, n - 1) for n in array.shape)  # the last block may hold fewer voxels
        axes = (np.arange(n) * s + t for n, s, t in zip(array.shape, scale.scale, moved, strict=True))
        z, y, x = np.meshgrid(*axes, indexing="ij")
        np.testing.assert_allclose(array[inner], (z + 10 * y + 100 * x)[inner], rtol=1e-5, atol=1e-4)


def test_shards_of_other_levels_are_smaller(tmp_path):
    image = blank((2, 100, 3000, 2000), axes="czyx", voxel_um=(0.1, 0.1, 0.1))
    store = Store.create(tmp_path / "a.zarr", image, chunk=(16, 128, 128), shard=(64, 512, 384), durable=False)
    assert store.write_unit == (64, 512, 384)
    assert [store.units(n).unit for n in (0, 1, 4)] == [(1, 64, 512, 384), (1, 32, 256, 128), (1, 7, 256, 125)]
    first = store.pyramid_tasks()[0]
    assert (first.level, first.region) == (1, (slice(0, 1), slice(0, 32), slice(0, 256), slice(0, 128)))
    tasks = store.pyramid_tasks()
    assert list(tasks) == [tasks[i] for i in range(len(tasks))]
    assert len(tasks) == sum(len(store.units(n)) for n in range(1, 5))
    assert tasks[-1].level == 4
    with pytest.raises(IndexError):
        tasks[len(tasks)]


def test_uint16_with_one_scale(tmp_path, rng):
    values = rng.normal(3, 10, (20, 37, 95)).astype("f4")
    low, high = float(values.min()), float(values.max())
    source = Store.create(tmp_path / "a.zarr", blank(values.shape), chunk=CUBE[0], pyramid=False, durable=False)
    fill(source, values)
    scaled = Scaled(source.image.data, (high - low) / 65535, low)
    target = Store.create(tmp_path / "b.zarr", blank(values.shape, "u2"), chunk=CUBE[0], shard=CUBE[1], durable=False)
    for region in target.units():
        assert checksum(target.copy(region, scaled)) == target.checksum(region)
    stored = target.read((slice(None),) * 3)
    assert (stored.dtype, stored.min(), stored.max()) == (np.uint16, 0, 65535)
    back = stored.astype(float) * scaled.scale + scaled.offset
    np.testing.assert_allclose(back, values, atol=0.5001 * scaled.scale)
    beyond = Scaled(values, (high - low) / 65535 / 2, low + 1)  # where stored numbers would wrap
    unclipped = np.rint((values.astype(float) - beyond.offset) / beyond.scale)
    np.testing.assert_array_equal(beyond[(slice(None),) * 3], np.clip(unclipped, 0, 65535))


def test_units_side_by_side():
    units = pyramid.Units((2, 100, 300, 500), (1, 32, 64, 64))
    assert units.joined(32 * 64 * 500).unit == (1, 32, 64, 448)
    assert units.joined(32 * 64 * 512).unit == (1, 32, 64, 512)
    assert units.joined(32 * 300 * 512).unit == (1, 32, 256, 512)
    assert units.joined(1).unit == (1, 32, 64, 64)
    assert len(units.joined(10**9)) == 1


@pytest.mark.parametrize(("chunk", "shard"), [((16, 64, 64), None), ((16, 64, 64), (32, 128, 256))])
def test_memory_of_a_pyramid_task(tmp_path, rng, chunk, shard):
    """At most four times that of a unit and the eight that it is made of, however large the image."""
    values = rng.random((96, 300, 520), np.float32)
    store = Store.create(tmp_path / "a.zarr", blank(values.shape), chunk=chunk, shard=shard, durable=False)
    store.write((slice(None),) * 3, values)
    store.reduce(store.pyramid_tasks()[-1])  # what is made once
    tracemalloc.start()
    block = store.reduce(store.pyramid_tasks()[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert block.nbytes <= peak < 4 * 9 * block.nbytes < values.nbytes


def test_lists_of_a_huge_image_cost_nothing():
    units = pyramid.Units((1000, 3, 2000, 20000, 20000), (1, 1, 64, 512, 512))
    assert len(units) == 3000 * 32 * 40 * 40
    assert units[len(units) - 1] == (
        slice(999, 1000), slice(2, 3), slice(1984, 2000), slice(19968, 20000), slice(19968, 20000),
    )  # fmt: skip


@pytest.mark.parametrize(
    "region", [(0, 8, 0, 16, 0, 16), (0, 16, 0, 32, 0, 40), (8, 24, 0, 32, 0, 48), (16, 20, 0, 32, 48, 95)]
)
def test_a_part_of_a_unit_is_refused(tmp_path, region):
    chunk, shard = CUBE
    store = Store.create(tmp_path / "a.zarr", blank((20, 37, 96)), chunk=chunk, shard=shard)
    region = tuple(slice(*region[i : i + 2]) for i in (0, 2, 4))
    with pytest.raises(ValueError, match=r"is not made of whole units of \(16, 32, 48\); begin and end at multiples"):
        store.write(region, np.zeros([part.stop - part.start for part in region], "f4"))
    store.write((slice(16, 20), slice(32, 37), slice(0, 96)), np.ones((4, 5, 96), "f4"))
    with pytest.raises(ValueError, match=r"block is float64 of shape \(4, 5, 96\); the region takes float32"):
        store.write((slice(16, 20), slice(32, 37), slice(0, 96)), np.ones((4, 5, 96)))


def test_layouts_that_cannot_be(tmp_path):
    for layout in ({"ngff": "0.4", "shard": (32, 256, 256)}, {"chunk": (8, 8, 8), "shard": (8, 8, 12)}):
        with pytest.raises(InputError, match=r"Shards of .* they need version 0\.5, and .* a whole number of chunks"):
            Store.create(tmp_path / "a.zarr", blank((20, 37, 95)), **layout)
    with pytest.raises(InputError, match=r"given as '0\.6'; use one of 0\.4, 0\.5"):
        Store.create(tmp_path / "a.zarr", blank((20, 37, 95)), ngff="0.6")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ngff", "shard"), [("0.4", None), ("0.5", None), ("0.5", CUBE[1])])
def test_zeros_are_stored(tmp_path, ngff, shard):
    store = Store.create(tmp_path / "a.zarr", blank((20, 37, 95)), ngff=ngff, chunk=CUBE[0], shard=shard)
    fill(store, np.zeros((20, 37, 95), "f4"))
    folder = store.path / "0" / ("c" if ngff == "0.5" else "")
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and file.name.isdecimal()}
    counts = (2, 2, 2) if shard else (3, 3, 6)
    assert files == {"/".join(map(str, index)) for index in np.ndindex(counts)}
    if shard:  # and inside a shard, all its chunks
        assert (folder / "0/0/0").stat().st_size > 12 * 16


def test_time_points_and_channels(tmp_path, rng):
    image = blank((2, 3, 20, 37, 95), "u2")
    store = Store.create(tmp_path / "a.zarr", image, chunk=CUBE[0], shard=CUBE[1])
    stack = rng.integers(0, 9, (20, 37, 95)).astype("u2")
    box = (slice(16, 20), slice(0, 32), slice(48, 95))
    store.write(store.image.region(1, 2, box), stack[box])  # a stack's block on the image's axes
    expected = np.zeros(image.shape, "u2")
    expected[(1, 2, *box)] = stack[box]
    np.testing.assert_array_equal(store.read((slice(None),) * 5), expected)
    assert store.checksum(store.image.region(1, 2, box)) == checksum(stack[box])
    assert store.checksum(store.image.region(1, 2)) == checksum(expected[1, 2]) != checksum(stack)


@pytest.mark.parametrize("start", ["threads", "processes"])
def test_many_writers(tmp_path, rng, start):
    chunk, shard = CUBE
    values = rng.integers(1, 60000, (40, 70, 130)).astype("u2")
    store = Store.create(tmp_path / "a.zarr", blank(values.shape, "u2"), chunk=chunk, shard=shard)
    if start == "threads":
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda region: store.write(region, values[region]), store.units()))
    else:
        spawn = multiprocessing.get_context("spawn")
        workers = [spawn.Process(target=write_share, args=(store.path, values, n, 2)) for n in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
    np.testing.assert_array_equal(store.read((slice(None),) * 3), values)
    assert list(store.path.rglob("*.partial")) == []


@pytest.mark.parametrize(("ngff", "shard"), [("0.4", None), ("0.5", None), ("0.5", (8, 128, 192))])
def test_as_a_second_reader_sees_it(tmp_path, rng, ngff, shard):
    ngff_zarr = pytest.importorskip("ngff_zarr", reason="is not installed: pip install 'gpudecon[oracles]'")
    values = rng.integers(1, 60000, (2, 13, 203, 511)).astype("u2")
    image = blank(values.shape, "u2", "czyx", (0.3, 0.1, 0.1), channels=(Channel("GFP", 509.0), Channel("b")))
    store = Store.create(tmp_path / "a.ome.zarr", image, ngff=ngff, chunk=(8, 64, 64), shard=shard, durable=False)
    fill(store, values)
    store.complete({}, [(0, 60000)] * 2)
    first, second = ngff_zarr.from_ngff_zarr(str(store.path)).images
    np.testing.assert_array_equal(np.asarray(first.data), values)
    np.testing.assert_array_equal(np.asarray(second.data), store.read((slice(None),) * 4, 1))
    assert (first.scale, first.translation) == (
        {"c": 1, "z": 0.3, "y": 0.1, "x": 0.1}, {"c": 0, "z": 0, "y": 0, "x": 0},
    )  # fmt: skip
    assert (second.scale, second.translation) == (
        {"c": 1, "z": 0.3, "y": 0.2, "x": 0.2}, {"c": 0, "z": 0, "y": 0.05, "x": 0.05},
    )  # fmt: skip


def write_share(path, values, first, every):
    store = Store.open(path)
    for i in range(first, len(store.units()), every):
        store.write(store.units()[i], values[store.units()[i]])


def test_forced_to_the_disk(tmp_path, monkeypatch):
    """Each file of a region and each folder that leads to it has been through fsync when `write` returns."""
    forced = []

    def fsync(handle):
        forced.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    chunk, shard = CUBE
    store = Store.create(tmp_path / "a.zarr", blank((2, 20, 37, 95), axes="czyx"), chunk=chunk, shard=shard)
    assert set(tmp_path.rglob("*")) | {tmp_path} == set(forced)
    forced.clear()
    store.write(store.image.region(0, 1), np.ones((20, 37, 95), "f4"))
    folder = store.path / "0" / "c" / "1"
    assert set(folder.rglob("*")) | {folder, folder.parent, store.path, tmp_path} <= set(forced)
    forced.clear()
    store.write(store.image.region(0, 1), np.ones((20, 37, 95), "f4"))
    assert set(forced) == set(folder.rglob("*/*"))
    forced.clear()
    store.complete({})
    assert {store.path / "zarr.json", store.path} <= set(forced)
    hasty = Store.open(store.path, durable=False)
    forced.clear()
    hasty.write(store.image.region(0, 1), np.ones((20, 37, 95), "f4"))
    assert forced == []


def test_sweep(tmp_path):
    """Writers that are killed leave half-written files, which are taken away, and no torn ones."""
    store = Store.create(tmp_path / "a.zarr", blank((64, 256, 256)), chunk=(16, 64, 64), shard=(64, 256, 256))
    code = (
        "import sys, itertools, numpy as np; from gpudecon.io.store import Store; store = Store.open(sys.argv[1]);"
        "rng = np.random.default_rng(0); block = rng.random((64, 256, 256), np.float32); print('ready', flush=True);"
        "[store.write(store.units()[0], block) for _ in itertools.count()]"
    )
    strays = 0
    for _ in range(20):
        writer = subprocess.Popen([sys.executable, "-c", code, str(store.path)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        stray = wait_for_partial(store.path)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        strays += stray
        if list(store.path.rglob("*.partial")):
            break
    else:
        pytest.fail("no writer was killed in the middle of a file")
    (store.path / "0" / "my.partial").write_text("of somebody else")
    assert store.sweep() == 1
    assert [path.name for path in store.path.rglob("*.partial")] == ["my.partial"]
    assert store.sweep() == 0


def wait_for_partial(folder):
    while not (found := list(folder.rglob("*.partial"))):
        pass
    return len(found)
