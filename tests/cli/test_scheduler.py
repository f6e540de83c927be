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

pytestmark = pytest.mark.slow


def test_local_worker_is_killed(cli, many_tiles, pixels_of_many_tiles):
    with cli.start(f"run {many_tiles} --scheduler local --workers 2", stderr=subprocess.PIPE) as process:
        said = [next(process.stderr)]
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "from multiprocessing.spawn" in " ".join(child.cmdline())]
        assert len(workers) == 2
        workers[0].kill()
        said += process.stderr
        assert process.wait(60) == 0, said
    assert len([line for line in said if re.match(r"gpudecon: stack.tif, tile \d+ of 16: ", line)]) == 16
    np.testing.assert_array_equal(np.asarray(cli.read().data), pixels_of_many_tiles)


def test_scheduler_with_certificates(cli, many_tiles, pixels_of_many_tiles):
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
        cli(f"run {many_tiles} --scheduler {shlex.quote(address)} {tls}")
    np.testing.assert_array_equal(np.asarray(cli.read().data), pixels_of_many_tiles)
