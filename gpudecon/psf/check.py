"""What is wrong with a PSF, for an image and for the optics: `check_psf`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.image import checked_voxel_um
from gpudecon.optics import Optics
from gpudecon.psf.align import fourier_shift
from gpudecon.psf.finish import in_passband
from gpudecon.psf.measured import fitted_centre, lateral_frame
from gpudecon.psf.otf_support import OTFSupport, otf_support
from gpudecon.psf.psf import PSF, SUM_TOLERANCE
from gpudecon.psf.quality_control import correlation, fwhm_um
from gpudecon.psf.theory import theoretical_psf

Real = NDArray[np.float64]
Severity = Literal["fatal", "warning", "note"]

PITCH_TOLERANCE = 1e-3
NYQUIST_TOLERANCE = 1.05
FEWEST_VOXELS = 1.7  # in a width at half maximum, where no optics say Nyquist's step; at that step it is 1.8 to 2
OFF_CENTRE, OFF_CENTRE_Z = 0.25, 0.1  # voxels, and along z of the width at half maximum if that is more
# Median of the lateral frame of the middle planes over the peak, beyond what theory has there, or without theory.
BACKGROUND, BACKGROUND_UNKNOWN = 2e-3, 1e-2
TRUNCATED = 0.03  # brightest place of a face of the window over the peak
PLATEAU = 3  # equal highest values in a row
OUTSIDE = 0.05  # of the OTF's norm, beyond the passband
REVERSED = 0.02  # gain of correlation with theory by turning z around
UNLIKE = 0.85  # correlation with theory, both within the passband
# Width over that of theory: beyond the first a warning, beyond the second it is no image of a point with these optics.
WIDTH, FATAL_WIDTH = (0.8, 1.3), (0.4, 3.0)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a short name, how bad, the figure, and what to do.

    "fatal": not usable; "warning": the restoration will be wrong to some degree; "note": will be repaired or harmless.
    """

    name: str
    severity: Severity
    figure: str
    advice: str

    def __str__(self) -> str:
        return f"{self.figure}; {self.advice}."


def check_psf(
    psf: PSF | NDArray[Any],
    *,
    voxel_um: tuple[float, ...] | None = None,
    image_voxel_um: tuple[float, ...] | None = None,
    optics: Optics | None = None,
) -> list[Finding]:
    """Everything that can be told to be wrong with a PSF, the worst first; an empty list for a good one.

    Parameters
    ----------
    psf
        A `PSF`, or any array (z, y, x) or (y, x): what a file holds before it is cleaned.
    voxel_um
        Voxel size of a bare array.
    image_voxel_um
        That of the image to restore.
    optics
        The microscope; allows to check width, passband, sampling and the order of z.
    """
    if isinstance(psf, PSF):
        return findings(psf.array, psf.voxel_um, image_voxel_um, optics, is_resampled=True)
    return findings(np.asarray(psf), voxel_um, image_voxel_um, optics, is_resampled=False)


def findings(
    array: NDArray[Any],
    voxel: tuple[float, ...] | None,
    image_voxel_um: tuple[float, ...] | None,
    optics: Optics | None,
    *,
    is_resampled: bool,
) -> list[Finding]:
    """As `check_psf`; ``is_resampled`` says whether it will be brought to the image's voxels, as a file is."""
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif" or 0 in array.shape:
        shape = f"The PSF holds {array.dtype} of shape {array.shape}"
        return [Finding("shape", "fatal", shape, "give real numbers (z, y, x) or (y, x)")]
    if voxel is not None:
        voxel = checked_voxel_um(voxel, array.ndim)
    if image_voxel_um is not None:
        # a PSF of other dimensions than the image is a finding, anything else but 2 or 3 sizes an error
        dimensions = len(image_voxel_um) if np.shape(image_voxel_um) in ((2,), (3,)) else array.ndim
        image_voxel_um = checked_voxel_um(image_voxel_um, dimensions, "image_voxel_um")
        if dimensions != array.ndim:
            figure = f"The PSF has {array.ndim} dimensions, the image {dimensions}"
            return [Finding("dimensions", "fatal", figure, "give a PSF of the image's dimensions")]
    data = np.asarray(array, np.float64)
    found = list(_unusable(data))
    if not found:
        support = None if optics is None else otf_support(optics)
        theory = None
        if optics is not None and voxel is not None:
            theory = theoretical_psf(optics, data.shape, voxel).array.astype(np.float64)
        found += [*_values(data, theory), *_place(data), *_pitch(voxel, image_voxel_um, is_resampled)]
        found += _nyquist(data, voxel, image_voxel_um, support)
        if voxel is not None and theory is not None:
            found += _against_optics(data, voxel, theory, support)
    order = ("fatal", "warning", "note")
    return sorted(found, key=lambda f: order.index(f.severity))


def _unusable(data: Real) -> Iterator[Finding]:
    bad = int((~np.isfinite(data)).sum())
    if bad:
        yield Finding("not finite", "fatal", f"{bad} values are NaN or infinite", "replace or crop them")
    elif data.max() <= 0:
        yield Finding(
            "empty", "fatal", f"No value is positive (highest {data.max():.3g})", "give a bright point on dark"
        )
    elif np.median(lateral_frame(data)) >= 0.5 * data.max():
        level = float(np.median(lateral_frame(data)))
        figure = f"Nothing stands out: the border is at {level:.4g}, the peak at {data.max():.4g}"
        yield Finding("no point", "fatal", figure, "crop around one point source")


def _values(data: Real, theory: Real | None) -> Iterator[Finding]:
    peak, total = float(data.max()), float(data.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        yield Finding("sum", "note", f"The sum is {total:.6g}, not 1", "it will be divided by it, to keep intensities")
    if data.min() < 0:
        severity: Severity = "warning" if data.min() < -BACKGROUND * peak else "note"
        figure = f"{int((data < 0).sum())} values are negative, the lowest {data.min() / peak:.2%} of the peak"
        yield Finding("negative", severity, figure, "subtract the background and set what is left below 0 to 0")
    background = float(np.median(lateral_frame(data))) / peak
    expected, limit = 0.0, BACKGROUND_UNKNOWN
    if theory is not None:
        expected, limit = float(np.median(lateral_frame(theory)) / theory.max()), BACKGROUND
    if background - expected > limit:
        figure = f"Background of {background:.2%} of the peak beside the focus" + (
            f", where theory has {expected:.2%}" if theory is not None else ""
        )
        yield Finding("background", "warning", figure, "subtract it; reading the PSF from a file (read_psf) does so")
    count = _longest_plateau(data)
    if count >= PLATEAU:
        figure = f"{count} neighbouring voxels have the highest value, {peak:.6g}"
        yield Finding("saturated", "warning", figure, "record the bead with less light: its peak is cut off")


def _longest_plateau(data: Real) -> int:
    """The longest row of highest values along any axis."""
    top = data == data.max()
    longest = 0
    for axis in range(data.ndim):
        run = np.zeros(np.delete(data.shape, axis), int)
        for face in np.moveaxis(top, axis, 0):
            run = (run + 1) * face
            longest = max(longest, int(run.max()))
    return longest


def _place(data: Real) -> Iterator[Finding]:
    offset = fitted_centre(data) - np.array(data.shape) // 2
    allowed = np.full(data.ndim, OFF_CENTRE)
    if data.ndim == 3:  # where light is skewed along z, its brightest plane and a Gaussian's centre differ
        allowed[0] = max(OFF_CENTRE, OFF_CENTRE_Z * fwhm_um(data, (1.0, 1.0, 1.0))[0])
    if np.any(np.abs(offset) > allowed):
        listed = ", ".join(f"{o:+.2f}" for o in offset)
        figure = f"The centre is ({listed}) voxels from n // 2"
        yield Finding("off centre", "warning", figure, "shift it there (read_psf does), or the result is shifted")
    light = data - float(np.median(lateral_frame(data)))
    for axis, name in zip(range(data.ndim), "zyx"[-data.ndim :], strict=True):
        if data.shape[axis] < 3:
            continue
        fraction = max(_brightest(np.take(light, end, axis=axis)) for end in (0, -1)) / float(light.max())
        if fraction > TRUNCATED:
            figure = f"Truncated: {fraction:.1%} of the peak at the ends of {name}"
            yield Finding("truncated", "warning", figure, f"record or compute more along {name}")


def _brightest(face: Real) -> float:
    """Highest mean over three neighbours along each axis, which noise raises less than it does single values."""
    from scipy import ndimage

    return float(ndimage.uniform_filter(face, tuple(min(3, n) for n in face.shape), mode="nearest").max())


def _pitch(
    voxel: tuple[float, ...] | None, image_voxel: tuple[float, ...] | None, is_resampled: bool
) -> Iterator[Finding]:
    if image_voxel is None:
        return
    if voxel is None:
        yield Finding("pitch", "note", "The PSF's voxel size is not known", "it is taken to be that of the image")
    elif not np.allclose(voxel, image_voxel, rtol=PITCH_TOLERANCE):
        figure = f"The PSF's voxels are {_listed(voxel)} um, the image's {_listed(image_voxel)} um"
        if is_resampled:
            yield Finding("pitch", "note", figure, "it will be resampled; check that both sizes are right")
        else:
            advice = "a file or gpudecon.PSF(array, voxel_um) will be resampled, a bare array is not"
            yield Finding("pitch", "warning", figure, advice)


def _nyquist(
    data: Real, voxel: tuple[float, ...] | None, image_voxel: tuple[float, ...] | None, support: OTFSupport | None
) -> Iterator[Finding]:
    axes = "zyx"[-data.ndim :]
    if support is None:
        if voxel is None:
            return
        for name, n, width, v in zip(axes, data.shape, fwhm_um(data, voxel), voxel, strict=True):
            if n > 1 and width < FEWEST_VOXELS * v:
                figure = f"The PSF is {width / v:.2g} voxels wide along {name} (full width at half maximum)"
                advice = f"sample with at most {width / 2:.2g} um"
                yield Finding("below Nyquist", "warning", figure, advice)
        return
    axial, lateral = support.nyquist_um  # axial 0 where the thickness of the sheet sets no limit
    for whose, sizes in (("PSF", voxel), ("image", image_voxel if image_voxel != voxel else None)):
        for name, n, v in zip(axes, data.shape, sizes or (), strict=False):
            needed = axial if name == "z" else lateral
            if n > 1 and v > NYQUIST_TOLERANCE * needed > 0:
                figure = (
                    f"The {whose}'s step of {v:g} um along {name} is above the {needed:.3g} um that Nyquist asks for"
                )
                yield Finding("below Nyquist", "warning", figure, f"sample with at most {needed:.2g} um")


def _against_optics(
    data: Real, voxel: tuple[float, ...], theory: Real, support: OTFSupport | None
) -> Iterator[Finding]:
    point = fourier_shift(data - float(np.median(lateral_frame(data))), np.array(data.shape) // 2 - fitted_centre(data))
    widths, expected = fwhm_um(point, voxel), fwhm_um(theory, voxel)
    for name, width, right in zip("zyx"[-data.ndim :], widths, expected, strict=True):
        ratio = width / right
        if not WIDTH[0] <= ratio <= WIDTH[1]:
            severity: Severity = "warning" if FATAL_WIDTH[0] <= ratio <= FATAL_WIDTH[1] else "fatal"
            figure = f"Full width along {name} {width:.3g} um, {ratio:.2f} times the {right:.3g} um of these optics"
            yield Finding("width", severity, figure, "check voxel size, NA, wavelength and the size of the bead")
    if data.ndim == 2:
        return
    if support is not None:
        outside = _outside(point, voxel, support)
        if outside > OUTSIDE:
            figure = f"{outside:.1%} of the OTF lies outside the passband of these optics"
            yield Finding("passband", "warning", figure, "average more beads (distill_psf), or check the voxel size")
        point, theory = in_passband(point, voxel, support), in_passband(theory, voxel, support)
    likeness, turned = correlation(point, theory), correlation(point, _turned(theory))
    if turned - likeness > REVERSED:
        figure = f"Turned around in z it is more like theory (correlation {turned:.3f} instead of {likeness:.3f})"
        yield Finding("z reversed", "warning", figure, "reverse the order of its planes, or check depth and indices")
    elif likeness < UNLIKE:
        figure = f"The correlation with the theory of these optics is {likeness:.2f}"
        yield Finding("unlike optics", "warning", figure, "check NA, wavelength, indices, depth, modality, voxel size")


def _outside(point: Real, voxel: tuple[float, ...], support: OTFSupport) -> float:
    from scipy import fft

    power = np.abs(fft.rfftn(point)) ** 2
    power[..., 1 : (point.shape[-1] + 1) // 2] *= 2  # the half that rfftn leaves out
    beyond = 1 - support.mask(point.shape, voxel, widened=2.0)
    return float(np.sqrt((power * beyond**2).sum() / power.sum()))


def _turned(array: Real) -> Real:
    """Reversed in z about n // 2."""
    turned = array[::-1]
    return np.roll(turned, 1, axis=0) if len(array) % 2 == 0 else turned


def _listed(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in values) + ")"
