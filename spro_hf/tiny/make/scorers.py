"""The scorers of the embedded world: a CLIP that knows shapes, a PickScore made from it, an aesthetic and an engagement head.

A small CLIP trained by in-batch contrast alone solves it by colour and background and never learns shapes. Two things
mend that: every caption meets rivals that differ from it in one attribute, and the image embedding must give up every
attribute to a linear reader that is thrown away afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from diffusers import AutoencoderTiny
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from spro_hf.rewards.heads import AestheticHead, EngagementHead
from spro_hf.tiny.make.common import Average, Pace, clip_tokenizer, draw, every, scenes, token_ids
from spro_hf.tiny.make.pictures import smudge
from spro_hf.tiny.oracle import SIZES, labels, reading_loss
from spro_hf.tiny.planted import aesthetics, engagement, preference
from spro_hf.tiny.world import (
    ARRANGEMENTS,
    BACKGROUNDS,
    COLOURS,
    MAX_TOKENS,
    MODIFIERS,
    SHAPES,
    Request,
    Thing,
    Truth,
    caption,
    read,
    sample_modifiers,
    sample_truth,
)

log = logging.getLogger(__name__)
DIMENSION = 128
RIVALS = 2


def build_clip(seed: int = 4) -> tuple[CLIPModel, CLIPProcessor]:
    """An untrained CLIP for 32×32 pictures in 4×4 patches and captions of 24 tokens."""
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    shared = dict(num_attention_heads=3, hidden_size=96, intermediate_size=384, projection_dim=DIMENSION)
    config = CLIPConfig(
        text_config=dict(
            vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, **shared,
        ),
        vision_config=dict(image_size=32, patch_size=4, num_hidden_layers=4, **shared),
        projection_dim=DIMENSION,
    )  # fmt: skip
    side = {"height": 32, "width": 32}
    pictures = CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return CLIPModel(config), CLIPProcessor(pictures, tokenizer)


def rival(truth: Truth, rng: np.random.Generator) -> Truth:
    """The same scene with one attribute changed: a shape or a colour as often as not."""
    i = int(rng.integers(len(truth.things)))
    thing, kind = truth.things[i], rng.random()
    if kind < 0.6:
        if kind < 0.35:
            thing = Thing(thing.colour, _other(SHAPES, thing.shape, rng))
        else:
            thing = Thing(_other(COLOURS, thing.colour, rng), thing.shape)
        return replace(truth, things=(*truth.things[:i], thing, *truth.things[i + 1 :]))
    if kind < 0.7:
        return replace(truth, background=_other(BACKGROUNDS, truth.background, rng))
    if kind < 0.85:
        pool = ARRANGEMENTS[:5] if len(truth.things) == 1 else ARRANGEMENTS[5:]
        if len(pool) == 2:
            return replace(truth, things=truth.things[::-1])
        return replace(truth, arrangement=_other(pool, truth.arrangement, rng))
    return replace(truth, modifiers=truth.modifiers ^ {MODIFIERS[rng.integers(12)]})


def _other(pool: tuple[str, ...], value: str, rng: np.random.Generator) -> str:
    return pool[(pool.index(value) + int(rng.integers(1, len(pool)))) % len(pool)]


def _embed(model: CLIPModel, pictures: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    out = model(input_ids=ids, pixel_values=pictures)
    return out.image_embeds, out.text_embeds


def train_clip(vae: AutoencoderTiny, minutes: float, model: CLIPModel, seed: int = 4, batch: int = 96) -> CLIPModel:
    """Contrast in the batch and against rivals, plus the linear reader of attributes. Training split only.

    Called twice, the second time on the first one's result: a warm restart of the learning rate.
    """
    torch.manual_seed(seed)
    rng, tokenizer = np.random.default_rng(seed), clip_tokenizer()
    reader = nn.Linear(DIMENSION, sum(SIZES))
    named = [(n.replace("layers", "block"), p) for n, p in model.named_parameters()]
    pace = Pace([*named, *reader.named_parameters("reader")], minutes, lr=1.5e-3, muon_lr=5e-3)
    average, due = Average([model.train()]), every(60)
    while pace.progress < 1:
        truths, pictures = scenes(rng, batch)
        order = rng.permutation(batch)
        pictures = smudge(pictures[torch.from_numpy(order)], vae, rng)
        truths = [truths[i] for i in order]
        captions = [caption(t, rng) for t in truths] + [caption(rival(t, rng)) for t in truths for _ in range(RIVALS)]
        seen, said = _embed(model, pictures, token_ids(tokenizer, captions))
        scale = model.logit_scale.exp().clamp(max=60)
        logits = scale * seen @ said[:batch].T
        target = torch.arange(batch)
        own = logits.diagonal()[:, None]
        against = scale * torch.einsum("nd,nrd->nr", seen, said[batch:].view(batch, RIVALS, -1))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        loss = loss + F.cross_entropy(torch.cat([own, against], 1), torch.zeros(batch, dtype=torch.long))
        loss = loss + reading_loss(reader(seen) * 10, *labels(truths))
        pace.step(loss)
        average.update()
        if due():
            log.info("clip %.0f%% step %d loss %.3f", 100 * pace.progress, pace.steps, loss.item())
    average.swap()
    return model.eval()


def _pair(rng: np.random.Generator) -> tuple[str, Truth, Truth]:
    """A caption and two pictures to choose from: other style, or other style and something wrong."""
    truth = sample_truth(rng, "train")
    plain = caption(replace(truth, modifiers=frozenset()) if rng.random() < 0.7 else truth, rng)
    first, second = (replace(truth, modifiers=sample_modifiers(rng)) for _ in range(2))
    if rng.random() < 0.35:
        second = rival(second, rng)
    return plain, first, second


def train_pickscore(
    clip: CLIPModel,
    vae: AutoencoderTiny,
    minutes: float,
    seed: int = 5,
    batch: int = 48,
    taste: Callable[[Truth, Request], float] = preference,
) -> CLIPModel:
    """Fine-tune CLIP on choices by a taste, the planted preference, (Bradley–Terry), as PickScore was made from people's.

    Every two (picture, caption) of a batch are compared, and the target is the share of choosers that would take the
    first, σ(Δ) of the planted difference. Two departures from PickScore, which has one person's choice between two
    pictures of one caption: with those alone, eight minutes gave a Spearman of 0.44. Scores are
    ``exp(logit_scale) · cos``; a weak pull keeps their mean at 20.5, where the real ones lie.
    """
    rng, tokenizer = np.random.default_rng(seed), clip_tokenizer()
    model = clip.train()
    pace, average, due = Pace(model.named_parameters(), minutes, lr=5e-4), Average([model]), every(60)
    while pace.progress < 1:
        pairs = [_pair(rng) for _ in range(batch)]
        truths, texts = [t for p in pairs for t in p[1:]], [p[0] for p in pairs for _ in range(2)]
        order = rng.permutation(2 * batch)
        truths, texts = [truths[i] for i in order], [texts[i] for i in order]
        pictures = smudge(draw(truths, rng), vae, rng)
        seen, said = _embed(model, pictures, token_ids(tokenizer, texts))
        scores = model.logit_scale.exp() * (seen * said).sum(-1)
        worth = torch.tensor([taste(t, read(c)) for t, c in zip(truths, texts, strict=True)])
        first, second = torch.triu_indices(2 * batch, 2 * batch, offset=1)
        share = torch.sigmoid(worth[first] - worth[second])
        loss = F.binary_cross_entropy_with_logits(scores[first] - scores[second], share)
        pace.step(loss + 0.01 * (scores.mean() - 20.5).pow(2))
        average.update()
        if due():
            log.info("pickscore %.0f%% step %d loss %.3f", 100 * pace.progress, pace.steps, loss.item())
    average.swap()
    return model.eval()


@torch.no_grad()
def _embeddings(clip: CLIPModel, vae: AutoencoderTiny, count: int, seed: int) -> tuple[list[Truth], Tensor]:
    rng, truths, rows = np.random.default_rng(seed), [], []
    for _ in range(count // 256):
        some, pictures = scenes(rng, 256)
        rows.append(F.normalize(clip.get_image_features(pixel_values=smudge(pictures, vae, rng)).pooler_output, dim=-1))
        truths += some
    return truths, torch.cat(rows)


def fit_aesthetic(clip: CLIPModel, vae: AutoencoderTiny, count: int = 20_480) -> AestheticHead:
    """Least squares of the planted aesthetic on the normalised image embedding, as LAION's V1 head is a linear map."""
    truths, rows = _embeddings(clip, vae, count, seed=6)
    head = AestheticHead(DIMENSION)
    target = torch.tensor([aesthetics(t) for t in truths])
    design = torch.cat([rows, torch.ones(len(rows), 1)], 1).double()
    ridge = 1e-3 * len(rows) / DIMENSION * torch.eye(design.shape[1], dtype=torch.double)
    solution = torch.linalg.solve(design.T @ design + ridge, design.T @ target.double()).float()
    with torch.no_grad():
        head.weight.copy_(solution[None, :-1])
        head.bias.copy_(solution[-1:])
    return head


def fit_engagement(clip: CLIPModel, vae: AutoencoderTiny, count: int = 20_480, epochs: int = 30) -> EngagementHead:
    """A two-layer regressor of the planted engagement on the normalised image embedding."""
    truths, rows = _embeddings(clip, vae, count, seed=7)
    torch.manual_seed(7)
    head, target = EngagementHead(DIMENSION), torch.tensor([engagement(t) for t in truths])
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * (len(rows) // 256))
    order = torch.Generator().manual_seed(7)
    for _ in range(epochs):
        for part in torch.randperm(len(rows), generator=order).split(256):
            if len(part) == 256:
                loss = (head(rows[part]) - target[part]).pow(2).mean() / 100
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
    return head


@torch.no_grad()
def measure_scorers(clip, pickscore, aesthetic, engage, count: int = 1000) -> dict[str, float]:
    """Agreement with the planted truth on held-out renders, and what CLIP knows: retrieval, shapes, colours."""
    rng, tokenizer = np.random.default_rng(98), clip_tokenizer()
    truths, pictures = scenes(rng, count, "held-out")
    seen, said = _embed(clip, pictures, token_ids(tokenizer, [caption(t) for t in truths]))
    result = {"clip retrieval of 1,000": (seen @ said.T).argmax(1).eq(torch.arange(count)).float().mean().item()}
    for name, pool in (("shapes", SHAPES), ("colours", COLOURS)):
        single = [i for i, t in enumerate(truths) if len(t.things) == 1]
        right = 0
        for i in single:
            thing = truths[i].things[0]
            others = [Thing(thing.colour, s) if name == "shapes" else Thing(s, thing.shape) for s in pool]
            _, options = _embed(clip, pictures[:1], token_ids(tokenizer, [str(o) for o in others]))
            right += (options @ seen[i]).argmax().item() == others.index(thing)
        result[f"clip {name} (1 of 10)"] = right / len(single)
    pairs = [
        (caption(replace(t, modifiers=frozenset()), rng), t if rng.random() < 0.6 else rival(t, rng)) for t in truths
    ]
    shown = draw([t for _, t in pairs], rng)
    seen, said = _embed(pickscore, shown, token_ids(tokenizer, [c for c, _ in pairs]))
    scores = pickscore.logit_scale.exp() * (seen * said).sum(-1)
    worth = [preference(t, read(c)) for c, t in pairs]
    result |= {"pickscore spearman": float(spearmanr(scores, worth)[0]), "pickscore mean": scores.mean().item()}
    rows = F.normalize(clip.get_image_features(pixel_values=pictures).pooler_output, dim=-1)
    result["aesthetic spearman"] = float(spearmanr(aesthetic(rows), [aesthetics(t) for t in truths])[0])
    result["engagement spearman"] = float(spearmanr(engage(rows), [engagement(t) for t in truths])[0])
    return result
