"""``make world``: train every model of the embedded world again from nothing, measure them, and write their card.

Two trainings run side by side, one thread each: the two generators, one after the other, take longest; the
autoencoder's decoder, the oracle, the scorers, the judge and the guider take their turns beside them. Times are wall
times on two cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import multiprocessing
import time
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusion3Pipeline, StableDiffusionPipeline
from transformers import CLIPModel, CLIPProcessor

from spro_hf.models import forget_paths
from spro_hf.tiny.make import ddim, flawed, generator, guider, pictures, scorers, varied
from spro_hf.tiny.make.common import quiet
from spro_hf.tiny.make.measure import write_card

MINUTES = {
    "flow": 70,
    "ddim": 35,
    "varied": 9,
    "decoder": 9,
    "oracle": 9,
    "clip": 13,
    "clip again": 21,
    "pickscore": 10,
    "flawed": 5,
    "judge": 5,
    "guider": 6,
}
EXAMPLES = 20_480
log = logging.getLogger("make world")


def _generators(out: Path, minutes: dict[str, float]) -> None:
    """The two generators; they are saved while they train, so a file beside each says that it is finished."""
    quiet()
    if not (out / "flow.json").exists():
        generator.train_flow(generator.build(), minutes["flow"], out / "generator")
        (out / "flow.json").write_text(json.dumps({"minutes": minutes["flow"]}))
    if not (out / "ddim.json").exists():
        ddim.train_ddim(ddim.build(out / "generator"), minutes["ddim"], out / "ddim-generator")
        (out / "ddim.json").write_text(json.dumps({"minutes": minutes["ddim"]}))
    if not (out / "varied.json").exists():
        varied.train(out / "generator", out / "varied-generator", minutes["varied"])
        (out / "varied.json").write_text(json.dumps({"minutes": minutes["varied"]}))


def _beside(out: Path, minutes: dict[str, float], examples: int = EXAMPLES) -> None:
    """Everything but the generators; the two heads are fitted to so many ``examples`` each. Parts that are finished already
    are left alone, so that a killed run continues."""
    quiet()
    if not (out / "vae").exists():
        vae = generator.build().vae
        log.info("decoder: %.1f dB", generator.train_decoder(vae, minutes["decoder"]))
        vae.save_pretrained(out / "vae")
    vae = AutoencoderTiny.from_pretrained(out / "vae")
    if not (out / "oracle").exists():
        pictures.train_oracle(vae, minutes["oracle"]).save_pretrained(out / "oracle")
    model, processor = scorers.build_clip()
    if not (out / "clip").exists():
        model = scorers.train_clip(vae, minutes["clip"], model)
        _keep(scorers.train_clip(vae, minutes["clip again"], model, seed=14), processor, out / "clip")
    clip = CLIPModel.from_pretrained(out / "clip", dtype=torch.float32)
    if not (out / "engagement").exists():
        scorers.fit_aesthetic(clip, vae, examples).save_pretrained(out / "aesthetic")
        scorers.fit_engagement(clip, vae, examples).save_pretrained(out / "engagement")
    if not (out / "pickscore").exists():
        _keep(scorers.train_pickscore(copy.deepcopy(clip), vae, minutes["pickscore"]), processor, out / "pickscore")
    if not (out / "flawed-pickscore").exists():
        flawed.train(out / "pickscore", out / "vae", out / "flawed-pickscore", minutes=minutes["flawed"])
    if not (out / "judge").exists():
        pictures.train_judge(vae, minutes["judge"]).save_pretrained(out / "judge")
    if not (out / "guider").exists():
        guider.train_guider(minutes["guider"], out / "guider")


def _keep(model: CLIPModel, processor: CLIPProcessor, folder: Path) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def assemble(parts: Path, out: Path) -> None:
    """Put the trained decoder into the generators and write everything as it ships: float16 where the size matters.

    Text encoders and autoencoder stay in float32, so that a stock loader that keeps each file's own type mixes none.
    """
    vae = AutoencoderTiny.from_pretrained(parts / "vae")
    for name in ("generator", "varied-generator"):
        flow = StableDiffusion3Pipeline.from_pretrained(parts / name, vae=vae)
        flow.transformer.half()
        flow.save_pretrained(out / name)
    noise = StableDiffusionPipeline.from_pretrained(parts / "ddim-generator", vae=vae)
    noise.unet.half()
    noise.save_pretrained(out / "ddim-generator")
    for name in ("clip", "pickscore", "flawed-pickscore"):
        model = CLIPModel.from_pretrained(parts / name, dtype=torch.float32)
        _keep(model, CLIPProcessor.from_pretrained(parts / name), out / name)
    for name in ("aesthetic", "engagement", "oracle", "judge", "guider"):
        _copy(parts / name, out / name)
    forget_paths(out)


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.suffix in (".json", ".safetensors", ".jinja", ".txt"):
            (target / file.name).write_bytes(file.read_bytes())


def main() -> None:
    """Train, assemble, measure, write the card."""
    parser = argparse.ArgumentParser(description="Train the embedded world again from nothing.")
    parser.add_argument("--parts", type=Path, default=Path("runs/world"), help="where parts are kept while training")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "weights", help="where the world goes")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual training times, e.g. 0.01 to try")
    arguments = parser.parse_args()
    quiet()
    began, minutes = time.monotonic(), {name: m * arguments.scale for name, m in MINUTES.items()}
    arguments.parts.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=job, args=(arguments.parts, minutes)) for job in (_generators, _beside)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    if any(job.exitcode for job in jobs):
        raise SystemExit("a training stopped; see above. The same command continues with the parts that are missing.")
    assemble(arguments.parts, arguments.out)
    torch.set_num_threads(2)
    write_card(arguments.out, minutes)
    log.info("the world is made: %.0f minutes", (time.monotonic() - began) / 60)


if __name__ == "__main__":
    main()
