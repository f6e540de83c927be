"""The folder of a run at its end: when it is removed, by whom, and what a folder that stayed means."""

import fcntl
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import gpudecon as gd
from gpudecon.engine.run import prepare, run
from gpudecon.engine.workspace import Lock, begin, folder_of
from gpudecon.errors import InputError, RunError, StoppedError

OPEN = Path("/proc/self/fd")  # a link for each file


@pytest.fixture
def removals(tmp_path):
    """What this process removes from workspaces in ``tmp_path``: (name, can another run begin, is it or in it open).

    Python tells before it calls the system, so each is seen as it was at that moment.
    """
    seen, watching = [], [True]

    def watch(event, args):
        if event not in ("os.remove", "os.rmdir") or not watching:
            return
        path = ((OPEN / str(args[1])).readlink() if args[1] != -1 else tmp_path) / os.fspath(args[0])
        folder = next((p for p in (path, *path.parents) if p.parent == tmp_path), None)
        if folder is not None and folder.suffix == ".gpudecon":
            is_open = any(name == path or path in name.parents for name in opened())
            seen.append((str(path.relative_to(folder)), is_free(folder / "lock"), is_open))

    sys.addaudithook(watch)  # for good
    yield seen
    watching.clear()


def opened():
    """The files that this process has open; not the folders, which `shutil.rmtree` opens to walk through them."""
    links = [link for link in OPEN.iterdir() if link.exists() and not link.is_dir()]
    return [link.readlink() for link in links]


def is_free(lock):
    """Whether another process could take it now."""
    try:
        file = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)


def complete(planned, removals):
    job, plan = planned()
    run(job, plan)
    removals.clear()
    run(job, plan, overwrite=True)
    assert [name for name, *_ in removals if name.startswith("replaced/")]


def stopped(planned, removals):
    job, plan = planned()
    with pytest.raises(StoppedError):
        run(job, plan, stop=lambda: True)


def not_begun(planned, removals):
    def fill(folder):
        for name in "abcdefgh":
            (folder / name).write_text(name)
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="Nothing was left behind"):
        begin(planned()[1], fill)


@pytest.mark.skipif(not OPEN.is_dir(), reason="asks /proc which files are open")
@pytest.mark.parametrize("end", [complete, stopped, not_begun])
def test_nobody_can_begin_in_a_folder_that_is_being_removed(planned, removals, tmp_path, end):
    """And no file is removed while it is open, since it would stay on NFS; the lock has to be."""
    end(planned, removals)
    *others, lock, folder = removals
    assert len(others) > 3
    assert [entry for entry in others if entry[1:] != (False, False)] == []
    assert lock == ("lock", False, True)
    assert folder == (".", True, False)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".gpudecon")]


def test_a_folder_without_a_plan_is_no_run(planned, tmp_path):
    """NFS keeps files that are open elsewhere, and their folder."""
    job, plan = planned()
    made = run(job, plan).record
    folder = folder_of(plan.output)

    def leave():
        (folder / "journal").mkdir(parents=True)
        for name in ("lock", ".nfs0001", "journal/.nfs0002"):
            (folder / name).write_text("")

    leave()
    assert run(job, plan, resume=True).record["created"] == made["created"]
    assert gd.read(plan.output).provenance["created"] == made["created"]
    with pytest.raises(InputError, match="exists; choose another name"):
        run(job, plan)
    assert not folder.exists()
    leave()
    run(job, plan, overwrite=True)
    assert not folder.exists()


def test_a_lock_that_was_renamed_is_none(tmp_path):
    """As NFS does with a file that is removed while it is open, here between opening and locking it."""
    path = tmp_path / "lock"
    names = [tmp_path / ".nfs0001"]
    sys.addaudithook(lambda event, _: event == "fcntl.flock" and names and path.rename(names.pop()))
    with Lock(path):
        assert (tmp_path / ".nfs0001").exists()
        with pytest.raises(InputError, match="Another run is at work"):
            Lock(path)


def test_a_folder_that_somebody_has_removed(planned):
    job, plan = planned()
    with prepare(job, plan) as workspace:
        shutil.rmtree(workspace.folder)
        workspace.discard()
    run(job, plan)


def test_a_folder_is_given_up_once(planned):
    """Afterwards it is that of another run."""
    job, plan = planned()
    with prepare(job, plan) as before:
        before.discard()
        with prepare(job, plan) as workspace:
            before.discard()
            assert workspace.remaining() == list(range(len(plan)))
            assert sorted(workspace.folder.iterdir()) == sorted(
                workspace.folder / name for name in ("lock", "out.ome.zarr", "plan.json", "psf-0000.npz", "run.json")
            )


def test_psfs_of_an_earlier_build_have_no_origin(planned):
    with prepare(*planned()) as workspace:
        (path,) = workspace.folder.glob("psf-*.npz")
        with np.load(path) as held:
            kept = {name: held[name] for name in ("array", "voxel_um")}
        (psf,) = workspace.psfs
        np.savez(path, **kept)
        (again,) = workspace.psfs
    assert again.origin == {}
    assert again.sha256 == psf.sha256


def test_an_output_that_is_a_link_is_replaced(planned, tmp_path):
    """By the output; what the link leads to stays."""
    job, plan = planned("elsewhere.ome.zarr")
    run(job, plan)
    (tmp_path / "out.ome.zarr").symlink_to(tmp_path / "elsewhere.ome.zarr")
    job, other = planned()
    run(job, other, overwrite=True)
    assert not (tmp_path / "out.ome.zarr").is_symlink()
    assert not folder_of(other.output).exists()
    assert gd.read(plan.output).volume().any()
