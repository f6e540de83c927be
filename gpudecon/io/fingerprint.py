"""Whether a file is still the one that was read before, told without reading its pixels."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from gpudecon.image import Blank
from gpudecon.io import read
from gpudecon.io.remote import is_address
from gpudecon.io.series import Series, is_pattern
from gpudecon.io.tiff import files_of

DOCUMENTS = {"zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"}


def fingerprint(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's size and time of change, or of the metadata of a Zarr store and their times of change.

    Of a series, of all its files, and so of an OME-TIFF that is in several.  Of an image at an address, what it says
    about itself.  What replaces the pixels without either is not seen.
    """
    name = os.fspath(path)
    digest = hashlib.sha256()
    if is_address(name):
        image = read(name)
        digest.update(repr((replace(image, data=Blank(image.shape, image.dtype)), image.provenance)).encode())
        return digest.hexdigest()
    for root in Series(name).paths if is_pattern(name) else files_of(Path(name)):
        for document in _documents(root) if root.is_dir() else [root]:
            status = document.stat()
            digest.update(f"{document.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n".encode())
            if document != root:
                digest.update(document.read_bytes())
    return digest.hexdigest()


def _documents(root: Path) -> list[Path]:
    """Of the group, its arrays, and, in the layout of bioformats2raw, those of its images; never looks for chunks."""
    folders = [root]
    for _ in range(2):
        folders += [Path(entry.path) for folder in folders for entry in os.scandir(folder) if entry.is_dir()]
    return sorted({folder / name for folder in folders for name in DOCUMENTS if (folder / name).is_file()})
