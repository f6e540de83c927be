"""What is built is complete: the wheel, made from the sdist, works alone in an empty environment."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import gpudecon

ROOT = Path(__file__).parents[1]
KERNELS = {path.name: path.read_bytes() for path in (ROOT / "kernels").iterdir() if path.is_file()}
USE = """
import numpy as np, gpudecon as gd
from gpudecon.backend.cuda import kernel_folder
image = np.zeros((9, 16, 17), np.float32)
image[4, 8, 8] = 100
restored = gd.deconvolve(image, np.ones((3, 3, 3), np.float32) / 27, iterations=3, device="cpu")
assert restored.shape == image.shape and np.isfinite(restored).all()
print(gd.__file__)
print(*sorted(entry.name for entry in kernel_folder().iterdir()))
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without the paths of this environment; its output if it succeeds."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Skips where no package registry answers."""
    index = [sys.executable, "-m", "pip", "index", "versions", "hatchling"]
    if subprocess.run(index, capture_output=True, cwd=tmp_path_factory.mktemp("index")).returncode:
        pytest.skip("no package registry can be reached")


@pytest.fixture(scope="module")
def built(tmp_path_factory, request):
    """A folder with the sdist and the wheel that was made from it."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("build is not installed: pip install 'gpudecon[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    options = ["--no-isolation"]
    if importlib.util.find_spec("hatchling") is None:  # build then fetches it
        request.getfixturevalue("registry")
        options = []
    run(sys.executable, "-m", "build", *options, "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def test_wheel_holds_what_the_package_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    kernels = {name.rpartition("/")[2]: data for name, data in inside.items() if name.startswith("gpudecon/kernels/")}
    assert kernels == KERNELS
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "gpudecon").rglob("*") if p.suffix in (".py", ".json")}
    assert "gpudecon/backend/fft_cost.json" in package
    assert package <= inside.keys()
    assert {name.split("/")[0] for name in inside} == {"gpudecon", f"gpudecon-{gpudecon.__version__}.dist-info"}


def test_sdist_holds_what_a_developer_needs(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    tests = {str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("*.py")}
    assert {"pyproject.toml", "README.md", "LICENSE"} | {f"kernels/{name}" for name in KERNELS} | tests <= inside


def test_wheel_works_in_an_empty_environment(wheel, registry, tmp_path):
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    venv.create(environment, with_pip=True)
    run(environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=empty)
    assert run(environment / "bin" / "gpudecon", "--version", cwd=empty) == f"gpudecon {gpudecon.__version__}\n"
    place, kernels = run(environment / "bin" / "python", "-c", USE, cwd=empty).splitlines()
    assert Path(place).is_relative_to(environment)
    assert kernels.split() == sorted(KERNELS)
