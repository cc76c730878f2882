"""Quality without a reference: how blurred a picture is, by scikit-image (the optional extra ``quality``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from spro_hf.errors import UserError
from spro_hf.rewards.base import Brief


class Blur:
    """The perceptual blur metric of Crete et al. 2007 as ``skimage.measure.blur_effect`` computes it: 0 is sharp, 1 blurred.

    How much a picture changes when it is blurred again, along the axis where it changes least; of its luminance. Lower is
    better, so a recipe weighs it negatively. It stands where BRISQUE was wanted: no library kept today computes that without
    fetching its model at run time or unpickling it.
    """

    differentiable = False

    def __init__(self) -> None:
        try:
            from skimage.measure import blur_effect
        except ImportError as error:
            raise UserError(
                "scorers.blur: it needs scikit-image; install it with `pip install spro_hf[quality]`."
            ) from error
        self._blur_effect = blur_effect

    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        return [float(self._blur_effect(np.asarray(image), channel_axis=-1)) for image in images]
