"""Outputs of gpudecon run: formats, types, the record of what was done, and disks that fail."""

import datetime

import numpy as np
import pytest
import yaozarrs

import gpudecon as gd
from gpudecon.quality.background import estimate_background

FORMATS = ["out.ome.zarr", "out.zarr --ngff 0.4", "out.ome.tif"]


@pytest.mark.parametrize("options", ["--iterations 5", "--method wiener"], ids=["rl", "wiener"])
@pytest.mark.parametrize("output", FORMATS)
def test_uint16_can_be_undone(cli, here, run_line, output, options):
    line = run_line.replace("--iterations 5", options)
    here(line)
    here(line.replace("out.ome.zarr", "int." + output) + " --dtype uint16")
    expected, image = cli.read().volume(), cli.read("int." + output.split()[0])
    stored, intensity = image.volume(), image.provenance["intensity"]
    assert stored.dtype == np.uint16
    assert stored.max() == 65535
    assert intensity["offset"] == min(expected.min(), 0)
    # float32 numbers up to 65535 are rounded to 2^-8, which may move a value over the middle between two steps
    half_step = (0.5 + 2**-8) * intensity["scale"]
    undone = stored * intensity["scale"] + intensity["offset"]
    np.testing.assert_allclose(undone, expected, rtol=0, atol=half_step)


@pytest.mark.parametrize("name", ["tiles.zarr", "journal.zarr", "replaced.ome.tif"])
def test_outputs_named_as_what_is_in_the_workspace(cli, here, run_line, name):
    here(run_line.replace("out.ome.zarr", name) + " --dtype uint16")
    assert cli.read(name).dtype == np.uint16


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_ome_zarr_is_valid(cli, here, run_line, ngff):
    here(f"{run_line} --ngff {ngff}")
    assert yaozarrs.validate_zarr_store(str(cli.folder / "out.ome.zarr")).ome_version() == ngff


@pytest.mark.parametrize("output", FORMATS)
def test_overwrite(cli, here, run_line, output):
    line = run_line.replace("out.ome.zarr", output)
    here(line.replace("--iterations 5", "--iterations 2"))
    before = cli.listing()
    here(f"{line} --overwrite")
    assert cli.read(output.split()[0]).provenance["options"]["iterations"] == 5
    assert cli.listing().keys() == before.keys()


def test_an_output_is_the_next_input(cli, here, run_line):
    here(run_line)
    here("run out.ome.zarr -o next.ome.zarr --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --method wiener")
    assert cli.read("next.ome.zarr").provenance["source"] == "out.ome.zarr"
    assert cli.read("next.ome.zarr").provenance["method"] == "wiener"


def test_what_is_complete_is_not_checked_again(cli, here, run_line):
    line = f"{run_line} --tile 9 16 16 --check-seams --resume"
    assert "seams: twice the halo changes the result by" in here(line).stderr
    (said,) = here(line).stderr.splitlines()
    assert said == "gpudecon: out.ome.zarr was complete; nothing was left to be done, or checked again"


@pytest.mark.parametrize("verb", ["run", "plan", "submit"])
def test_the_input_is_not_replaced(cli, refused_here, run_line, verb):
    line = run_line.replace("run", verb, 1).replace("out.ome.zarr", "./stack.tif")
    refused_here(f"{line} --overwrite", "./stack.tif would replace or change the input stack.tif", "another output")


@pytest.mark.parametrize("output", FORMATS)
def test_provenance(cli, here, run_line, psf, output):
    gd.write(cli.folder / "psf.tif", gd.Image(np.roll(3 * psf, 1, axis=2), "zyx"), overwrite=True)
    start = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    done = here(run_line.replace("out.ome.zarr", output) + " --background 90 --edges reflect --threads 2")
    record = cli.read(output.split()[0]).provenance
    assert record["version"] == gd.__version__
    assert start <= datetime.datetime.fromisoformat(record["created"]) <= datetime.datetime.now(datetime.UTC)
    assert record["source"] == "stack.tif"
    assert record["method"] == "rl"
    assert record["options"] == {
        "iterations": 5,
        "acceleration": "none",
        "back_projector": "matched",
        "alpha": "auto",
        "cutoff": "auto",
        "tv": 0.0,
        "goods_roughness": 0.0,
        "tikhonov": 0.0,
        "start": "flat",
    }
    assert record["settings"] == {
        "background": 90.0,
        "camera": None,
        "saturation": None,
        "stop": "fixed",
        "edges": "reflect",
        "channels": [0],
        "timepoints": [0],
        "dtype": "float32",
    }
    assert "2 threads" in record["device"]["device"]
    assert 0 < record["seconds"] < 60
    (used,) = record["psf"]
    assert used["origin"] == {"file": "psf.tif"}
    assert (used["shape"], used["voxel_um"]) == (list(psf.shape), [0.2, 0.1, 0.1])
    # of the Gaussian that the fixture is: 2 sqrt(ln 2) times its lengths, and half of either side along x
    widths = np.array([2 * 1.6 * 0.2, 2 * 1.2 * 0.1, (1.3 + 1.35) * 0.1]) * np.sqrt(np.log(2))
    assert (
        np.abs(used["fwhm_um"] - widths) < np.array([0.2, 0.1, 0.1]) / 15
    ).all()  # either side is read to 1/40 voxel
    with pytest.warns(gd.GpudeconWarning, match="shifted|divided by its sum") as repairs:
        measured = gd.read_psf(cli.folder / "psf.tif", voxel_um=(0.2, 0.1, 0.1))
    assert used["sha256"] == measured.sha256
    assert record["warnings"] == [str(repair.message) for repair in repairs]
    assert all(f"gpudecon: warning: {said}\n" in done.stderr for said in record["warnings"])


@pytest.mark.parametrize("output", ["out.ome.zarr", "out.zarr --ngff 0.4", "out.ome.tif --dtype uint16"])
def test_disk_that_takes_no_more(cli, run_line, output):
    """A limit on the size of files stands for a full disk; nothing is done yet, and nothing is kept."""
    before = cli.listing()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"
    done = cli(run_line.replace("out.ome.zarr", output), status=1, before=limit)
    assert done.stderr.splitlines()[-1].startswith("gpudecon: error: ")
    assert "File too large" in done.stderr.splitlines()[-1]
    assert cli.listing() == before


def test_what_was_chosen_is_recorded(cli, here, run_line, stack):
    """For a stack in one tile, and once for each channel where there are more."""
    chosen = run_line.replace("--iterations 5", "--iterations 3 --back-projector wb")
    here(chosen)
    (found,) = cli.read().provenance["found"]
    assert (found["channel"], found["timepoint"]) == (0, 0)
    assert found["background"] == pytest.approx(estimate_background(stack))
    assert found["highest"] == stack.max()
    assert found["options"]["iterations"] == 3
    assert 0.35 <= found["options"]["alpha"] <= 1
    assert found["options"]["cutoff"] == pytest.approx(0.01 * found["options"]["alpha"])
    here(run_line.replace("out.", "tiles.").replace("--iterations 5", "--method wiener") + " --tile 9 16 16")
    (found,) = cli.read("tiles.ome.zarr").provenance["found"]
    assert (found["channel"], "timepoint" in found) == (0, False)
    assert found["background"] == pytest.approx(estimate_background(stack))
    assert found["noise_to_signal"] > 0
