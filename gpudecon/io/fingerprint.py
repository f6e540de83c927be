"""Which files an image is in, and whether they are still those that were read, told without reading the pixels."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from gpudecon.errors import InputError
from gpudecon.image import Blank
from gpudecon.io import read
from gpudecon.io.remote import is_address
from gpudecon.io.series import Series, is_pattern
from gpudecon.io.tiff import files_of

DOCUMENTS = {"zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"}


def fingerprint(path: str | os.PathLike[str], axes: str | None = None) -> str:
    """SHA-256 of a file's size and time of change, or of the metadata of a Zarr store and their times of change.

    Of a series, of all its files, and so of an OME-TIFF that is in several.  Of an image at an address, what it says
    about itself when it is read with these ``axes``.  What replaces the pixels without either is not seen.
    """
    name = os.fspath(path)
    digest = hashlib.sha256()
    if is_address(name):
        image = read(name, axes)
        digest.update(repr((replace(image, data=Blank(image.shape, image.dtype)), image.provenance)).encode())
        return digest.hexdigest()
    for root in _roots(name):
        for document in _documents(root) if root.is_dir() else [root]:
            status = document.stat()
            digest.update(f"{document.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n".encode())
            if document != root:
                digest.update(document.read_bytes())
    return digest.hexdigest()


def check_apart(path: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """InputError where ``output`` is, is in, or holds one of the files or folders that the image at ``path`` is in."""
    name, target = os.fspath(path).removeprefix("file://"), Path(output).resolve()
    if is_address(name):
        return
    for root in (each.resolve() for each in _roots(name)):
        if target == root or target in root.parents or root in target.parents:
            raise InputError(
                f"The output {output} would replace or change the input {path} ({root}); choose another output."
            )


def _roots(name: str) -> tuple[Path, ...]:
    return Series(name).paths if is_pattern(name) else files_of(Path(name))


def _documents(root: Path) -> list[Path]:
    """Of the group, its arrays, and, in the layout of bioformats2raw, those of its images; never looks for chunks."""
    folders = [root]
    for _ in range(2):
        folders += [Path(entry.path) for folder in folders for entry in os.scandir(folder) if entry.is_dir()]
    return sorted({folder / name for folder in folders for name in DOCUMENTS if (folder / name).is_file()})
