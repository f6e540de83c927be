"""gpudecon run --check-psf: the channel whose PSF is too wide is named, and the output says so."""

import numpy as np
import tifffile
import zarr

import gpudecon as gd
from gpudecon.simulate import expose, phantom

SHAPE, VOXEL, WINDOW = (18, 56, 57), (0.25, 0.12, 0.12), (13, 25, 25)
OPTICS = gd.Optics(
    na=1.2, emission_nm=520, immersion_index=1.33, modality="confocal", excitation_nm=488, pinhole_au=1.0
)


def test_a_psf_that_is_half_again_too_wide_is_named(cli, refused):
    psf = gd.theoretical_psf(OPTICS, WINDOW, VOXEL)
    wide = gd.PSF(gd.theoretical_psf(OPTICS, WINDOW, tuple(v / 1.5 for v in VOXEL)).array, VOXEL)
    whole = phantom("nuclei", tuple(n + w - 1 for n, w in zip(SHAPE, WINDOW, strict=True)), VOXEL, seed=3)
    image, _ = expose(whole, psf, peak_photons=200, haze_photons=8, camera=gd.Camera(100, 2.0, 1.5), seed=3)
    frame = image[tuple(slice(w // 2, w // 2 + n) for n, w in zip(SHAPE, WINDOW, strict=True))]
    metadata = {
        "axes": "ZCYX",
        **{f"PhysicalSize{a.upper()}": v for a, v in zip("zyx", VOXEL, strict=True)},
        **{f"PhysicalSize{a.upper()}Unit": "µm" for a in "zyx"},
    }
    tifffile.imwrite(cli.folder / "two.ome.tif", np.stack([frame, frame], axis=1), metadata=metadata)
    gd.write(cli.folder / "right.ome.zarr", gd.Image(psf.array, "zyx", VOXEL))
    gd.write(cli.folder / "wide.ome.zarr", gd.Image(wide.array, "zyx", VOXEL))
    line = "run two.ome.tif -o out.ome.zarr --psf right.ome.zarr wide.ome.zarr --iterations 2 --device cpu"
    line += " --camera-gain 2 --camera-offset 100 --read-noise 1.5 --background 116 --check-psf"
    said = [text for text in cli(line).stderr.splitlines() if "too wide" in text]
    assert len(said) == 1
    assert "two.ome.tif, channel 1: The PSF is probably too wide" in said[0]
    assert sum("channel 1: The PSF is probably too wide" in text for text in warnings_in(cli)) == 1
    refused("run two.ome.tif -o none.ome.zarr --method median --check-psf", "median has no PSF", "--check-psf")


def warnings_in(cli):
    """What the output's provenance holds."""
    return zarr.open_group(cli.folder / "out.ome.zarr", mode="r").attrs["gpudecon"]["warnings"]
