"""Plans: what they hold, what changes their hash, and the tiles that are chosen."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpudecon as gd
from gpudecon.backend import get_backend
from gpudecon.backend.numpy import NumpyBackend
from gpudecon.engine.job import Job
from gpudecon.engine.plan import Plan, plan_job
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.image import Blank
from gpudecon.methods import make_method

VOXEL = (0.3, 0.1, 0.1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = tmp_path_factory.mktemp("plan") / "stack.ome.zarr"
    gd.write(made, gd.Image(np.arange(7 * 9 * 11, dtype=np.uint16).reshape(7, 9, 11), "zyx", VOXEL))
    return made


def job_of(path, shape=(7, 9, 11), axes="zyx", psf=(5, 7, 7), method=None, dtype=np.uint16, **rest):
    """A job whose pixels are never read; the Gaussian PSF has unequal sides."""
    grid = np.meshgrid(*((np.arange(n) - n // 2) * 4 / n for n in psf), indexing="ij")
    kernel = gd.PSF(np.exp(-sum(g**2 for g in grid)).astype(np.float32), VOXEL[-len(psf) :])
    method = method or gd.RichardsonLucy()
    image = gd.Image(Blank(shape, np.dtype(dtype)), axes, VOXEL[-len(psf) :])
    given = {"psfs": (kernel,) if method.needs_psf else (), "device": "cpu", "threads": 1} | rest
    return Job(image, str(path), method=method, **given)


def plan_of(path, shape=(7, 9, 11), memory=None, tile=None, ngff="0.5", backend=None, **rest):
    return plan_job(job_of(path, shape, **rest), "out.ome.zarr", memory=memory, tile=tile, ngff=ngff, backend=backend)


def test_plan_survives_json(path):
    camera = gd.Camera(offset=100.0, gain=2.0, read_noise=1.5)
    plan = plan_of(
        path, (3, 2, 40, 600, 700), axes="tczyx", channels=(1,), timepoints=(0, 2), camera=camera, tile=(40, 256, 256)
    )
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.hash == plan.hash
    assert again.differences(plan) == []
    assert list(again.tasks()) == list(plan.tasks())
    assert len(plan) == 2 * 3 * 3  # one channel, two time points, three tiles along y and along x


def test_tasks_cover_the_output_and_read_the_input(path):
    shape = (3, 2, 7, 300, 520)
    plan = plan_of(path, shape, axes="tczyx", channels=(1, 0), timepoints=(2, 0), tile=(7, 256, 256))
    written = np.zeros((2, 2, 7, 300, 520), int)
    for task in plan.tasks():
        written[task.target] += 1
        t, c = task.source[:2]
        assert (t.start, c.start) == (task.timepoint, task.channel)
        assert plan.timepoints[task.target[0].start] == task.timepoint
        assert plan.channels[task.target[1].start] == task.channel
        assert task.source[2:] == task.tile.read
        assert task.target[2:] == task.tile.core
    assert (written == 1).all()
    assert [plan.task(i).channel for i in range(0, len(plan), len(plan) // 2)] == [1, 0]  # one PSF after the other


def test_plane_has_no_z(path):
    plan = plan_of(path, (300, 520), axes="yx", psf=(7, 9), tile=(1, 256, 256))
    assert plan.tiling.stack == (1, 300, 520)
    assert all(len(task.source) == len(task.target) == 2 for task in plan.tasks())


CHANGES = {
    "method": ({"method": gd.Wiener()}, 'method is "wiener", was "rl"'),
    "option": ({"method": gd.RichardsonLucy(iterations=31)}, "options iterations is 31, was 30"),
    "setting": ({"background": 7.0}, "settings background is 7.0, was 0.0"),
    "psf": ({"psf": (5, 7, 9)}, "psfs 0 shape is [5, 7, 9], was [5, 7, 7]"),
    "channels": ({"dtype": np.uint8}, 'source dtype is "uint8", was "uint16"'),
    "tile": ({"shape": (7, 9, 12)}, "source shape is [7, 9, 12], was [7, 9, 11]"),
    "ngff": ({"ngff": "0.4"}, 'ngff is "0.4", was "0.5"'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_result_changes_the_hash(path, name):
    change, words = CHANGES[name]
    plan, changed = plan_of(path), plan_of(path, **change)
    assert changed.hash != plan.hash
    assert words in changed.differences(plan)


@pytest.mark.parametrize("change", [{"threads": 2}, {"memory": 2 << 30}])
def test_where_it_is_computed_does_not_change_the_hash(path, change):
    assert plan_of(path, **change).hash == plan_of(path).hash


def test_input_that_was_written_again_is_noticed(tmp_path):
    file = tmp_path / "stack.tif"
    image = gd.Image(np.ones((7, 9, 11), np.uint16), "zyx", VOXEL)
    gd.write(file, image)
    plan = plan_of(file)
    assert plan_of(file).hash == plan.hash
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    assert plan_of(file).differences(plan) == ["the input file has changed since"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"hash": "0"}'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(InputError, match="no plan of gpudecon"):
        Plan.from_json(text)


def test_edited_plan_is_refused(path):
    document = json.loads(plan_of(path).to_json())
    document["options"]["iterations"] = 10
    with pytest.raises(InputError, match="it was edited"):
        Plan.from_json(json.dumps(document))


SIZES = st.tuples(st.integers(1, 90), st.integers(1, 1500), st.integers(1, 1500))


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(400, 1500), st.sampled_from(["0.4", "0.5"]))
def test_tiles_fit_the_memory_and_are_whole_units(path, shape, mebibytes, ngff):
    plan = plan_of(path, shape, memory=mebibytes << 20, ngff=ngff)
    assert plan.needs.bytes <= mebibytes << 20
    assert (plan.shards is None) or ngff == "0.5"
    unit = plan.shards or plan.chunks
    assert plan.tiling.unit == unit
    for length, core, whole, chunk, most in zip(
        shape, plan.tiling.core_shape, unit, plan.chunks, (32, 256, 256), strict=True
    ):
        assert core >= length or core % whole == 0
        assert whole % chunk == 0
        assert chunk <= most


def test_z_is_cut_only_when_it_must_be(path):
    lateral = plan_of(path, (64, 2000, 2000), memory=2 << 30)
    assert lateral.tiling.counts[0] == 1
    assert len(lateral.tiling) > 1
    deep = plan_of(path, (20_000, 300, 300), memory=1 << 30)
    assert deep.tiling.counts[0] > 1


def test_tile_is_the_cheapest_of_those_that_fit(path):
    """Against every core of whole chunks, evaluated one by one."""
    shape, memory = (40, 1100, 1300), 900 << 20
    plan = plan_of(path, shape, memory=memory)
    backend = get_backend("cpu", threads=1)

    def cost(candidate):
        return len(candidate.tiling) * backend.transform_cost(candidate.needs.padded_shape)

    others = []
    for y in range(256, 1101, 256):
        for x in range(256, 1301, 256):
            try:
                others.append(plan_of(path, shape, memory=memory, tile=(40, y, x)))
            except InputError:
                continue
    assert len(others) > 2
    assert cost(plan) <= min(map(cost, others))


def test_given_tile_is_rounded_up_and_says_so(path):
    with pytest.warns(GpudeconWarning, match=r"\(40, 300, 100\) is rounded up to \(40, 512, 112\)"):
        plan = plan_of(path, (40, 1100, 1300), tile=(40, 300, 100))
    assert plan.tiling.core_shape == (40, 512, 112)
    assert plan.chunks == (32, 256, 112)
    assert "asked for" in plan.needs.limit


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edges": "periodic"}, "edges 'periodic' opposite faces touch"),
        ({"method": gd.Homomorphic()}, "homomorphic with these options depends on the whole image"),
    ],
)
def test_what_cannot_be_cut_says_what_it_needs(path, change, words):
    whole = plan_of(path, (40, 500, 500), **change)
    assert len(whole.tiling) == 1
    with pytest.raises(InputError, match=words) as caught:
        plan_of(path, (40, 500, 500), memory=300 << 20, **change)
    assert "GiB" in str(caught.value) or "MiB" in str(caught.value)
    with pytest.raises(InputError, match=words):
        plan_of(path, (40, 500, 500), tile=(40, 256, 256), **change)


def test_too_little_memory_says_what_the_smallest_tile_needs(path):
    with pytest.raises(InputError, match=r"The smallest tile needs .* but 100\.00 MiB may be used"):
        plan_of(path, (40, 500, 500), memory=100 << 20)


class Short(NumpyBackend):
    """A device with much memory and transforms of at most 2^24 numbers."""

    name, largest_transform = "cuda:0", 1 << 24

    def memory(self):
        return 1 << 40, 1 << 40


def test_what_the_device_cannot_transform_is_cut(path):
    shape = (40, 1100, 1300)
    plan = plan_of(path, shape, backend=Short(threads=1))
    z, y, x = plan.needs.padded_shape
    assert len(plan.tiling) > 1
    assert z * y * 2 * (x // 2 + 1) <= 1 << 24
    assert plan.needs.limit == "the largest transform of cuda:0, 16777216 numbers"
    assert len(plan_of(path, (40, 300, 300), backend=Short(threads=1)).tiling) == 1
    unblurred = plan_of(path, shape, method=gd.Median(), backend=Short(threads=1))
    assert len(unblurred.tiling) == 1  # nothing is transformed
    with_less = plan_of(path, shape, memory=400 << 20, backend=Short(threads=1))
    assert with_less.needs.limit == "the memory allowed, 400.00 MiB"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tile": (40, 1100, 1300)}, r"This tile needs a transform of \(44, .* 16777216 numbers; .* a smaller one"),
        (
            {"edges": "periodic"},
            r"restoring the whole stack needs a transform of \(40, 1100, 1300\), but those of cuda",
        ),
        (
            {"psf": (40, 1000, 1000)},
            "The smallest tile needs a transform of .*; use device 'cpu', or give a smaller PSF",
        ),
    ],
)
def test_what_the_device_can_neither_transform_nor_cut_is_refused(path, given, words):
    with pytest.raises(InputError, match=words):
        plan_of(path, (40, 1100, 1300), backend=Short(threads=1), **given)


def test_resume_keeps_the_tiles(path):
    earlier = plan_of(path, (40, 1100, 1300), memory=900 << 20)
    now = plan_of(path, (40, 1100, 1300), memory=2 << 30)
    assert now.differences(earlier)
    assert now.with_tiles_of(earlier).hash == earlier.hash


def test_plan_of_a_million_tiles_is_short(path):
    plan = plan_of(path, (64, 260_000, 260_000), tile=(64, 256, 256))
    assert len(plan) > 1_000_000
    assert len(plan.to_json()) < 4000
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"background": np.nan}, "background is nan"),
        ({"saturation": np.nan}, "saturation is nan"),
        ({"camera": 2.0}, "camera is 2.0"),
        ({"saturation": 60.0, "method": make_method("wiener", {})}, "wiener cannot leave voxels out"),
    ],
)
def test_a_job_is_checked_when_it_is_made(path, fields, words):
    """And not by the first of its workers."""
    with pytest.raises(InputError, match=words):
        replace(job_of(path), **fields)
