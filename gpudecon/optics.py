"""Optics: the microscope, as far as the shape of its point spread function depends on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

from gpudecon.errors import InputError

Modality = Literal["widefield", "confocal", "spinning-disk", "two-photon", "light-sheet", "sted"]


class Range(NamedTuple):
    """What a number may be: low < value < high, or low <= value < high with ``low_too``."""

    low: float
    high: float
    low_too: bool = False

    def holds(self, value: object) -> bool:
        """Whether ``value`` is a finite real number in the range."""
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return self.low < float(value) < self.high or (self.low_too and value == self.low)


WAVELENGTH, INDEX, LENGTH = Range(150, 3000), Range(0.99, 2.5), Range(0, 1e5, low_too=True)
RANGES = {
    "na": Range(0, 2.5),
    "emission_nm": WAVELENGTH,
    "immersion_index": INDEX,
    "sample_index": INDEX,
    "depth_um": LENGTH,
    "coverslip_index": INDEX,
    "coverslip_um": LENGTH,
    "immersion_um": LENGTH,
    "immersion_index_design": INDEX,
    "coverslip_index_design": INDEX,
    "coverslip_um_design": LENGTH,
    "excitation_nm": WAVELENGTH,
    "pinhole_au": Range(0, 1000),
    "pinhole_spacing_um": Range(0, 1000),
    "sheet_na": Range(0, 1.5),
    "sheet_waist_um": Range(0, 1e4),
    "sheet_offset_um": Range(-1e4, 1e4),
    "sheet_distance_um": Range(-1e5, 1e5),
    "sted_nm": WAVELENGTH,
    "sted_saturation": Range(0, 1e4, low_too=True),
    "sted_residual": Range(0, 1, low_too=True),
    "sted_immune": Range(0, 1, low_too=True),
}


class Parameters(NamedTuple):
    """What a modality must be told and what it may be told besides."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


MODALITIES: dict[str, Parameters] = {
    "widefield": Parameters(),
    "confocal": Parameters(("excitation_nm", "pinhole_au")),
    "spinning-disk": Parameters(("excitation_nm", "pinhole_au", "pinhole_spacing_um")),
    "two-photon": Parameters(("excitation_nm",), ("pinhole_au",)),
    "light-sheet": Parameters(
        (),
        ("sheet_na", "sheet_waist_um", "sheet_profile", "excitation_nm", "sheet_offset_um", "sheet_distance_um"),
    ),
    "sted": Parameters(
        ("excitation_nm", "sted_nm", "sted_saturation"), ("pinhole_au", "sted_pattern", "sted_residual", "sted_immune")
    ),
}
# What only some modalities have; each is None unless it is given.
SPECIAL = tuple(dict.fromkeys(name for p in MODALITIES.values() for name in p.required + p.optional))


@dataclass(frozen=True)
class Optics:
    """A fluorescence microscope.  ``Optics(na=1.4, emission_nm=520, immersion_index=1.515)`` is a complete one.

    Wavelengths are in vacuum.  What a modality needs and does not get, and what it is given and does not use, is an
    `InputError`, as is every impossible value.

    Parameters
    ----------
    na
        Numerical aperture of the objective, below the refractive index of its immersion.
    emission_nm
        Wavelength of the detected light.
    immersion_index
        Refractive index of the immersion medium: 1.0 air, 1.33 water, 1.47 glycerol, 1.515 oil.
    sample_index
        Refractive index of the specimen's medium; None takes that of the immersion.
    modality
        "widefield", "confocal", "spinning-disk", "two-photon", "light-sheet" or "sted".
    depth_um
        Distance of the light source from the coverslip, into the specimen.
    coverslip_index, coverslip_um
        The coverslip; a thickness of 0 means that there is none (a dipping lens).
    immersion_um, immersion_index_design, coverslip_index_design, coverslip_um_design
        What the objective is corrected for: its working distance from the coverslip and the media in which it is
        free of aberration.  Indices and thickness are by default those in use, and then cancel.
    excitation_nm
        Wavelength of the excitation; for "two-photon" that of the laser, about twice the absorption's.
    pinhole_au
        *Diameter* of the detection pinhole in Airy units of the emission, 1.22 emission / na, at the specimen's scale.
        Without one, "two-photon" and "sted" collect all light.
    pinhole_spacing_um
        "spinning-disk": distance of neighbouring pinholes (a square lattice), divided by the magnification between
        disk and specimen.
    sheet_na, sheet_waist_um, sheet_profile
        "light-sheet": one of them says how thick the sheet is.  A Gaussian beam of numerical aperture ``sheet_na`` has
        the waist (1 / e^2 radius) excitation / (pi sheet_na).  A measured profile is a sequence of pairs (z in um
        from the focal plane, away from the objective; intensity), 0 outside.
    sheet_offset_um
        How far the sheet's middle lies beyond the focal plane, away from the objective.
    sheet_distance_um
        Distance from the waist of the Gaussian sheet, along its propagation.
    sted_nm, sted_saturation
        "sted": wavelength of the depletion beam and its largest intensity in units of that which depletes to 1 / e.
    sted_pattern
        "vortex" (a doughnut in the plane, default) or "bottle" (depletes above and below, by a pi step in the pupil).
    sted_residual, sted_immune
        Depletion intensity in the centre relative to the largest one, and the fraction of dye that is not depleted.
    """

    na: float
    emission_nm: float
    immersion_index: float
    sample_index: float | None = None
    modality: Modality = "widefield"
    depth_um: float = 0.0
    coverslip_index: float = 1.515
    coverslip_um: float = 170.0
    immersion_um: float = 150.0
    immersion_index_design: float | None = None
    coverslip_index_design: float | None = None
    coverslip_um_design: float | None = None
    excitation_nm: float | None = None
    pinhole_au: float | None = None
    pinhole_spacing_um: float | None = None
    sheet_na: float | None = None
    sheet_waist_um: float | None = None
    sheet_profile: tuple[tuple[float, float], ...] | None = None
    sheet_offset_um: float | None = None
    sheet_distance_um: float | None = None
    sted_nm: float | None = None
    sted_saturation: float | None = None
    sted_pattern: Literal["vortex", "bottle"] | None = None
    sted_residual: float | None = None
    sted_immune: float | None = None

    def __post_init__(self) -> None:
        if self.modality not in get_args(Modality):
            raise InputError(f"modality is {self.modality!r}; it must be one of {', '.join(get_args(Modality))}.")
        self._check_parameters()
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if value is None and type(self).__dataclass_fields__[name].default is None:
                continue
            if not allowed.holds(value):
                raise InputError(
                    f"{name} is {value!r}; it must be a number {'from' if allowed.low_too else 'above'} "
                    f"{allowed.low:g} and below {allowed.high:g}."
                )
        self._check_objective()
        self._check_wavelengths()
        if self.modality == "spinning-disk":
            self._check_lattice()
        if self.modality == "light-sheet":
            self._check_sheet()
        if self.sted_pattern not in (None, "vortex", "bottle"):
            raise InputError(f"sted_pattern is {self.sted_pattern!r}; it must be 'vortex' or 'bottle'.")

    @property
    def record(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as JSON can hold them."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {name: value.item() if hasattr(value, "item") else value for name, value in given.items()}

    @property
    def airy_unit_um(self) -> float:
        """Diameter of the Airy disc of the emission, 1.22 emission / na, in um."""
        return 1.22 * self.emission_nm * 1e-3 / self.na

    def _check_parameters(self) -> None:
        known = MODALITIES[self.modality]
        missing = [name for name in known.required if getattr(self, name) is None]
        if missing:
            raise InputError(f"modality {self.modality!r} needs {' and '.join(missing)}: give a value.")
        unused = [n for n in SPECIAL if getattr(self, n) is not None and n not in known.required + known.optional]
        if unused:
            raise InputError(
                f"modality {self.modality!r} does not use {' and '.join(unused)}; leave that out or name the modality "
                f"it belongs to ({', '.join(_modalities_with(unused[0]))})."
            )

    def _check_objective(self) -> None:
        for name, needed in (
            ("immersion_index", True),
            ("immersion_index_design", self.immersion_index_design is not None),
            ("coverslip_index", self.coverslip_um > 0 or bool(self.coverslip_um_design)),
            ("coverslip_index_design", self.coverslip_index_design is not None),
        ):
            if needed and self.na >= getattr(self, name):
                raise InputError(
                    f"na {self.na:g} is not below {name} {getattr(self, name):g}, so its outermost rays could not "
                    "pass; check both (oil and glass 1.515, glycerol 1.47, water 1.33, air 1.0)."
                )

    def _check_wavelengths(self) -> None:
        ex, em, sted = self.excitation_nm, self.emission_nm, self.sted_nm
        if ex is not None and self.modality == "two-photon" and not em < ex < 3 * em:
            raise InputError(
                f"excitation_nm is {ex:g} with emission_nm {em:g}; for two-photon give the laser's wavelength, longer "
                "than the emission and shorter than three times it."
            )
        if ex is not None and self.modality != "two-photon" and ex >= em:
            raise InputError(f"excitation_nm {ex:g} is not below emission_nm {em:g}; are they exchanged?")
        if sted is not None and ex is not None and sted <= ex:
            raise InputError(f"sted_nm {sted:g} is not above excitation_nm {ex:g}; it would excite, not deplete.")

    def _check_lattice(self) -> None:
        assert self.pinhole_au is not None  # asked for before
        assert self.pinhole_spacing_um is not None
        if self.pinhole_spacing_um <= self.pinhole_au * self.airy_unit_um:
            raise InputError(
                f"pinhole_spacing_um {self.pinhole_spacing_um:g} is not above the pinhole's diameter, "
                f"{self.pinhole_au:g} Airy units or {self.pinhole_au * self.airy_unit_um:.3g} um: pinholes overlap. "
                "Both are sizes on the disk divided by the magnification."
            )

    def _check_sheet(self) -> None:
        ways = [n for n in ("sheet_na", "sheet_waist_um", "sheet_profile") if getattr(self, n) is not None]
        if len(ways) != 1:
            raise InputError(
                "modality 'light-sheet' needs exactly one of sheet_na, sheet_waist_um and sheet_profile; "
                f"given: {' and '.join(ways) or 'none'}."
            )
        if self.sheet_profile is not None:
            object.__setattr__(self, "sheet_profile", _checked_profile(self.sheet_profile))
        needed = needs_excitation(vars(self))
        if needed and self.excitation_nm is None:
            raise InputError("modality 'light-sheet' needs excitation_nm to follow a Gaussian beam: give a value.")
        unused = [
            n
            for n, used in (("excitation_nm", needed), ("sheet_distance_um", self.sheet_profile is None))
            if getattr(self, n) is not None and not used
        ]
        if unused:
            raise InputError(f"A light sheet given by {ways[0]} does not use {' and '.join(unused)}; leave that out.")


def needs_excitation(given: Mapping[str, Any]) -> bool:
    """Whether the PSF of optics with these fields depends on the wavelength of the excitation."""
    modality = given.get("modality", "widefield")
    if modality != "light-sheet":
        return "excitation_nm" in MODALITIES[modality].required
    has = {name for name, value in given.items() if value is not None}
    return "sheet_na" in has or {"sheet_waist_um", "sheet_distance_um"} <= has


def _modalities_with(name: str) -> list[str]:
    return [modality for modality, p in MODALITIES.items() if name in p.required + p.optional]


def _checked_profile(profile: Any) -> tuple[tuple[float, float], ...]:
    """``profile`` as pairs of floats, z rising, intensities not negative and not all 0."""
    try:
        pairs = tuple((float(z), float(intensity)) for z, intensity in profile)
    except (TypeError, ValueError):
        pairs = ()
    is_finite = all(math.isfinite(number) for pair in pairs for number in pair)
    is_rising = all(a[0] < b[0] for a, b in pairwise(pairs))
    has_light = all(i >= 0 for _, i in pairs) and any(i > 0 for _, i in pairs)
    if len(pairs) < 2 or not (is_finite and is_rising and has_light):
        raise InputError(
            "sheet_profile must be two or more pairs (z in um, intensity) with rising z and intensities that are not "
            "negative and not all 0."
        )
    return pairs
