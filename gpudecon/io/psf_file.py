"""PSFs in files: measured ones are cleaned on the way in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpudecon.errors import InputError
from gpudecon.psf.measured import measured_psf
from gpudecon.psf.psf import PSF

if TYPE_CHECKING:
    from gpudecon.image import Image


def read_psf(path: str | Path, *, voxel_um: tuple[float, ...] | None = None, channel: int = 0) -> PSF:
    """The PSF in a TIFF or OME-Zarr file: one point source, somewhere near the middle.

    Background is removed, the centre moved to n // 2, the sum set to 1; warnings say what was done (see
    `gpudecon.psf.measured.measured_psf`).  ``voxel_um`` overrides the file's; where neither is known the PSF is taken
    to be on the grid of the image it will be used for.  ``channel`` picks one of several.
    """
    image = read_stack(path, channel)
    return measured_psf(image.data, voxel_um or image.voxel_um, Path(path).name)


def read_stack(path: str | Path, channel: int = 0) -> Image:
    """One stack (z, y, x) or plane (y, x) of a file without time points, as it is, in memory."""
    from gpudecon.image import Image
    from gpudecon.io import read

    image = read(path)
    if image.sizes["t"] > 1:
        raise InputError(f"{path} holds {image.sizes['t']} time points; a file of point sources holds one stack.")
    if not 0 <= channel < image.sizes["c"]:
        raise InputError(f"{path} has {image.sizes['c']} channels; channel {channel} is not one of them.")
    channels = image.channels[channel : channel + 1]
    return Image(
        image.volume(0, channel), image.spatial_axes, image.voxel_um, channels, image.name, provenance=image.provenance
    )
