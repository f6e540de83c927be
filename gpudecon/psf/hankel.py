"""Hankel transforms of radial profiles, and the two convolutions that modalities need: with pinholes.

    H(k) = 2 pi integral I(r) J_0(2 pi k r) r dr        (k in cycles per um), and the same back.

A disc of radius R has the transform 2 J_1(x) / x, x = 2 pi k R (of unit area): no hard-edged disc of pixels is needed.
Profiles decrease only as 1 / r^3, so they are faded out smoothly between what is needed and a margin further out.
"""

from __future__ import annotations

import numpy as np

from gpudecon.backend import Array, Backend
from gpudecon.psf.quadrature import Real, gauss_legendre
from gpudecon.psf.radial import Beam, Profile


def jinc(backend: Backend, x: Array) -> Array:
    """2 J_1(x) / x, and 1 at 0."""
    safe = backend.xp.maximum(x, 1e-9)
    return 2 * backend.special.j1(safe) / safe


def behind_pinhole(
    backend: Backend, beam: Beam, radius_um: float, radii_um: Real, z_um: float, depths_um: tuple[float, ...]
) -> Profile:
    """The beam's intensity, convolved in each plane with a disc of ``radius_um`` and unit area."""
    margin = 16 / beam.cutoff
    needed = float(radii_um.max()) + radius_um
    cutoff = beam.cutoff + 6 / margin  # fading spreads the spectrum by a few 1 / margin
    r, weight = _faded_nodes(needed, needed + margin, beam.cutoff + cutoff)
    k, k_weight = _nodes(cutoff, needed + margin + float(radii_um.max()))
    forward = _kernel(backend, r, weight, k)
    back = _kernel(backend, k, k_weight, radii_um)
    filtered = forward * jinc(backend, 2 * np.pi * backend.xp.asarray(k) * radius_um)
    convolution = filtered @ back
    bare = beam.profile(r, z_um, depths_um)
    return lambda z, depth: bare(z, depth) @ convolution


class PinholeLattice:
    """Light of a beam that comes through a square lattice of moving pinholes and is seen through the same pinholes.

    In the mean over time the excitation at a point is h_ex (*) A, where A is the autocorrelation of the disk's pattern:
    light reaches a source through a pinhole and returns to the camera through the same one or (cross-talk) another.
    A is periodic, so the result is a Fourier series over the reciprocal lattice,

        E(y, x) = sum over m, n of H_ex(|g|) jinc(2 pi |g| R)^2 cos(2 pi m y / d) cos(2 pi n x / d),  g = (m, n) / d,

    with the spacing d and the pinhole's radius R.  H_ex(0) is the energy of the beam, known without truncation.
    """

    def __init__(
        self,
        backend: Backend,
        beam: Beam,
        radius_um: float,
        spacing_um: float,
        z_um: float,
        depths_um: tuple[float, ...],
    ) -> None:
        self._backend = backend
        self._spacing = spacing_um
        self._energy = {depth: beam.energy(depth) for depth in depths_um}
        order = int(beam.cutoff * spacing_um)
        m = np.arange(order + 1)
        square = np.add.outer(m**2, m**2)
        distinct = np.unique(square[square <= (beam.cutoff * spacing_um) ** 2])
        self._orders, self._of_order = m, np.searchsorted(distinct, square)  # len(distinct): beyond the cutoff
        k = np.sqrt(distinct) / spacing_um
        # cones of light out of focus, and a tail long enough that what is faded out is uniform over the lattice
        reach = LATTICE_REACH * spacing_um + 3 * z_um
        r, weight = _faded_nodes(reach, 2 * reach, 2 * beam.cutoff)
        through = jinc(backend, 2 * np.pi * backend.xp.asarray(k) * radius_um) ** 2
        self._forward = _kernel(backend, r, weight, k) * through
        self._bare = beam.profile(r, z_um, depths_um)

    def illumination(self, z: Real, depth: float, y_um: Real, x_um: Real) -> Array:
        """E at the planes z and positions y, x from the source: (z, y, x)."""
        xp = self._backend.xp
        spectrum = self._bare(z, depth) @ self._forward
        spectrum[:, 0] = self._energy[depth]
        with_none = xp.concatenate([spectrum, xp.zeros((len(z), 1))], axis=1)
        coefficients = with_none[:, xp.asarray(self._of_order)]
        return self._waves(y_um) @ coefficients @ self._waves(x_um).T

    def _waves(self, position_um: Real) -> Array:
        """(position, order): 1 and, for +m and -m together, 2 cos(2 pi m x / d)."""
        waves = np.cos(2 * np.pi * np.multiply.outer(position_um, self._orders) / self._spacing)
        return self._backend.xp.asarray(waves * np.where(self._orders == 0, 1, 2))


LATTICE_REACH = 3.0  # lattice spacings; see the test against a scan by brute force


def _nodes(end: float, frequency: float) -> tuple[Real, Real]:
    """Gauss-Legendre nodes and weights on (0, end) for integrands of at most ``frequency`` cycles per unit."""
    return gauss_legendre(0.0, end, 2 * np.pi * frequency * end)


def _faded_nodes(inner: float, outer: float, frequency: float) -> tuple[Real, Real]:
    """The same on (0, outer) with weights that fall smoothly (all derivatives) to 0 from ``inner`` on."""
    r, weight = _nodes(outer, frequency)
    t = np.clip((r - inner) / (outer - inner), 1e-12, 1 - 1e-12)
    fade = 1 / (1 + np.exp(np.clip(1 / (1 - t) - 1 / t, -700, 700)))
    return r, weight * fade


def _kernel(backend: Backend, source: Real, weight: Real, target: Real) -> Array:
    """(source, target) matrix of the Hankel transform, 2 pi J_0(2 pi source target) source weight."""
    xp = backend.xp
    phase = 2 * np.pi * xp.asarray(source)[:, None] * xp.asarray(target)
    return backend.special.j0(phase) * xp.asarray(2 * np.pi * source * weight)[:, None]
