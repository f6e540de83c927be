"""Workspace: the folder ``.NAME.gpudecon`` beside an output NAME, in which it is built, and by which a run goes on.

It holds what a resumed run needs: ``plan.json``, the PSFs, the constants, the journal, and the pixels so far.  The
folder is there from the first task to the moment when the complete output is moved into its place.
"""

from __future__ import annotations

import fcntl
import hashlib
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

from gpudecon.constants import Constants
from gpudecon.engine.journal import Journal
from gpudecon.engine.plan import Plan
from gpudecon.errors import InputError, RunError
from gpudecon.io import check_output
from gpudecon.io.durable import write_durably
from gpudecon.io.staging import move_into_place, output_format
from gpudecon.psf.psf import PSF


def folder_of(output: str | os.PathLike[str]) -> Path:
    """Where the run that makes ``output`` has its workspace."""
    target = Path(output)
    return target.with_name(f".{target.name}.gpudecon")


def is_begun(output: str | os.PathLike[str]) -> bool:
    """Whether a run that makes ``output`` is at work or was interrupted: a folder without a plan is only left over."""
    return (folder_of(output) / "plan.json").exists()


def keep_psfs(folder: Path, psfs: Sequence[PSF]) -> None:
    """Put PSFs where `Workspace.psfs` finds them."""
    for position, psf in enumerate(psfs):
        held = io.BytesIO()
        origin = np.array(json.dumps(dict(psf.origin)))
        np.savez(held, array=psf.array, voxel_um=np.array(psf.voxel_um or (), np.float64), origin=origin)
        write_durably(folder / f"psf-{position:04d}.npz", held.getvalue())


def tiles_path(plan: Plan) -> Path:
    """Where the tiles are written: into the output itself, if that is OME-Zarr in their type, else beside it.

    The name there has no suffix, lest it is the output's.
    """
    is_output = output_format(plan.output) == "OME-Zarr" and plan.dtype == "float32"
    return folder_of(plan.output) / (Path(plan.output).name if is_output else "tiles")


PATIENCE = 1.0  # seconds


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
    def open(cls, folder: Path, *, alone: bool = False) -> Self:
        """For one of many workers, while no run may begin, resume or finish here; or ``alone``, to finish."""
        _read(folder / "plan.json")  # else the lock would make a folder a workspace
        lock = Lock(folder / "lock", shared=not alone)
        try:
            return cls(folder, lock)
        except BaseException:
            lock.release()
            raise

    @property
    def psfs(self) -> tuple[PSF, ...]:
        """On the image's grid: one for all channels of the job, or one for each, or none."""
        psfs = []
        for path in sorted(self.folder.glob("psf-*.npz")):
            with np.load(path) as held:
                voxel_um = tuple(held["voxel_um"].tolist()) or None
                psfs.append(PSF(held["array"], voxel_um, json.loads(str(held["origin"])) if "origin" in held else {}))
        return tuple(psfs)

    def remaining(self) -> list[int]:
        """The tasks of the plan that are not done."""
        done = self.journal.done("tile")
        return [index for index in range(len(self.plan)) if index not in done]

    def decided(self, name: str, decide: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the first worker that came here decided; the others wait for it meanwhile and take the same."""
        path = self.folder / f"{name}.json"
        with _waited_for(self.folder / f"{name}.lock"):
            if not path.exists():
                write_durably(path, json.dumps(decide()).encode())
            found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def note_device(self, described: dict[str, Any]) -> None:
        """Keep what a worker computes with, for the record; the same again is kept once."""
        text = json.dumps(described, sort_keys=True).encode()
        path = self.folder / f"device-{hashlib.sha256(text).hexdigest()[:16]}.json"
        if not path.exists():
            write_durably(path, text)

    @property
    def devices(self) -> list[dict[str, Any]]:
        """What all workers computed with."""
        return [json.loads(path.read_bytes()) for path in sorted(self.folder.glob("device-*.json"))]

    @property
    def constants(self) -> dict[int, Constants]:
        """Those of the channels for which any were decided."""
        return {channel: Constants.from_dict(decided["constants"]) for channel, decided in self._decisions()}

    @property
    def warnings(self) -> list[str]:
        """What came up when constants were decided."""
        return [text for _, decided in self._decisions() for text in decided["warnings"]]

    def _decisions(self) -> list[tuple[int, dict[str, Any]]]:
        paths = sorted(self.folder.glob("constants-*.json"))
        return [(int(path.stem.partition("-")[2]), json.loads(path.read_bytes())) for path in paths]

    @property
    def completed(self) -> dict[str, Any] | None:
        """The record of the output, once nothing is left to do but `commit`."""
        path = self.folder / "complete.json"
        found: dict[str, Any] | None = json.loads(path.read_bytes()) if path.exists() else None
        return found

    def commit(self, record: dict[str, Any]) -> None:
        """Move the output, which is complete, into its place, and remove the folder."""
        write_durably(self.folder / "complete.json", json.dumps(record).encode())
        if self.path.exists():  # else it was moved before, and the process ended while the folder was removed
            try:
                move_into_place(self.path, Path(self.plan.output), self._overwrite)
            except InputError as error:  # no fault of the input: another output has come there meanwhile
                raise RunError(str(error)) from error
        self.journal.close()
        _clear(self.folder, "lock", "plan.json", "run.json", "complete.json")  # with these `commit` can be done again
        self.discard()

    def discard(self) -> None:
        """Remove the folder and whatever is in it; without effect the second time, when it may be another run's."""
        self.journal.close()
        if self._lock is not None and self._lock.is_held:
            _discard(self.folder, self._lock)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Within it other processes may work on the tasks, and other runs are still kept out."""
        assert self._lock is not None
        self._lock.change(shared=True)
        try:
            yield
        finally:
            self._lock.change(shared=False)

    def close(self) -> None:
        """Let go of files and locks; the folder stays."""
        self.journal.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def earlier(plan: Plan, *, resume: bool = False, overwrite: bool = False) -> Plan | None:
    """The plan of the interrupted run that a run of ``plan`` would go on with; None: it would begin.

    Raises `InputError` where neither is possible: where an interrupted run would be lost that was not given up by
    ``overwrite``, where the one to resume did something else, and where the output cannot be written.
    """
    folder = folder_of(plan.output)
    if is_begun(plan.output) and resume:
        found = Plan.from_json(_read(folder / "plan.json"))
        if changes := plan.with_tiles_of(found).differences(found):
            raise InputError(
                f"The interrupted run of {plan.output} cannot be resumed, since it is not the same: "
                f"{'; '.join(changes)}. Give the settings that it was begun with, or --overwrite to begin anew."
            )
        return found
    if is_begun(plan.output) and not overwrite:
        raise InputError(
            f"An interrupted run of {plan.output} is in {folder} ({tiles_done(plan)} of its tiles are done); go on "
            "with it by --resume, or give it up by --overwrite."
        )
    check_output(plan.output, overwrite)
    return None


def tiles_done(plan: Plan) -> int:
    """How many tiles the interrupted run of a plan has done; also while it is at work."""
    return len(Journal(folder_of(plan.output) / "journal").done("tile"))


def begin(
    plan: Plan, fill: Callable[[Path], Sequence[str]], *, resume: bool = False, overwrite: bool = False
) -> Workspace:
    """The workspace for a plan: a new one, or with ``resume`` that of an interrupted run of the same plan.

    ``fill`` puts the PSFs and the empty stores into a new folder, and returns the warnings so far for the record.
    Raises `InputError` where another run is at work, and as `earlier` does.
    """
    folder = folder_of(plan.output)
    try:
        lock = _locked(folder)
    except OSError as error:
        raise InputError(f"The output {plan.output} cannot be written: {error.strerror}.") from error
    is_new = not is_begun(plan.output)
    try:
        if earlier(plan, resume=resume, overwrite=overwrite) is not None:
            return Workspace(folder, lock)
        is_new = True
        (folder / "plan.json").unlink(missing_ok=True)  # first: without it nothing of the rest counts
        _clear(folder, "lock")
        described = {"overwrite": overwrite, "remarks": list(fill(folder))}
        write_durably(folder / "run.json", json.dumps(described).encode())
        write_durably(folder / "plan.json", plan.to_json().encode())  # last: with it the workspace is complete
        return Workspace(folder, lock)
    except BaseException as error:
        if is_new:
            _discard(folder, lock)
        lock.release()
        if isinstance(error, OSError):
            raise RunError(
                f"Writing {plan.output} failed: {error.strerror or error}. Nothing was left behind."
            ) from error
        raise


def _locked(folder: Path) -> Lock:
    while True:
        folder.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another run has just removed it
            return Lock(folder / "lock")


class Lock:
    """A lock on a file, of this process alone or ``shared`` among workers; it ends with the process, however that ends.

    Raises `InputError` with the holder's host and process where it cannot be had within `PATIENCE`: Dask's workers may
    still begin a task of a run that has failed before they hear of it.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        latest = time.monotonic() + PATIENCE
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(file, 200).decode(errors="replace")
                os.close(file)
                if time.monotonic() < latest:
                    time.sleep(PATIENCE / 20)
                    continue
                raise InputError(
                    f"Another run is at work in {path.parent} ({holder or 'just begun'}); wait for it, or choose "
                    "another output."
                ) from None
            if _is_at(file, path):
                break
            os.close(file)  # its holder has removed it between our two steps
        with suppress(OSError):  # a full disk: who holds it is then not said
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}".encode(), 0)
        self._file: int | None = file

    @property
    def is_held(self) -> bool:
        """Until it is released."""
        return self._file is not None

    def change(self, *, shared: bool) -> None:
        """Let others have it, too, or wait until they have given it back."""
        assert self._file is not None
        fcntl.flock(self._file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

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


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file has this name; on NFS one that was removed has another one until it is closed."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InputError(f"{path.parent} is no workspace of gpudecon: {error.strerror} ({path.name}).") from error


def _discard(folder: Path, lock: Lock) -> None:
    """Remove a folder whose ``lock`` we hold, and that last: once it is gone another run may put its files there.

    What is open at the end keeps its folder on NFS, and so does another run: then the folder stays.
    """
    (folder / "plan.json").unlink(missing_ok=True)  # first: a journal without its tiles would not be true
    _clear(folder, "lock")
    _remove(folder / "lock")
    lock.release()
    with suppress(OSError):
        folder.rmdir()


def _clear(folder: Path, *spared: str) -> None:
    for path in folder.glob("*"):  # none where somebody has removed the folder
        if path.name not in spared:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():  # an output that was replaced may have been a link
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
