"""The kernels on the host under the address and undefined-behaviour sanitizers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_sanitizers_find_nothing():
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the kernels cannot be run on the host")
    runtime = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime.stdout.strip(),  # Python itself is not built with it
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves memory behind at exit
        "GPUDECON_TEST_CXXFLAGS": "-O0 -fsanitize=address,undefined -fno-sanitize-recover -g",
    }
    tests = [Path(__file__).with_name(name) for name in ("test_kernels.py", "test_least_squares_kernels.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
