"""PSFs in files: measured ones are cleaned on the way in, those that gpudecon made are taken as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpudecon.errors import InputError
from gpudecon.psf.measured import measured_psf
from gpudecon.psf.psf import PSF

if TYPE_CHECKING:
    from gpudecon.image import Image

# What the provenance block of a file names as its maker where it holds a finished PSF.
MAKERS = ("psf theory", "psf beads")


def read_psf(path: str | Path, *, voxel_um: tuple[float, ...] | None = None, channel: int | None = None) -> PSF:
    """The PSF in a TIFF or OME-Zarr file: one point source, somewhere near the middle.

    Background is removed, the centre moved to n // 2, the sum set to 1; warnings say what was done (see
    `gpudecon.psf.measured.measured_psf`).  What ``gpudecon psf`` wrote is that already and stays as it is.
    ``voxel_um`` overrides the file's; where neither is known the PSF is taken to be on the grid of the image it will be
    used for.  ``channel`` picks one of several.
    """
    return psf_of(read_stack(path, channel), Path(path).name, voxel_um)


def psf_of(stack: Image, name: str, voxel_um: tuple[float, ...] | None = None) -> PSF:
    """The PSF that a stack of `read_stack` shows."""
    voxel_um = voxel_um or stack.voxel_um
    if is_finished(stack):
        made = {key: stack.provenance[key] for key in ("command", "model", "optics") if stack.provenance.get(key)}
        return PSF(stack.data, voxel_um, {"file": name, **made})
    return measured_psf(stack.data, voxel_um, name)


def is_finished(stack: Image) -> bool:
    """Whether gpudecon made it: cleaning a second time would take away its faint light."""
    return stack.provenance.get("command") in MAKERS


def read_stack(path: str | Path, channel: int | None = None) -> Image:
    """One stack (z, y, x) or plane (y, x) of a file without time points, as it is, in memory."""
    from gpudecon.image import Image
    from gpudecon.io import read

    image = read(path)
    if image.sizes["t"] > 1:
        raise InputError(f"{path} holds {image.sizes['t']} time points; a file of point sources holds one stack.")
    count = image.sizes["c"]
    if channel is None and count > 1:
        raise InputError(f"{path} has {count} channels; choose one of them by channel=, from 0 to {count - 1}.")
    channel = channel or 0
    if not 0 <= channel < count:
        raise InputError(f"{path} has {count} channels; channel {channel} is not one of them.")
    channels = image.channels[channel : channel + 1]
    return Image(
        image.volume(0, channel), image.spatial_axes, image.voxel_um, channels, image.name, provenance=image.provenance
    )
