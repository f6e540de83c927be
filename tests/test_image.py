"""Image: axes, sizes and the refusal of contradictions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpudecon as gd
from gpudecon.errors import InputError


@given(
    axes=st.sampled_from(["yx", "zyx", "cyx", "czyx", "tzyx", "tczyx", "tcyx"]),
    t=st.integers(0, 1),
    c=st.integers(0, 2),
)
def test_volume_is_the_stack_of_that_time_and_channel(axes, t, c):
    full = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    index = tuple(slice(None) if a in axes else 0 for a in "tczyx")
    image = gd.Image(full[index], axes)
    t, c = t * ("t" in axes), c * ("c" in axes)
    expected = full[t, c] if "z" in axes else full[t, c, 0]
    assert (image.volume(t, c) == expected).all()
    assert image.spatial_shape == expected.shape
    assert image.sizes["c"] == (3 if "c" in axes else 1)


@pytest.mark.parametrize("index", [{"c": 3}, {"c": -1}, {"t": 1}])
def test_volume_that_is_not_there(index):
    (name,) = index
    image = gd.Image(np.zeros((2, 4, 5, 6)), "czyx")
    with pytest.raises(InputError, match=rf"^{name} is {index[name]}, but the image has \d along {name}"):
        image.volume(**index)


def test_select_describes_the_output():
    image = gd.Image(np.zeros((4, 3, 5, 6), np.uint16), "tcyx", (0.1, 0.1), tuple(gd.Channel(n) for n in "abc"))
    chosen = image.select(channels=(2, 0), timepoints=(1,))
    assert chosen.shape == (1, 2, 5, 6)
    assert [c.name for c in chosen.channels] == ["c", "a"]
    with pytest.raises(InputError, match="no pixels"):
        chosen.volume()


@pytest.mark.parametrize(
    ("timepoints", "seconds"),
    [
        (range(0, 12, 5), 12.5),
        ((3, 4), 2.5),
        ((7,), 2.5),
        ((0, 1, 3), None),
        ((4, 2, 0), None),
        ((1, 1), None),
    ],
)
def test_time_step_is_that_between_the_chosen_time_points(timepoints, seconds):
    image = gd.Image(np.zeros((12, 5, 6)), "tyx", time_step_s=2.5)
    assert image.select((0,), timepoints).time_step_s == seconds
    assert gd.Image(np.zeros((12, 5, 6)), "tyx").select((0,), timepoints).time_step_s is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3)), "xy"), "'xy'"),
        ((np.zeros((2, 3)), "zyx"), "name 3 dimensions"),
        ((np.zeros((2, 3, 4)), "qyx"), "'qyx'"),
        ((np.zeros((0, 3)), "yx"), "empty"),
        ((np.zeros((2, 3)), "yx", (0.1,)), "give 2 positive"),
        ((np.zeros((2, 3)), "yx", 0.1), "give 2 positive"),
        ((np.zeros((2, 3, 4)), "zyx", (0.1, -0.1, 0.1)), "give 3 positive"),
        ((np.zeros((2, 3, 4)), "cyx", None, (gd.Channel("a"),)), "1 channels are described but the image has 2"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        gd.Image(*arguments)
