"""What cannot be restored is refused in one sentence, with status 2, and nothing is left behind."""

import os

import numpy as np
import pytest
import tifffile
import zarr

from gpudecon.backend.cupy import missing_for_cuda


def save(path, values, **options):
    tifffile.imwrite(path, np.asarray(values), **({"photometric": "minisblack"} | options))


def with_one(array, value):
    changed = array.astype(np.float32)
    changed[1, 2, 3] = value
    return changed


def truncate(path, stack):
    save(path, stack)
    path.write_bytes(path.read_bytes()[:-1000])


INPUTS = {
    "missing": (lambda path, stack: None, "does not exist"),
    "directory": (lambda path, stack: path.mkdir(), "no OME-Zarr image"),
    "Zarr without metadata": (lambda path, stack: zarr.create_group(path), "no OME-Zarr image"),
    "no image": (lambda path, stack: path.write_text("z, y, x\n1, 2, 3\n"), "cannot be read as an image"),
    "empty file": (lambda path, stack: path.touch(), "cannot be read as an image"),
    "truncated": (truncate, "truncated"),
    "RGB photo": (lambda path, stack: save(path, np.ones((20, 30, 3), "u1"), photometric="rgb"), "(RGB)"),
    "5-D without axes": (lambda path, stack: save(path, np.ones((2, 3, 4, 5, 6), "u1")), "--axes tczyx"),
    "complex": (lambda path, stack: save(path, stack + 1j), "grey values"),
    "NaN": (lambda path, stack: save(path, with_one(stack, np.nan)), "1 NaN or infinite"),
    "infinite": (lambda path, stack: save(path, with_one(stack, np.inf)), "1 NaN or infinite"),
    "all zero": (lambda path, stack: save(path, np.zeros_like(stack)), "zero everywhere"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_image(refused_here, run_line, files, stack, name):
    make, words = INPUTS[name]
    make(files / "bad.tif", stack)
    refused_here(run_line.replace("stack.tif", "bad.tif"), "bad.tif", words)


PSFS = {
    "missing": (lambda path, psf: None, "does not exist"),
    "directory": (lambda path, psf: path.mkdir(), "no OME-Zarr image"),
    "all zero": (lambda path, psf: save(path, 0 * psf), "zero everywhere"),
    "negative only": (lambda path, psf: save(path, -psf), "no positive value"),
    "NaN": (lambda path, psf: save(path, with_one(psf, np.nan)), "1 NaN or infinite"),
    "flat": (lambda path, psf: save(path, np.ones_like(psf)), "does not stand out"),
    "2-D": (lambda path, psf: save(path, psf.sum(axis=0)), "2 dimensions"),
    "time series": (lambda path, psf: save(path, [psf, psf], imagej=True, metadata={"axes": "TZYX"}), "2 time points"),
}


@pytest.mark.parametrize("name", PSFS)
def test_psf(refused_here, run_line, files, psf, name):
    make, words = PSFS[name]
    make(files / "bad.tif", psf)
    refused_here(run_line.replace("psf.tif", "bad.tif"), "bad.tif", words)


OPTIONS = {
    "unknown command": ("run stack.tif", "ruin stack.tif", ["'ruin'", "run"]),
    "unknown option": ("run", "run --sharpen 2", ["--sharpen"]),
    "unknown method": ("run", "run --method magic", ["'magic'", "rl", "wiener", "cls"]),
    "option of another method": ("run", "run --gamma 0.1", ["'rl'", "gamma", "iterations"]),
    "flag of another method": ("run", "run --nonnegative", ["'rl'", "nonnegative", "iterations"]),
    "negative iterations": ("--iterations 5", "--iterations -3", ["iterations is -3", "at least 1"]),
    "no iterations": ("--iterations 5", "--iterations 0", ["iterations is 0", "at least 1"]),
    "half an iteration": ("--iterations 5", "--iterations 0.5", ["'0.5'", "a whole number"]),
    "negative gamma": ("--iterations 5", "--method cls --gamma=-1", ["gamma is -1", "positive"]),
    "gamma in words": ("--iterations 5", "--method cls --gamma much", ["'much'", "'auto' or 'gcv' or a number"]),
    "background in words": ("run", "run --background dark", ["'dark'", "auto"]),
    "NaN background": ("run", "run --background nan", ["nan", "give a number"]),
    "background above the image": ("run", "run --background 60000", ["background 60000", "below"]),
    "unknown edges": ("run", "run --edges wrap", ["'wrap'", "extend", "periodic"]),
    "voxel size 0": (" --voxel-um 0.2", " --voxel-um 0", ["--voxel-um", "3 positive sizes"]),
    "voxel size NaN": (" --voxel-um 0.2", " --voxel-um nan", ["--voxel-um", "3 positive sizes"]),
    "two voxel sizes": (" --voxel-um 0.2", " --voxel-um", ["--voxel-um", "3 positive sizes"]),
    "no voxel size": (" --voxel-um 0.2 0.1 0.1", "", ["stack.tif", "give --voxel-um Z Y X"]),
    "negative PSF voxel size": ("--psf-voxel-um 0.2", "--psf-voxel-um -0.2", ["--psf-voxel-um", "positive"]),
    "two PSF voxel sizes": ("--psf-voxel-um 0.2", "--psf-voxel-um", ["--psf-voxel-um", "3 positive sizes"]),
    "no PSF voxel size": ("--psf-voxel-um 0.2 0.1 0.1", "", ["psf.tif", "give --psf-voxel-um"]),
    "no PSF": ("--psf psf.tif --psf-voxel-um 0.2 0.1 0.1", "", ["--psf FILE", "--na", "--immersion-index"]),
    "voxel size of no PSF": ("--psf psf.tif", "", ["--psf-voxel-um was given without --psf"]),
    "two PSFs for a channel": ("psf.tif", "psf.tif psf.tif", ["2 PSFs", "1 channels"]),
    "PSF measured and computed": ("run", "run --na 1.2", ["--psf and --na", "one of the two"]),
    "wavelength of a measured PSF": ("--psf", "--emission-nm 520 --psf", ["--psf and --emission-nm", "one of the two"]),
    "PSF that is not needed": (
        "--iterations 5",
        "--method median",
        ["--psf, --psf-voxel-um were given", "median needs no PSF"],
    ),
    "optics that are not needed": (
        "--psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --voxel-um 0.2 0.1 0.1 --device cpu --iterations 5",
        "--method homomorphic --na 1.2",
        ["--na was given", "homomorphic needs no PSF"],
    ),
    "unknown stop": ("run", "run --stop soon", ["'soon'", "auto"]),
    "stop without iterations": ("--iterations 5", "--method wiener --stop auto", ["wiener does not iterate"]),
    "camera without gain": ("run", "run --camera-offset 100", ["--camera-gain"]),
    "camera gain 0": ("run", "run --camera-gain 0", ["gain is 0", "positive"]),
    "saturation below the image": ("run", "run --saturation 1", ["leave no voxel"]),
    "saturation of a linear filter": (
        "--iterations 5",
        "--method cls --saturation 200",
        ["cls cannot leave voxels out"],
    ),
    "even median": (
        "--psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --voxel-um 0.2 0.1 0.1 --device cpu --iterations 5",
        "--method median --size 4",
        ["size is 4", "odd"],
    ),
    "unknown axes": ("run", "run --axes zyq", ["'zyq'", "tczyx"]),
    "too few axes": ("run", "run --axes yx", ["'yx'", "(9, 23, 27)"]),
    "no such channel": ("run", "run --channels 1", ["--channels is '1'", "from 0 to 0"]),
    "channel in words": ("run", "run --channels red", ["--channels is 'red'"]),
    "channel twice": ("run", "run --channels 0,0", ["--channels is '0,0'", "different"]),
    "no channel": ("run", "run --channels ''", ["--channels is ''"]),
    "no such time point": ("run", "run --timepoints 1", ["--timepoints is '1'", "1 there are"]),
    "no time point": ("run", "run --timepoints ''", ["--timepoints is ''"]),
    "empty slice": ("run", "run --timepoints 1:", ["--timepoints is '1:'"]),
    "slice with step 0": ("run", "run --timepoints ::0", ["--timepoints is '::0'"]),
    "slice of four": ("run", "run --timepoints 0:1:1:1", ["--timepoints is '0:1:1:1'"]),
    "no threads": ("run", "run --threads 0", ["threads is 0", "positive"]),
    "unknown device": ("--device cpu", "--device tpu", ["'tpu'", "'cuda:N'"]),
    "unknown type": ("run", "run --dtype int8", ["'int8'", "uint16"]),
    "no output": ("-o out.ome.zarr", "", ["-o"]),
    "unknown output suffix": ("out.ome.zarr", "out.nd2", ["out.nd2", ".ome.zarr", ".tif"]),
    "output in no folder": ("out.ome.zarr", "none/out.zarr", ["none/out.zarr", "folder none"]),
    "output in a file": ("out.ome.zarr", "psf.tif/out.zarr", ["psf.tif/out.zarr", "folder psf.tif"]),
    "output exists": ("out.ome.zarr", "psf.tif", ["psf.tif exists"]),
    "version of another format": ("out.ome.zarr", "out.tif --ngff 0.4", ["--ngff", "OME-Zarr"]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_option(refused_here, run_line, name):
    old, new, words = OPTIONS[name]
    assert old in run_line
    refused_here(run_line.replace(old, new, 1), *words)


OPTICS = {
    "NA of the immersion": (
        "--na 1.515 --emission-nm 520 --immersion-index 1.515",
        ["na 1.515", "not below immersion_index"],
    ),
    "NA 0": ("--na 0 --emission-nm 520 --immersion-index 1.515", ["na is 0"]),
    "wavelength in um": ("--na 1.2 --emission-nm 0.52 --immersion-index 1.515", ["emission_nm is 0.52", "150"]),
    "two wavelengths": ("--na 1.2 --emission-nm 520 610 --immersion-index 1.515", ["2 values", "1 channels"]),
    "no wavelength": ("--na 1.2 --immersion-index 1.515", ["--emission-nm is missing"]),
    "no NA": ("--emission-nm 520 --immersion-index 1.515", ["--na is missing"]),
}


@pytest.mark.parametrize("name", OPTICS)
def test_optics(refused_here, run_line, name):
    optics, words = OPTICS[name]
    refused_here(run_line.replace("--psf psf.tif --psf-voxel-um 0.2 0.1 0.1", optics), *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("stack.tif", "text.tif", ["text.tif cannot be read as an image"]),
        ("psf.tif", "text.tif", ["text.tif cannot be read as an image"]),
        ("--iterations 5", "--iterations 0.5", ["'0.5'", "a whole number"]),
        ("--iterations 5", "--iterations 0", ["iterations is 0", "at least 1"]),
        ("psf.tif", "psf.tif psf.tif", ["2 PSFs", "1 channels"]),
    ],
    ids=["image", "PSF", "option that is not understood", "option of a method", "options that do not fit the image"],
)
def test_as_a_process(refused, run_line, files, old, new, words):
    """One of each kind; all of them are tested in this process."""
    (files / "text.tif").write_text("z, y, x\n1, 2, 3\n")
    refused(run_line.replace(old, new, 1), *words)


def test_no_command(refused_here):
    refused_here("", "COMMAND")


def test_existing_folder_is_not_deleted(refused_here, run_line, files):
    (files / "out.ome.zarr").mkdir()
    (files / "out.ome.zarr" / "thesis.txt").write_text("years of work")
    refused_here(f"{run_line} --overwrite", "out.ome.zarr", "no Zarr store")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(refused, run_line, files):
    (files / "locked").mkdir(mode=0o500)
    refused(run_line.replace("out.ome.zarr", "locked/out.ome.zarr"), "no permission", "locked")


def test_cuda_where_there_is_none(refused_here, run_line):
    if missing_for_cuda() is None:
        pytest.skip("a CUDA device is here")
    refused_here(run_line.replace("--device cpu", "--device cuda"), "cuda was asked for", "'cpu'")
    refused_here("demo -o demo --device cuda:1", "cuda:1 was asked for", "'cpu'")


@pytest.mark.parametrize("output", ["out.ome.zarr", "out.ome.tif", "out.ome.zarr --dtype uint16"])
def test_failure_in_the_middle(cli, here, run_line, stack, output):
    """The second of three time points cannot be restored: nothing is kept but an earlier output."""
    good = stack.astype(np.float32)
    frames = np.stack([good, np.full_like(good, np.nan), good])
    tifffile.imwrite(cli.folder / "stack.tif", frames, imagej=True, metadata={"axes": "TZYX"})
    here(run_line.replace("out.ome.zarr", output) + " --timepoints 0")
    before = cli.listing()
    done = cli(run_line.replace("out.ome.zarr", output) + " --overwrite", status=2)
    assert "stack.tif, time point 1: The image" in done.stderr.splitlines()[-1]
    assert cli.listing() == before
