"""What a user sees meanwhile: lines in a log, a bar on a terminal; and what is left of a run that is stopped."""

import os
import pty
import signal
import subprocess
import termios

import pytest

# a shell that starts its jobs in the background has them ignore Ctrl-C, which is inherited
HEEDING_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def test_lines_in_a_log(cli, run_line):
    done = cli(run_line.replace("--iterations 5", "--iterations 20"))
    first, *middle, last = done.stderr.splitlines()
    assert first == "gpudecon: stack.tif"
    assert middle
    assert all(line.startswith("gpudecon: iteration ") and ", divergence " in line for line in middle)
    assert last.startswith("gpudecon: out.ome.zarr written: rl, cpu")
    assert "\r" not in done.stderr
    assert done.stdout == ""


def test_bar_on_a_terminal(cli, run_line):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with cli.start(run_line, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while block := read(ours):
            shown += block
    os.close(ours)
    assert process.returncode == 0
    assert b"\r" in shown
    assert b"100%|" in shown
    assert b"5/5 [" in shown
    assert b"divergence " in shown
    assert shown.splitlines()[-1].startswith(b"gpudecon: out.ome.zarr written")


def read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so that the other end is closed
        return b""


@pytest.mark.parametrize(
    ("numbers", "status", "last"),
    [
        ([signal.SIGINT], 130, "gpudecon: interrupted in stack.tif\n"),
        ([signal.SIGTERM] * 2, 143, "gpudecon: ended in stack.tif\n"),
    ],
)
@pytest.mark.parametrize("output", ["out.ome.zarr", "out.ome.tif --dtype uint16"])
def test_stopped_at_once(cli, run_line, output, numbers, status, last):
    """In the first tile: nothing is done yet, and nothing is left behind.  SIGTERM is to be sent twice."""
    before = cli.listing()
    line = run_line.replace("--iterations 5", "--iterations 100000").replace("out.ome.zarr", output)
    with cli.start(line, HEEDING_CTRL_C, stderr=subprocess.PIPE) as process:
        assert process.stderr.readline() == "gpudecon: stack.tif\n"
        assert cli.listing() != before
        said = ""
        for number in numbers:
            process.send_signal(number)
            if number == signal.SIGTERM and not said:
                said = process.stderr.readline()
        said += process.communicate(timeout=20)[1]
    assert process.returncode == status
    assert "Traceback" not in said
    assert said.endswith(last)
    assert cli.listing() == before
