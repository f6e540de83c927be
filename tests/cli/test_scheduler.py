"""gpudecon run on Dask's workers, all of them processes: one that is killed, and a scheduler that speaks TLS."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from contextlib import ExitStack

import distributed
import numpy as np
import psutil
import pytest
import tifffile

pytestmark = pytest.mark.slow


@pytest.fixture
def run_line(files, rng):
    """The words of a run of 16 tiles that works."""
    tifffile.imwrite(files / "stack.tif", rng.poisson(rng.gamma(0.3, 300, (9, 61, 59)) + 100).astype(np.uint16))
    return (
        "stack.tif -o out.ome.zarr --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --voxel-um 0.2 0.1 0.1 --background 100 "
        "--iterations 5 --device cpu --threads 1 --tile 9 16 16"
    )


@pytest.fixture
def expected(cli, run_line):
    """Pixels of the run in one process."""
    cli("run " + run_line.replace("out.ome", "expected.ome"))
    return np.asarray(cli.read("expected.ome.zarr").data)


def test_local_worker_is_killed(cli, run_line, expected):
    with cli.start(f"run {run_line} --scheduler local --workers 2", stderr=subprocess.PIPE) as process:
        said = [next(process.stderr)]
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "from multiprocessing.spawn" in " ".join(child.cmdline())]
        assert len(workers) == 2
        workers[0].kill()
        said += process.stderr
        assert process.wait(60) == 0, said
    assert len([line for line in said if re.match(r"gpudecon: stack.tif, tile \d+ of 16: ", line)]) == 16
    np.testing.assert_array_equal(np.asarray(cli.read().data), expected)


def test_scheduler_with_certificates(cli, run_line, expected):
    security = distributed.Security.temporary()
    options = []
    for name, text in (
        ("ca-file", security.tls_ca_file),
        ("cert", security.tls_client_cert),
        ("key", security.tls_client_key),
    ):
        (cli.folder / f"{name}.pem").write_text(text)
        options += [f"--tls-{name}", str(cli.folder / f"{name}.pem")]
    dask = [sys.executable, "-m", "dask"]

    def start(*words: str, **streams) -> subprocess.Popen[str]:
        command = [*dask, *words, "--no-dashboard", *options]
        return subprocess.Popen(command, cwd=cli.folder, env=cli.environment, text=True, **streams)

    with ExitStack() as stack:
        scheduler = start("scheduler", "--host", "tls://127.0.0.1", "--port", "0", stderr=subprocess.PIPE)
        stack.callback(scheduler.communicate)
        stack.callback(scheduler.terminate)
        address = next(found[0] for line in scheduler.stderr if (found := re.search(r"tls://127\S+", line)))
        worker = start("worker", address, "--nthreads", "2", "--memory-limit", "0", stderr=subprocess.DEVNULL)
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        tls = "--tls-ca ca-file.pem --tls-cert cert.pem --tls-key key.pem"
        cli(f"run {run_line} --scheduler {shlex.quote(address)} {tls}")
    np.testing.assert_array_equal(np.asarray(cli.read().data), expected)
