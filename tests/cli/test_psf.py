"""gpudecon psf theory, beads and check, and what run makes of the checks."""

import json

import numpy as np
import pytest
import tifffile

import gpudecon as gd

OPTICS = "--na 1.4 --emission-nm 520 --immersion-index 1.515"
THEORY = f"psf theory -o psf.ome.tif --shape 21 41 42 --voxel-um 0.1 0.065 0.065 {OPTICS}"
VOXEL_UM = (0.1, 0.065, 0.065)


@pytest.fixture
def beads(cli):
    """beads.tif: four beads of 2000 photons and a clump of two on an offset of 100."""
    optics = gd.Optics(na=1.4, emission_nm=520, immersion_index=1.515)
    psf = gd.theoretical_psf(optics, (31, 61, 61), VOXEL_UM).array
    image = np.zeros((31, 200, 200))
    for y, x, height in ((45, 45, 1.0), (44, 150, 0.9), (150, 40, 0.95), (155, 155, 0.9), (100, 100, 2.0)):
        image[:, y - 30 : y + 31, x - 30 : x + 31] += height * psf / psf.max()
    image = np.random.default_rng(7).poisson(2000 * image + 100).astype(np.uint16)
    tifffile.imwrite(cli.folder / "beads.tif", image, photometric="minisblack")
    return "psf beads beads.tif -o psf.ome.zarr --voxel-um 0.1 0.065 0.065"


@pytest.mark.parametrize("output", ["psf.ome.tif", "psf.ome.zarr"])
def test_theory(cli, output):
    done = cli(THEORY.replace("psf.ome.tif", output) + " --sample-index 1.4 --depth-um 2")
    assert done.stderr == f"gpudecon: {output} and psf.png written\n"
    image = cli.read(output)
    optics = gd.Optics(na=1.4, emission_nm=520, immersion_index=1.515, sample_index=1.4, depth_um=2)
    expected = gd.theoretical_psf(optics, (21, 41, 42), VOXEL_UM)
    np.testing.assert_array_equal(image.volume(), expected.array)
    assert image.voxel_um == VOXEL_UM
    assert image.channels[0].emission_nm == 520
    record = image.provenance
    assert (record["command"], record["model"]) == ("psf theory", "vectorial")
    assert record["optics"] == {
        "na": 1.4, "emission_nm": 520.0, "immersion_index": 1.515, "sample_index": 1.4, "depth_um": 2.0
    }  # fmt: skip
    assert record["psf"]["sha256"] == expected.sha256
    assert (cli.folder / "psf.png").read_bytes().startswith(b"\x89PNG")


def test_theory_of_every_kind_of_option(cli, here):
    here(THEORY + " --modality light-sheet --sheet-profile -1 0 0 1 1 0 --sheet-offset-um 0.2 --model scalar ")
    profile = ((-1.0, 0.0), (0.0, 1.0), (1.0, 0.0))
    assert cli.read("psf.ome.tif").provenance["optics"]["sheet_profile"] == [list(pair) for pair in profile]
    optics = gd.Optics(
        na=1.4, emission_nm=520, immersion_index=1.515,
        modality="light-sheet", sheet_profile=profile, sheet_offset_um=0.2,
    )  # fmt: skip
    expected = gd.theoretical_psf(optics, (21, 41, 42), VOXEL_UM, model="scalar")
    np.testing.assert_array_equal(cli.read("psf.ome.tif").volume(), expected.array)


def test_a_plane(cli, here):
    here(f"psf theory -o psf.tif --shape 31 31 --voxel-um 0.065 0.065 {OPTICS}")
    assert cli.read("psf.tif").volume().shape == (31, 31)
    assert (cli.folder / "psf.png").exists()


@pytest.mark.slow
def test_beads(cli, beads):
    done = cli(f"{beads} {OPTICS} --radial-average")
    assert "4 of 5 beads used" in done.stdout
    assert "clump: 2.1 times the light of the others" in done.stdout
    record = cli.read("psf.ome.zarr").provenance
    assert record["quality"]["beads_used"] == 4
    assert record["quality"]["theory_ratio"] == pytest.approx([1, 1, 1], abs=0.03)
    assert [bead["rejected"] is None for bead in record["beads"]].count(True) == 4
    assert record["source"] == "beads.tif"
    optics = gd.Optics(na=1.4, emission_nm=520, immersion_index=1.515)
    psf = cli.read("psf.ome.zarr").volume()
    truth = gd.theoretical_psf(optics, psf.shape, VOXEL_UM).array
    assert np.linalg.norm(psf - truth) < 0.05 * np.linalg.norm(truth)
    assert cli(f"psf check psf.ome.zarr {OPTICS} --image-voxel-um 0.1 0.065 0.065").stdout == (
        "nothing is wrong with it\n"
    )


def test_beads_without_optics_say_what_is_missing(here, beads):
    assert "gpudecon: warning: Without optics the noise outside" in here(beads).stderr


def test_outputs_are_not_overwritten(cli, here, refused_here):
    here(THEORY)
    refused_here(THEORY, "psf.ome.tif exists")
    (cli.folder / "psf.ome.tif").unlink()
    refused_here(THEORY, "psf.png exists")
    here(THEORY + " --overwrite")


def test_bad_requests(beads, refused_here):
    refused_here(THEORY.replace("--na 1.4 ", ""), "--na missing")
    refused_here(THEORY.replace("--shape 21 41 42", "--shape 41"), "shape is (41,)")
    refused_here(THEORY.replace("psf.ome.tif", "psf.png"), "psf.png")
    refused_here(THEORY + " --pinhole-au 1", "modality 'widefield' does not use pinhole_au")
    refused_here(THEORY + " --modality light-sheet --sheet-profile 0 1 1", "--sheet-profile has 3 numbers")
    refused_here(beads.replace("--voxel-um 0.1 0.065 0.065", ""), "beads.tif does not say its voxel size")
    refused_here(f"{beads} {OPTICS} --bead-diameter-um 0.5", "Beads of 0.5 um are too large")
    refused_here(f"{beads} --na 1.4", "--emission-nm, --immersion-index missing")
    refused_here("psf check nothing.tif", "nothing.tif does not exist")


def test_check(cli, here):
    here(THEORY)
    assert here(f"psf check psf.ome.tif {OPTICS}").stdout == "nothing is wrong with it\n"
    assert here("psf check psf.ome.tif").stdout.startswith("nothing is wrong with it; give the optics")
    found = json.loads(here(f"psf check psf.ome.tif {OPTICS} --image-voxel-um 0.2 0.13 0.13 --json").stdout)
    assert {f["name"]: f["severity"] for f in found} == {"pitch": "note", "below Nyquist": "warning"}
    array = cli.read("psf.ome.tif").volume().copy()
    array[0, 0, 0] = np.nan
    tifffile.imwrite(cli.folder / "nan.tif", array, photometric="minisblack")
    assert cli("psf check nan.tif", status=2).stdout == (
        "fatal: not finite: 1 values are NaN or infinite; replace or crop them.\n"
    )


def test_run_says_what_is_wrong_with_its_psf(cli, here, run_line, psf):
    clipped = np.minimum(psf, 0.3 * psf.max())
    tifffile.imwrite(cli.folder / "psf.tif", clipped, photometric="minisblack")
    done = here(run_line)
    assert "psf.tif: 3 neighbouring voxels have the highest value" in done.stderr
    assert any("highest value" in said for said in cli.read().provenance["warnings"])


def test_run_takes_all_optics(cli, here, run_line):
    words = run_line.replace("--psf psf.tif --psf-voxel-um 0.2 0.1 0.1", OPTICS)
    here(f"{words} --modality confocal --excitation-nm 488 --pinhole-au 1 --iterations 2")
    widefield = run_line.replace("out.ome.zarr", "wide.ome.zarr").replace(
        "--psf psf.tif --psf-voxel-um 0.2 0.1 0.1", OPTICS
    )
    here(f"{widefield} --iterations 2")
    assert cli.read().provenance["psf"] != cli.read("wide.ome.zarr").provenance["psf"]


def test_run_takes_a_psf_of_gpudecon_as_it_is(cli, here, run_line):
    """The same PSF computed by run or by psf theory; cleaning it again would take its faint light away."""
    computed, measured = (
        run_line.replace("--psf psf.tif --psf-voxel-um 0.2 0.1 0.1", words).replace("out.", name)
        for words, name in ((OPTICS, "computed."), ("--psf theory.ome.tif", "measured."))
    )
    here(computed)
    (record,) = cli.read("computed.ome.zarr").provenance["psf"]
    shape = " ".join(str(n) for n in record["shape"])
    here(f"psf theory -o theory.ome.tif --shape {shape} --voxel-um 0.2 0.1 0.1 {OPTICS}")
    here(measured)
    (again,) = cli.read("measured.ome.zarr").provenance["psf"]
    made_of = {"model": "vectorial", "optics": {"na": 1.4, "emission_nm": 520.0, "immersion_index": 1.515}}
    assert record.pop("origin") == made_of
    assert again.pop("origin") == {"file": "theory.ome.tif", "command": "psf theory"} | made_of
    assert again == record
    assert gd.read_psf(cli.folder / "theory.ome.tif").sha256 == record["sha256"]


def test_the_real_bead_is_no_point(here, shared_data, refused_here):
    """It has 2.5 um: far larger than what NA 1.4 resolves, which its image shows even where nobody says so."""
    words = f"psf beads '{shared_data}/bead-25pct_data.tif' -o psf.ome.tif --voxel-um 0.25 0.16 0.16"
    refused_here(f"{words} {OPTICS}", "they are no point sources")
    refused_here(f"{words} {OPTICS} --bead-diameter-um 2.5", "Beads of 2.5 um are too large")
    done = here(words)  # without optics nothing tells a ball from a point of poor resolution
    assert "1 of 1 beads used" in done.stdout
    assert "whether the beads are points cannot be told" in done.stderr
    findings = here(f"psf check '{shared_data}/bead-25pct_data.tif' --voxel-um 0.25 0.16 0.16 {OPTICS}", status=2)
    assert "fatal: width" in findings.stdout
