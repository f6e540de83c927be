"""Constants: decided once for a whole image, they make every part come out as in the whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpudecon as gd
from gpudecon.errors import GpudeconWarning, InputError, RunError
from gpudecon.methods.record import Record
from gpudecon.pilot import survey
from gpudecon.recording import Conditions

VARIANTS = [
    *((name, {}) for name, method in gd.METHODS.items() if method().divisible),
    ("rl", {"acceleration": "biggs", "start": "wiener", "tv": 0.01}),
    ("rl", {"back_projector": "wb", "acceleration": "biggs"}),
    ("rl", {"back_projector": "omw", "alpha": 1e-3, "iterations": 12}),  # diverges: the guard takes steps back
    ("rl", {"back_projector": "omw", "alpha": 1e-3, "acceleration": "biggs", "iterations": 12}),
    ("rl", {"stop": "auto", "acceleration": "shb", "iterations": 80}),
    ("rl", {"stop": gd.RelativeChange(0.05)}),
    ("cls", {"gamma": "gcv"}),
    ("fista_tv", {"weight": 0.01}),
]
each_variant = pytest.mark.parametrize(("name", "options"), VARIANTS)


@pytest.fixture
def settled(scene):
    """A function (method, options) -> (image, PSF, settings, constants of the image)."""

    def make(name, options):
        image, psf = scene((7, 20, 23), (5, 6, 9))
        image += 30 + np.arange(23, dtype=np.float32)  # a background that is not flat
        used = psf if gd.METHODS[name].needs_psf else None
        settings = {"background": "auto", "device": "cpu", **options}
        return image, used, settings, gd.Deconvolver(image.shape, used, name, **settings).decide(image)

    return make


@each_variant
def test_an_image_with_its_own_constants_comes_out_the_same(settled, name, options):
    """Bit for bit, after a round trip through JSON; and deciding again gives the same numbers."""
    image, psf, settings, constants = settled(name, options)
    told = gd.Constants.from_dict(json.loads(json.dumps(constants.to_dict(), allow_nan=False)))
    assert told == constants
    assert gd.Deconvolver(image.shape, psf, name, **settings, threads=1).decide(image) == constants
    plain = gd.deconvolve(image, psf, name, **settings)
    assert (gd.deconvolve(image, psf, name, constants=told, **settings) == plain).all()


@each_variant
def test_nothing_is_decided_from_a_part(settled, name, options):
    """An image of other brightness, noise and size asks for numbers of its own; with constants none are made."""
    _, psf, settings, constants = settled(name, options)
    other = np.random.default_rng(1).poisson(3000, (6, 17, 15)).astype(np.float32)
    other[2, 3, 4] = 60000
    decon = gd.Deconvolver(other.shape, psf, name, constants=constants, **settings)
    made = []
    decon(other, lambda k, f, info: made.append(k))
    assert made[-1] == constants.iterations
    assert {"background", "highest"} <= set(constants.recorded)
    short = {key: values[:-1] for key, values in constants.recorded.items()}
    cut = gd.Constants(constants.asked, constants.method, short)
    with pytest.raises((RunError, ValueError)):
        gd.deconvolve(other, psf, name, constants=cut, **settings)


@pytest.mark.parametrize("acceleration", ["none", "shb", "biggs"])
@pytest.mark.parametrize("decided_with_mask", [False, True])
def test_parts_with_and_without_a_mask_keep_step(scene, acceleration, decided_with_mask):
    """Far from the only saturated voxel, a part comes out as without it: the same steps are taken back in both."""
    image, psf = scene((5, 18, 90), (3, 4, 5))
    bright = image.copy()
    bright[2, 9, 1] = 60000
    settings = {
        "saturation": 50000, "edges": "reflect", "device": "cpu", "background": 10.0, "iterations": 9,
        "back_projector": "omw", "alpha": 0.01, "cutoff": 0.1, "acceleration": acceleration,
    }  # fmt: skip
    constants = gd.Deconvolver(image.shape, psf, "rl", **settings).decide(bright if decided_with_mask else image)
    assert {0.0, 1.0} <= set(constants.recorded["fits"]), "some steps are taken back, some are not"
    one, other = (gd.deconvolve(part, psf, "rl", constants=constants, **settings) for part in (image, bright))
    far = np.s_[..., 30:]
    assert np.abs(one[far] - other[far]).max() <= 1e-3 * one[far].max()


@each_variant
def test_dark_and_hidden_parts_are_no_error(settled, name, options):
    _, psf, settings, constants = settled(name, options)
    dark = np.zeros((7, 20, 23), np.uint16)
    restored = gd.deconvolve(dark, psf, name, constants=constants, **settings)
    assert np.isfinite(restored).all()
    if "non-negative" in gd.METHODS[name].promises:
        assert (restored == 0).all()
    if gd.METHODS[name].takes_mask:
        hidden = gd.deconvolve(dark + 30, psf, name, constants=constants, saturation=30, **settings)
        assert np.isfinite(hidden).all()


def test_negative_voxels_of_a_part_are_set_to_zero_without_a_warning(settled):
    image, psf, settings, constants = settled("rl", {})
    below = image - 40
    assert below.min() < 0
    restored = gd.deconvolve(below, psf, constants=constants, **settings)
    assert (restored == gd.deconvolve(np.maximum(below, 0), psf, constants=constants, **settings)).all()


def test_warnings_are_given_where_it_is_decided(rng, asymmetric_psf):
    """Of a stack too thin for a direct filter."""
    image = rng.poisson(50, (3, 16, 15)).astype(np.float32)
    psf = asymmetric_psf((9, 5, 5))
    with pytest.warns(GpudeconWarning, match="The stack has 3 planes"):
        constants = gd.Deconvolver(image.shape, psf, "wiener", device="cpu").decide(image)
    gd.deconvolve(image, psf, "wiener", device="cpu", constants=constants)


def test_the_stop_rule_runs_once(settled):
    options = {"stop": "auto", "acceleration": "shb", "iterations": 80}
    image, psf, settings, constants = settled("rl", options)
    seen = []
    plain = {**settings, "callback": lambda k, f, info: seen.append((k, info.choice))}
    gd.deconvolve(image, psf, **plain)
    assert seen[-1] == (constants.iterations, seen[-1][1])
    assert seen[-1][1].iterations == constants.iterations == constants.method.iterations
    seen.clear()
    gd.deconvolve(image, psf, constants=constants, **plain)
    assert seen[-1] == (constants.iterations, None)


def test_what_cannot_be_done_in_parts_is_refused(settled):
    image, psf, settings, constants = settled("rl", {})
    with pytest.raises(InputError, match=r"decided for .*iterations=30.*not for .*iterations=20"):
        gd.deconvolve(image, psf, constants=constants, iterations=20, **settings)
    with pytest.raises(InputError, match="opposite faces touch"):
        gd.deconvolve(image, psf, constants=constants, edges="periodic", **settings)
    for name, options in (("homomorphic", {}), ("ictm", {}), ("wiener", {"noise_to_signal": "spectrum"})):
        used = psf if gd.METHODS[name].needs_psf else None
        spectral = gd.Deconvolver(image.shape, used, name, device="cpu", **options).decide(image)
        with pytest.raises(InputError, match=f"{name} with these options depends on the whole image"):
            gd.deconvolve(image, used, name, constants=spectral, device="cpu", **options)
    with pytest.raises(InputError, match="restore without saturation"):
        gd.Deconvolver(image.shape, psf, "wiener", saturation=200.0, device="cpu").decide(image)


def test_record_tells_what_was_noted():
    first = Record()
    assert [first.number("step", lambda v=v: v) for v in (1.5, 2.0)] == [1.5, 2.0]
    assert first.numbers("curve", lambda: [3, 4]) == [3.0, 4.0]
    second = Record(first.noted, is_part=True)
    assert [second.number("step", lambda: 0.0) for _ in range(2)] == [1.5, 2.0]
    assert second.numbers("curve", lambda: []) == [3.0, 4.0]
    with pytest.raises(RunError, match="hold 2 values of 'step' and one more is needed"):
        second.number("step", lambda: 0.0)
    with pytest.raises(RunError, match="hold no 'level'"):
        second.numbers("level", lambda: [1.0])


@given(
    shape=st.one_of(
        st.tuples(*[st.integers(1, 90)] * 3),
        st.tuples(*[st.integers(1, 3000)] * 2),
        st.tuples(*[st.integers(1, 700)] * 3),
    ),
    voxels=st.integers(1, 100_000),
)
def test_pilot_regions_are_boxes_of_the_image(shape, voxels):
    boxes = gd.pilot_regions(shape, voxels)
    assert boxes == gd.pilot_regions(shape, voxels)
    sizes = {tuple(s.stop - s.start for s in box) for box in boxes}
    assert len(sizes) == 1
    (size,) = sizes
    assert np.prod(size) <= voxels
    assert (size == shape) == (len(boxes) == 1)
    assert all(0 <= s.start < s.stop <= n for box in boxes for s, n in zip(box, shape, strict=True))


def test_pilot_regions_are_spread_over_the_image():
    boxes = gd.pilot_regions((40, 3000, 4000), 1 << 20, count=64)
    assert len(boxes) == 64
    assert all(box[0] == slice(0, 40) for box in boxes)
    assert all(box[axis].stop - box[axis].start >= 64 for box in boxes for axis in (1, 2))
    for axis, n in ((1, 3000), (2, 4000)):
        thirds = np.histogram([(box[axis].start + box[axis].stop) / 2 for box in boxes], bins=3, range=(0, n))[0]
        assert thirds.min() > 64 / 3 * 0.6


def test_survey_pools_what_samples_show(rng):
    """Against the same numbers from all samples at once."""
    image = rng.poisson(20, (4, 300, 40)).astype(np.uint16)
    image[:, 150:] += 100
    image[:, 210:230, 5:25] += rng.poisson(300, (4, 20, 20)).astype(np.uint16)
    image[0, 299, 0] = 5000
    boxes = [(slice(None), slice(i, i + 100)) for i in (0, 100, 200)]
    camera = gd.Camera(offset=15.0, gain=1.0)
    best, known = survey(image.__getitem__, boxes, Conditions("auto", camera, None))
    assert (best == image[:, 200:]).all()
    assert known["highest"] == [5000.0]
    (background,) = known["background"]
    assert background == pytest.approx(20 - 2.33 * np.sqrt(20 / 27), abs=0.3)  # the darkest 1 % of means over 27 voxels
    light = image.astype(float) - max(background, 15.0)
    assert known["level"] == pytest.approx([np.maximum(light, 0).mean()])
    assert known["mean"] == pytest.approx([light.mean()])
    _, given_background = survey(image.__getitem__, boxes, Conditions(7.0, camera, 1000.0))
    assert given_background["background"] == [7.0]
    assert given_background["highest"] == [image[image < 1000].max()]
    with pytest.raises(InputError, match="All samples"):
        survey(image.__getitem__, boxes, Conditions(0.0, None, 0.0))


def test_decide_from_samples(rng, asymmetric_psf):
    """Levels of the whole, the stop rule's choice from the sample that has structure."""
    psf = asymmetric_psf((3, 5, 4))
    image = rng.poisson(10, (5, 20, 90)).astype(np.float32)
    image[2, 5:15:3, 70:85:4] += 500
    boxes = [(..., slice(0, 30)), (..., slice(60, 90)), (..., slice(30, 60))]
    settings = {"background": 10.0, "device": "cpu", "stop": "auto", "iterations": 12}
    constants = gd.decide(image.__getitem__, boxes, psf, **settings)
    sample = image[boxes[1]]
    chosen = gd.Deconvolver(sample.shape, psf, **settings).decide(sample)
    assert constants.iterations == chosen.iterations
    assert constants.recorded["level"] == pytest.approx([np.maximum(image - 10.0, 0).mean()])
    assert constants.highest == image.max()
    assert gd.decide(image.__getitem__, boxes, psf, **settings) == constants
