"""Runs that end early, as processes: how they are asked to, what they say, and that the next one goes on."""

import os
import shlex
import signal
import subprocess
import time

import numpy as np
import pytest

from gpudecon.engine.journal import Journal

pytestmark = pytest.mark.slow  # each of these is several processes

TILES = "--tile 9 16 16 --iterations 60"  # 2 x 2 tiles


@pytest.fixture
def tiled_line(run_line):
    """The words of a run of four tiles that takes a moment for each."""
    return run_line.replace("--iterations 5", TILES)


@pytest.fixture(scope="module")
def made():
    """What `expected` keeps."""
    return []


@pytest.fixture
def expected(cli, tiled_line, made):
    """The pixels of the run that nothing disturbs; the same files are there for every test."""
    if not made:
        cli(tiled_line.replace("out.", "undisturbed."))
        made.append(cli.read("undisturbed.ome.zarr").volume())
    return made[0]


def wait_for_tile(folder, process):
    """Until the first line is in the journal."""
    while process.poll() is None and not Journal(folder / ".out.ome.zarr.gpudecon" / "journal").done("tile"):
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_asks_for_a_stop(cli, tiled_line, expected, number):
    before = cli.listing()
    with cli.start(tiled_line, stderr=subprocess.PIPE) as process:
        wait_for_tile(cli.folder, process)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    asked, last = said.splitlines()[-2:]
    assert asked == "gpudecon: stopping when the tile in hand is finished"
    assert last.startswith("gpudecon: Stopped as asked. ")
    assert " of 4 tiles are done and kept; go on with: gpudecon run " in last
    command = last.partition("go on with: gpudecon ")[2]
    assert shlex.split(command) == [*shlex.split(tiled_line), "--resume"]
    assert "Stopped" not in cli(command).stderr
    np.testing.assert_array_equal(cli.read().volume(), expected)
    assert {name.partition("/")[0] for name in cli.listing().keys() - before.keys()} == {"out.ome.zarr"}


def test_ctrl_c_in_the_middle(cli, tiled_line, expected):
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    with cli.start(tiled_line, heeding, stderr=subprocess.PIPE) as process:
        wait_for_tile(cli.folder, process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "gpudecon: interrupted in stack.tif, tile " in said.splitlines()[-1]
    assert " of 4 tiles are done and kept; go on with: gpudecon run " in said.splitlines()[-1]
    changed = tiled_line.replace("--iterations 60", "--iterations 61")
    done = cli(f"{changed} --resume", status=2)
    assert "cannot be resumed" in done.stderr
    assert "iterations is 61, was 60" in done.stderr
    assert "gpudecon: error: An interrupted run of" in cli(tiled_line, status=2).stderr
    cli(f"{tiled_line} --resume --verify")
    np.testing.assert_array_equal(cli.read().volume(), expected)


def test_two_processes_on_one_output(cli, tiled_line):
    with cli.start(tiled_line, stderr=subprocess.PIPE) as process:
        wait_for_tile(cli.folder, process)
        process.send_signal(signal.SIGSTOP)  # lest it ends meanwhile
        for more in ("--resume", "--overwrite"):
            refused = cli(f"{tiled_line} {more}", status=2).stderr
            assert f"Another run is at work in {cli.folder}/.out.ome.zarr.gpudecon (process {process.pid} on" in refused
        process.kill()
        process.communicate()


@pytest.fixture
def disk(tmp_path):
    """A folder on a file system of its own, and a function that leaves so many bytes free on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder], capture_output=True)
    if os.geteuid() != 0 or mounted.returncode != 0:
        pytest.skip("a file system cannot be mounted here")

    def leave(size):
        state = os.statvfs(folder)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize
        subprocess.run(["mount", "-o", f"remount,size={used + size}", folder], check=True)

    yield leave
    subprocess.run(["umount", folder], check=True)


def test_full_disk(cli, tiled_line, disk, expected):
    line = tiled_line.replace("out.ome.zarr", "disk/out.ome.zarr")
    with cli.start(line, stderr=subprocess.PIPE) as process:
        wait_for_tile(cli.folder / "disk", process)
        process.send_signal(signal.SIGSTOP)
        disk(8192)  # less than a tile takes
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=60)[1].splitlines()[-1]
    assert process.returncode == 1, said
    assert said.startswith("gpudecon: error: stack.tif, tile ")
    assert "No space left on device" in said
    assert " of 4 tiles are done and kept; go on with: gpudecon run " in said
    assert "No space left on device" in cli(f"{line} --resume", status=1).stderr
    disk(2**26)
    cli(f"{line} --resume")
    np.testing.assert_array_equal(cli.read("disk/out.ome.zarr").volume(), expected)
    assert [path.name for path in (cli.folder / "disk").iterdir()] == ["out.ome.zarr"]
