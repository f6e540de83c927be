"""Workspace: the folder ``.NAME.gpudecon`` beside an output NAME, in which it is built, and by which a run goes on.

It holds what a resumed run needs: ``plan.json``, the PSFs, the constants, the journal, and the pixels so far.  The
folder is there from the first task to the moment when the complete output is moved into its place.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from gpudecon.engine.journal import Journal
from gpudecon.engine.plan import Plan
from gpudecon.errors import InputError, RunError
from gpudecon.io import check_output
from gpudecon.io.durable import write_durably
from gpudecon.io.staging import move_into_place
from gpudecon.psf.psf import PSF


def folder_of(output: str | os.PathLike[str]) -> Path:
    """Where the run that makes ``output`` has its workspace."""
    target = Path(output)
    return target.with_name(f".{target.name}.gpudecon")


def tiles_path(plan: Plan) -> Path:
    """Where the tiles are written: into the output itself, if that is OME-Zarr in their type, else beside it."""
    is_output = check_suffix(plan.output) == "OME-Zarr" and plan.dtype == "float32"
    return folder_of(plan.output) / (Path(plan.output).name if is_output else "tiles.zarr")


class Workspace:
    """An open workspace; ``with`` lets go of its locks and files.

    ``path`` is where the output is built under its own name; ``plan`` is what is to be done; ``journal`` what is done.
    """

    def __init__(self, folder: Path, lock: Lock | None = None) -> None:
        self.folder = folder
        self.journal = Journal(folder / "journal")
        self._lock = lock
        self.plan = Plan.from_json(_read(folder / "plan.json"))
        described = json.loads(_read(folder / "run.json"))
        self._overwrite = bool(described["overwrite"])
        self.remarks = tuple(described["remarks"])
        self.path = folder / Path(self.plan.output).name
        self.tiles = tiles_path(self.plan)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """For one of many workers: any number may be there, and meanwhile no run may begin, resume or finish here."""
        lock = Lock(folder / "lock", shared=True)
        try:
            return cls(folder, lock)
        except BaseException:
            lock.release()
            raise

    @property
    def psfs(self) -> tuple[PSF, ...]:
        """The PSFs of the job, one for all of its channels or one for each."""
        psfs = []
        for path in sorted(self.folder.glob("psf-*.npz")):
            with np.load(path) as held:
                psfs.append(PSF(held["array"], tuple(held["voxel_um"].tolist()) or None))
        return tuple(psfs)

    def decided(self, name: str, decide: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the first worker that came here decided; the others wait for it meanwhile and take the same."""
        path = self.folder / f"{name}.json"
        with _waited_for(self.folder / f"{name}.lock"):
            if not path.exists():
                write_durably(path, json.dumps(decide()).encode())
            found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def commit(self) -> None:
        """Move the output, which is complete, into its place, and remove the folder."""
        (self.folder / "complete").touch()
        if self.path.exists():  # else it was moved, and the process ended before the folder was gone
            move_into_place(self.path, Path(self.plan.output), self._overwrite)
        self.discard()

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do but `commit`."""
        return (self.folder / "complete").exists()

    def discard(self) -> None:
        """Remove the folder and whatever is in it."""
        self.close()
        _remove(self.folder)

    def close(self) -> None:
        """Let go of files and locks; the folder stays."""
        self.journal.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def begin(
    plan: Plan,
    psfs: Sequence[PSF],
    make_store: Callable[[Path], object],
    *,
    resume: bool = False,
    overwrite: bool = False,
    remarks: Sequence[str] = (),
) -> Workspace:
    """The workspace for a plan: a new one, or with ``resume`` that of an interrupted run of the same plan.

    Raises `InputError` where another run is at work, where an interrupted one would be lost that was not given up by
    ``overwrite``, and where the one to resume did something else.  ``make_store`` makes the empty output at a path.
    """
    folder = folder_of(plan.output)
    was_there = folder.is_dir()
    if not (resume and was_there):
        check_output(plan.output, overwrite)
    try:
        folder.mkdir(exist_ok=True)
        lock = Lock(folder / "lock")
    except OSError as error:
        raise InputError(f"The output {plan.output} cannot be written: {error.strerror}.") from error
    try:
        if (folder / "plan.json").exists():
            if resume:
                return _resumed(plan, folder, lock)
            if not overwrite:
                raise _in_the_way(plan, folder)
        for path in folder.iterdir():
            if path.name != "lock":
                _remove(path)
        for position, psf in enumerate(psfs):
            held = io.BytesIO()
            np.savez(held, array=psf.array, voxel_um=np.array(psf.voxel_um or (), np.float64))
            write_durably(folder / f"psf-{position:04d}.npz", held.getvalue())
        described = {"overwrite": overwrite, "remarks": list(remarks)}
        write_durably(folder / "run.json", json.dumps(described).encode())
        make_store(folder / Path(plan.output).name)
        write_durably(folder / "plan.json", plan.to_json().encode())  # last: with it the workspace is complete
        return Workspace(folder, lock)
    except BaseException as error:
        if not (folder / "plan.json").exists():
            _remove(folder)
        lock.release()
        if isinstance(error, OSError):
            raise RunError(f"Writing {plan.output} failed: {error.strerror}; nothing was left behind.") from error
        raise


def _resumed(plan: Plan, folder: Path, lock: Lock) -> Workspace:
    workspace = Workspace(folder, lock)
    changes = plan.with_tiles_of(workspace.plan).differences(workspace.plan)
    if changes:
        raise InputError(
            f"The interrupted run of {plan.output} cannot be resumed, since it is not the same: {'; '.join(changes)}. "
            "Give the settings that it was begun with, or --overwrite to begin anew."
        )
    return workspace


def _in_the_way(plan: Plan, folder: Path) -> InputError:
    return InputError(
        f"An interrupted run of {plan.output} is in {folder} ({len(Journal(folder / 'journal').done('tile'))} of "
        "its tiles are done); go on with it by --resume, or give it up by --overwrite."
    )


class Lock:
    """A lock on a file, of this process alone or ``shared`` among workers; it ends with the process, however that ends.

    Raises `InputError` with the holder's host and process where it cannot be had.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(file, 200).decode(errors="replace")
                os.close(file)
                raise InputError(
                    f"Another run is at work in {path.parent} ({holder or 'just begun'}); wait for it, or choose another "
                    "output."
                ) from None
            if os.fstat(file).st_nlink:
                break
            os.close(file)  # its folder was removed between our two steps
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}".encode(), 0)
        self._file: int | None = file

    def release(self) -> None:
        """Give the lock back; without effect the second time."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def _waited_for(path: Path) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InputError(f"{path.parent} is no workspace of gpudecon: {error.strerror} ({path.name}).") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
