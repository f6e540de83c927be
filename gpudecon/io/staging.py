"""Outputs that are there complete or not at all: built in a private folder beside their place, then moved into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np

from gpudecon.errors import InputError, RunError
from gpudecon.io.durable import flush_folder
from gpudecon.io.metadata import own_block

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from gpudecon.image import Image, Region

OutputFormat = Literal["OME-Zarr", "OME-TIFF"]
SUFFIXES: dict[str, OutputFormat] = {
    ".ome.zarr": "OME-Zarr",
    ".zarr": "OME-Zarr",
    ".ome.tiff": "OME-TIFF",
    ".ome.tif": "OME-TIFF",
    ".tiff": "OME-TIFF",
    ".tif": "OME-TIFF",
}


class Sink(Protocol):
    """Where the blocks of a result go.

    ``write`` takes disjoint regions in any order; for OME-Zarr of whole chunks, such as whole stacks.  ``finalize``
    completes the metadata and moves the output into place; ``abort`` removes every trace.  As a context manager a sink
    aborts unless it was finalized.
    """

    def write(self, region: Region, block: NDArray[Any]) -> None:
        """Store ``block`` at ``region``: one slice per axis of the image that the sink was opened with."""

    def finalize(self, provenance: dict[str, Any]) -> None:
        """Record ``provenance`` in the file and put the file into its place."""

    def abort(self) -> None:
        """Leave the disk as it was; without effect after `finalize`."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def output_format(path: str | os.PathLike[str]) -> OutputFormat:
    """The format that the name of an output asks for."""
    name = Path(path).name.lower()
    found = next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)
    if found is None:
        raise InputError(f"The output {path} has no suffix that says its format; use one of {', '.join(SUFFIXES)}.")
    return found


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> OutputFormat:
    """The format that the name of an output asks for; an InputError where it could not be written there."""
    target = Path(path)
    found = output_format(target)
    if not target.parent.is_dir():
        trouble = "is a file, not a folder" if target.parent.exists() else "does not exist; create it"
        raise InputError(f"The output {target} needs the folder {target.parent}, which {trouble}.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"The output {target} cannot be written: no permission to write in {target.parent}.")
    if os.path.lexists(target):
        if not overwrite:
            raise InputError(f"The output {target} exists; choose another name or ask to overwrite it.")
        if target.is_dir() and not (found == "OME-Zarr" and _is_zarr(target)):
            raise InputError(f"The output {target} is a folder that is no Zarr store; it is not deleted, remove it.")
    return found


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def move_into_place(built: Path, target: Path, overwrite: bool) -> None:
    """Give a finished output, built in a folder of its own beside its place, its name.

    What it replaces is moved into that folder, from where it comes back when the second of the two renames fails.
    """
    check_output(target, overwrite)  # another run may have put its output there meanwhile
    if target.is_dir():  # a folder cannot be renamed over one that is not empty
        replaced = built.parent / "replaced"
        target.rename(replaced)
        try:
            built.rename(target)
        except OSError:
            replaced.rename(target)
            raise
    else:
        built.replace(target)
    flush_folder(target.parent)


class Staging:
    """The private folder of one output; on the same file system as the output, so that moving it is a rename."""

    def __init__(self, target: Path, overwrite: bool) -> None:
        self._overwrite = overwrite
        self._folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-{os.getpid()}-", dir=target.parent))
        self._target = target
        self.path = self._folder / target.name  # where the output is built

    def commit(self) -> None:
        """Move the output into its place and remove the folder."""
        move_into_place(self.path, self._target, self._overwrite)
        self.discard()

    def discard(self) -> None:
        """Remove the folder and whatever is in it."""
        shutil.rmtree(self._folder, ignore_errors=True)


class StagedSink(ABC):
    """What the sinks of all formats have in common: checks, staging and life cycle."""

    def __init__(self, staging: Staging, image: Image, dtype: np.dtype[Any]) -> None:
        self._staging = staging
        self._image = image
        self._dtype = dtype
        self._open = True

    @abstractmethod
    def _store(self, region: Region, block: NDArray[Any]) -> None:
        """Put ``block``, of the sink's type and the region's shape, into the file."""

    @abstractmethod
    def _complete(self, block: dict[str, Any]) -> None:
        """Write the metadata, with gpudecon's own ``block``, and let go of the file."""

    def _release(self) -> None:  # noqa: B027 -- only sinks that hold a file open have something to do
        """Let go of the file without completing it."""

    def write(self, region: Region, block: NDArray[Any]) -> None:
        self._check_open()
        spans = zip(region, self._image.shape, strict=True)
        shape = tuple(len(range(*part.indices(n))) for part, n in spans)
        if block.shape != shape or not np.can_cast(block.dtype, self._dtype, "safe"):
            raise ValueError(
                f"The block is {block.dtype} of shape {block.shape}; the region takes {self._dtype} of shape {shape}."
            )
        try:
            self._store(region, block.astype(self._dtype, copy=False))
        except OSError as error:
            raise RunError(f"Writing {self._staging.path.name} failed: {error}.") from error

    def finalize(self, provenance: dict[str, Any]) -> None:
        self._check_open()
        try:
            self._complete(own_block(self._image, provenance))
            self._staging.commit()
        except OSError as error:
            raise RunError(f"Finishing {self._staging.path.name} failed: {error}.") from error
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("This sink is finalized or aborted; open another one.")

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._release()
            self._staging.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
