"""Whole runs in this process: what comes out, what is left when they end early, what is refused."""

import json
import re
import signal
from dataclasses import replace

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.engine.run import finish, in_this_process, prepare, run
from gpudecon.engine.tile import Worker, restore_tile
from gpudecon.engine.workspace import Workspace, folder_of
from gpudecon.errors import InputError, RunError, StoppedError
from gpudecon.io.store import Store


@pytest.fixture
def after(tmp_path):
    """A function that says True from its k-th call on."""

    def make(k):
        calls = iter(range(10**6))
        return lambda: next(calls) >= k

    return make


@pytest.fixture
def uninterrupted(planned):
    """Pixels of the run that nothing disturbs."""
    job, plan = planned("uninterrupted.ome.zarr")
    run(job, plan)
    return gd.read(plan.output)


def changes(file):
    """What differs where it was written or replaced; reading alone may change the time of access."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode, status.st_nlink


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_output_is_described_and_keeps_the_light(planned, series, tmp_path):
    job, plan = planned(tile=(5, 16, 32))
    assert plan.tiling.counts == (1, 3, 2)
    done = run(job, plan)
    assert listing(tmp_path) == ["in.ome.zarr", "out.ome.zarr"]
    image = gd.read(plan.output)
    assert (image.axes, image.dtype, image.voxel_um, image.time_step_s) == ("tczyx", np.float32, (0.2, 0.1, 0.1), 1.5)
    assert [channel.name for channel in image.channels] == ["DAPI", "GFP"]
    assert image.provenance == done.record | {"axes": "tczyx", "channels": image.provenance["channels"]}
    assert image.provenance["plan"]["hash"] == plan.hash
    assert np.asarray(image.data).min() >= 0
    light = np.asarray(series[1], np.float64) - 100
    np.testing.assert_allclose(np.asarray(image.data).mean((2, 3, 4)), light.mean((2, 3, 4)), rtol=0.05)


@pytest.mark.parametrize("k", [1, 6])
def test_stopped_and_resumed(planned, uninterrupted, after, tmp_path, k):
    job, plan = planned()
    with pytest.raises(StoppedError, match=rf"^Stopped as asked. {k} of {len(plan)} tiles are done and kept; go on"):
        run(job, plan, stop=after(k))
    assert not (tmp_path / "out.ome.zarr").exists()
    with pytest.raises(InputError, match=rf"interrupted run .* \({k} of its tiles are done\).*--resume.*--overwrite"):
        run(job, plan)
    run(job, plan, resume=True)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data))
    assert listing(tmp_path) == ["in.ome.zarr", "out.ome.zarr", "uninterrupted.ome.zarr"]


def test_stopped_before_anything(planned, tmp_path):
    job, plan = planned()
    with pytest.raises(StoppedError, match=r"^Stopped as asked\.$"):
        run(job, plan, stop=lambda: True)
    assert listing(tmp_path) == ["in.ome.zarr"]


def test_resuming_nothing_begins(planned, uninterrupted):
    job, plan = planned()
    run(job, plan, resume=True)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data))


def test_resuming_what_is_complete_does_nothing(planned, tmp_path):
    """As a scheduler does that has not noticed the end."""
    job, plan = planned()
    record = run(job, plan).record
    before = changes(tmp_path / "out.ome.zarr" / "zarr.json")
    done = run(job, plan, resume=True, verify=True, seams=True)
    again = done.record
    assert done.was_complete
    assert again == record | {"axes": again["axes"], "channels": again["channels"]}
    assert changes(tmp_path / "out.ome.zarr" / "zarr.json") == before
    with pytest.raises(InputError, match="exists"):
        run(*planned(iterations=4), resume=True)


@pytest.mark.parametrize("is_moved", [True, False])
def test_an_end_between_completion_and_the_last_removal(planned, uninterrupted, tmp_path, is_moved):
    """The folder as a process leaves it that is killed while it moves the output, or removes the rest."""
    job, plan = planned()
    record = run(job, plan).record
    folder = folder_of(plan.output)
    folder.mkdir()
    with prepare(*planned("other.ome.zarr")) as workspace:
        (workspace.folder / "run.json").rename(folder / "run.json")
        workspace.discard()
    (folder / "plan.json").write_text(plan.to_json())
    (folder / "complete.json").write_text(json.dumps(record))
    if not is_moved:
        (tmp_path / "out.ome.zarr").rename(folder / "out.ome.zarr")
    assert run(job, plan, resume=True).record == record
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data))
    assert listing(tmp_path) == ["in.ome.zarr", "out.ome.zarr", "uninterrupted.ome.zarr"]


@pytest.mark.parametrize("output", ["out.ome.zarr", "out.ome.tif", "int.ome.zarr", "int.ome.tif"])
def test_every_kind_of_output_in_two_goes(planned, uninterrupted, after, tmp_path, output):
    job, plan = planned(output, dtype="uint16" if output.startswith("int") else "float32")
    with pytest.raises(StoppedError):
        run(job, plan, stop=after(9))
    record = run(job, plan, resume=True, verify=True).record
    stored, expected = np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data)
    if plan.dtype == "uint16":
        intensity = record["intensity"]
        assert (stored.max(), intensity["offset"]) == (65535, 0.0)
        np.testing.assert_array_equal(stored, np.rint(expected.astype(np.float64) / intensity["scale"]))
    else:
        np.testing.assert_array_equal(stored, expected)
    assert listing(tmp_path) == sorted(["in.ome.zarr", output, "uninterrupted.ome.zarr"])


def test_any_worker_in_any_order(planned, uninterrupted, rng):
    """What a cluster does: tasks are handed out singly, some twice; then somebody finishes."""
    job, plan = planned()
    with prepare(job, plan):
        pass
    for index in [*rng.permutation(len(plan)), 3, 0]:
        record = restore_tile(folder_of(plan.output), int(index))
        assert (record.kind, record.task, record.iterations) == ("tile", index, 3)
    with Workspace.open(folder_of(plan.output)) as workspace:
        finish(workspace, verify=True)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data))


def test_shares(planned, uninterrupted):
    """Two processes of a job array, one after the other, each with its own tasks."""
    job, plan = planned()
    with prepare(job, plan):
        pass
    for first in range(2):
        with Workspace.open(folder_of(plan.output)) as workspace:
            in_this_process(Worker(workspace), range(first, len(plan), 2))
    with Workspace.open(folder_of(plan.output), alone=True) as workspace:
        finish(workspace)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data))


def test_finishing_too_early(planned):
    job, plan = planned()
    with prepare(job, plan) as workspace:
        Worker(workspace).restore(1)
        with pytest.raises(RunError, match=f"{len(plan) - 1} of {len(plan)} tiles are not restored yet"):
            finish(workspace)


def test_two_runs_on_one_output(planned):
    job, plan = planned()
    with prepare(job, plan):
        for way in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match=r"Another run is at work .* \(process \d+ on .*\); wait"):
                run(job, plan, **way)
        with pytest.raises(InputError, match="Another run"):
            Workspace.open(folder_of(plan.output))
    workers = [Workspace.open(folder_of(plan.output)) for _ in range(2)]
    with pytest.raises(InputError, match="Another run"):
        run(job, plan, resume=True)
    for worker in workers:
        worker.close()
    run(job, plan, resume=True)


CHANGES = {
    "iterations": ({"iterations": 4}, "options iterations is 4, was 3"),
    "background": ({"background": "auto"}, 'settings background is "auto", was 100.0'),
    "channels": ({"channels": (1,)}, r"channels is \[1\], was \[0, 1\]"),
    "psf": ({"psfs": "mirrored"}, "psfs 0 sha256 is"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_resuming_something_else(planned, series, after, name):
    job, plan = planned()
    with pytest.raises(StoppedError):
        run(job, plan, stop=after(2))
    fields, words = CHANGES[name]
    if name == "psf":
        fields = {"psfs": (gd.PSF(series[2].array[:, :, ::-1], series[2].voxel_um),)}
    other, changed = planned(**fields)
    with pytest.raises(InputError, match=rf"cannot be resumed.*{words}.*--overwrite"):
        run(other, changed, resume=True)
    run(other, changed, overwrite=True)
    assert gd.read(plan.output).provenance["plan"]["hash"] == changed.hash


def test_resuming_with_other_tiles_keeps_those_that_were(planned, uninterrupted, after):
    """As when another amount of memory is free."""
    job, plan = planned()
    with pytest.raises(StoppedError):
        run(job, plan, stop=after(2))
    run(*planned(tile=(5, 48, 64)), resume=True)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data))


def test_resuming_on_an_input_that_has_changed(planned, series, after):
    with pytest.raises(StoppedError):
        run(*planned(), stop=after(2))
    path, counts, _ = series
    gd.write(path, gd.Image(counts + 1, "tczyx", (0.2, 0.1, 0.1)), overwrite=True)
    with pytest.raises(InputError, match="the input file has changed since"):
        run(*planned(), resume=True)


def test_overwriting_waits_for_the_end(planned, uninterrupted, after):
    job, plan = planned()
    run(job, plan)
    other, changed = planned(iterations=4)
    with pytest.raises(InputError, match="exists"):
        run(other, changed)
    assert not folder_of(plan.output).exists()
    with pytest.raises(StoppedError):
        run(other, changed, overwrite=True, stop=after(3))
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data))
    run(other, changed, resume=True)
    assert gd.read(plan.output).provenance["options"]["iterations"] == 4
    assert not folder_of(plan.output).exists()


def test_an_output_that_came_meanwhile_is_not_replaced(planned, after, tmp_path):
    job, plan = planned()
    with pytest.raises(StoppedError):
        run(job, plan, stop=after(3))
    (tmp_path / "out.ome.zarr").mkdir()
    (tmp_path / "out.ome.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(RunError, match=r"exists.*tiles are done and kept"):
        run(job, plan, resume=True)
    assert listing(tmp_path / "out.ome.zarr") == ["zarr.json"]
    (tmp_path / "out.ome.zarr" / "zarr.json").unlink()
    (tmp_path / "out.ome.zarr").rmdir()
    run(job, plan, resume=True)
    assert gd.read(plan.output).provenance["plan"]["hash"] == plan.hash
    assert listing(tmp_path) == ["in.ome.zarr", "out.ome.zarr"]


def test_a_complete_output_is_left_as_it_is_whatever_the_tiles(planned):
    """Another run may have less memory, and so other tiles."""
    record = run(*planned()).record
    job, plan = planned(tile=(5, 16, 32), threads=2)
    assert plan.hash != record["plan"]["hash"]
    assert run(job, plan, resume=True).record == gd.read(plan.output).provenance
    with pytest.raises(InputError, match="exists"):
        run(*planned(iterations=4), resume=True)
    assert gd.read(plan.output).provenance["created"] == record["created"]


def test_a_resumed_run_computes_where_it_is_told_to(planned, after):
    job, plan = planned()
    with pytest.raises(StoppedError):
        run(job, plan, stop=after(3))
    devices = run(*planned(threads=2), resume=True).record["devices"]
    assert sorted("2 threads" in device["device"] for device in devices) == [False, True]


def test_pixels_that_cannot_be_restored_leave_nothing_behind(planned, series, tmp_path):
    path, counts, _ = series
    values = counts.astype(np.float32)
    values[1, 1, 2, 40, 50] = np.nan
    gd.write(path, gd.Image(values, "tczyx", (0.2, 0.1, 0.1)), overwrite=True)
    with pytest.raises(InputError, match=r"in.ome.zarr, channel 1, time point 1(, tile 4 of 4)?: .*1 NaN"):
        run(*planned())
    assert listing(tmp_path) == ["in.ome.zarr"]


def test_a_blank_channel_that_shows_late_costs_no_other(planned, series, tmp_path):
    """Where each channel is one stack in one tile, nothing is decided, and so nothing seen, before its turn."""
    path, counts, _ = series
    counts[:, 1] = 0
    gd.write(path, gd.Image(counts, "tczyx", (0.2, 0.1, 0.1)), overwrite=True)
    job, plan = planned(timepoints=(0,), tile=(5, 48, 64))
    with pytest.raises(InputError, match=r"channel 1.* zero everywhere.* 1 of 2 tiles are done and kept in the OME-Z"):
        run(job, plan)
    alone, other = planned("alone.ome.zarr", channels=(0,), timepoints=(0,), tile=(5, 48, 64))
    run(alone, other)
    with Workspace.open(folder_of(plan.output)) as workspace:
        np.testing.assert_array_equal(gd.read(workspace.tiles).volume(), gd.read(other.output).volume())


def test_pixels_that_cannot_be_read_may_be_readable_again(planned, uninterrupted, series, after):
    job, plan = planned()
    with pytest.raises(StoppedError):
        run(job, plan, stop=after(3))
    chunk = series[0] / "0" / "c" / "1" / "1" / "0" / "0" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:100])
    tile = "in.ome.zarr, channel 1, time point 1, tile 1 of 4"
    with pytest.raises(RunError, match=rf"^{tile}: .* is damaged.* 12 of 16 tiles are done and kept"):
        run(job, plan, resume=True)
    chunk.write_bytes(whole)
    run(job, plan, resume=True)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data))


def test_seams_are_looked_at(planned):
    """With the default halo they are tight, without any they are not, and that is said."""
    job, plan = planned(channels=(1,))
    seams = run(job, plan, seams=True).seams
    assert len(seams) == 4
    assert all(seam.is_tight for seam in seams)
    bare = replace(plan, output=plan.output.replace("out", "bare"), tiling=replace(plan.tiling, halo=(0, 0, 0)))
    with pytest.warns(gd.GpudeconWarning, match=r"channel 1: at \d of 4 places between tiles twice the halo changes"):
        assert not all(seam.is_tight for seam in run(job, bare, seams=True).seams)
    job, plan = planned("whole.ome.zarr", channels=(1,), tile=(5, 48, 64))
    assert run(job, plan, seams=True).seams == ()


@pytest.mark.parametrize("output", ["out.ome.zarr", "int.ome.zarr"])
@pytest.mark.parametrize("damage", ["flipped", "lost"])
def test_verifying_finds_what_the_disk_has_changed(planned, uninterrupted, after, rng, output, damage):
    job, plan = planned(output, dtype="float32" if output.startswith("out") else "uint16")
    with pytest.raises(StoppedError):
        run(job, plan, stop=after(10))
    with Workspace.open(folder_of(plan.output)) as workspace:
        *_, file = sorted(path for path in (workspace.tiles / "0" / "c").rglob("*") if path.is_file())
        tile = next(t for t in range(len(plan)) if file in Store.open(workspace.tiles)._files(0, plan.task(t).target))
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[int(rng.integers(len(content)))] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    expected = (
        rf"^1 of 16 tiles are not on the disk as they were written \(the first is number {tile}\).* 15 of 16 tiles"
    )
    with pytest.raises(RunError, match=expected):
        run(job, plan, resume=True, verify=True)
    record = run(job, plan, resume=True, verify=True).record
    stored = np.asarray(gd.read(plan.output).data) * record.get("intensity", {"scale": 1.0})["scale"]
    np.testing.assert_allclose(stored, np.asarray(uninterrupted.data), rtol=0, atol=plan.dtype == "uint16")


def test_ctrl_c(planned, uninterrupted, heeding_ctrl_c):
    job, plan = planned()

    class Impatient:
        def expect(self, iterations, remark=""):
            self.left = iterations // 2

        def __call__(self, *_):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        run(job, plan, progress=Impatient(), command="gpudecon run --resume")
    where, kept = caught.value.__notes__
    assert re.fullmatch(r"in in.ome.zarr, channel \d, time point \d, tile \d of 4", where)
    assert re.fullmatch(r"\d+ of 16 tiles are done and kept; go on with: gpudecon run --resume", kept)
    run(job, plan, resume=True)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(uninterrupted.data))
