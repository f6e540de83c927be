"""Half tiles: geometry, and a device that has less memory than was planned with."""

import importlib
import itertools
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpudecon as gd
from gpudecon.backend.numpy import NumpyBackend
from gpudecon.backend.transfer import Arrived
from gpudecon.engine.halving import Halving
from gpudecon.engine.memory import padded_shape
from gpudecon.engine.run import run
from gpudecon.engine.tiling import Tiling
from gpudecon.engine.workspace import folder_of
from gpudecon.errors import DeviceMemoryError, StoppedError

THREE = st.tuples(*[st.integers(1, 9)] * 3)


@settings(deadline=None, max_examples=60)
@given(stack=THREE, core=THREE, halo=st.tuples(*[st.integers(0, 3)] * 3))
def test_two_pieces_make_the_core_with_all_of_its_halo(stack, core, halo):
    tiling = Tiling(stack, core, halo)
    halving = Halving.of(tiling)
    if halving is None:  # no axis along which half a core needs less
        assert all(
            min(n, -(-min(n, c) // 2) + 2 * h) == r
            for n, c, h, r in zip(stack, core, halo, tiling.read_shape, strict=True)
        )
        return
    assert np.prod(halving.window_shape) < np.prod(tiling.read_shape)
    for tile in tiling:
        covered = np.zeros([part.stop - part.start for part in tile.core], int)
        for piece in halving.pieces(tile):
            covered[piece.core] += 1
            assert tuple(part.stop - part.start for part in piece.window) == halving.window_shape
            for a in range(3):
                window, crop, place = piece.window[a], piece.crop[a], piece.core[a]
                start, stop = tile.read[a].start + window.start, tile.read[a].start + window.stop  # in the stack
                assert start + crop.start == tile.core[a].start + place.start
                assert crop.stop - crop.start == place.stop - place.start
                assert crop.start >= halo[a] or start == 0
                assert stop - (start + crop.stop) >= halo[a] or stop == stack[a]
        assert (covered == 1).all()


class Small(NumpyBackend):
    """A CPU that has no memory for transforms of more than ``most`` voxels, and says when it holds two plans."""

    def __init__(self, most, alive, **options):
        super().__init__(**options)
        self._most, self._alive = most, alive

    def plan(self, shape):
        assert not self._alive
        if np.prod(shape) > self._most:
            raise DeviceMemoryError("There is no room for this transform.")
        made = super().plan(shape)
        self._alive.add(made)
        return made


@pytest.fixture
def limited(monkeypatch):
    """A function after which every backend is `Small`."""

    def limit(most):
        alive = weakref.WeakSet()
        module = importlib.import_module("gpudecon.deconvolve")
        monkeypatch.setattr(module, "get_backend", lambda device, threads: Small(most, alive, threads=threads))

    return limit


class Downloaded(np.ndarray):
    """An array of the host."""


class OnDevice(np.ndarray):
    """An array that no downloaded one can be assigned to, and that is worked on where the device is active only."""

    active = 0
    __cuda_array_interface__ = None

    def copy(self, order="C"):
        assert OnDevice.active
        return super().copy(order)

    def __setitem__(self, box, values):
        assert OnDevice.active
        assert not isinstance(values, Downloaded)
        super().__setitem__(box, values)

    def get(self):
        return np.array(self)


class Apart(Small):
    """As `Small`, with arrays of its own, and without room for what is sent ahead."""

    class xp:
        empty = staticmethod(lambda *of: np.empty(*of).view(OnDevice))

        def __getattr__(self, name):
            return getattr(np, name)

    xp = xp()

    @contextmanager
    def active(self):
        OnDevice.active += 1
        try:
            yield
        finally:
            OnDevice.active -= 1

    def upload(self, array):
        assert OnDevice.active
        return np.ascontiguousarray(array).view(OnDevice)

    def download(self, array):
        return np.array(array).view(Downloaded)

    def owns(self, array):
        return isinstance(array, OnDevice)

    def fetch(self, array):
        assert self.owns(array)
        return Arrived(array.get())


@pytest.mark.parametrize("missing", [0, 1])
def test_tiles_that_there_was_no_room_to_send_ahead(exact, monkeypatch, missing):
    """They are brought to the device when it is their turn, whole or in halves."""
    job, plan = exact("expected.ome.zarr")
    run(job, plan)
    job, plan = exact("out.ome.zarr")
    most, alive = tile_voxels(job, plan) - missing, weakref.WeakSet()
    for module in ("gpudecon.deconvolve", "gpudecon.engine.tile"):
        monkeypatch.setattr(
            importlib.import_module(module),
            "get_backend",
            lambda device, threads: Apart(most, alive, threads=threads),
        )
    with pytest.warns(gd.GpudeconWarning, match="in halves") if missing else nullcontext():
        run(job, plan)
    expected, found = (gd.read(plan.output.replace("out", name)).volume() for name in ("expected", "out"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())


def voxels(plan):
    return int(np.prod(plan.needs.padded_shape))


def tile_voxels(job, plan):
    """Where the halo is not the planned one."""
    (psf,) = job.psfs
    return int(np.prod(padded_shape(plan.tiling.read_shape, psf.shape, "extend", NumpyBackend())))


@pytest.fixture
def exact(planned):
    """A function that makes (job, plan) of one iteration with all the halo that this one reaches."""

    def make(output, **fields):
        job, plan = planned(output, iterations=1, timepoints=(0,), **fields)
        return job, replace(plan, tiling=replace(plan.tiling, halo=(2, 4, 6)))

    return make


def test_too_little_memory_for_a_tile_but_enough_for_half(exact, limited):
    job, plan = exact("whole.ome.zarr")
    run(job, plan)
    job, plan = exact("halves.ome.zarr")
    limited(tile_voxels(job, plan) - 1)
    with pytest.warns(gd.GpudeconWarning, match=r"no room.*restored in halves of \(5, \d+, \d+\)") as said:
        record = run(job, plan).record
    assert len(said) == 1
    assert record["warnings"] == [str(said[0].message)]
    whole, halves = (np.asarray(gd.read(plan.output.replace("halves", name)).data) for name in ("whole", "halves"))
    np.testing.assert_allclose(halves, whole, rtol=0, atol=1e-5 * whole.max())


def test_halves_of_a_stack_that_was_to_be_one_tile_share_its_constants(planned, limited, tmp_path, rng):
    """One half is on a haze, which is no background of its own."""
    counts = rng.poisson(100, (5, 41, 53))
    counts[..., 26:] += rng.poisson(100, (5, 41, 27))
    path = tmp_path / "hazy.ome.zarr"
    gd.write(path, gd.Image(counts.astype(np.uint16), "zyx", (0.2, 0.1, 0.1)))
    given = {"image": gd.read(path), "path": str(path), "channels": (0,), "timepoints": (0,), "background": "auto"}
    job, plan = planned(tile=(5, 48, 64), **given)
    assert len(plan.tiling) == 1
    run(job, plan)
    whole = gd.read(plan.output).volume()
    plan = replace(plan, output=str(tmp_path / "halves.ome.zarr"), tiling=replace(plan.tiling, halo=(2, 8, 0)))
    limited(voxels(plan) - 1)
    with pytest.warns(gd.GpudeconWarning, match="in halves"):
        record = run(job, plan).record
    halves = gd.read(plan.output).volume()
    np.testing.assert_allclose(halves.mean((0, 1)), whole.mean((0, 1)), rtol=0, atol=20)
    assert 80 < record["found"][0]["background"] < 100


@pytest.mark.parametrize("fields", [{"edges": "periodic"}, {"method": gd.METHODS["ictm"](2)}])
def test_what_cannot_be_cut_is_not_halved(planned, limited, tmp_path, fields):
    job, plan = planned(tile=(5, 48, 64), channels=(1,), timepoints=(0,), **fields)
    limited(voxels(plan) - 1)
    with pytest.raises(DeviceMemoryError, match=r"has to be done whole .*a device with more memory"):
        run(job, plan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ome.zarr"]


def test_too_little_memory_for_anything(planned, limited):
    job, plan = planned(timepoints=(0,))
    limited(100)
    needs = r"needs [\d.]+ [MG]iB of memory, [\d.]+ GiB are free, and half a tile .*--memory or --tile"
    with pytest.raises(DeviceMemoryError, match=needs):
        run(job, plan)
    assert not folder_of(plan.output).exists()


def test_tiles_that_were_done_before_the_memory_ended_are_kept(exact, limited):
    job, plan = exact("out.ome.zarr")
    calls = itertools.count()
    with pytest.raises(StoppedError):
        run(job, plan, stop=lambda: next(calls) >= 2)
    limited(100)
    with (
        pytest.warns(gd.GpudeconWarning, match="in halves"),
        pytest.raises(DeviceMemoryError, match="2 of 8 tiles are"),
    ):
        run(job, plan, resume=True)
