"""The command line as a whole, and gpudecon doctor."""

import dataclasses
import json
import sys

import pytest

import gpudecon as gd
from gpudecon.backend.cupy import missing_for_cuda

HEAVY = ["zarr", "tifffile", "yaozarrs", "imagecodecs", "scipy", "matplotlib", "tqdm", "cupy", "dask", "distributed"]
REPORT_IMPORTS = (
    f"import atexit, sys; atexit.register(lambda: print(*set({HEAVY}) & set(sys.modules), file=sys.stderr))"
)


@pytest.mark.parametrize("verb", ["", "run", "plan", "submit", "work", "finish", "report", "psf", "demo", "doctor"])
def test_help(cli, verb):
    done = cli(f"{verb} --help", before=REPORT_IMPORTS)
    assert done.stdout.startswith(f"usage: {f'gpudecon {verb}'.strip()}")
    assert done.stderr == "\n"  # nothing heavy was imported


def test_every_verb_and_option_is_in_the_help(cli):
    assert all(verb in cli("--help").stdout for verb in ("run", "demo", "doctor"))
    said = cli("run --help").stdout
    assert all(name in said for name in gd.METHODS)
    fields = {field.name for method in gd.METHODS.values() for field in dataclasses.fields(method)}
    assert all("--" + field.replace("_", "-") in said for field in fields)


def test_version(cli):
    assert cli("--version").stdout == f"gpudecon {gd.__version__}\n"


def test_doctor_json(cli):
    found = json.loads(cli("doctor --json").stdout)
    assert found["versions"]["gpudecon"] == gd.__version__
    assert found["versions"]["python"] == sys.version.split()[0]
    assert found["devices"][0]["name"] == "cpu"
    for device in found["devices"]:
        assert device["works"] is True
        assert 0 < device["memory_free_gib"] <= device["memory_total_gib"]
        assert 0 <= device["fft_round_trip_error"] < 1e-5
        assert 0 < device["restoration_error"] < 1e-4
    missing = missing_for_cuda()
    assert found["missing"].get("GPU") == missing
    assert [device["name"] for device in found["devices"]] == (["cpu"] if missing else ["cpu", "cuda:0"])


def test_doctor(cli):
    said = cli("doctor").stdout
    assert f"gpudecon     {gd.__version__}" in said
    assert "Device cpu: works" in said
    missing = missing_for_cuda()
    assert ("Device cuda:0: works" if missing is None else f"Missing: GPU: {missing}") in said
