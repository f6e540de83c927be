"""How much noise an image holds: gain, offset and read noise from the image itself, and its signal-to-noise ratio."""

from __future__ import annotations

import warnings

import numpy as np

from gpudecon.errors import GpudeconWarning
from gpudecon.methods.problem import Problem
from gpudecon.methods.spectrum import measured_spectrum, noise_power


def gain_of(problem: Problem) -> float:
    """Grey values per photo-electron: as given, or from the noise beyond the OTF's support.

    There the power of the noise is the mean of its variance, which for counts is the gain times the mean of the image
    (with the offset taken off).
    """
    if problem.gain is not None:
        return problem.gain
    spectrum, power_per_variance = measured_spectrum(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GpudeconWarning)
        power, _ = noise_power(problem, spectrum)
    mean = float(problem.image.mean(dtype=np.float64))
    return power / power_per_variance / mean
