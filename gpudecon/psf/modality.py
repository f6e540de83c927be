"""Modalities: how the light of excitation, detection and depletion combines into a PSF.

Each is an `Instrument`; z is the way of the focus into the specimen and runs with the index of the planes.

============== ======================================================================================================
widefield      h_em
confocal       h_ex (h_em (*) pinhole)
spinning-disk  h_em (h_ex (*) A), A the autocorrelation of the pattern of pinholes: `PinholeLattice`
two-photon     h_ex^2, or h_ex^2 (h_em (*) pinhole)
light-sheet    h_em I_sheet(position of the source against the focal plane)
sted           h_ex (q + (1 - q) exp(-S (e + (1 - e) h_sted / max h_sted))) (h_em, (*) pinhole, if there is one);
               S the saturation, e the residual, q the immune fraction
============== ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from gpudecon.backend import Array, Backend
from gpudecon.errors import InputError
from gpudecon.optics import Optics
from gpudecon.psf.hankel import PinholeLattice, behind_pinhole
from gpudecon.psf.phase import Layers
from gpudecon.psf.quadrature import Real
from gpudecon.psf.radial import Beam, Pattern, Profile

# (wavelength in nm, pattern) -> the light of the model that was chosen
BeamOf = Callable[[float, Pattern | None], Beam]
# (z, depth, y, x) -> factor (z, y, x)
Factor = Callable[[Real, float, Real, Real], Array]
# The brightest plane of a source, its paraxial focus, or the plane where the nominal focus is at the source's depth
Origin = Literal["peak", "paraxial", "emitter"]

NO_LIGHT = (
    "The light sheet misses the planes around the focus that the PSF is for; correct sheet_offset_um or sheet_profile "
    "(in um from the focal plane), or ask for more planes."
)


class Instrument(Protocol):
    """A modality with its beams."""

    cutoff: float  # lateral, in cycles per um, of the whole PSF
    is_symmetric: bool  # in z, where the media bring no aberration

    def profile(self, radii_um: Real, z_um: float, depths_um: tuple[float, ...]) -> Profile:
        """The PSF, or its axially symmetric factor; arguments as in `Beam.profile`."""
        ...

    def factor(self, z_um: float, depths_um: tuple[float, ...]) -> Factor | None:
        """The other factor, if there is one."""
        ...


class Radial:
    """An instrument whose PSF is axially symmetric."""

    is_symmetric = True

    def factor(self, z_um: float, depths_um: tuple[float, ...]) -> Factor | None:
        return None


class Widefield(Radial):
    """All of the specimen is excited evenly, and a camera sees it."""

    def __init__(self, emission: Beam) -> None:
        self._emission = emission
        self.cutoff = emission.cutoff

    def profile(self, radii_um: Real, z_um: float, depths_um: tuple[float, ...]) -> Profile:
        return self._emission.profile(radii_um, z_um, depths_um)


class PointScanning(Radial):
    """Confocal, or two-photon with ``photons`` = 2."""

    def __init__(self, backend: Backend, optics: Optics, beam: BeamOf, photons: int = 1) -> None:
        assert optics.excitation_nm is not None
        self._backend, self._optics, self._photons = backend, optics, photons
        self._excitation = beam(optics.excitation_nm, None)
        self._emission = beam(optics.emission_nm, None)
        self.cutoff = photons * self._excitation.cutoff
        if optics.pinhole_au is not None:
            self.cutoff += self._emission.cutoff

    def profile(self, radii_um: Real, z_um: float, depths_um: tuple[float, ...]) -> Profile:
        reach = radii_um, z_um, depths_um
        excitation = self._excitation.profile(*reach)
        detection = _detection(self._backend, self._optics, self._emission, *reach)
        return lambda z, depth: excitation(z, depth) ** self._photons * detection(z, depth)


class SpinningDisk:
    """Excitation and detection through the same moving lattice of pinholes, onto a camera."""

    is_symmetric = True

    def __init__(self, backend: Backend, optics: Optics, beam: BeamOf) -> None:
        assert optics.excitation_nm is not None
        self._backend, self._optics = backend, optics
        self._excitation = beam(optics.excitation_nm, None)
        self._emission = beam(optics.emission_nm, None)
        self.cutoff = self._excitation.cutoff + self._emission.cutoff

    def profile(self, radii_um: Real, z_um: float, depths_um: tuple[float, ...]) -> Profile:
        return self._emission.profile(radii_um, z_um, depths_um)

    def factor(self, z_um: float, depths_um: tuple[float, ...]) -> Factor | None:
        assert self._optics.pinhole_spacing_um is not None
        radius, spacing = _pinhole_radius_um(self._optics), self._optics.pinhole_spacing_um
        return PinholeLattice(self._backend, self._excitation, radius, spacing, z_um, depths_um).illumination


class LightSheet(Radial):
    """A sheet of light across the focal plane, which moves with it."""

    def __init__(self, backend: Backend, optics: Optics, beam: BeamOf) -> None:
        self._backend, self._optics = backend, optics
        self._emission = beam(optics.emission_nm, None)
        self.cutoff = self._emission.cutoff
        self.is_symmetric = optics.sheet_profile is None and not optics.sheet_offset_um

    def profile(self, radii_um: Real, z_um: float, depths_um: tuple[float, ...]) -> Profile:
        detection = self._emission.profile(radii_um, z_um, depths_um)
        focal_plane = {
            depth: focus_um(self._backend, self._optics, Widefield(self._emission), depth) for depth in depths_um
        }

        def intensity(z: Real, depth: float) -> Array:
            # with the focal plane at z the source stands at focal_plane - z from it
            sheet = sheet_intensity(self._optics, focal_plane[depth] - z)
            return detection(z, depth) * self._backend.xp.asarray(sheet)[:, None]

        return intensity


class StimulatedDepletion(Radial):
    """Point scanning where a second beam leaves only the centre of the focus bright (STED)."""

    def __init__(self, backend: Backend, optics: Optics, beam: BeamOf) -> None:
        assert optics.excitation_nm is not None
        assert optics.sted_nm is not None
        assert optics.sted_saturation is not None
        self._backend, self._optics = backend, optics
        self._pattern: Pattern = optics.sted_pattern or "vortex"
        self._excitation = beam(optics.excitation_nm, None)
        self._emission = beam(optics.emission_nm, None)
        self._depletion = beam(optics.sted_nm, self._pattern)
        self._bright = Widefield(beam(optics.sted_nm, None))
        # exp(-S k^2 r^2) is narrower than the doughnut by sqrt(S) and has no sharp cutoff
        self.cutoff = self._excitation.cutoff + self._depletion.cutoff * np.sqrt(1 + optics.sted_saturation)
        if optics.pinhole_au is not None:
            self.cutoff += self._emission.cutoff

    def profile(self, radii_um: Real, z_um: float, depths_um: tuple[float, ...]) -> Profile:
        reach = radii_um, z_um, depths_um
        excitation, depletion = self._excitation.profile(*reach), self._depletion.profile(*reach)
        detection = _detection(self._backend, self._optics, self._emission, *reach)
        largest = {depth: self._largest(depth) for depth in depths_um}
        saturation = self._optics.sted_saturation or 0.0
        residual, immune = self._optics.sted_residual or 0.0, self._optics.sted_immune or 0.0
        xp = self._backend.xp

        def intensity(z: Real, depth: float) -> Array:
            relative = residual + (1 - residual) / largest[depth] * depletion(z, depth)
            left = immune + (1 - immune) * xp.exp(-saturation * relative)
            return excitation(z, depth) * left * detection(z, depth)

        return intensity

    def _largest(self, depth: float) -> float:
        """The depletion beam's largest intensity: on the ring of a vortex in focus, on the axis of a bottle."""
        focus = focus_um(self._backend, self._optics, self._bright, depth)
        if self._pattern == "vortex":
            ring = np.linspace(0, 3 / self._depletion.cutoff, 601)
            return float(self._depletion.profile(ring, abs(focus), (depth,))(np.array([focus]), depth).max())
        length = 4 * axial_unit_um(self._optics, self._bright)
        z = focus + np.linspace(-length, length, 1601)
        return float(self._depletion.profile(np.zeros(1), float(np.abs(z).max()), (depth,))(z, depth).max())


INSTRUMENTS: dict[str, Callable[[Backend, Optics, BeamOf], Instrument]] = {
    "widefield": lambda backend, optics, beam: Widefield(beam(optics.emission_nm, None)),
    "confocal": PointScanning,
    "spinning-disk": SpinningDisk,
    "two-photon": lambda backend, optics, beam: PointScanning(backend, optics, beam, photons=2),
    "light-sheet": LightSheet,
    "sted": StimulatedDepletion,
}


def sheet_intensity(optics: Optics, position_um: Real) -> Real:
    """Relative intensity of the light sheet at ``position_um`` from the focal plane, away from the objective.

    A Gaussian sheet is exp(-2 z^2 / w^2) with w = w_0 sqrt(1 + (y / y_R)^2) at the distance y from its waist w_0 and
    y_R = pi n w_0^2 / excitation.
    """
    position = position_um - (optics.sheet_offset_um or 0.0)
    if optics.sheet_profile is not None:
        z, intensity = np.array(optics.sheet_profile).T
        return np.asarray(np.interp(position, z, intensity, left=0.0, right=0.0))
    wavelength = (optics.excitation_nm or 0.0) * 1e-3
    waist = optics.sheet_waist_um
    if waist is None:
        assert optics.sheet_na is not None
        waist = wavelength / (np.pi * optics.sheet_na)
    distance = optics.sheet_distance_um or 0.0
    width = waist * np.sqrt(1 + (distance * wavelength / (np.pi * Layers.of(optics).sample * waist**2)) ** 2)
    return np.asarray(np.exp(-2 * (position / width) ** 2))


def axial_unit_um(optics: Optics, light: Instrument) -> float:
    """About the half width of a PSF along z, wavelength n / NA^2, from the lateral cutoff 2 NA / wavelength."""
    return 2 * optics.immersion_index / (optics.na * light.cutoff)


def focus_um(backend: Backend, optics: Optics, light: Instrument, depth_um: float) -> float:
    """Stage position of the largest intensity on the axis, in um from the paraxial focus of a source at this depth.

    It is sought where rays cross the axis, between the paraxial and the marginal ones, to 1e-4 of the axial width.
    """
    layers = Layers.of(optics)
    if layers.is_ideal and light.is_symmetric:
        return 0.0
    s = np.linspace(1e-3, 0.97 * min(optics.na, layers.sample), 400)
    # a ray's path is stationary where it crosses the axis
    crossing = -np.diff(layers.aberration(s, depth_um).real) / np.diff(layers.defocus(s))
    unit = axial_unit_um(optics, light)
    low, high = min(crossing.min(), 0.0) - 4 * unit, max(crossing.max(), 0.0) + 4 * unit
    reach = max(abs(low), abs(high))
    profile = light.profile(np.zeros(1), reach, (depth_um,))
    factor = light.factor(reach, (depth_um,))
    z = np.linspace(low, high, 32 * int(np.ceil((high - low) / unit)))
    for _ in range(2):
        values = profile(z, depth_um)[:, 0]
        if factor is not None:
            values = values * factor(z, depth_um, np.zeros(1), np.zeros(1))[:, 0, 0]
        if not values.max() > 0:
            raise InputError(NO_LIGHT)
        best, step = float(z[int(values.argmax())]), z[1] - z[0]
        z = np.linspace(best - step, best + step, 401)
    return best


def origin_um(backend: Backend, optics: Optics, light: Instrument, depth_um: float, origin: Origin) -> float:
    """The stage position, from the paraxial focus, of what `Origin` names."""
    if origin == "peak":
        return focus_um(backend, optics, light, depth_um)
    layers = Layers.of(optics)
    # the paraxial focus of a source at depth d is found where the stage has moved by d n_i / n_s
    return depth_um * (1 - layers.immersion / layers.sample) if origin == "emitter" else 0.0


def _pinhole_radius_um(optics: Optics) -> float:
    assert optics.pinhole_au is not None
    return optics.pinhole_au * optics.airy_unit_um / 2


def _detection(
    backend: Backend, optics: Optics, emission: Beam, radii_um: Real, z_um: float, depths_um: tuple[float, ...]
) -> Profile:
    """How well a source is seen through the pinhole; equally well from everywhere where there is none."""
    if optics.pinhole_au is None:
        return lambda z, depth: backend.xp.ones((len(z), 1))
    return behind_pinhole(backend, emission, _pinhole_radius_um(optics), radii_um, z_um, depths_um)
