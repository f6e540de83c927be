"""Fixtures that several folders share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def rng():
    return np.random.default_rng(20261123)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real stacks beside the checkout; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder of real stacks, ../shared/data, is not here")
    return SHARED_DATA


@pytest.fixture
def asymmetric_psf():
    """A function shape -> PSF without any symmetry, sum 1, most of its light near n // 2."""

    def make(shape, seed=5):
        rng = np.random.default_rng(seed)
        grid = np.meshgrid(*((np.arange(n) - n // 2) / max(n / 5, 1) for n in shape), indexing="ij")
        envelope = np.exp(-sum((g - 0.2 * i) ** 2 for i, g in enumerate(grid)) / 2)
        psf = envelope * rng.uniform(0.2, 1.0, shape)
        return (psf / psf.sum()).astype(np.float32)

    return make


@pytest.fixture
def scene(asymmetric_psf, rng):
    """A function (shape, psf shape) -> (image with a blurred blob well inside, PSF)."""

    def make(shape, psf_shape):
        truth = np.zeros(shape, np.float32)
        truth[tuple(n // 2 for n in shape)] = 1000
        truth[tuple(n // 2 - (n > 4) for n in shape)] = 600
        psf = asymmetric_psf(psf_shape)
        return rng.poisson(ndimage.convolve(truth, psf, mode="constant")).astype(np.float32), psf

    return make
