"""A field of beads that several files look at, and the optics it was made with."""

import pytest

import gpudecon as gd

from .simulated import EMISSION_UM, INDEX, NA, bead_field


@pytest.fixture(scope="session")
def optics():
    return gd.Optics(na=NA, emission_nm=EMISSION_UM * 1e3, immersion_index=INDEX)


@pytest.fixture(scope="session")
def field():
    return bead_field()
