"""The oracle: reads what a picture of the embedded world truly shows, whoever drew it.

A small convolutional network trained on renders (and on renders gone through the generator's autoencoder) of the
training split. It is a measuring instrument: no recipe may be rewarded by it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from PIL import Image
from torch import Tensor, nn

from spro_hf.tiny.world import ARRANGEMENTS, BACKGROUNDS, COLOURS, MODIFIERS, SHAPES, Request, Thing, Truth

HEADS = {
    "arrangement": ARRANGEMENTS,
    "shape 1": SHAPES,
    "colour 1": COLOURS,
    "shape 2": SHAPES,
    "colour 2": COLOURS,
    "background": BACKGROUNDS,
    "modifiers": MODIFIERS,
}
SIZES = [len(names) for names in HEADS.values()]


def pixels(images: Sequence[Image.Image | np.ndarray]) -> Tensor:
    """Pictures of any size and mode as float32 of shape (n, 3, 32, 32) in [-1, 1]."""
    rows = []
    for image in images:
        picture = (image if isinstance(image, Image.Image) else Image.fromarray(image)).convert("RGB")
        rows.append(np.asarray(picture if picture.size == (32, 32) else picture.resize((32, 32), Image.BICUBIC)))
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class PictureNet(nn.Module, PyTorchModelHubMixin):
    """A convolutional reader of 32×32 pictures: float32 (n, 3, 32, 32) in [-1, 1] to (n, outputs)."""

    def __init__(self, outputs: int, width: int = 32):
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width, 4 * width, 4 * width)
        strides = (1, 2, 1, 2, 1, 2)
        layers: list[nn.Module] = []
        previous = 3
        for channels, stride in zip(widths, strides, strict=True):
            layers += [nn.Conv2d(previous, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.SiLU()]
            previous = channels
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(nn.Linear(previous * 16, 8 * width), nn.SiLU(), nn.Linear(8 * width, outputs))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.trunk(pictures))


def labels(truths: Sequence[Truth]) -> tuple[Tensor, Tensor]:
    """Truths as class indices (n, 6), −1 where there is no second thing, and modifiers (n, 12) as 0 or 1."""
    rows = []
    for t in truths:
        row = [ARRANGEMENTS.index(t.arrangement)]
        for i in range(2):
            thing = t.things[i] if i < len(t.things) else None
            row += [SHAPES.index(thing.shape), COLOURS.index(thing.colour)] if thing else [-1, -1]
        rows.append([*row, BACKGROUNDS.index(t.background)])
    return torch.tensor(rows), torch.tensor([[float(m in t.modifiers) for m in MODIFIERS] for t in truths])


def reading_loss(outputs: Tensor, classes: Tensor, modifiers: Tensor) -> Tensor:
    """Cross-entropy of every head that applies, plus binary cross-entropy of the modifiers; a scalar."""
    *heads, last = outputs.split(SIZES, -1)
    loss = nn.functional.binary_cross_entropy_with_logits(last, modifiers) * 3
    for head, target in zip(heads, classes.T, strict=True):
        loss = loss + nn.functional.cross_entropy(head, target, ignore_index=-1)
    return loss


class Oracle:
    """Reads pictures: ``read`` gives the whole truth, ``obeys`` the share of a caption that a picture shows."""

    def __init__(self, net: PictureNet):
        self.net = net.eval()

    @classmethod
    def load(cls) -> Oracle:
        """The oracle that ships with the package."""
        from spro_hf.tiny.home import path

        return cls(PictureNet.from_pretrained(path("oracle")))

    @torch.no_grad()
    def outputs(self, images: Sequence[Image.Image | np.ndarray] | Tensor) -> list[Tensor]:
        """Log-probabilities per head, each (n, classes); the last holds the modifiers' logits (n, 12)."""
        batch = images if isinstance(images, Tensor) else pixels(images)
        rows = torch.cat([self.net(part) for part in batch.split(256)])
        *heads, last = rows.split(SIZES, -1)
        return [h.log_softmax(-1) for h in heads] + [last]

    def read(self, images: Sequence[Image.Image | np.ndarray] | Tensor) -> list[Truth]:
        """The most probable truth of each picture."""
        *heads, last = self.outputs(images)
        picks = [h.argmax(-1).tolist() for h in heads]
        truths = []
        for i, on in enumerate((last > 0).tolist()):
            place, shape1, colour1, shape2, colour2, background = (p[i] for p in picks)
            things = (Thing(COLOURS[colour1], SHAPES[shape1]), Thing(COLOURS[colour2], SHAPES[shape2]))
            truths.append(
                Truth(
                    things[: 1 + (place >= 5)],
                    ARRANGEMENTS[place],
                    BACKGROUNDS[background],
                    frozenset(m for m, yes in zip(MODIFIERS, on, strict=True) if yes),
                )
            )
        return truths


def subject_kept(request: Request, truth: Truth) -> bool:
    """True if every thing that the caption names stands in the picture, in shape and colour and in its place."""
    things, _ = request.ordered()
    return len(things) <= len(truth.things) and all(a == b for a, b in zip(things, truth.things, strict=False))
