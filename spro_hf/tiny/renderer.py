"""The embedded world's renderer as a pipeline without a network: a caption in, a picture that shows just that out."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from PIL import Image

from spro_hf.errors import UserError
from spro_hf.tiny import world
from spro_hf.tiny.render import render
from spro_hf.tiny.world import Request, Truth

CENTRAL = 0.4  # of one-object scenes, as ``world.sample_truth`` draws them; the other places share the rest


class Renderer(DiffusionPipeline):
    """Draws 32×32 RGB pictures of captions of the embedded world, where another pipeline would have to be trained to.

    It is what reference pictures of that world come from. The modifiers that a caption names are drawn and no others; what
    else it leaves open is drawn at random, see ``scene``. A picture depends on its caption and its generator alone.
    """

    def __init__(self):
        super().__init__()
        self.register_to_config()  # of nothing: there is no component

    def encode_prompt(self, prompt: str | list[str]) -> tuple[list[Request]]:
        """What each prompt asks for. A prompt that names no thing of the world is a UserError."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        asked = [world.read(text) for text in prompts]
        for text, request in zip(prompts, asked, strict=True):
            if not request.things:
                raise UserError(
                    f"The renderer of the embedded world knows no thing in {text!r}; name a colour and a shape, as in 'a red "
                    "circle'."
                )
        return (asked,)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """One picture for each prompt; ``generator`` is one for each, or one for all of them, one after the other."""
        if output_type != "pil":
            raise UserError(f"The renderer of the embedded world gives pictures as 'pil', not as '{output_type}'.")
        (asked,) = self.encode_prompt(prompt)
        generators = generator if isinstance(generator, list) else [generator] * len(asked)
        pictures = []
        for request, one in zip(asked, generators, strict=True):
            rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=one)))
            truth = scene(request, rng)
            pictures.append(Image.fromarray(render(truth, int(rng.integers(1 << 31)))))
        return ImagePipelineOutput(images=pictures)


def scene(request: Request, rng: np.random.Generator) -> Truth:
    """What a request asks for, with what it leaves open drawn: a place, a background, the way in which two things stand.

    A scene of the held-out part is drawn only where the request leaves no other, so that no reference shows one by chance.
    """
    things, arrangement = request.ordered()
    usual = world.POSITIONS if len(things) == 1 else world.ARRANGEMENTS[len(world.POSITIONS) :]
    places = [arrangement] if arrangement in usual else list(usual)
    backgrounds = [request.background] if request.background else list(world.BACKGROUNDS)
    possible = [Truth(things, place, background) for place, background in product(places, backgrounds)]
    possible = [truth for truth in possible if not world.held_out(truth)] or possible
    weights = np.array([CENTRAL if truth.arrangement == "center" else (1 - CENTRAL) / 4 for truth in possible])
    chosen = possible[rng.choice(len(possible), p=weights / weights.sum())]
    return Truth(chosen.things, chosen.arrangement, chosen.background, frozenset(request.modifiers))
