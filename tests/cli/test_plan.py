"""gpudecon plan as a process: the table, the JSON, and that a run of the same options does what was planned."""

import json
import os
import re

import numpy as np
import pytest
import tifffile

import gpudecon as gd
from gpudecon.backend.cupy import missing_for_cuda
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
    extra = ("tasks", "done", "tiles", "halo_cost", "bytes", "seconds", "calibration", "then", "obstacle")
    more = {name: said.pop(name) for name in extra}
    plan = Plan.from_json(json.dumps(said))
    assert more["tasks"] == more["tiles"] == len(plan) == 4
    assert more["bytes"] == sum(said["needs"]["buffers"].values())
    assert more["halo_cost"] == pytest.approx(4 * np.prod(plan.tiling.read_shape) / (9 * 70 * 90) - 1)
    assert more["seconds"] > 0
    assert (more["done"], more["then"], more["obstacle"]) == (0, [], "")
    cli(f"run {LINE} --iterations 2 --tile 9 48 64")
    assert cli.read().provenance["plan"]["hash"] == plan.hash


def test_memory_limits_the_tile(cli, files):
    gd.write(cli.folder / "stack.ome.zarr", gd.Image(np.ones((9, 900, 900), np.uint16), "zyx", (0.2, 0.1, 0.1)))
    line = LINE.replace("stack.tif", "stack.ome.zarr")
    said = json.loads(cli(f"plan {line} --memory 0.4GB --json").stdout)
    assert said["bytes"] <= 400_000_000
    assert said["tiles"] > 1
    assert said["needs"]["limit"] == "the memory allowed, 381.47 MiB"


def test_what_a_run_would_find_and_do_beside(cli, here, files):
    """Its options mean the same: what is there already, and what follows."""
    line = f"{LINE} --iterations 2 --tile 9 48 64"
    here(f"submit {line} --prepare --elements 4")
    here("work .out.ome.zarr.gpudecon --device cpu --share 0/4")
    before = cli.listing()
    assert re.search("refused as it is +An interrupted run of .* is in", here(f"plan {line}").stdout)
    table = here(f"plan {line} --resume --verify --check-seams --report").stdout
    assert "done already   1 of 4 tiles\n" in table
    places, reading, page = table.split("then           ")[1].splitlines()[0].split("; ")
    assert places == "some places between tiles are restored again with twice the halo"
    assert (reading, page) == ("all that was written is read again and compared", "out.report.html is written")
    left, whole = (json.loads(here(f"plan {line} {way} --json").stdout) for way in ("--resume", "--overwrite"))
    assert (left["done"], whole["done"]) == (1, 0)
    assert left["seconds"] == pytest.approx(0.75 * whole["seconds"])
    assert "cannot be resumed" in here(f"plan {line} --iterations 3 --resume").stdout
    assert {name: text for name, text in cli.listing().items() if "cache" not in name} == before
    here(f"run {line} --resume")
    assert json.loads(here(f"plan {line} --resume --json").stdout)["done"] == 4
    there = json.loads(here(f"plan {line} --json").stdout)
    assert "exists" in there["obstacle"]
    assert there["done"] == 0


def test_workers_elsewhere_are_planned_for(here, files):
    line = f"{LINE} --iterations 2"
    table = here(f"plan {line} --scheduler tcp://127.0.0.1:9 --device cuda --tile 9 48 64").stdout
    assert "carried out by  workers of Dask (tcp://127.0.0.1:9); the time is that of one\n" in table
    shared, alone = (
        json.loads(here(f"plan {line} {words} --memory 4GiB --json").stdout)["needs"]["available"]
        for words in ("--scheduler local --workers 2", "")
    )
    assert shared == alone // 2


@pytest.mark.skipif(missing_for_cuda() is None, reason="there is a GPU")
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_tile_is_not_chosen_for_gpus_that_are_not_here(here, files, verb):
    line = LINE.replace("--device cpu", "")
    said = here(f"{verb} {line} --scheduler tcp://127.0.0.1:9", status=2).stderr
    assert all(word in said for word in ("no GPU", "--memory", "--tile", "--device cpu"))


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
        ("--background nan", "background is nan"),
        ("--method median --check-psf", "needs no PSF"),
        ("--overw", "unrecognized arguments: --overw"),
        ("--workers 2", "--workers has no meaning without --scheduler"),
        ("--scheduler node:8786", "'node:8786' is no address"),
    ],
)
def test_bad_options_are_the_same_errors_as_those_of_run(here, files, change, words):
    planned, ran = (here(f"{verb} {LINE} {change}", status=2).stderr for verb in ("plan", "run"))
    assert words in planned
    assert planned.splitlines()[-1] == ran.splitlines()[-1]
