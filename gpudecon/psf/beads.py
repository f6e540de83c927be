"""One PSF from an image of many beads: `distill_psf`."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.image import checked_voxel_um
from gpudecon.optics import Optics
from gpudecon.psf.bead_mean import mean_of_beads, window_reach
from gpudecon.psf.bead_size import check_bead_size
from gpudecon.psf.detect import estimated_sigma, find_candidates
from gpudecon.psf.extrapolate import with_more_planes
from gpudecon.psf.finish import cropped, in_passband, nonnegative, with_pixels, without_bead
from gpudecon.psf.localise import FWHM_PER_SIGMA, fit_gaussian
from gpudecon.psf.measured import half_width
from gpudecon.psf.otf_support import otf_support
from gpudecon.psf.psf import PSF
from gpudecon.psf.quality_control import QualityControl, fwhm_um, measured_quality
from gpudecon.psf.radial import gaussian_sigma_um
from gpudecon.psf.radial_average import radial_mean
from gpudecon.psf.selection import (
    Bead,
    Found,
    measured_candidates,
    reject_at_border,
    reject_misfits,
    reject_neighbours,
    reject_saturated,
)
from gpudecon.psf.theory import theoretical_psf

Real = NDArray[np.float64]

# Half of the lateral window in standard deviations of the focus, about 25 optical units, and what more must be free of
# other beads: together the 30 optical units (2 um for NA 1.4) that are customary.
WINDOW_SIGMAS, FREE_SIGMAS = 18.0, 5.0
# Median width over the expected one: a warning, an error.
WIDE, TOO_WIDE = 1.4, 2.5


@dataclass(frozen=True, eq=False, kw_only=True)
class DistilledPSF(PSF):
    """A `PSF` with where it comes from: every bead found, and the quality of the result.

    It is used like any PSF; `resample` and `radially_averaged` return plain ones.
    """

    beads: tuple[Bead, ...]
    qc: QualityControl


def distill_psf(
    image: NDArray[Any],
    *,
    voxel_um: tuple[float, ...],
    optics: Optics | None = None,
    bead_diameter_um: float | None = None,
    image_voxel_um: tuple[float, ...] | None = None,
    extent_um: tuple[float, ...] | None = None,
    radial_average: bool = False,
    energy: float = 0.999,
    saturation: float | None = None,
) -> DistilledPSF:
    """The PSF that a stack of beads (z, y, x) shows.

    1. Detect: local maxima of a band-passed image that stand out of its noise.
    2. Reject, each bead with its reason: saturated, with a neighbour, at the border, clumps (by light and width), hot
       pixels, dim, and after the first mean whatever is unlike the others.
    3. Localise by a 3-D Gaussian fit; then twice: average robustly, and register each bead to the mean (shift,
       amplitude and background together, weighted for shot noise).
    4. Clean: the offset by what the optics say about the far light, bead size, and what lies outside the passband.
    5. Centre at n // 2, average radially if asked, make non-negative with the same sum, resample, crop.

    Parameters
    ----------
    image
        The stack, in grey values of any linear camera; camera offset and background need not be removed.
    voxel_um
        Its voxel size.
    optics
        The microscope: gives the passband (the most effective cleaning of noise), the far light and what to compare
        with.  Without it the widths are found from the image.
    bead_diameter_um
        Diameter of the beads, to take their size out of the PSF.  Beads above 0.715 emission / NA are refused.
    image_voxel_um
        Voxel size of the images that the PSF is for, if another: pixels may be larger (their area is then included).
    extent_um
        Size of the PSF (z, y, x).  By default laterally about 50 optical units, axially what most beads have
        around them.  Planes beyond those recorded are computed from an aberrated pupil fitted to the mean, which needs
        widefield ``optics``.
    radial_average
        Average over the angle around the axis: less noise, but only right for a round PSF; see ``qc.asymmetry``.
    energy
        Fraction of the light to keep when dark faces of the window are cut away.
    saturation
        The highest value the camera gives; None finds it.

    Raises `InputError` where no usable bead is left, or the beads are too large for the optics.
    """
    data = np.asarray(image)
    if data.ndim != 3 or data.dtype.kind not in "uif" or 0 in data.shape:
        raise InputError(f"The image of beads is {data.dtype} of shape {data.shape}; give numbers (z, y, x).")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"The image of beads holds {int((~np.isfinite(data)).sum())} NaN or infinite values.")
    if not 0.5 <= energy <= 1:
        raise InputError(f"energy is {energy!r}; it is a fraction of the light, from 0.5 to 1.")
    voxel = checked_voxel_um(voxel_um, 3)
    wanted = None if extent_um is None else checked_voxel_um(extent_um, 3, "extent_um")
    target = voxel if image_voxel_um is None else checked_voxel_um(image_voxel_um, 3, "image_voxel_um")
    support = None if optics is None else otf_support(optics)
    if bead_diameter_um is not None:
        check_bead_size(bead_diameter_um, optics)

    sigma = estimated_sigma(data) if optics is None else _expected_sigma(optics, voxel, bead_diameter_um)
    found = _candidates(data, voxel, sigma, saturation)
    half = _half_window(found, data.shape, voxel, sigma, wanted)
    reject_at_border(found, half, data.shape)
    if optics is None:
        _warn(
            "Without optics the noise outside their passband stays in the PSF, and whether the beads are points cannot "
            "be told."
        )
    else:
        _check_widths(data, found, sigma, voxel, bead_diameter_um)
    used = _usable(found)
    window = tuple(int(2 * n + 1) for n in window_reach(half))
    theory = None if optics is None else theoretical_psf(optics, window, voxel).array.astype(np.float64)
    array = mean_of_beads(data, used, half, sigma, voxel, theory, support)

    if bead_diameter_um is not None:
        array = in_passband(without_bead(array, voxel, bead_diameter_um), voxel, support)
    if wanted is not None:
        array = _with_extent(array, wanted[0], voxel, optics, used)
    if radial_average:
        array = radial_mean(array, (voxel[1], voxel[2]))
    if target != voxel:
        array = with_pixels(array, voxel, target)
    psf = PSF(nonnegative(array).astype(np.float32), voxel).resample(target)
    final = cropped(psf.array, energy)
    beads = tuple(b.bead(voxel) for b in found)
    origin = {
        "beads": sum(b.rejected is None for b in found),
        "bead_diameter_um": bead_diameter_um and float(bead_diameter_um),
        "optics": optics and optics.record,
    }
    quality = _quality(final, target, optics, beads)
    return DistilledPSF(array=final, voxel_um=target, origin=origin, beads=beads, qc=quality)


def _expected_sigma(optics: Optics, voxel: tuple[float, ...], bead_diameter_um: float | None) -> Real:
    """Widths in voxels of a Gaussian fitted to the image of a bead, by theory.

    A ball of diameter d adds the variance d^2 / 20 along each axis.
    """
    lateral, axial = gaussian_sigma_um(optics)
    about = np.array([axial, lateral, lateral]) / np.array(voxel)
    shape = tuple(int(2 * np.ceil(6 * s) + 1) for s in about)
    theory = theoretical_psf(optics, shape, voxel)
    sigma = np.array(fwhm_um(theory.array, voxel)) / (FWHM_PER_SIGMA * np.array(voxel))
    fit = fit_gaussian(theory.array, np.array(shape) // 2, sigma)
    sigma = sigma if fit is None else fit.sigma
    return np.asarray(np.sqrt(sigma**2 + (bead_diameter_um or 0.0) ** 2 / 20 / np.array(voxel) ** 2))


def _candidates(data: NDArray[Any], voxel: tuple[float, ...], sigma: Real, saturation: float | None) -> list[Found]:
    """What was found, with the verdicts that need no window."""
    isolation = (WINDOW_SIGMAS + FREE_SIGMAS) * float(sigma[2])
    aspect = voxel[1] / voxel[2]
    found = measured_candidates(data, find_candidates(data, sigma, isolation, aspect), sigma)
    reject_saturated(found, data, sigma, saturation)
    reject_neighbours(found, isolation, aspect, WINDOW_SIGMAS * float(sigma[0]), voxel[2])
    reject_misfits(found, data, sigma)
    return found


def _half_window(
    found: list[Found], shape: tuple[int, ...], voxel: tuple[float, ...], sigma: Real, extent: tuple[float, ...] | None
) -> NDArray[np.intp]:
    """Voxels on either side of a bead: what is wanted, but not more than three of four good beads have around them.

    Laterally that is a small image or a crop around one bead, and 5 standard deviations must be left.
    """
    places = np.array([b.voxel for b in found if b.rejected is None] or [b.voxel for b in found])
    room = np.percentile(np.minimum(places, np.array(shape) - 1 - places), 25, axis=0).astype(int)
    if extent is None:
        wanted = np.ceil(WINDOW_SIGMAS * sigma).astype(int)
        wanted[0] = room[0]
    else:
        wanted = _half_of(np.array(extent), np.array(voxel))
    least = np.minimum(np.ceil(FREE_SIGMAS * sigma).astype(int), wanted)
    least[0] = 2
    return np.asarray(np.maximum(np.minimum(wanted, room), least))


def _half_of(extent_um: Real, voxel_um: Real) -> NDArray[np.intp]:
    """Voxels on either side of the middle one in the smallest odd number that covers the extent."""
    return np.ceil((extent_um / voxel_um - 1) / 2 - 1e-9).astype(int)


def _with_extent(
    array: Real, wanted_um: float, voxel: tuple[float, ...], optics: Optics | None, used: list[Found]
) -> Real:
    """The planes that are wanted, computed where they were not recorded and the optics allow it."""
    planes = 2 * int(_half_of(np.array(wanted_um), np.array(voxel[0]))) + 1
    if planes <= len(array):
        return array
    recorded = f"The stack has {len(array) * voxel[0]:.3g} um around most beads, {wanted_um:g} um were wanted"
    if optics is None or optics.modality != "widefield":
        _warn(f"{recorded}; widefield optics would allow to compute the rest, without them the PSF is short.")
        return array
    used = [b for b in used if b.rejected is None]
    photons, background = (float(np.sum([getattr(b, n) for b in used])) for n in ("height", "background"))
    _warn(f"{recorded}; the rest was computed from a pupil fitted to the mean of the beads.")
    return with_more_planes(array, planes, voxel, optics, photons, max(background, 0.0))


def _usable(found: list[Found]) -> list[Found]:
    used = [b for b in found if b.rejected is None]
    if not used:
        reasons = Counter(str(b.rejected).split(":")[0].split(" at ")[0] for b in found)
        listed = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
        raise InputError(f"None of the {len(found)} beads found can be used ({listed}); record beads that lie apart.")
    return used


def _check_widths(
    data: NDArray[Any], found: list[Found], sigma: Real, voxel: tuple[float, ...], bead_diameter_um: float | None
) -> None:
    """Objects far wider than the optics' focus are no point sources, or the optics are wrong."""
    fitted = [b.fit.sigma for b in found if b.rejected is None and b.fit is not None]
    if fitted:
        widths = np.median(fitted, axis=0) * FWHM_PER_SIGMA * np.array(voxel)
    else:  # a large object has many maxima: then its width is where it falls to half
        local = np.asarray(data, np.float64) - float(np.median(data))
        widths = np.array([2 * half_width(local, found[0].voxel, axis) * v for axis, v in enumerate(voxel)])
    expected = sigma * FWHM_PER_SIGMA * np.array(voxel)
    ratio = float(widths[1:].mean() / expected[1:].mean())
    if ratio < (WIDE if fitted else TOO_WIDE):
        return
    size = "for point sources" if bead_diameter_um is None else f"for beads of {bead_diameter_um:g} um"
    message = (
        f"The beads are {widths[1:].mean():.3g} um wide (full width at half maximum), {ratio:.1f} times what these "
        f"optics and voxels give {size}, {expected[1:].mean():.3g} um"
    )
    if ratio > TOO_WIDE:
        raise InputError(f"{message}; they are no point sources, or the optics or the voxel size are wrong.")
    _warn(f"{message}; check their size, the optics and the voxel size.")


def _quality(
    array: NDArray[np.float32], voxel: tuple[float, ...], optics: Optics | None, beads: tuple[Bead, ...]
) -> QualityControl:
    used = [b for b in beads if b.rejected is None]
    theory = None if optics is None else theoretical_psf(optics, array.shape, voxel).array
    heights = [(b.height or 0.0) / max(abs(b.background or 0.0), 1e-30) for b in used]
    return measured_quality(array, voxel, theory, len(beads), len(used), float(np.median(heights)))


def _warn(message: str) -> None:
    warnings.warn(message, GpudeconWarning, stacklevel=4)
