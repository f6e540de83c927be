"""PSFs of any pupil: Zernike aberrations, amplitude masks, vortices; not necessarily axially symmetric.

The field near the focus is the Fourier transform of the pupil with the phase k0 L(s; z, depth) of `gpudecon.psf.phase`,

    U(x, y, z) = integral over |s| < NA of A(s) exp(i (W + k0 L + l phi)) exp(i k0 (s_x x + s_y y)) ds_x ds_y,

with the aberration W in radians and the vortex's charge l.  For a padded FFT the pupil is sampled on a square grid,
whose ragged edge limits the accuracy to 1e-4 even where it is smoothed, and the field out of focus wraps around.  Here
both integrals are Gauss-Legendre quadratures over the chords of the disc, carried out as matrix products for the
positions that are wanted: exact to rounding for smooth pupils, without padding, and faster.

Each wave of the vectorial model is a matrix between the light's polarisation in the pupil and the field in the specimen
(Richards & Wolf 1959), with c, s the cosine and sine of phi and the Fresnel coefficients t_s, t_p:

    E_x <- (t_p cos_s c^2 + t_s s^2, (t_p cos_s - t_s) s c),  E_y by symmetry,  E_z <- -t_p sin_s (c, s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array, Backend, get_backend
from gpudecon.errors import InputError
from gpudecon.image import checked_voxel_um
from gpudecon.optics import Optics
from gpudecon.psf.modality import Origin, Widefield, origin_um
from gpudecon.psf.phase import Complex, Layers, axial
from gpudecon.psf.psf import PSF
from gpudecon.psf.quadrature import Real, gauss_legendre
from gpudecon.psf.radial import APODIZATIONS, Apodization, DiffractedBeam
from gpudecon.psf.sampling import Lateral, averaged, check_shape
from gpudecon.psf.zernike import Numbering, mode, zernike

Polarization = Literal["random", "circular"]
WORK_BYTES = 64 << 20  # of the pupil with its defocus, for as many planes as fit


@dataclass(frozen=True)
class Pupil:
    """What stands in the pupil besides the objective's own amplitude.

    ``zernike_rad`` maps modes, by number or name, to coefficients in radians (root mean square over the pupil);
    positive ones lengthen the path of the light.  ``amplitude(rho, phi)`` is the transmission at the normalised radius
    (0 to 1) and the angle from x towards y; a smooth function keeps the accuracy, a hard edge reduces it to about 1e-3.
    ``vortex`` is the charge l of a phase l phi.  Light is "random" (of dipoles that turn freely, or unpolarised) or
    "circular" with the handedness of a vortex of positive charge.
    """

    zernike_rad: Mapping[int | str, float]
    numbering: Numbering = "noll"
    amplitude: Callable[[Real, Real], NDArray[Any]] | None = None
    vortex: int = 0
    polarization: Polarization = "random"

    def __post_init__(self) -> None:
        for key, value in self.zernike_rad.items():
            mode(key, self.numbering)
            if not np.isfinite(value):
                raise InputError(f"The coefficient of Zernike mode {key!r} is {value!r}; it must be a finite number.")
        if not isinstance(self.vortex, int) or abs(self.vortex) > 20:
            raise InputError(f"vortex is {self.vortex!r}; it must be a whole number from -20 to 20.")
        if self.polarization not in get_args(Polarization):
            raise InputError(f"Unknown polarization {self.polarization!r}; use 'random' or 'circular'.")

    def values(self, rho: Real, phi: Real) -> Complex:
        """Complex transmission at polar coordinates."""
        phase = self.vortex * phi
        for key, coefficient in self.zernike_rad.items():
            phase = phase + coefficient * zernike(*mode(key, self.numbering), rho, phi)
        if self.amplitude is None:
            return np.asarray(np.exp(1j * phase))
        amplitude = np.broadcast_to(np.asarray(self.amplitude(rho, phi), np.float64), rho.shape)
        if not np.isfinite(amplitude).all() or amplitude.min() < 0 or amplitude.max() == 0:
            raise InputError("amplitude must return finite transmissions that are not negative and not all 0.")
        return np.asarray(amplitude * np.exp(1j * phase))

    def steepness(self) -> float:
        """A bound for the change of phase in radians over a quarter turn of the chord variable."""
        modes = [(abs(c), *mode(key, self.numbering)) for key, c in self.zernike_rad.items()]
        smooth = sum(c * n * np.sqrt(2 * (n + 1)) for c, n, _ in modes)
        mask = 0.0 if self.amplitude is None else 100.0
        return float(np.pi / 2 * (smooth + abs(self.vortex)) + mask)


def pupil_psf(
    optics: Optics,
    shape: tuple[int, ...],
    voxel_um: tuple[float, ...],
    zernike_rad: Mapping[int | str, float],
    *,
    numbering: Numbering = "noll",
    amplitude: Callable[[Real, Real], NDArray[Any]] | None = None,
    vortex: int = 0,
    polarization: Polarization = "random",
    model: Literal["vectorial", "scalar"] = "vectorial",
    apodization: Apodization | None = None,
    pixel_integration: bool = True,
    axial_origin: Origin = "peak",
    device: str = "cpu",
) -> PSF:
    """The widefield PSF of ``optics`` with a `Pupil`: (z, y, x), or (y, x) in focus; sum 1.

    Index n // 2 is where the PSF without this pupil would have its centre, so that tilts and asymmetric aberrations
    show as what they are.  The other arguments are those of `gpudecon.theoretical_psf`.
    """
    pupil = Pupil(zernike_rad, numbering, amplitude, vortex, polarization)
    if optics.modality != "widefield":
        raise InputError(f"pupil_psf models 'widefield' only, not {optics.modality!r}.")
    if model not in ("vectorial", "scalar"):
        raise InputError(f"Unknown pupil model {model!r}; use 'vectorial' or 'scalar'.")
    if apodization is not None and (model != "scalar" or apodization not in APODIZATIONS):
        raise InputError(f"apodization {apodization!r}: 'uniform', 'aplanatic' and 'debye' exist, for model 'scalar'.")
    if model == "scalar" and polarization != "random":
        raise InputError(f"polarization {polarization!r} needs model 'vectorial'; the scalar one has none.")
    check_shape(shape)
    voxel = checked_voxel_um(voxel_um, len(shape))
    backend = get_backend(device)
    with backend.active():
        beam = DiffractedBeam(backend, optics, optics.emission_nm, model, apodization or "uniform")
        nz, dz = (shape[0], voxel[0]) if len(shape) == 3 else (1, 0.0)
        z = np.arange(-(nz // 2), nz - nz // 2, dtype=np.float64) * dz
        z += origin_um(backend, optics, Widefield(beam), optics.depth_um, axial_origin)
        cutoff = beam.cutoff if pixel_integration else None
        y, x = (Lateral.of(n, v, cutoff) for n, v in zip(shape[-2:], voxel[-2:], strict=True))
        focus = _Focus(backend, optics, pupil, model, APODIZATIONS[apodization or "uniform"], z, y.samples, x.samples)
        batches = (z[i : i + focus.planes_at_once] for i in range(0, nz, focus.planes_at_once))
        pixels = backend.xp.concatenate([averaged(backend, focus.intensity(planes), y, x) for planes in batches])
        return PSF(backend.download(backend.xp.maximum(pixels, 0)).reshape(shape), voxel)


class _Focus:
    """The intensity near the focus at positions y, x, with the pupil's nodes and plane waves."""

    def __init__(
        self,
        backend: Backend,
        optics: Optics,
        pupil: Pupil,
        model: str,
        exponent: float,
        z: Real,
        y: Real,
        x: Real,
    ) -> None:
        self._xp = xp = backend.xp
        self._k0 = k0 = 2 * np.pi / (optics.emission_nm * 1e-3)
        layers = Layers.of(optics)
        reach = float(max(np.abs(x).max(), np.abs(y).max()))
        self._zones = []
        for chords in pupil_chords(layers, optics, k0, reach, float(np.abs(z).max()), pupil.steepness()):
            s, phi = np.hypot(chords.y, chords.x[:, None]), np.arctan2(chords.y, chords.x[:, None])
            transmission = pupil.values(np.minimum(s / optics.na, 1.0), phi)
            transmission = transmission * np.exp(1j * k0 * layers.aberration(s, optics.depth_um)) * chords.weight
            fields = [field * transmission for field in polarised(layers, s, phi, model, exponent, pupil.polarization)]
            self._zones.append(
                (
                    xp.asarray(np.stack(fields, axis=-1)[..., None]),  # (chord, node, component, 1)
                    xp.asarray(layers.defocus(s)[..., None, None]),
                    xp.exp(1j * k0 * xp.asarray(chords.y)[:, None, :] * xp.asarray(y)[:, None]),
                    xp.exp(1j * k0 * xp.asarray(x)[:, None] * xp.asarray(chords.x)),
                )
            )
        largest = max(fields.nbytes for fields, *_ in self._zones)
        self.planes_at_once = max(1, WORK_BYTES // largest)

    def intensity(self, z: Real) -> Array:
        """(z, y, x), float32."""
        xp = self._xp
        field: Array = 0.0
        for fields, defocus, waves_y, waves_x in self._zones:
            pupil = fields * xp.exp(1j * self._k0 * defocus * xp.asarray(z))
            chords, nodes, components, nz = pupil.shape
            along_y = waves_y @ pupil.reshape(chords, nodes, components * nz)
            both = waves_x @ along_y.reshape(chords, -1)
            field = field + both.reshape(waves_x.shape[0], waves_y.shape[1], components, nz)
        total = (field.real**2 + field.imag**2).sum(axis=2)
        return xp.ascontiguousarray(total.transpose(2, 1, 0).astype(np.float32))


def polarised(
    layers: Layers, s: Real, phi: Real, model: str, exponent: float, polarization: Polarization
) -> list[Complex]:
    """Components of the field, whose squares add up to the intensity."""
    cos_i = axial(layers.immersion, s) / layers.immersion
    # the measure is ds_x ds_y = s ds dphi, as in `pupil_amplitudes`
    if model == "scalar":
        return [cos_i**-exponent]
    t_s, t_p = layers.transmission(s)
    cos_s, sin_s = axial(layers.sample, s) / layers.sample, s / layers.sample
    root, c, d = np.sqrt(cos_i), np.cos(phi), np.sin(phi)
    x_of_x, y_of_y = (t_p * cos_s * c**2 + t_s * d**2) / root, (t_p * cos_s * d**2 + t_s * c**2) / root
    crossed, z = (t_p * cos_s - t_s) * c * d / root, t_p * sin_s / root
    if polarization == "circular":  # (x + i y) / sqrt(2); the factor is left out
        return [x_of_x + 1j * crossed, crossed + 1j * y_of_y, z * (c + 1j * d)]
    return [x_of_x, y_of_y, np.sqrt(2) * crossed, z * c, z * d]


@dataclass(frozen=True)
class Chords:
    """Nodes on the chords of the pupil at each x: ``y`` and ``weight`` are (chord, node), ``x`` is (chord,)."""

    x: Real
    y: Real
    weight: Real


def pupil_chords(
    layers: Layers, optics: Optics, k0: float, reach_um: float, z_um: float, steepness: float
) -> Iterator[Chords]:
    """Gauss-Legendre nodes over the pupil, with the substitutions of `pupil_nodes` along either axis.

    In the disc s < n: s_x = n sin(a), s_y = n cos(a) sin(b).  Where NA exceeds the specimen's index n, the ring beyond
    is s_y = n cos(a) cosh(b) above the disc, and beside it the chords of s_x = n cosh(a).  Each half axis has its own
    nodes: a vortex has a kink on them.
    """
    na = optics.na
    edge = min(na, layers.immersion, layers.sample)
    u = np.linspace(0, np.pi / 2, 65)
    s = edge * np.sin(u)
    defocus, aberration = layers.defocus(s), layers.aberration(s, optics.depth_um).real
    path = z_um * np.abs(np.diff(defocus)).max() + np.abs(np.diff(aberration)).max()
    span = k0 * (np.pi / 2 * edge * reach_um + 64 * float(path)) + steepness
    v, w = gauss_legendre(0.0, 1.0, span)
    a, da = v * np.pi / 2, w * np.pi / 2
    sin_a, cos_a = edge * np.sin(a), edge * np.cos(a)
    across = (cos_a * da)[:, None]
    yield _four_quadrants(sin_a, cos_a[:, None] * np.sin(a), across * cos_a[:, None] * np.cos(a) * da)
    if na <= edge:
        return
    top = np.arccosh(np.sqrt(na**2 - sin_a**2) / cos_a)[:, None]
    rise = cos_a[:, None] * np.sinh(top * v) * top * w
    yield _four_quadrants(sin_a, cos_a[:, None] * np.cosh(top * v), across * rise)
    side = np.arccosh(na / edge)
    x, dx = edge * np.cosh(side * v), edge * np.sinh(side * v) * side * w
    half = np.sqrt(na**2 - x**2)[:, None]
    yield _four_quadrants(x, half * np.sin(a), dx[:, None] * half * np.cos(a) * da)


def _four_quadrants(x: Real, y: Real, weight: Real) -> Chords:
    both = np.concatenate([-y, y], axis=1)
    twice = np.concatenate([weight, weight], axis=1)
    return Chords(np.concatenate([-x, x]), np.concatenate([both, both]), np.concatenate([twice, twice]))
