"""Optics: the microscope, as far as the shape of its point spread function depends on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gpudecon.errors import InputError


@dataclass(frozen=True)
class Optics:
    """A widefield fluorescence microscope.

    Parameters
    ----------
    na
        Numerical aperture of the objective, below the refractive index of its immersion.
    emission_nm
        Wavelength of the detected light in vacuum, in nm.
    immersion_index
        Refractive index of the immersion medium: 1.0 air, 1.33 water, 1.47 glycerol, 1.515 oil.
    sample_index
        Refractive index of the specimen's medium; None takes that of the immersion.
    modality
        "widefield".
    """

    na: float
    emission_nm: float
    immersion_index: float
    sample_index: float | None = None
    modality: Literal["widefield"] = "widefield"

    def __post_init__(self) -> None:
        if self.modality != "widefield":
            raise InputError(f"modality is {self.modality!r}; 'widefield' is what there is a model for.")
        for name, low, high in (
            ("na", 0.0, 2.0),
            ("emission_nm", 150.0, 3000.0),
            ("immersion_index", 0.99, 2.5),
            ("sample_index", 0.99, 2.5),
        ):
            value = getattr(self, name)
            if value is None and name == "sample_index":
                continue
            if not isinstance(value, int | float) or not math.isfinite(value) or not low < value < high:
                raise InputError(f"{name} is {value!r}; it must be a number between {low:g} and {high:g}.")
        if self.na >= self.immersion_index:
            raise InputError(
                f"na {self.na:g} is not below immersion_index {self.immersion_index:g}, which no objective can be; "
                "check both (oil 1.515, glycerol 1.47, water 1.33, air 1.0)."
            )
