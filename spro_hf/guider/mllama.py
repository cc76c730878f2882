"""What TRL's trainers lack for Mllama (Llama 3.2 Vision), whose text looks at picture tiles by a mask of its own.

The mask says of each token which tiles it sees, and so is as long as the text. TRL takes that of the prompt as the
processor made it, though it has moved the prompt to the left and put the reply behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spro_hf.errors import UserError


def with_whole_mask(collate: Callable[..., Any], model: torch.nn.Module) -> Callable[..., Any]:
    """``collate`` with the mask of an Mllama made anew for the whole text; as it is for another model."""
    if model.config.model_type != "mllama":
        return collate

    def collate_whole(examples: list[Any]) -> Any:
        batch = collate(examples)
        tiles = batch["aspect_ratio_mask"]
        batch["cross_attention_mask"] = whole_mask(batch["input_ids"], tiles, model.config.image_token_index)
        return batch

    return collate_whole


def whole_mask(ids: Tensor, tiles: Tensor, image: int) -> Tensor:
    """From its picture on, of which there is one, each text sees the tiles that the picture has.

    ``ids`` of shape (rows, tokens), ``tiles`` (rows, 1, tiles) with 1 for those that are there, ``image`` the picture's
    token; the mask is (rows, tokens, 1, tiles), as Mllama's processor makes it of a text and its picture.
    """
    seen = (ids == image).cumsum(1) > 0
    return (seen[:, :, None, None] & tiles[:, None].bool()).long()


def refuse_grpo(model: torch.nn.Module) -> None:
    """Raise a UserError for an Mllama: TRL's GRPO hands on its pixels without saying what tiles they are."""
    if model.config.model_type == "mllama":
        raise UserError("learn.method: TRL's grpo loses the picture tiles of this guider (Mllama); choose dpo or sft.")
