"""The command line as a process in a folder of its own, and small files to give it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile

import gpudecon as gd
from gpudecon.cli import main

RUN = (
    "run stack.tif -o out.ome.zarr --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --voxel-um 0.2 0.1 0.1 "
    "--device cpu --iterations 5"
)


class Done(NamedTuple):
    """What a process printed."""

    stdout: str
    stderr: str


@dataclass(frozen=True)
class Cli:
    """Runs ``gpudecon`` in ``folder``."""

    folder: Path
    environment: dict[str, str]

    def start(self, line: str, before: str = "", **streams: Any) -> subprocess.Popen[str]:
        """Begin to run the words of ``line``, after the Python statement ``before`` in the same process."""
        code = f"{before}\nimport runpy; runpy.run_module('gpudecon', run_name='__main__')"
        start = ["-c", code] if before else ["-m", "gpudecon"]
        command = [sys.executable, *start, *shlex.split(line)]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **streams)

    def __call__(self, line: str, status: int = 0, before: str = "") -> Done:
        """Run the words of ``line``; fails unless it ends with ``status`` and without a traceback."""
        with self.start(line, before, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            done = Done(*process.communicate(timeout=120))
        assert "Traceback" not in done.stderr
        assert process.returncode == status, done.stderr
        return done

    def read(self, name: str = "out.ome.zarr") -> gd.Image:
        return gd.read(self.folder / name)

    def listing(self) -> dict[str, bytes | None]:
        """Everything in the folder: the contents by path, None for folders."""
        paths = sorted(self.folder.rglob("*"))
        return {str(p.relative_to(self.folder)): p.read_bytes() if p.is_file() else None for p in paths}


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of the processes; the checkout is added to their path only where it is not installed."""
    code = "import importlib.util as u; s = u.find_spec('gpudecon'); print(s and s.origin)"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    found = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True)
    own = importlib.util.find_spec("gpudecon").origin
    path = {} if found.stdout.strip() == own else {"PYTHONPATH": str(Path(own).parents[1])}
    return os.environ | path


@pytest.fixture
def cli(tmp_path, environment):
    """A `Cli` in an empty folder."""
    return Cli(tmp_path, environment)


@pytest.fixture
def here(cli, monkeypatch, capfd):
    """As `cli`, but in this process, for what has many cases: a process needs longer to begin than most of them."""
    monkeypatch.chdir(cli.folder)

    def run(line: str, status: int = 0) -> Done:
        terminate = signal.getsignal(signal.SIGTERM)
        with warnings.catch_warnings():  # all but gpudecon's own stay errors, and are tracebacks
            warnings.simplefilter("default", gd.GpudeconWarning)
            try:
                ended = main(shlex.split(line))
            except SystemExit as end:  # of argparse
                ended = end.code
            finally:
                signal.signal(signal.SIGTERM, terminate)
        done = Done(*capfd.readouterr())
        assert ended == status, done.stderr
        return done

    return run


def refuses(cli: Cli, run: Callable[..., Done]) -> Callable[..., None]:
    """A function that runs a command by ``run`` which cannot be carried out.

    It must end with status 2 and one line on stderr that holds the given words, and leave the disk as it was.
    """

    def refused(line: str, *words: str) -> None:
        before = cli.listing()
        done = run(line, status=2)
        assert cli.listing() == before
        assert done.stdout == ""
        (said,) = done.stderr.splitlines()
        assert said.startswith("gpudecon")
        assert all(word in said for word in words), said

    return refused


@pytest.fixture
def refused(cli):
    """`refuses` with a process."""
    return refuses(cli, cli)


@pytest.fixture
def refused_here(cli, here):
    """`refuses` in this process."""
    return refuses(cli, here)


@pytest.fixture
def psf():
    """A small PSF that is longer along z and lopsided along x, centred, of sum 1."""
    z, y, x = (np.arange(n) - n // 2 for n in (9, 11, 13))
    array = np.exp(-((z[:, None, None] / 1.6) ** 2 + (y[:, None] / 1.2) ** 2 + (x / np.where(x < 0, 1.3, 1.35)) ** 2))
    return (array / array.sum()).astype(np.float32)


@pytest.fixture
def stack(rng):
    """Spots on a background of 100, (z, y, x) of odd, unequal lengths, uint16."""
    spots = np.zeros((9, 23, 27))
    spots[tuple(rng.integers(2, n - 2, 12) for n in spots.shape)] = 3000
    for axis in range(3):
        spots = sum(np.roll(spots, shift, axis) for shift in (-1, 0, 1)) / 3
    return rng.poisson(spots + 100).astype(np.uint16)


@pytest.fixture
def files(cli, stack, psf):
    """The folder, with stack.tif and psf.tif, neither of which says its voxel size."""
    tifffile.imwrite(cli.folder / "stack.tif", stack, photometric="minisblack")
    tifffile.imwrite(cli.folder / "psf.tif", psf, photometric="minisblack")
    return cli.folder


@pytest.fixture
def run_line(files):
    """The words of a run that works, on `files`; tests replace or add some."""
    return RUN


@pytest.fixture
def many_tiles(files, rng):
    """The words after the verb of a run of 16 tiles that works."""
    tifffile.imwrite(files / "stack.tif", rng.poisson(rng.gamma(0.3, 300, (9, 61, 59)) + 100).astype(np.uint16))
    return (
        "stack.tif -o out.ome.zarr --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --voxel-um 0.2 0.1 0.1 --background 100 "
        "--iterations 5 --device cpu --threads 1 --tile 9 16 16"
    )


@pytest.fixture
def pixels_of_many_tiles(cli, many_tiles, here):
    """What the run of `many_tiles` makes in this process."""
    here("run " + many_tiles.replace("out.ome", "expected.ome"))
    return np.asarray(cli.read("expected.ome.zarr").data)
