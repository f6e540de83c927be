"""The end of a run: what the disk has changed is found and made again, and an error there keeps the tiles."""

from contextlib import suppress

import numpy as np
import pytest
import tifffile

import gpudecon as gd
from gpudecon.engine import finish
from gpudecon.engine.journal import Journal
from gpudecon.engine.run import run
from gpudecon.engine.workspace import folder_of
from gpudecon.errors import InputError, RunError, StoppedError
from gpudecon.io import ome_tiff, pyramid
from gpudecon.io.store import Store


def levels(path):
    store = Store.open(path)
    return [np.asarray(store._arrays[n][...]) for n in range(len(store.levels))]


def test_levels_made_from_a_damaged_one_are_made_again(planned, monkeypatch):
    monkeypatch.setattr(pyramid, "LARGEST_OVERVIEW", 8)
    job, plan = planned("whole.ome.zarr")
    run(job, plan)
    expected = levels(plan.output)
    assert len(expected) == 4
    job, plan = planned()
    folder = folder_of(plan.output)

    def first_level_is_there():
        return len(Journal(folder / "journal").done("level")) >= 4  # a unit for each channel and time point

    def stopping(*_):
        raise StoppedError("Stopped as asked.")

    with pytest.raises(StoppedError):
        run(job, plan, stop=first_level_is_there)
    unit, *_ = sorted(path for path in (folder / "out.ome.zarr" / "1" / "c").rglob("*") if path.is_file())
    unit.unlink()  # reads as zeros, of which the next levels are made
    with monkeypatch.context() as patch:
        patch.setattr(Store, "complete", stopping)
        with pytest.raises(StoppedError):
            run(job, plan, resume=True)
    with pytest.raises(RunError, match=r"^1 of 12 parts of the pyramid are not on the disk as they were written"):
        run(job, plan, resume=True, verify=True)
    run(job, plan, resume=True, verify=True)
    for found, whole in zip(levels(plan.output), expected, strict=True):
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("fields", [{}, {"channels": (1,), "timepoints": (0,)}, {"dtype": "uint16"}])
def test_verifying_reads_a_tiff_again(planned, monkeypatch, fields):
    """What is written behind our back is found, and the next run writes the file anew."""
    job, plan = planned("out.ome.tif", **fields)
    export = finish.export

    def damaged(path, *given):
        export(path, *given)
        mapped = tifffile.memmap(path)
        mapped.reshape(-1)[mapped.size // 2] += 1
        mapped.flush()

    with monkeypatch.context() as patch:
        patch.setattr(finish, "export", damaged)
        with pytest.raises(RunError, match=r"out.ome.tif is not on the disk as it was.* tiles are done and kept"):
            run(job, plan, verify=True)
    run(job, plan, resume=True, verify=True)
    job, other = planned("out.ome.zarr", **fields)
    run(job, other)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(gd.read(other.output).data))


@pytest.mark.parametrize("verify", [False, True])
def test_an_export_is_stopped_at_any_step(planned, monkeypatch, verify):
    """Between the parts that are written, and between those that are read again."""
    for module in (ome_tiff, finish):
        monkeypatch.setattr(module, "BLOCK_VOXELS", 1)
    job, plan = planned("out.ome.tif", channels=(0,), timepoints=(0,))
    asked = iter(range(100))
    with pytest.raises(StoppedError):
        run(job, plan, stop=lambda: next(asked) > len(plan))
    steps = 0
    while folder_of(plan.output).exists():
        steps += 1
        asked = iter(range(100))
        with suppress(StoppedError):
            run(job, plan, resume=True, verify=verify, stop=lambda: next(asked) >= steps)  # noqa: B023 -- in this turn
    assert steps == (12 if verify else 4)  # 4 tiles are read again, 4 regions written, and these read again
    _, whole = planned("whole.ome.zarr", channels=(0,), timepoints=(0,))
    run(job, whole)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), np.asarray(gd.read(whole.output).data))


def test_tiles_that_cannot_be_read_are_no_fault_of_the_input(planned, monkeypatch):
    """And no reason to throw them away."""
    job, plan = planned("out.ome.tif")

    def failing(*_):
        raise InputError("tiles is damaged: its pixels cannot be read.")

    with monkeypatch.context() as patch:
        patch.setattr(finish, "export", failing)
        with pytest.raises(RunError, match=r"damaged.* 16 of 16 tiles are done and kept"):
            run(job, plan)
    assert folder_of(plan.output).is_dir()
    run(job, plan, resume=True)
    assert not folder_of(plan.output).exists()
