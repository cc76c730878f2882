"""How blurred a picture is: equal to the library's own number, and higher the more it is blurred."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage.measure import blur_effect

from spro_hf.errors import UserError
from spro_hf.rewards import Rewards
from spro_hf.rewards.blur import Blur


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1))


def test_it_is_the_librarys_number_and_rises_with_blur(picture):
    pictures = [picture.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 1, 3)]
    scores = [row["blur"] for row in Rewards({"blur": Blur()}, {"blur": -1.0}).score(pictures, ["x"] * 3)]
    assert scores == [blur_effect(np.asarray(p), channel_axis=-1) for p in pictures]
    assert 0 < scores[0] < scores[1] < scores[2] < 1


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(
        UserError, match=r"scorers\.blur: it needs scikit-image; install it with `pip install spro_hf\[quality\]`"
    ):
        Blur()
