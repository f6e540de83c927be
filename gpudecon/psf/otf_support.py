"""Where the optical transfer function can differ from 0: the limits of aperture and wavelength.

One beam of aperture NA in the medium n passes lateral frequencies k up to 2 NA / wavelength, and at each of them axial
frequencies up to the edge (Frieden, J. Opt. Soc. Am. 57, 1967, without the paraxial approximation)

    edge(k) = (n / wavelength) [cos(asin((NA - k wavelength) / n)) - cos(asin(NA / n))],

which is 0 for k = 0: the missing cone.  A product of two intensities has the Minkowski sum of their supports.  Planes
follow the focus, so n is the index of the immersion; aberrations change nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpudecon.optics import Optics

Real = NDArray[np.float64]

SAMPLES = 201  # of an edge
SOFT_BINS = 1.5  # width of the roll-off of a mask, in frequency bins of its grid
# A Gaussian sheet exp(-2 z^2 / w^2) has the spectrum exp(-(pi w k)^2 / 2), which falls to 1e-3 at k = 1.18 / w.
SHEET_EDGE = 1.18


@dataclass(frozen=True)
class OTFSupport:
    """``axial[i]`` is the largest axial frequency at the lateral frequency ``lateral[i]``; both in cycles per um."""

    lateral: Real
    axial: Real

    @property
    def cutoff(self) -> tuple[float, float]:
        """Largest (axial, lateral) frequency."""
        return float(self.axial.max()), float(self.lateral[-1])

    @property
    def nyquist_um(self) -> tuple[float, float]:
        """The largest (axial, lateral) steps that sample such an image without loss."""
        axial, lateral = self.cutoff
        return 0.5 / axial, 0.5 / lateral

    def mask(self, shape: tuple[int, ...], voxel_um: tuple[float, ...], widened: float = 1.0) -> Real:
        """1 inside, 0 outside, for the output of ``rfftn`` of ``shape`` (z, y, x) voxels.

        It reaches ``widened`` bins of the grid further, since a window blurs a spectrum, and falls off over 1.5 more.
        Where voxels are too large for a direction its frequencies are folded, and it is not limited.
        """
        (nz, ny, nx), (dz, dy, dx) = shape, voxel_um
        kz = np.abs(np.fft.fftfreq(nz, dz))[:, None, None]
        kr = np.hypot(np.fft.fftfreq(ny, dy)[:, None], np.fft.rfftfreq(nx, dx))
        bin_z, bin_r = 1 / (nz * dz), max(1 / (ny * dy), 1 / (nx * dx))
        axial_step, lateral_step = self.nyquist_um
        axial = np.full(kr.shape, self.cutoff[0])
        lateral_mask = np.ones(kr.shape)
        if max(dy, dx) <= lateral_step:
            lateral_mask = _roll_off((kr - self.lateral[-1]) / bin_r - widened)
            nearby = (kr + step * bin_r for step in (-widened, 0, widened))
            axial = np.max([np.interp(np.abs(k), self.lateral, self.axial) for k in nearby], axis=0)
        if dz > axial_step:
            return np.asarray(np.broadcast_to(lateral_mask, (nz, *kr.shape)))
        return np.asarray(lateral_mask * _roll_off((kz - axial) / bin_z - widened))


def otf_support(optics: Optics) -> OTFSupport | None:
    """The support for a microscope; None for STED, whose depletion has no band limit."""
    if optics.modality == "sted":
        return None
    detection = _beam(optics, optics.emission_nm)
    if optics.modality == "widefield":
        return detection
    if optics.modality == "light-sheet":
        return OTFSupport(detection.lateral, detection.axial + _sheet_edge(optics))
    assert optics.excitation_nm is not None  # these modalities need it
    excitation = _beam(optics, optics.excitation_nm)
    if optics.modality == "two-photon":
        excited_twice = _sum(excitation, excitation)
        return excited_twice if optics.pinhole_au is None else _sum(excited_twice, detection)
    return _sum(excitation, detection)


def _beam(optics: Optics, wavelength_nm: float) -> OTFSupport:
    wavelength, n, na = wavelength_nm * 1e-3, optics.immersion_index, optics.na
    k = np.linspace(0, 2 * na / wavelength, SAMPLES)
    cosines = np.sqrt(1 - ((na - k * wavelength) / n) ** 2) - np.sqrt(1 - (na / n) ** 2)
    return OTFSupport(k, np.maximum(cosines, 0) * n / wavelength)


def _sum(a: OTFSupport, b: OTFSupport) -> OTFSupport:
    """The Minkowski sum: lateral frequencies of any directions add up to one between |k_a - k_b| and k_a + k_b."""
    k = np.linspace(0, a.lateral[-1] + b.lateral[-1], SAMPLES)
    ka, kb = a.lateral[:, None], b.lateral
    both = a.axial[:, None] + b.axial
    tolerance = k[1] / 2
    edge = [both[(np.abs(ka - kb) <= q + tolerance) & (q <= ka + kb + tolerance)].max() for q in k]
    return OTFSupport(k, np.array(edge))


def _sheet_edge(optics: Optics) -> float:
    if optics.sheet_profile is not None:
        return np.inf
    if optics.sheet_waist_um is not None:
        return SHEET_EDGE / optics.sheet_waist_um
    assert optics.sheet_na is not None  # one of the three is given
    assert optics.excitation_nm is not None
    return SHEET_EDGE * np.pi * optics.sheet_na / (optics.excitation_nm * 1e-3)


def _roll_off(bins_outside: Real) -> Real:
    t = np.clip(bins_outside / SOFT_BINS, 0, 1)
    return np.asarray((1 + np.cos(np.pi * t)) / 2)
