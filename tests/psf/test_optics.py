"""Optics: simple things simple, impossible ones refused, nothing ignored."""

import dataclasses

import numpy as np
import pytest

from gpudecon.errors import InputError
from gpudecon.optics import MODALITIES, RANGES, SPECIAL, Optics

BASE = {"na": 1.4, "emission_nm": 520, "immersion_index": 1.515}
COMPLETE = {
    "widefield": {},
    "confocal": {"excitation_nm": 488, "pinhole_au": 1.0},
    "spinning-disk": {"excitation_nm": 488, "pinhole_au": 1.0, "pinhole_spacing_um": 2.5},
    "two-photon": {"excitation_nm": 920, "pinhole_au": 3.0},
    "light-sheet": {"sheet_waist_um": 2.0, "sheet_offset_um": -0.5, "excitation_nm": 488, "sheet_distance_um": 10.0},
    "sted": {
        "excitation_nm": 488,
        "sted_nm": 592,
        "sted_saturation": 10,
        "sted_pattern": "bottle",
        "sted_residual": 0.01,
        "sted_immune": 0.02,
        "pinhole_au": 1.0,
    },
}


def test_the_simplest_microscope():
    optics = Optics(na=1.4, emission_nm=520, immersion_index=1.515)
    assert optics.modality == "widefield"
    assert optics.airy_unit_um == pytest.approx(1.22 * 0.52 / 1.4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        optics.na = 1.2


@pytest.mark.parametrize("modality", MODALITIES)
def test_each_modality_takes_what_it_needs(modality):
    optics = Optics(**BASE, modality=modality, **COMPLETE[modality])
    assert hash(optics) == hash(dataclasses.replace(optics))
    assert Optics(**dataclasses.asdict(optics)) == optics


@pytest.mark.parametrize(("modality", "name"), [(m, n) for m, p in MODALITIES.items() for n in p.required])
def test_what_is_missing_is_named(modality, name):
    with pytest.raises(InputError, match=f"{modality}' needs {name}: give a value"):
        Optics(**BASE, modality=modality, **{k: v for k, v in COMPLETE[modality].items() if k != name})


@pytest.mark.parametrize(
    ("modality", "name"),
    [(m, n) for m, p in MODALITIES.items() for n in SPECIAL if n not in p.required + p.optional],
)
def test_what_a_modality_does_not_use_is_refused(modality, name):
    value = {"sheet_profile": ((0, 1), (1, 1)), "sted_pattern": "vortex"}.get(name, 0.5)
    with pytest.raises(InputError, match=f"does not use {name}; leave that out"):
        Optics(**BASE, modality=modality, **COMPLETE[modality], **{name: value})


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [-1e9, 1e9, float("nan"), "1.4", True, 1j])
def test_impossible_numbers_are_refused(name, value):
    modality = next((m for m, p in MODALITIES.items() if name in p.required + p.optional), "widefield")
    given = {**BASE, "modality": modality, **COMPLETE[modality], name: value}
    if name == "sheet_na":
        del given["sheet_waist_um"]
    with pytest.raises(InputError, match=f"{name} is .*; it must be a number"):
        Optics(**given)


@pytest.mark.parametrize("name", ["na", "emission_nm", "immersion_index", "depth_um", "coverslip_um"])
def test_what_has_a_value_cannot_be_none(name):
    with pytest.raises(InputError, match=f"{name} is None"):
        Optics(**{**BASE, name: None})


def test_numpy_numbers_are_numbers():
    assert Optics(na=np.float32(1.4), emission_nm=np.int64(520), immersion_index=np.float64(1.515)).na < 1.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modality": "brightfield"}, "modality is 'brightfield'; it must be one of widefield, confocal"),
        ({"na": 1.6}, "na 1.6 is not below immersion_index 1.515"),
        ({"immersion_index_design": 1.33}, "not below immersion_index_design 1.33"),
        ({"coverslip_index": 1.38}, "not below coverslip_index 1.38"),
        ({"coverslip_index_design": 1.38}, "not below coverslip_index_design 1.38"),
        ({"coverslip_um": 0, "coverslip_um_design": 170, "coverslip_index": 1.3}, "not below coverslip_index 1.3"),
        ({"modality": "confocal", "excitation_nm": 560, "pinhole_au": 1}, "not below emission_nm 520"),
        ({"modality": "two-photon", "excitation_nm": 460}, "laser's wavelength"),
        ({"modality": "two-photon", "excitation_nm": 1600}, "laser's wavelength"),
        ({**COMPLETE["sted"], "modality": "sted", "sted_nm": 470}, "not above excitation_nm 488"),
        ({**COMPLETE["sted"], "modality": "sted", "sted_pattern": "ring"}, "'vortex' or 'bottle'"),
        ({**COMPLETE["spinning-disk"], "modality": "spinning-disk", "pinhole_spacing_um": 0.4}, "pinholes overlap"),
        ({"modality": "light-sheet"}, "exactly one of .*given: none"),
        ({"modality": "light-sheet", "sheet_na": 0.1, "sheet_waist_um": 2}, "given: sheet_na and sheet_waist_um"),
        ({"modality": "light-sheet", "sheet_na": 0.1}, "needs excitation_nm"),
        ({"modality": "light-sheet", "sheet_waist_um": 2, "sheet_distance_um": 5}, "needs excitation_nm"),
        ({"modality": "light-sheet", "sheet_waist_um": 2, "excitation_nm": 488}, "does not use excitation_nm"),
        (
            {"modality": "light-sheet", "sheet_profile": ((0, 1), (1, 1)), "sheet_distance_um": 5},
            "does not use sheet_distance_um",
        ),
        *[
            ({"modality": "light-sheet", "sheet_profile": profile}, "two or more pairs")
            for profile in (
                ((0, 1),),
                ((0, 1), (0, 1)),
                ((0, 1), (1, -1)),
                ((0, 0), (1, 0)),
                (1, 2),
                ((0, 1), (1, np.inf)),
            )
        ],
    ],
)
def test_impossible_combinations_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        Optics(**{**BASE, **changes})


def test_a_profile_may_be_an_array():
    optics = Optics(**BASE, modality="light-sheet", sheet_profile=np.array([[-1.0, 0], [0, 2], [3, 1]]))
    assert optics.sheet_profile == ((-1, 0), (0, 2), (3, 1))


def test_a_dipping_lens_needs_no_glass():
    Optics(na=1.1, emission_nm=520, immersion_index=1.33, coverslip_um=0, coverslip_index=1.0)
