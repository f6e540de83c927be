"""Outputs that are there complete or not at all: built in a private folder beside their place, then moved into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal, Self

from gpudecon.errors import InputError
from gpudecon.io.durable import flush

OutputFormat = Literal["OME-Zarr", "OME-TIFF"]
SUFFIXES: dict[str, OutputFormat] = {
    ".ome.zarr": "OME-Zarr",
    ".zarr": "OME-Zarr",
    ".ome.tiff": "OME-TIFF",
    ".ome.tif": "OME-TIFF",
    ".tiff": "OME-TIFF",
    ".tif": "OME-TIFF",
}


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
    flush(target.parent)


class Staging:
    """The private folder of one output; on the same file system as the output, so that moving it is a rename.

    ``with`` removes the folder and whatever is in it; without `commit`, the disk is as it was.
    """

    def __init__(self, target: Path, overwrite: bool) -> None:
        self._overwrite = overwrite
        self._folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-{os.getpid()}-", dir=target.parent))
        self._target = target
        self.path = self._folder / target.name  # where the output is built

    def commit(self) -> None:
        """Move the output, which is complete, into its place."""
        move_into_place(self.path, self._target, self._overwrite)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
