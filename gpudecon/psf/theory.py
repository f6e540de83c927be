"""PSFs computed from the optics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from gpudecon.backend import Array, Backend, get_backend
from gpudecon.errors import InputError
from gpudecon.image import checked_voxel_um
from gpudecon.optics import Optics
from gpudecon.psf.modality import INSTRUMENTS, NO_LIGHT, BeamOf, Instrument, Origin, origin_um
from gpudecon.psf.phase import Layers
from gpudecon.psf.psf import PSF
from gpudecon.psf.radial import APODIZATIONS, Apodization, Beam, DiffractedBeam, GaussianBeam, Pattern
from gpudecon.psf.sampling import Lateral, averaged, check_shape, expanded, mirrored

Model = Literal["vectorial", "scalar", "born-wolf", "gaussian"]

# Samples of the radial table per period of the highest frequency in it; cubic interpolation is then exact to 1e-6.
SAMPLES_PER_PERIOD = 40


def theoretical_psf(
    optics: Optics,
    shape: tuple[int, ...],
    voxel_um: tuple[float, ...],
    *,
    model: Model = "vectorial",
    apodization: Apodization | None = None,
    pixel_integration: bool = True,
    axial_origin: Origin = "peak",
    device: str = "cpu",
) -> PSF:
    """The PSF of ``optics`` on ``shape`` voxels of ``voxel_um``, (z, y, x), or (y, x) in focus; centre n // 2, sum 1.

    Planes follow the focus as it is moved into the specimen: a later plane is deeper.  They are not normalised one by
    one, so what leaves the window out of focus is missing there.

    Parameters
    ----------
    model
        "vectorial" (layers, polarisation, Fresnel losses), "scalar" (layers), "born-wolf" (scalar and paraxial, for
        comparison: wrong by a quarter of the peak at NA 1.4), "gaussian" (right in width, without rings or cone).
        See `gpudecon.psf.radial`; the last two know no layers and refuse aberrated optics.
    apodization
        Of the "scalar" model: "uniform" (default), "aplanatic" or "debye".
    pixel_integration
        Average over the area of each pixel, as a camera does; False samples its middle, as a scanned spot does that
        rests on each pixel.  Planes are always sampled.
    axial_origin
        What stands in the middle plane where the specimen's index is not that of the immersion: "peak" (the brightest
        plane: the restored object stays where the image shows it), "paraxial" (the paraxial focus) or "emitter" (the
        nominal focus is at ``depth_um``: the restored object moves to its true depth).
    device
        "auto", "cpu", "cuda" or "cuda:N".
    """
    return theoretical_psfs(
        optics,
        (optics.depth_um,),
        shape,
        voxel_um,
        model=model,
        apodization=apodization,
        pixel_integration=pixel_integration,
        axial_origin=axial_origin,
        device=device,
    )[0]


def theoretical_psfs(
    optics: Optics,
    depths_um: Sequence[float],
    shape: tuple[int, ...],
    voxel_um: tuple[float, ...],
    *,
    model: Model = "vectorial",
    apodization: Apodization | None = None,
    pixel_integration: bool = True,
    axial_origin: Origin = "peak",
    device: str = "cpu",
) -> list[PSF]:
    """The PSFs of sources at several depths below the coverslip; what does not depend on the depth is computed once.

    ``optics.depth_um`` is not used.  Everything else is as for `theoretical_psf`.
    """
    _check(optics, depths_um, shape, model, apodization, axial_origin)
    voxel = checked_voxel_um(voxel_um, len(shape))
    depths = tuple(float(d) for d in depths_um)
    backend = get_backend(device)
    with backend.active():
        instrument = INSTRUMENTS[optics.modality](backend, optics, beam_of(backend, optics, model, apodization))
        volumes = _Volumes(backend, optics, instrument, shape, voxel, depths, axial_origin, pixel_integration)
        return [
            PSF(
                backend.download(volumes.at(depth)).reshape(shape),
                voxel,
                {"model": model, "optics": replace(optics, depth_um=depth).record},
            )
            for depth in depths
        ]


WIDEST = 181  # pixels; light further out than this is spread so thin that the domain it costs is not worth it


def psf_window(optics: Optics, image_shape: tuple[int, ...], voxel_um: tuple[float, ...]) -> tuple[int, ...]:
    """The shape of a PSF for images of this shape: odd lengths that hold the light that joins any two of its voxels.

    Along z 2 n - 1 planes; laterally the cone of light at the outermost plane and an Airy disc's reach around it, but
    at most 2 n - 1 and `WIDEST` pixels.
    """
    if max(voxel_um[-2:]) > 2 * optics.airy_unit_um:
        raise InputError(
            f"Pixels of {voxel_um[-2:]} um are wider than two Airy discs of {optics.airy_unit_um:.3g} um: is the voxel "
            "size in micrometres, not nanometres?"
        )
    depth = (image_shape[0] - 1) * voxel_um[0] if len(image_shape) == 3 else 0.0
    cone = optics.na / np.sqrt(optics.immersion_index**2 - optics.na**2)
    reach = depth * cone + 2 * optics.airy_unit_um
    lateral = (
        min(2 * int(np.ceil(reach / v)) + 1, 2 * n - 1, WIDEST)
        for n, v in zip(image_shape[-2:], voxel_um[-2:], strict=True)
    )
    return *(2 * n - 1 for n in image_shape[:-2]), *lateral


class _Volumes:
    """The volumes of one instrument at any of some depths, with all that they share."""

    def __init__(
        self,
        backend: Backend,
        optics: Optics,
        instrument: Instrument,
        shape: tuple[int, ...],
        voxel: tuple[float, ...],
        depths: tuple[float, ...],
        origin: Origin,
        pixel_integration: bool,
    ) -> None:
        self._backend = backend
        self._lateral = [
            Lateral.of(n, v, instrument.cutoff if pixel_integration else None).quadrant
            for n, v in zip(shape[-2:], voxel[-2:], strict=True)
        ]
        nz, dz = (shape[0], voxel[0]) if len(shape) == 3 else (1, 0.0)
        planes = np.arange(-(nz // 2), nz - nz // 2)
        is_symmetric = Layers.of(optics).is_ideal and instrument.is_symmetric
        # where the light is the same above and below, half of the planes suffice
        self._of_plane = np.abs(planes) if is_symmetric else None
        z = np.asarray(dz * (np.arange(nz // 2 + 1) if is_symmetric else planes), np.float64)
        self._z = {d: origin_um(backend, optics, instrument, d, origin) + z for d in depths}
        reach = max(float(np.abs(at).max()) for at in self._z.values())
        self._step = 1 / (SAMPLES_PER_PERIOD * instrument.cutoff)
        corner = float(np.hypot(*(axis.samples[-1] for axis in self._lateral)))
        radii = np.arange(int(corner / self._step) + 4, dtype=np.float64) * self._step
        self._profile = instrument.profile(radii, reach, depths)
        self._factor = instrument.factor(reach, depths)

    def at(self, depth: float) -> Array:
        """(z, y, x), float32, not normalised and not negative."""
        xp = self._backend.xp
        z, (y, x) = self._z[depth], self._lateral
        table = self._profile(z, depth)
        largest = float(table.max())
        if not largest > 0:  # of all modalities only a light sheet can be dark
            raise InputError(NO_LIGHT)
        table = xp.ascontiguousarray((table / largest).astype(np.float32))
        samples = expanded(self._backend, table, self._step, y, x)
        if self._factor is not None:
            samples *= self._factor(z, depth, y.samples, x.samples)
        pixels = xp.maximum(averaged(self._backend, samples, y, x), 0)  # rounding goes below 0 where it is dark
        volume = mirrored(self._backend, pixels, y.length, x.length)
        return volume if self._of_plane is None else volume[xp.asarray(self._of_plane)]


def beam_of(backend: Backend, optics: Optics, model: Model, apodization: Apodization | None) -> BeamOf:
    """What makes the beams of an instrument by ``model``."""

    def beam(wavelength_nm: float, pattern: Pattern | None) -> Beam:
        if model == "gaussian":
            return GaussianBeam(backend, optics, wavelength_nm)
        return DiffractedBeam(backend, optics, wavelength_nm, model, apodization or "uniform", pattern)

    return beam


def _check(
    optics: Optics,
    depths_um: Sequence[float],
    shape: tuple[int, ...],
    model: Model,
    apodization: Apodization | None,
    origin: Origin,
) -> None:
    for name, value, known in (
        ("PSF model", model, get_args(Model)),
        ("apodization", apodization, (None, *APODIZATIONS)),
        ("axial_origin", origin, get_args(Origin)),
    ):
        if value not in known:
            raise InputError(f"Unknown {name} {value!r}; use one of {', '.join(repr(k) for k in known if k)}.")
    check_shape(shape)
    if not len(depths_um) or not all(0 <= d < np.inf for d in depths_um):
        raise InputError(f"depths_um is {depths_um!r}; give one or more distances from the coverslip, from 0 on.")
    if apodization is not None and model != "scalar":
        raise InputError(f"apodization {apodization!r} belongs to model 'scalar', not {model!r}; leave it out.")
    if model in ("born-wolf", "gaussian") and any(Layers.of(optics).is_aberrated(d) for d in depths_um):
        raise InputError(
            f"Model {model!r} knows no aberration, but these media and depths cause one; use 'vectorial' or 'scalar'."
        )
    if model == "gaussian" and optics.modality == "sted":
        raise InputError("Model 'gaussian' has no depletion beam; use 'vectorial' or 'scalar' for modality 'sted'.")
