"""SPROPipeline: caption in, better picture out. A guider rewrites the caption, a generator renders the rewrite.

A saved SPROPipeline names its guider and its generator by id and revision, and holds what SPRO trained: the guider's
adapter in ``guider/``, the generator's LoRA in ``lora/``. Nothing else is copied. So it is loaded by
``SPROPipeline.from_pretrained``, which fetches both, and not by ``DiffusionPipeline.from_pretrained``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from peft import PeftModel
from PIL import Image

from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.lora import has_lora, load_lora, save_lora, switched
from spro_hf.errors import UserError
from spro_hf.guider.guider import Guider, Task
from spro_hf.hub.artifacts import pull

ADAPTER, LORA = "guider", "lora"
MANNER = ("style", "reasoning", "word_limit", "max_new_tokens")


@dataclass
class SPROOutput(BaseOutput):
    """Lists with one entry per picture: captions in order, each ``num_images_per_prompt`` times in a row.

    Attributes:
        images: the pictures of ``prompts``.
        prompts: what was rendered: the guider's prompt, or what stood before it where a reply could not be read.
        plans: the numbered steps of the last hop's reply; empty without a guider.
        replies: the last hop's reply as written; "" without a guider.
        parsed: False where any hop's reply could not be read, and the prompt before it was kept.
        problems: why not; None where ``parsed``.
        base_images: the plain generator's pictures of the plain captions under the same seeds; the guider sees these.
    """

    images: list[Image.Image]
    prompts: list[str]
    plans: list[tuple[str, ...]]
    replies: list[str]
    parsed: list[bool]
    problems: list[str | None]
    base_images: list[Image.Image]


class SPROPipeline(DiffusionPipeline):
    """A guider and a generator (SPRO-MM; either part can be switched off in a call).

    Args:
        guider: the guider, with the adapter that SPRO-Prompt trained, if any.
        base: the generator, with the LoRA that SPRO-Image trained, if any.
        guider_id, guider_revision: what the guider was loaded from, apart from its adapter.
        base_id, base_revision: what the generator was loaded from, apart from its LoRA.
        call: arguments of every call of the generator, e.g. ``{"num_inference_steps": 28}``.
        base_scheduler: the one that the generator was given in the place of its own, if any (see ``load_generator``).
    """

    def __init__(
        self,
        guider: Guider,
        base: DiffusionPipeline,
        guider_id: str,
        base_id: str,
        guider_revision: str | None = None,
        base_revision: str | None = None,
        call: Mapping[str, Any] | None = None,
        base_scheduler: str | None = None,
    ):
        super().__init__()
        Environment(base, dict(call or {}))  # an unknown argument is told now, not at the first picture
        self.guider, self.base = guider, base
        adapted = isinstance(guider.model, PeftModel)
        self.register_to_config(
            guider={
                "id": guider_id,
                "revision": guider_revision,
                "adapter": ADAPTER if adapted else None,
                **{name: getattr(guider, name) for name in MANNER},
            },
            base={
                "id": base_id,
                "revision": base_revision,
                "lora": LORA if has_lora(base) else None,
                "call": dict(call or {}),
                "scheduler": base_scheduler,
            },
        )

    @classmethod
    def from_pretrained(
        cls, id: str | Path, revision: str | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> SPROPipeline:
        """Load from a folder or a repository of the Hub, together with the guider and the generator that it names."""
        # all that was saved: of a stock pipeline's repository `locate` takes the components alone
        folder = Path(id) if Path(id).is_dir() else pull(str(id), "model", revision or "main")
        if not (folder / cls.config_name).is_file():
            raise UserError(f"'{id}' has no {cls.config_name}; name a saved SPROPipeline.")
        config = cls.load_config(folder)
        if config.get("_class_name") != cls.__name__:
            raise UserError(f"'{id}' is a {config.get('_class_name')}; SPROPipeline loads only what it saved.")
        asked, drawn = config["guider"], config["base"]
        guider = Guider.load(
            asked["id"], asked["revision"], adapter=str(folder / asked["adapter"]) if asked["adapter"] else None,
            device=device, dtype=dtype, **{name: asked[name] for name in MANNER},
        )  # fmt: skip
        scheduler = drawn.get("scheduler")  # those saved by 0.1.0 before it was kept have none
        base = load_generator(drawn["id"], drawn["revision"], device, dtype, scheduler)
        if drawn["lora"]:
            load_lora(base, folder / drawn["lora"])
        return cls(
            guider, base, asked["id"], drawn["id"], asked["revision"], drawn["revision"], drawn["call"], scheduler
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the config (model_index.json), the guider's adapter and the generator's LoRA."""
        self.save_config(folder)
        if self.config.guider["adapter"]:
            for adapter in self.guider.model.peft_config.values():  # else PEFT names the folder it was loaded from
                adapter.base_model_name_or_path = self.config.guider["id"]
                adapter.revision = self.config.guider["revision"]
            self.guider.save(Path(folder) / ADAPTER)
        if self.config.base["lora"]:
            save_lora(self.base, Path(folder) / LORA)

    def to(self, *args, **kwargs) -> SPROPipeline:
        """Move both parts to a device or type, as ``torch.nn.Module.to`` takes them."""
        self.guider.model.to(*args, **kwargs)
        self.base.to(*args, **kwargs)
        return self

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        objective: str = "aesthetics",
        hops: int = 1,
        guider: bool = True,
        lora: bool = True,
        seed: int = 0,
        generator: torch.Generator | None = None,
        num_images_per_prompt: int = 1,
        temperature: float | None = None,
        context: Mapping[str, str] | None = None,
        **call: Any,
    ) -> SPROOutput:
        """Render each caption, let the guider rewrite it before its picture, render the rewrite under the same noise.

        What the guider is shown first comes from the plain generator, without the LoRA, as in training.

        Args:
            prompt: a base caption or several.
            objective: "aesthetics", "engagement" or "preference".
            hops: how often the guider rewrites; from the second time on it sees its own prompt and picture.
            guider: False renders the plain captions.
            lora: False renders with the plain generator.
            seed: picture j of a caption starts from noise seeded with ``seed + j``, whatever the other captions.
            generator: draws these seeds in place of ``seed``.
            num_images_per_prompt: pictures of each caption, each with its own rewrite.
            temperature: above 0 the guider samples; None takes its most probable reply.
            context: "tweet" and "company" for the objective "engagement" (see ``instructions.instruction``).
            call: arguments of the generator's call; they win over those of the config.
        """
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        seeds = _seeds(seed, generator, num_images_per_prompt)
        captions = [text for text in texts for _ in seeds]
        seeds = seeds * len(texts)
        hops = hops if guider else 0
        if guider and hops < 1:
            raise UserError(f"hops is {hops}; give at least 1, or guider=False for the plain caption.")
        for text in texts if guider else ():  # a bad objective or context is told before anything is rendered
            self.guider.messages(Task(None, text, objective, context or {}))
        environment = Environment(self.base, {**self.config.base["call"], **call})
        with switched(self.base, False):
            base_images = environment.render(captions, seeds)
        with switched(self.base, lora):
            images = base_images if hops or not lora else environment.render(captions, seeds)
            out = SPROOutput(
                images=images, prompts=captions, plans=[()] * len(captions), replies=[""] * len(captions),
                parsed=[True] * len(captions), problems=[None] * len(captions), base_images=base_images,
            )  # fmt: skip
            for hop in range(hops):
                self._rewrite(out, objective, context or {}, temperature, seeds[0] + hop if seeds else 0)
                out.images = environment.render(out.prompts, seeds)
        return out

    def _rewrite(
        self, out: SPROOutput, objective: str, context: Mapping[str, str], temperature: float | None, seed: int
    ) -> None:
        """One hop: new prompts before the last pictures, in place."""
        shown = zip(out.images, out.prompts, strict=True)
        tasks = [Task(image, text, objective, context) for image, text in shown]
        replies = [candidates[0] for candidates in self.guider.reply(tasks, [temperature], seed)]
        out.prompts = [text if r.prompt is None else r.prompt for text, r in zip(out.prompts, replies, strict=True)]
        out.plans, out.replies = [r.plan for r in replies], [r.text for r in replies]
        out.problems = [old or r.problem for old, r in zip(out.problems, replies, strict=True)]
        out.parsed = [problem is None for problem in out.problems]


def _seeds(seed: int, generator: torch.Generator | None, count: int) -> list[int]:
    if generator is None:
        return [seed + j for j in range(count)]
    return torch.randint(2**31, (count,), generator=generator, device=generator.device).tolist()
