"""A job: which image is to be restored, with what, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpudecon.arguments import check_stop
from gpudecon.camera import Camera
from gpudecon.errors import InputError
from gpudecon.forward import Edges
from gpudecon.image import Image
from gpudecon.methods import Method
from gpudecon.psf.psf import PSF
from gpudecon.recording import Conditions, check_takes_mask


@dataclass(frozen=True)
class Job:
    """What is to be done; complete and checked when made.

    ``path`` is where ``image`` was read from, and ``axes`` what was said of its axes then (None: nothing), so that
    another process can read it again.  ``psfs`` holds one PSF for all channels or one for each chosen channel, and none
    for a method that needs none.
    ``stop`` "auto" chooses the number of iterations for each channel; the method's is then the upper limit.  ``dtype``
    "uint16" maps the range of the whole output to 0..65535 with one scale, which the provenance block records.
    ``remarks`` are the warnings that came up in making the job, for that block, too.
    """

    image: Image
    path: str
    psfs: tuple[PSF, ...]
    method: Method
    background: float | Literal["auto"] = 0.0
    camera: Camera | None = None
    saturation: float | None = None
    stop: Literal["fixed", "auto"] = "fixed"
    edges: Edges = "extend"
    axes: str | None = None
    device: str = "auto"
    threads: int | None = None
    channels: tuple[int, ...] = (0,)
    timepoints: tuple[int, ...] = (0,)
    dtype: Literal["float32", "uint16"] = "float32"
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_stop(self.stop, self.method)
        Conditions(self.background, self.camera, self.saturation)
        if self.saturation is not None:
            check_takes_mask(self.method)
        if self.psfs and not self.method.needs_psf:
            raise InputError(f"{self.method.name} needs no PSF; leave it out.")
        if self.method.needs_psf and len(self.psfs) not in (1, len(self.channels)):
            raise InputError(
                f"{len(self.psfs)} PSFs were given for {len(self.channels)} channels; give one for all or one for each."
            )

    @property
    def source(self) -> str:
        """The input's name."""
        return Path(self.path).name
