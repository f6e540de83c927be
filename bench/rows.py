"""Rows: measurements as lines of JSON, written as they come, with the machine they were taken on as the first line."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import platform
import subprocess
from pathlib import Path
from typing import Any

from gpudecon import __version__
from gpudecon.backend.slabs import available_cores

HERE = Path(__file__).parent
PACKAGES = ("numpy", "scipy", "ducc0", "pyfftw", "scikit-image", "RedLionfish", "zarr", "cucim-cu12", "cucim-cu13")
Row = dict[str, Any]

# The numbers of a row that the printed table shows beside its time, and what they are called there.
FIGURES = {
    "ratio_to_bare_ffts": "x bare FFTs",
    "bytes_per_padded_voxel": "B/voxel",
    "gap": "x floor",
    "fraction_of_floor": "of floor",
    "relative_error": "rel. error",
    "gb_per_s": "GB/s",
    "mib_per_s": "MiB/s",
    "ratio_to_bare_file": "x bare file",
    "ratio_to_numpy": "x import numpy",
}


class Rows:
    """Appends to ``path``; `all` keeps what was written.  A run that is cut short leaves what it measured."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        self.path = path
        self.all: list[Row] = []

    def add(self, section: str, name: str, **fields: Any) -> None:
        """Write a row; fields that are None do not apply to it and are left out."""
        row = {"section": section, "name": name, **{k: v for k, v in fields.items() if v is not None}}
        self.all.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def skip(self, section: str, name: str, why: str, **fields: Any) -> None:
        self.add(section, name, note=f"skipped: {why}", **fields)


def environment() -> Row:
    """Processor, versions and commit, so that a number can be traced."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": available_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "gpudecon": __version__,
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)bench/results")),
        "versions": versions,
    }


def print_table(rows: list[Row]) -> None:
    """One line per row: what, on which shape, milliseconds, and the row's figures or its note."""
    print(f"{'section':11} {'name':26} {'shape':13} {'edges':9} {'fft':14} {'ms':>10}  figures")
    for row in rows:
        shape = "x".join(map(str, row.get("shape", ())))
        ms = f"{row['seconds_median'] * 1e3:10.3f}" if "seconds_median" in row else " " * 10
        figures = [f"{row[key]:.3g} {words}" for key, words in FIGURES.items() if key in row]
        remark = ", ".join(figures) or row.get("note", "")
        where = f"{shape:13} {row.get('edges', ''):9} {row.get('fft', ''):14}"
        print(f"{row['section']:11} {row['name']:26.26} {where} {ms}  {remark:.48}")


def voxels(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
