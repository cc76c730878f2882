"""What every training of the embedded world shares: batches of scenes, the tokenizer, two optimisers and an average."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTokenizer

from spro_hf.tiny.render import render
from spro_hf.tiny.world import MAX_TOKENS, Truth, caption, sample_truth

log = logging.getLogger(__name__)
START, END = "<|startoftext|>", "<|endoftext|>"


def quiet() -> None:
    """One thread, since two trainings run side by side, and their log on the terminal."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


def scenes(rng: np.random.Generator, count: int, split: str | None = "train") -> tuple[list[Truth], torch.Tensor]:
    """Draw scenes of a split and render them: truths and float32 pictures of shape (count, 3, 32, 32) in [-1, 1]."""
    truths = [sample_truth(rng, split) for _ in range(count)]
    return truths, draw(truths, rng)


def draw(truths: list[Truth], rng: np.random.Generator) -> torch.Tensor:
    """Render truths under fresh seeds to float32 of shape (n, 3, 32, 32) in [-1, 1]."""
    pictures = np.stack([render(t, int(rng.integers(2**31))) for t in truths])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def clip_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose merges were learned on captions of the world: one token a word, letters for strangers."""
    rng = np.random.default_rng(0)
    corpus = [caption(sample_truth(rng), rng) for _ in range(4000)]
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-"]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s,.]+"), "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=1000, min_frequency=1, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(corpus, trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokens = [START, END, *letters, *(f"{c}</w>" for c in letters), *("".join(m) for m in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, unk_token=END, model_max_length=MAX_TOKENS)


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids of shape (n, MAX_TOKENS), padded as diffusers pads them."""
    return tokenizer(
        captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


class Pace:
    """Optimise for a given wall time: warm up, hold, then let the learning rate fall to zero over the last 40 %.

    Matrices inside blocks are moved by Muon (orthogonalised momentum), all else by AdamW.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], minutes: float, lr: float, muon_lr: float = 0.0):
        named = list(parameters)
        inner = [p for n, p in named if muon_lr and p.ndim == 2 and "block" in n and "norm" not in n]
        ids = {id(p) for p in inner}
        rest = [p for _, p in named if id(p) not in ids]
        self.optimizers = [torch.optim.AdamW(rest, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))]
        if inner:
            self.optimizers.append(torch.optim.Muon(inner, lr=muon_lr, weight_decay=0.01))
        self.base = [g["lr"] for o in self.optimizers for g in o.param_groups]
        self.parameters = [p for _, p in named]
        self.seconds, self.start, self.steps = minutes * 60, time.monotonic(), 0

    @property
    def progress(self) -> float:
        """Share of the time that is spent, in [0, 1]."""
        return min(1.0, (time.monotonic() - self.start) / self.seconds)

    def step(self, loss: torch.Tensor) -> None:
        """Backward, clip to norm 1, one step of both optimisers."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        factor = min(1.0, (self.steps + 1) / 100, (1 - self.progress) / 0.4)
        groups = [g for o in self.optimizers for g in o.param_groups]
        for group, base in zip(groups, self.base, strict=True):
            group["lr"] = base * max(factor, 1e-3)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1


class Average:
    """Exponential moving average of modules' parameters, with a young average forgetting faster."""

    def __init__(self, modules: list[nn.Module], decay: float = 0.999):
        self.live = [p for m in modules for p in m.parameters()]
        self.kept = [p.detach().clone() for p in self.live]
        self.decay, self.count = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Fold the live weights in."""
        self.count += 1
        torch._foreach_lerp_(self.kept, self.live, 1 - min(self.decay, self.count / (self.count + 10)))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the live weights with the averaged ones."""
        for live, kept in zip(self.live, self.kept, strict=True):
            other = live.detach().clone()
            live.copy_(kept)
            kept.copy_(other)


class Diary:
    """What a pipeline's training does besides learning: average the weights, log the loss, save now and then.

    ``parts`` are the modules that learn; ``saving`` is how many seconds lie between two looks that others may have.
    """

    def __init__(
        self, pipe: DiffusionPipeline, parts: list[nn.Module], pace: Pace, out: Path, name: str, saving: float
    ):
        self.pipe, self.parts, self.pace, self.out, self.name = pipe, parts, pace, out, name
        self.average, self.losses, self.due, self.saving = Average(parts), [], every(60), every(saving)
        for part in parts:
            part.train()

    def note(self, loss: float) -> None:
        """After each step."""
        self.average.update()
        self.losses.append(loss)
        if self.due():
            told = self.name, 100 * self.pace.progress, self.pace.steps, np.mean(self.losses[-300:])
            log.info("%s %.0f%% step %d loss %.4f", *told)
        if self.saving():
            self.average.swap()
            self.pipe.save_pretrained(self.out)
            self.average.swap()

    def finish(self) -> None:
        """Leave the averaged weights in the pipeline, and save it."""
        self.average.swap()
        for part in self.parts:
            part.eval()
        self.pipe.save_pretrained(self.out)


def every(seconds: float) -> Callable[[], bool]:
    """A clock that says True once in so many seconds."""
    last = [time.monotonic()]

    def due() -> bool:
        if time.monotonic() - last[0] < seconds:
            return False
        last[0] = time.monotonic()
        return True

    return due
