"""The stacks of ../shared/data, restored as a user would."""

import numpy as np
import pytest
import tifffile

from gpudecon.quality.metrics import nrmse

VOXELS = "--voxel-um 0.2 0.1 0.1 --psf-voxel-um 0.2 0.1 0.1"  # not stated; these serve
METHODS = {"rl": "--method rl --iterations 100", "wiener": "--method wiener", "cls": "--method cls"}


@pytest.fixture
def restored(cli, shared_data):
    """A function that restores a stack with the PSF made for it."""

    def run(name, method):
        files = f"'{shared_data}/{name}-25pct_data.tif' --psf '{shared_data}/{name}-25pct_kernel.tif'"
        done = cli(f"run {files} {VOXELS} -o out.ome.zarr {METHODS[method]} --device cpu")
        assert f"{name}-25pct_kernel.tif: " in done.stderr  # repairs of the PSF are said
        return cli.read().volume()

    return run


@pytest.mark.parametrize(("method", "largest"), [("rl", 0.75), ("wiener", 1.0), ("cls", 1.0)])
def test_bars_come_closer_to_the_truth(restored, shared_data, method, largest):
    truth, raw = (tifffile.imread(shared_data / f"bars-25pct_{name}.tif") for name in ("actual", "data"))
    assert nrmse(restored("bars", method), truth) < largest * nrmse(raw, truth)


@pytest.mark.parametrize("method", METHODS)
def test_bead_becomes_smaller(restored, shared_data, method):
    raw = tifffile.imread(shared_data / "bead-25pct_data.tif").astype(np.float64)
    bead = restored("bead", method).astype(np.float64)
    assert bead.shape == raw.shape
    assert volume(bead) < volume(raw)


def volume(stack):
    """Voxels above half of the maximum."""
    return np.count_nonzero(stack > stack.max() / 2)
