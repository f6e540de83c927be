"""gpudecon plan as a process: the table, the JSON, and that a run of the same options does what was planned."""

import json
import os

import numpy as np
import pytest
import tifffile

import gpudecon as gd
from gpudecon.engine.plan import Plan

LINE = "stack.tif -o out.ome.zarr --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --voxel-um 0.2 0.1 0.1 --device cpu"


@pytest.fixture
def files(cli, rng, asymmetric_psf, monkeypatch):
    """A stack that is cut in four by the tile used here, its PSF, and a cache of its own."""
    image = rng.poisson(30, (9, 70, 90)).astype(np.uint16)
    image[4, 30:40, 40:50] = 900
    tifffile.imwrite(cli.folder / "stack.tif", image)
    tifffile.imwrite(cli.folder / "psf.tif", asymmetric_psf((5, 7, 9)))
    for environment in (cli.environment, os.environ):
        monkeypatch.setitem(environment, "XDG_CACHE_HOME", str(cli.folder / "cache"))


def test_table_says_what_a_run_would_do(cli, files):
    table = cli(f"plan {LINE} --iterations 7 --tile 9 48 64").stdout
    facts = {line[:15].strip(): line[15:].strip() for line in table.splitlines() if line.strip()}
    assert facts["method"] == "rl, 7 iterations, on cpu"
    assert facts["tiles"].startswith("4 (1 x 2 x 2) of 9 x 48 x 64 voxels in each stack, 4 in all")
    assert facts["limited by"] == "the tile that was asked for"
    assert "measured now" in facts["time"]
    assert "transfer function" in table
    assert not (cli.folder / "out.ome.zarr").exists()
    assert "kept from" in cli(f"plan {LINE} --iterations 9 --tile 9 48 64").stdout  # one speed for any number of them


def test_json_is_the_plan_that_a_run_carries_out(cli, files):
    said = json.loads(cli(f"plan {LINE} --iterations 2 --tile 9 48 64 --json").stdout)
    extra = ("tasks", "tiles", "halo_cost", "bytes", "seconds", "calibration")
    more = {name: said.pop(name) for name in extra}
    plan = Plan.from_json(json.dumps(said))
    assert more["tasks"] == more["tiles"] == len(plan) == 4
    assert more["bytes"] == sum(said["needs"]["buffers"].values())
    assert more["halo_cost"] == pytest.approx(4 * np.prod(plan.tiling.read_shape) / (9 * 70 * 90) - 1)
    assert more["seconds"] > 0
    cli(f"run {LINE} --iterations 2 --tile 9 48 64")
    assert cli.read().provenance["plan"]["hash"] == plan.hash


def test_memory_limits_the_tile(cli, files):
    gd.write(cli.folder / "stack.ome.zarr", gd.Image(np.ones((9, 900, 900), np.uint16), "zyx", (0.2, 0.1, 0.1)))
    line = LINE.replace("stack.tif", "stack.ome.zarr")
    said = json.loads(cli(f"plan {line} --memory 0.4GB --json").stdout)
    assert said["bytes"] <= 400_000_000
    assert said["tiles"] > 1
    assert said["needs"]["limit"] == "the memory allowed, 381.47 MiB"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--memory lots", "--memory is 'lots'; give a size such as 4GiB, 500MB or a number of bytes"),
        ("--memory 0", "--memory is '0'"),
        ("--memory 150MiB", "The smallest tile needs"),
        ("--tile 9 0 9", "The tile is (9, 0, 9); give at least 1 voxel along z, y and x"),
        ("--edges periodic --tile 9 48 64", "opposite faces touch"),
        ("--na 1.3", "--psf and --na were given"),
        ("--ngff 0.4 -o out.tif", "--ngff is a version of OME-Zarr"),
    ],
)
def test_bad_options_are_the_same_errors_as_those_of_run(here, files, change, words):
    planned, ran = (here(f"{verb} {LINE} {change}", status=2).stderr for verb in ("plan", "run"))
    assert words in planned
    assert planned.splitlines()[-1] == ran.splitlines()[-1]
