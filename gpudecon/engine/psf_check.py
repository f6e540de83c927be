"""Whether the PSFs of a job are too wide for its image, asked before anything is restored."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.deconvolve import Deconvolver
from gpudecon.engine.job import Job
from gpudecon.engine.remarks import noted_warnings
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.pilot import Box, pilot_regions, survey
from gpudecon.recording import Conditions


def check_has_psfs(job: Job) -> None:
    """InputError where there is nothing to check."""
    if not job.psfs:
        raise InputError(f"{job.method.name} has no PSF that could be checked; leave --check-psf out.")


def check_psfs(job: Job) -> Job:
    """The job, with a remark for each channel whose PSF `Deconvolver.check_psf` finds too wide, which is warned of too.

    Asked of the sample with most structure (`gpudecon.pilot.survey`) of the channel's first time point.
    """
    check_has_psfs(job)
    with noted_warnings() as said:
        for position, channel in enumerate(job.channels):

            def read(box: Box, channel: int = channel) -> NDArray[Any]:
                image = job.image
                region = image.region(job.timepoints[0], channel, (slice(None),) * (3 - len(box)) + box)
                return np.asarray(image.data[region]).reshape([part.stop - part.start for part in box])

            conditions = Conditions(job.background, job.camera, job.saturation)
            sample, known = survey(read, pilot_regions(job.image.spatial_shape), conditions)
            decon = Deconvolver(
                sample.shape,
                job.psfs[position % len(job.psfs)],
                background=known["background"][0],
                camera=job.camera,
                saturation=job.saturation,
                edges=job.edges,
                device=job.device,
                threads=job.threads,
                voxel_um=job.image.voxel_um,
            )
            finding = decon.check_psf(sample)
            if finding is not None:
                warnings.warn(f"{job.source}, channel {channel}: {finding}", GpudeconWarning, stacklevel=2)
    return replace(job, remarks=(*job.remarks, *said))
