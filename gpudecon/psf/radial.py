"""Axially symmetric light: the intensity I(r, z) near the focus of an objective, by quadrature and matrix products.

By reciprocity the same integrals describe how a beam is focused into the specimen and how well a source there is seen
(Haeberle, Opt. Commun. 216, 2003).  With s = n sin(theta), k0 = 2 pi / wavelength and the path L(s; z, depth) of
`gpudecon.psf.phase`,

    U_j(r, z) = integral over s in (0, NA) of A_j(s) exp(i k0 L) J_j(k0 s r) s ds.

========== ================================================= =======================================================
model      intensity                                         A_j; cosines in the immersion (i) and the specimen (s)
========== ================================================= =======================================================
vectorial  abs(U_0)^2 + 2 abs(U_1)^2 + abs(U_2)^2            (t_s + t_p cos_s, t_p sin_s, t_s - t_p cos_s) cos_i^-1/2
scalar     abs(U_0)^2                                        cos_i^-a: uniform 0, aplanatic 1/2, debye 1
born-wolf  abs(U_0)^2 with the paraxial path z s^2 / (2 n_i) 1
========== ================================================= =======================================================

The vectorial intensity is that of unpolarised or circularly polarised light and of freely turning dipoles (Richards &
Wolf, Proc. R. Soc. A 253, 1959; Torok & Varga, Appl. Opt. 36, 1997; Aguet et al., Opt. Express 17, 2009).  A vortex
exp(i phi) in the pupil, circularly polarised with the same handedness, raises the order of every J_j by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np

from gpudecon.backend import Array, Backend
from gpudecon.optics import Optics
from gpudecon.psf.phase import Complex, Layers, Nodes, axial, pupil_nodes
from gpudecon.psf.quadrature import Real

Pattern = Literal["vortex", "bottle"]
Apodization = Literal["uniform", "aplanatic", "debye"]

# Exponent a in A = cos^-a, with the measure s ds.
APODIZATIONS: dict[str, float] = {"uniform": 0.0, "aplanatic": 0.5, "debye": 1.0}

# (z in um from the paraxial focus, depth in um) -> intensity (z, r), float64 on the backend's device
Profile = Callable[[Real, float], Array]


class Beam(Protocol):
    """Light of one wavelength in the specimen."""

    cutoff: float  # cycles per um beyond which the lateral spectrum of the intensity is 0, or below rounding

    def profile(self, radii_um: Real, z_um: float, depths_um: tuple[float, ...]) -> Profile:
        """The intensity at these radii, for any z up to +-``z_um`` and any of these depths."""
        ...

    def energy(self, depth_um: float) -> float:
        """Integral of the intensity of a source at this depth over a plane, 2 pi integral I r dr in um^2; the same in
        every plane.
        """
        ...


class DiffractedBeam:
    """Light of ``wavelength_nm`` through the objective: a `Beam` by one of the models above.

    ``pattern`` shapes it for STED: "vortex", or "bottle" for a step of pi in the pupil at the radius that darkens the
    focus.
    """

    def __init__(
        self,
        backend: Backend,
        optics: Optics,
        wavelength_nm: float,
        model: Literal["vectorial", "scalar", "born-wolf"],
        apodization: Apodization,
        pattern: Pattern | None = None,
    ) -> None:
        self._backend = backend
        self._layers = Layers.of(optics)
        self._na = optics.na
        self._k0 = 2 * np.pi / (wavelength_nm * 1e-3)
        self._model = model
        self._exponent = APODIZATIONS[apodization]
        self._order = 1 if pattern == "vortex" else 0
        self._step = self._dark_step() if pattern == "bottle" else None
        self.cutoff = 2 * optics.na / (wavelength_nm * 1e-3)

    def profile(self, radii_um: Real, z_um: float, depths_um: tuple[float, ...]) -> Profile:
        xp = self._backend.xp
        nodes = self._nodes(r_um=float(radii_um.max()), z_um=z_um, depths_um=depths_um)
        defocus = xp.asarray(self._defocus(nodes.s))
        amplitudes = [xp.asarray(a * nodes.weight) for a in self._amplitudes(nodes.s)]
        radius = xp.asarray(radii_um)
        waves = bessel(self._backend, self._order, len(amplitudes), self._k0 * xp.asarray(nodes.s)[:, None] * radius)

        def intensity(z: Real, depth: float) -> Array:
            aberration = xp.asarray(self._layers.aberration(nodes.s, depth))
            phases = xp.exp(1j * self._k0 * (xp.asarray(z)[:, None] * defocus + aberration))
            total = xp.zeros((len(z), len(radii_um)))
            for j, (amplitude, wave) in enumerate(zip(amplitudes, waves, strict=True)):
                field = phases * amplitude
                both = xp.concatenate([field.real, field.imag]) @ wave  # the waves are real
                part = both[: len(z)] ** 2 + both[len(z) :] ** 2
                total += 2 * part if j == 1 else part
            return total

        return intensity

    def energy(self, depth_um: float) -> float:
        """By Parseval's theorem, (2 pi / k0^2) sum over j of the integral of |A_j exp(i k0 aberration)|^2 s ds.

        Waves that are evanescent in the specimen have decayed on their way there.
        """
        nodes = self._nodes(depths_um=(depth_um,))
        arriving = nodes.weight * np.exp(-2 * self._k0 * self._layers.aberration(nodes.s, depth_um).imag)
        parts = [np.sum(arriving * np.abs(a) ** 2) for a in self._amplitudes(nodes.s)]
        return float(2 * np.pi / self._k0**2 * sum(2 * p if j == 1 else p for j, p in enumerate(parts)))

    def _nodes(self, **reach: Any) -> Nodes:
        return pupil_nodes(self._layers, self._na, self._k0, step=self._step, **reach)

    def _defocus(self, s: Real) -> Real:
        return s**2 / (2 * self._layers.immersion) if self._model == "born-wolf" else self._layers.defocus(s)

    def _amplitudes(self, s: Real) -> list[Complex]:
        sign = 1.0 if self._step is None else np.where(s < self._step, -1.0, 1.0)
        return [sign * a for a in pupil_amplitudes(self._layers, s, self._model, self._exponent)]

    def _dark_step(self) -> float:
        """The s up to which half of the focal amplitude, the integral of A_0 s ds, comes from."""
        fine = np.linspace(0, self._na * (1 - 1e-12), 20001)
        density = pupil_amplitudes(self._layers, fine, self._model, self._exponent)[0].real * fine
        part = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
        return float(np.interp(0.5 * part[-1], part, fine))


def pupil_amplitudes(layers: Layers, s: Real, model: str, exponent: float) -> list[Complex]:
    """The A_j of the module's table at ``s``; ``exponent`` is a of the scalar model."""
    if model == "born-wolf":
        return [np.ones(s.shape, np.complex128)]
    cos_i = axial(layers.immersion, s) / layers.immersion
    if model == "scalar":
        return [cos_i**-exponent]
    t_s, t_p = layers.transmission(s)
    cos_s, sin_s = axial(layers.sample, s) / layers.sample, s / layers.sample
    root = np.sqrt(cos_i)
    return [(t_s + t_p * cos_s) / root, t_p * sin_s / root, (t_s - t_p * cos_s) / root]


def bessel(backend: Backend, first: int, count: int, x: Array) -> list[Array]:
    """J_first(x) ... of ``count`` consecutive orders (up to J_3), absolute error about 1e-15; x >= 0."""
    xp, special = backend.xp, backend.special
    orders = [special.j0(x)]
    if first + count > 1:
        orders.append(special.j1(x))
    # Upward recurrence cancels for small x; there the series' next term is below 1e-15.
    small, safe = x < 0.05, xp.maximum(x, 0.05)
    q = (x / 2) ** 2
    if first + count > 2:
        orders.append(xp.where(small, q / 2 * (1 - q / 3 * (1 - q / 8)), 2 * orders[1] / safe - orders[0]))
    if first + count > 3:
        orders.append(xp.where(small, q * x / 12 * (1 - q / 4 * (1 - q / 10)), 4 * orders[2] / safe - orders[1]))
    return orders[first:]


class GaussianBeam:
    """A Gaussian of the width of the non-paraxial widefield PSF: a `Beam` in the focus of light of one wavelength.

    Zhang, Zerubia & Olivo-Marin (Appl. Opt. 46, 2007), table 1; it has no rings and no cone of light out of focus.
    """

    def __init__(self, backend: Backend, optics: Optics, wavelength_nm: float) -> None:
        self._backend = backend
        self._lateral, self._axial = gaussian_sigma_um(optics, wavelength_nm)
        # exp(-2 (pi sigma k)^2) is below 1e-8 from here on
        self.cutoff = 3.04 / (np.pi * self._lateral)

    def profile(self, radii_um: Real, z_um: float, depths_um: tuple[float, ...]) -> Profile:
        xp = self._backend.xp
        lateral = xp.exp(-((xp.asarray(radii_um) / self._lateral) ** 2) / 2)

        def intensity(z: Real, depth: float) -> Array:
            return xp.exp(-((xp.asarray(z) / self._axial) ** 2) / 2)[:, None] * lateral

        return intensity

    def energy(self, depth_um: float) -> float:
        """In the focal plane; a Gaussian does not conserve it."""
        return float(2 * np.pi * self._lateral**2)


def gaussian_sigma_um(optics: Optics, wavelength_nm: float | None = None) -> tuple[float, float]:
    """Standard deviations (lateral, axial) in um of the Gaussian nearest to the widefield PSF; emission by default.

    With k = 2 pi n / wavelength and cos a from sin a = na / n, n the immersion's index (z is the way of the stage).
    For low NA they tend to sqrt(2) / (k_0 na) and 2 sqrt(6) n / (k_0 na^2).
    """
    n = optics.immersion_index
    k = 2 * np.pi * n / ((wavelength_nm or optics.emission_nm) * 1e-3)
    c = np.sqrt(1 - (optics.na / n) ** 2)
    lateral = (4 - 7 * c**1.5 + 3 * c**3.5) / (7 * (1 - c**1.5))
    axial = 4 * c**5 - 25 * c**3.5 + 42 * c**2.5 - 25 * c**1.5 + 4
    return float(1 / (k * np.sqrt(lateral))), float(5 * np.sqrt(7) * (1 - c**1.5) / (np.sqrt(6) * k * np.sqrt(axial)))
