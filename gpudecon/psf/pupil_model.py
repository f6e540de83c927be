"""A widefield PSF as a function of phases in the pupil, with the adjoint: what fitting needs.

The field is that of `gpudecon.psf.pupil`, the integral of A_c(s) exp(i (phase + k0 defocus z + k0 s r)) over the pupil,
for the components c of the vectorial model.  With the intensity I = sum_c |U_c|^2 and any G = dL / dI, the derivative
of L by the phase at a node is one more transform, back into the pupil (Hanser et al., J. Microsc. 216, 2004):

    dL / dphase = -2 sum_c,z Im [A_c exp(i (phase + k0 defocus z)) conj(sum_r exp(-i k0 s r) G U_c)].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import get_backend
from gpudecon.optics import Optics
from gpudecon.psf.bead_size import grid_transfer
from gpudecon.psf.modality import Widefield, origin_um
from gpudecon.psf.phase import Layers
from gpudecon.psf.pupil import polarised, pupil_chords
from gpudecon.psf.radial import DiffractedBeam
from gpudecon.psf.sampling import Lateral
from gpudecon.psf.zernike import noll, zernike

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

LARGEST_ABERRATION = 12.0  # radians over a quarter of the pupil's rim that the quadrature is made for


@dataclass(frozen=True)
class _Zone:
    """Nodes of one zone of the pupil: ``amplitude`` (chord, node, component, 1), ``defocus_phase`` (chord, node, 1, z),
    plane waves (y, of each chord) and (x), and the basis of the phase (parameter, chord, node).
    """

    amplitude: Complex
    defocus_phase: Complex
    waves_y: Complex
    waves_x: Complex
    basis: Real


class PupilModel:
    """Intensity of a bead in the voxels (z, y, x) and its adjoint derivative.

    Parameters are the shift of the bead (z, y, x) in um from n // 2, then a coefficient in rad for each of ``modes``
    (Noll numbers).  The intensity is 1 at the focus of a point without aberration (before pixels and bead size).
    """

    def __init__(
        self,
        optics: Optics,
        shape: tuple[int, ...],
        voxel_um: tuple[float, ...],
        modes: tuple[int, ...],
        bead_diameter_um: float | None = None,
    ) -> None:
        # the ball's transfer is periodic: what wraps around must fall into a margin
        self._margin = tuple(0 if bead_diameter_um is None else int(bead_diameter_um / 2 / v) + 2 for v in voxel_um)
        grid = tuple(n + 2 * m for n, m in zip(shape, self._margin, strict=True))
        self._ball = None if bead_diameter_um is None else grid_transfer(grid, voxel_um, bead_diameter_um)
        backend = get_backend("cpu")
        beam = DiffractedBeam(backend, optics, optics.emission_nm, "vectorial", "uniform")
        focus_um = origin_um(backend, optics, Widefield(beam), optics.depth_um, "peak")
        z_um = focus_um + (np.arange(grid[0], dtype=np.float64) - grid[0] // 2) * voxel_um[0]
        self._y, self._x = (Lateral.of(n, v, beam.cutoff) for n, v in zip(grid[1:], voxel_um[1:], strict=True))
        self._zones = self._make_zones(optics, z_um, modes)
        focus = sum(np.sum(zone.amplitude, axis=(0, 1)) for zone in self._zones)
        self._normal = 1 / float(np.sum(np.abs(focus) ** 2))

    def _make_zones(self, optics: Optics, z_um: Real, modes: tuple[int, ...]) -> list[_Zone]:
        k0 = 2 * np.pi / (optics.emission_nm * 1e-3)
        layers = Layers.of(optics)
        y, x = self._y.samples, self._x.samples
        reach = float(max(np.abs(y).max(), np.abs(x).max()))
        zones = []
        for chords in pupil_chords(layers, optics, k0, reach, float(np.abs(z_um).max()), LARGEST_ABERRATION):
            s, phi = np.hypot(chords.y, chords.x[:, None]), np.arctan2(chords.y, chords.x[:, None])
            known = np.exp(1j * k0 * layers.aberration(s, optics.depth_um)) * chords.weight
            fields = polarised(layers, s, phi, "vectorial", 0.0, "random")
            defocus = layers.defocus(s)
            rho = np.minimum(s / optics.na, 1.0)
            shifts = [-k0 * defocus, -k0 * chords.y, -k0 * np.broadcast_to(chords.x[:, None], s.shape)]
            zones.append(
                _Zone(
                    np.stack([f * known for f in fields], axis=-1)[..., None],
                    np.exp(1j * k0 * defocus[..., None, None] * z_um),
                    np.exp(1j * k0 * chords.y[:, None, :] * y[:, None]),
                    np.exp(1j * k0 * x[:, None] * chords.x),
                    np.stack(shifts + [zernike(*noll(j), rho, phi) for j in modes]),
                )
            )
        return zones

    def intensity(self, parameters: Real) -> Real:
        """(z, y, x) for the parameters (3 + modes,)."""
        return self._pixels(self._fields(parameters)[0])

    def intensity_and_adjoint(self, parameters: Real) -> tuple[Real, Any]:
        """The intensity, and a function that maps dL / dI (z, y, x) to dL / dparameters."""
        field, pupils = self._fields(parameters)

        def adjoint(slope: Real) -> Real:
            weighted = self._samples(slope)[:, :, None, :] * field  # (x, y, component, z)
            gradient = np.zeros(len(parameters))
            for zone, pupil in zip(self._zones, pupils, strict=True):
                chords, nodes, components, nz = pupil.shape
                along_x = zone.waves_x.conj().T @ weighted.reshape(len(self._x.samples), -1)
                along_x = along_x.reshape(chords, len(self._y.samples), components * nz)
                back = zone.waves_y.conj().transpose(0, 2, 1) @ along_x  # (chord, node, component z)
                slopes = -2 * np.einsum("cnk,cnk->cn", pupil.reshape(chords, nodes, -1), back.conj()).imag
                gradient += np.tensordot(zone.basis, slopes, axes=2)
            return gradient

        return self._pixels(field), adjoint

    def _fields(self, parameters: Real) -> tuple[Complex, list[Complex]]:
        """The field (x, y, component, z), and the pupil of each zone with its phase (chord, node, component, z)."""
        field: Any = 0.0
        pupils = []
        for zone in self._zones:
            phase = np.exp(1j * np.tensordot(parameters, zone.basis, axes=1))[..., None, None]
            pupil = zone.amplitude * phase * zone.defocus_phase
            chords, nodes, components, nz = pupil.shape
            along_y = zone.waves_y @ pupil.reshape(chords, nodes, components * nz)
            both = zone.waves_x @ along_y.reshape(chords, -1)
            field = field + both.reshape(len(self._x.samples), len(self._y.samples), components, nz)
            pupils.append(pupil)
        return field, pupils

    def _pixels(self, field: Complex) -> Real:
        samples = (field.real**2 + field.imag**2).sum(axis=2)  # (x, y, z)
        along_x = np.tensordot(_average(self._x), samples, axes=(1, 0))
        pixels = np.tensordot(_average(self._y), along_x, axes=(1, 1)).transpose(2, 0, 1) * self._normal
        return self._blurred(pixels)[tuple(slice(m, n - m) for m, n in zip(self._margin, pixels.shape, strict=True))]

    def _samples(self, slope: Real) -> Real:
        """The adjoint of `_pixels` behind the squares: (x, y, z)."""
        pixels = self._blurred(np.pad(slope, [(m, m) for m in self._margin])) * self._normal
        along_y = np.tensordot(_average(self._y), pixels, axes=(0, 1))  # (y, z, x)
        return np.tensordot(_average(self._x), along_y, axes=(0, 2))

    def _blurred(self, pixels: Real) -> Real:
        """Convolved with the bead; a symmetric operation."""
        from scipy import fft

        return pixels if self._ball is None else np.asarray(fft.irfftn(fft.rfftn(pixels) * self._ball, pixels.shape))


def _average(lateral: Lateral) -> Real:
    assert lateral.average is not None  # a camera's pixels
    return lateral.average
