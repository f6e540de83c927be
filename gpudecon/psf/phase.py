"""What immersion, coverslip and specimen do to a plane wave: phase and transmission over the pupil, in float64.

A plane wave is named by s = n sin(theta), which is the same in every layer (Snell) and runs from 0 to NA; its axial
component in a medium of index n is c_n = sqrt(n^2 - s^2), imaginary with decaying amplitude where s > n.

The optical path is that of Gibson & Lanni (J. Opt. Soc. Am. A 8, 1991) in the form of Aguet et al. (Opt. Express 17,
2009).  It contains thicknesses of 170 um whose effects nearly cancel, so the differences are formed algebraically:
each layer of index n and thickness t against the same paraxial thickness of immersion n_i contributes

    t [(c_n - n) - (n_i / n)(c_i - n_i)] = t s^4 (n^2 - n_i^2) / [n (n_i + c_i)(n + c_n)(n_i c_n + n c_i)],

exactly 0 for n = n_i.  The stage at z from the paraxial focus contributes -z (c_i - n_i) = z s^2 / (n_i + c_i).
Constants over the pupil are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.optics import Optics
from gpudecon.psf.quadrature import Real, gauss_legendre

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Layers:
    """The media between objective and light source: refractive indices and thicknesses in um, in use and by design."""

    immersion: float
    sample: float
    coverslip: float
    coverslip_um: float
    immersion_design: float
    immersion_um: float
    coverslip_design: float
    coverslip_um_design: float

    @classmethod
    def of(cls, optics: Optics) -> Layers:
        """The layers of a microscope, defaults resolved."""
        glass = optics.coverslip_index
        return cls(
            optics.immersion_index,
            _first(optics.sample_index, optics.immersion_index),
            glass,
            optics.coverslip_um,
            _first(optics.immersion_index_design, optics.immersion_index),
            optics.immersion_um,
            _first(optics.coverslip_index_design, glass),
            _first(optics.coverslip_um_design, optics.coverslip_um),
        )

    @property
    def is_ideal(self) -> bool:
        """Whether the media in use are those of the design and the specimen's is the immersion: no aberration."""
        return (self.immersion, self.coverslip, self.coverslip_um) == (
            self.immersion_design,
            self.coverslip_design,
            self.coverslip_um_design,
        ) and self.sample == self.immersion

    def is_aberrated(self, depth_um: float) -> bool:
        """Whether a source at this depth is seen with spherical aberration."""
        return not self.is_ideal and bool(np.any(self.aberration(np.array([0.5 * self.immersion]), depth_um)))

    def aberration(self, s: Real, depth_um: float) -> Complex:
        """Optical path in um of a source ``depth_um`` below the coverslip, against the paraxial focus."""
        sample = depth_um * self._against_immersion(self.sample, s)
        glass = self.coverslip_um * self._against_immersion(self.coverslip, s)
        glass_design = self.coverslip_um_design * self._against_immersion(self.coverslip_design, s)
        immersion_design = self.immersion_um * self._against_immersion(self.immersion_design, s)
        return np.asarray(sample + (glass - glass_design) - immersion_design, np.complex128)

    def defocus(self, s: Real) -> Real:
        """Optical path per um that the focus is moved into the specimen (by moving stage or objective)."""
        return np.asarray(s**2 / (self.immersion + axial(self.immersion, s).real), np.float64)

    def transmission(self, s: Real) -> tuple[Complex, Complex]:
        """Fresnel coefficients (t_s, t_p) of the way from the immersion into the specimen.

        Products over the surfaces, without reflections in between: t_s = 2 c_1 / (c_1 + c_2) and
        t_p = 2 n_1 n_2 c_1 / (n_2^2 c_1 + n_1^2 c_2) with the axial components c (the indices' cosines times n).
        """
        media = (
            [self.immersion, self.coverslip, self.sample] if self.coverslip_um > 0 else [self.immersion, self.sample]
        )
        t_s = t_p = np.ones(s.shape, np.complex128)
        for n1, n2 in pairwise(media):
            c1, c2 = axial(n1, s), axial(n2, s)
            t_s = t_s * (2 * c1 / (c1 + c2))
            t_p = t_p * (2 * n1 * n2 * c1 / (n2**2 * c1 + n1**2 * c2))
        return t_s, t_p

    def _against_immersion(self, n: float, s: Real) -> Complex:
        """Path per um of a layer of index ``n``, less that of the paraxially equal layer of immersion."""
        ni = self.immersion
        ci, c = axial(ni, s), axial(n, s)
        return np.asarray(s**4 * (n**2 - ni**2) / (n * (ni + ci) * (n + c) * (ni * c + n * ci)), np.complex128)


@dataclass(frozen=True)
class Nodes:
    """Points ``s`` in (0, NA) and weights with sum(weight f(s)) = integral of f(s) s ds."""

    s: Real
    weight: Real


def pupil_nodes(
    layers: Layers,
    na: float,
    k0: float,
    *,
    r_um: float = 0.0,
    z_um: float = 0.0,
    depths_um: tuple[float, ...] = (),
    step: float | None = None,
) -> Nodes:
    """Gauss-Legendre nodes that integrate the pupil to rounding for all radii and |z| up to those given.

    Below the smallest index n the variable is u in s = n sin(u), beyond it (evanescent in the specimen, where NA
    exceeds its index) v in s = n cosh(v): in these the axial components have no square-root singularity.  The number
    of nodes follows from the steepest phase k0 (r s + z defocus + aberration) in each zone.  ``step`` is a value of s
    where the pupil jumps; the zones are cut there.
    """
    smallest = min(layers.immersion, layers.sample)
    if na <= smallest:
        zones = [Zone(np.sin, np.cos, np.arcsin, smallest, na)]
    else:
        zones = [Zone(np.sin, np.cos, np.arcsin, smallest, smallest), Zone(np.cosh, np.sinh, np.arccosh, smallest, na)]
    parts = []
    for zone in zones:
        for low, high in zone.pieces(step):
            u = np.linspace(low, high, 129)
            s = zone.s(u)
            aberration = max((_steepest(layers.aberration(s, d).real, u) for d in depths_um), default=0.0)
            steepest = r_um * _steepest(s, u) + z_um * _steepest(layers.defocus(s), u) + aberration
            u, w = gauss_legendre(low, high, k0 * (high - low) * steepest)
            parts.append((zone.s(u), w * zone.s(u) * zone.slope(u)))
    s, weight = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Nodes(s, weight)


@dataclass(frozen=True)
class Zone:
    """A part of the pupil, s = n f(u) up to ``edge``, in a variable u that makes its integrands smooth."""

    f: Any
    derivative: Any
    inverse: Any
    n: float
    edge: float

    def s(self, u: Real) -> Real:
        return np.asarray(self.n * self.f(u), np.float64)

    def slope(self, u: Real) -> Real:
        """The change ds / du, which is positive."""
        return np.asarray(self.n * np.abs(self.derivative(u)), np.float64)

    def pieces(self, step: float | None) -> list[tuple[float, float]]:
        """Intervals of u that make up the zone, cut at s = ``step`` if that lies inside."""
        end = float(self.inverse(self.edge / self.n))
        if step is None or not self.s(np.zeros(1))[0] < step < self.edge:
            return [(0.0, end)]
        cut = float(self.inverse(step / self.n))
        return [(0.0, cut), (cut, end)]


def _steepest(values: Real, u: Real) -> float:
    return float(np.max(np.abs(np.diff(values) / np.diff(u))))


def axial(n: float, s: Real) -> Complex:
    """Axial component sqrt(n^2 - s^2) of a wave in a medium of index ``n``; i sqrt(s^2 - n^2) if it is evanescent."""
    return np.sqrt(np.asarray(n**2 - s**2, np.complex128))


def _first(value: float | None, default: float) -> float:
    return default if value is None else value
