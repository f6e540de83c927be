"""The pupil's aberrations from the image of one bead: `fit_pupil`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.image import checked_voxel_um
from gpudecon.optics import Optics
from gpudecon.psf.bead_size import check_bead_size
from gpudecon.psf.measured import fitted_centre, lateral_frame
from gpudecon.psf.psf import PSF
from gpudecon.psf.pupil_model import PupilModel
from gpudecon.psf.zernike import mode, noll

Real = NDArray[np.float64]

# Astigmatism, coma, trefoil, spherical aberration and the fourth order; tilts and defocus are the bead's place.
MODES = tuple(range(5, 16))
SPHERICAL_STARTS = (0.0, 1.0, -1.0)  # rad: from elsewhere a large spherical aberration is found with the wrong sign
FIRST_ITERATIONS = 5
DARKEST = 1e-4  # of the mean count, which the model does not go below: its logarithm would run away


@dataclass(frozen=True)
class PupilFit:
    """A microscope's pupil as a bead shows it.

    ``zernike_rad`` maps Noll numbers to coefficients (rad, root mean square over the pupil); ``shift_um`` (z, y, x) is
    the bead's place from n // 2; ``photons`` the height of the bead without aberration, ``background`` photons per
    voxel.  ``deviance`` per voxel is near 1 where model and noise explain the image (and counts are photons).
    """

    optics: Optics
    zernike_rad: dict[int, float]
    shift_um: tuple[float, float, float]
    photons: float
    background: float
    deviance: float
    iterations: int

    def psf(self, shape: tuple[int, ...], voxel_um: tuple[float, ...]) -> PSF:
        """The fitted PSF, free of noise, on any voxels; n // 2 is where the fitted place of the bead is."""
        voxel = checked_voxel_um(voxel_um, 3)
        model = PupilModel(self.optics, shape, voxel, tuple(self.zernike_rad))
        array = np.maximum(model.intensity(np.array([0.0, 0.0, 0.0, *self.zernike_rad.values()])), 0)
        phases = {str(mode): float(phase) for mode, phase in self.zernike_rad.items()}
        return PSF(array, voxel, {"model": "fitted pupil", "optics": self.optics.record, "zernike_rad": phases})


def fit_pupil(
    bead: PSF | NDArray[np.generic],
    optics: Optics,
    voxel_um: tuple[float, ...] | None = None,
    *,
    modes: Sequence[int | str] = MODES,
    bead_diameter_um: float | None = None,
    offset: float = 0.0,
    gain: float = 1.0,
    iterations: int = 60,
) -> PupilFit:
    """Zernike phases of the pupil, the bead's place, height and background from a stack (z, y, x) of one bead.

    Minimises the Poisson deviance of the counts (bead - offset) / gain against the vectorial PSF of ``optics`` with the
    adjoint derivative (`gpudecon.psf.pupil_model`) by L-BFGS, from three starts of spherical aberration.

    Parameters
    ----------
    bead
        Stack around one bead, several planes above and below focus, or a `PSF` (then background is about 0).
    optics
        Widefield.  Its layers and depth are taken as known; what is left is fitted.
    voxel_um
        Voxel size of a bare array.
    modes
        Noll numbers or names (`gpudecon.psf.zernike`) to fit, by default 5 to 15.  Tilts and defocus (1 to 4) are not
        among them: they move the bead, which ``shift_um`` says exactly.
    bead_diameter_um
        Takes the size of the bead into account.
    offset, gain
        Of the camera: grey values without light, and grey values per photon.
    iterations
        At most; with a warning where that was not enough.
    """
    image, voxel = _checked(bead, voxel_um, offset, gain)
    numbers = _numbers(modes)
    if optics.modality != "widefield":
        raise InputError(f"fit_pupil fits the pupil of 'widefield' microscopes only, not {optics.modality!r}.")
    if bead_diameter_um is not None:
        check_bead_size(bead_diameter_um, optics)
    problem = _Problem(image, PupilModel(optics, image.shape, voxel, numbers, bead_diameter_um), voxel, optics)
    starts = SPHERICAL_STARTS if 11 in numbers else (0.0,)
    tried = [problem.solve(problem.start(numbers, a), FIRST_ITERATIONS) for a in starts]
    best = min(tried, key=lambda result: float(result.fun))
    final = problem.solve(best.x, iterations)
    if final.status == 1:
        warnings.warn(
            f"The fit of the pupil did not settle in {iterations} iterations; allow more, or fit fewer modes.",
            GpudeconWarning,
            stacklevel=2,
        )
    phases, photons, background = problem.physical(final.x)
    z, y, x = (float(s) for s in phases[:3])
    return PupilFit(
        optics,
        {j: float(c) for j, c in zip(numbers, phases[3:], strict=True)},
        (z, y, x),
        photons,
        background,
        problem.deviance(final.x),
        int(best.nit + final.nit),
    )


class _Problem:
    """Deviance over unknowns of comparable effect: shifts in optical units, radians, log height, scaled background."""

    def __init__(self, image: Real, model: PupilModel, voxel: tuple[float, ...], optics: Optics) -> None:
        self._image, self._model = image, model
        k = 2 * np.pi / (optics.emission_nm * 1e-3)
        axial = k * (optics.immersion_index - np.sqrt(optics.immersion_index**2 - optics.na**2))
        self._shift_unit = np.array([3.5 / axial, 2 / (k * optics.na), 2 / (k * optics.na)])
        self._background = max(float(np.median(lateral_frame(image))), DARKEST * float(image.mean()))
        self._signal = max(float((image - self._background).sum()), 1.0)
        self._background_unit = float(np.sqrt(self._background * self._signal / image.size))
        self._floor = DARKEST * float(image.mean())
        centre = fitted_centre(image)
        self._place = (centre - np.array(image.shape) // 2) * np.array(voxel)
        self._height = float(image.max()) - self._background

    def start(self, numbers: tuple[int, ...], spherical: float) -> Real:
        """Unknowns at the Gaussian's place with some spherical aberration."""
        coefficients = np.array([spherical if j == 11 else 0.0 for j in numbers])
        return np.concatenate([self._place / self._shift_unit, coefficients, [0.0, 0.0]])

    def physical(self, unknowns: Real) -> tuple[Real, float, float]:
        """(shift in um and coefficients in rad, height, background)."""
        phases = unknowns[:-2].copy()
        phases[:3] *= self._shift_unit
        background = self._background + self._background_unit * unknowns[-1]
        return phases, float(self._height * np.exp(unknowns[-2])), float(background)

    def solve(self, start: Real, iterations: int) -> Any:
        """SciPy's result of so many iterations of L-BFGS."""
        from scipy.optimize import minimize

        low = -self._background / self._background_unit
        bounds = [(None, None)] * (len(start) - 1) + [(low, None)]
        options = {"maxiter": iterations, "ftol": 1e-10, "gtol": 1e-6, "maxcor": 20}
        return minimize(self._value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)

    def _value(self, unknowns: Real) -> tuple[float, Real]:
        """Negative log likelihood per photon of the bead, and its derivative."""
        phases, height, background = self.physical(unknowns)
        intensity, adjoint = self._model.intensity_and_adjoint(phases)
        expected = np.maximum(height * intensity + background, self._floor)
        value = float((expected - self._image * np.log(expected)).sum()) / self._signal
        slope = (1 - self._image / expected) / self._signal
        gradient = adjoint(height * slope)
        gradient[:3] *= self._shift_unit
        ends = [height * float((slope * intensity).sum()), self._background_unit * float(slope.sum())]
        return value, np.concatenate([gradient, ends])

    def deviance(self, unknowns: Real) -> float:
        """2 sum [d log(d / m) - d + m] per voxel."""
        phases, height, background = self.physical(unknowns)
        expected = np.maximum(height * self._model.intensity(phases) + background, self._floor)
        counts = np.maximum(self._image, 0)
        ratio = np.where(counts > 0, counts / expected, 1.0)
        return float(2 * np.mean(counts * np.log(ratio) - counts + expected))


def _checked(
    bead: PSF | NDArray[np.generic], voxel_um: tuple[float, ...] | None, offset: float, gain: float
) -> tuple[Real, tuple[float, ...]]:
    """The counts and the voxel size."""
    if isinstance(bead, PSF):
        voxel_um = voxel_um or bead.voxel_um
        bead = bead.array
    image = np.asarray(bead, np.float64)
    if image.ndim != 3 or image.shape[0] < 3 or min(image.shape[1:]) < 7:
        raise InputError(f"The bead has shape {image.shape}; give (z, y, x) with at least 3 planes of 7 x 7 pixels.")
    if not np.isfinite(image).all():
        raise InputError(f"The bead holds {int((~np.isfinite(image)).sum())} NaN or infinite values; give finite ones.")
    if voxel_um is None:
        raise InputError("The voxel size of the bead is not known; give voxel_um.")
    if not (np.isfinite(offset) and np.isfinite(gain) and gain > 0):
        raise InputError(f"offset is {offset!r} and gain {gain!r}; give finite numbers, the gain above 0.")
    image = (image - offset) / gain
    if image.max() <= np.median(image) or image.sum() <= 0:
        raise InputError("Nothing stands out of the background; give a stack around one bead, and the right offset.")
    return image, checked_voxel_um(voxel_um, 3)


def _numbers(modes: Sequence[int | str]) -> tuple[int, ...]:
    """Noll numbers of ``modes``."""
    known = {noll(j): j for j in range(1, 862)}
    numbers = tuple(known[mode(key)] for key in modes)
    if len(set(numbers)) < len(numbers) or any(j <= 4 for j in numbers):
        raise InputError(
            f"modes is {list(modes)}; give different ones above Noll's 4 (the bead's place is fitted besides)."
        )
    return numbers
