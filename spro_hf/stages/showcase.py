"""What a version draws, for its card and for whoever compares versions: a few pictures before and after, on equal noise.

The captions are some of those that the stage learned from, and their noise depends on nothing but the recipe's seed and the
caption's name: so two versions of one recipe, and its stages, can be held side by side. It is a look and a first number,
no evaluation: that is ``stages/evaluate.py``, on captions nobody learned from.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.lora import has_lora, switched
from spro_hf.guider.guider import Guider
from spro_hf.hub.artifacts import pull
from spro_hf.memory import needing
from spro_hf.parallel import first
from spro_hf.report.grids import grid
from spro_hf.stages.room import Room
from spro_hf.stages.studio import Seat, Studio, open_environment
from spro_hf.statistics import mean_se
from spro_hf.steps import derive

SHOWN = 8  # captions; each is drawn twice
_CELL = 160  # pixels of a picture's side in the grid
_MOST = 512  # pixels of a side that are published; a card is to load fast
_JSON, _PROMPTS = "showcase/showcase.json", "prompts.json"
Scores = list[dict[str, Any]]
Guest = tuple[str, str, Mapping[str, str]]  # name, caption, and what else is known of the post


class Showcase:
    """The captions of a room's showcases, and its steps ``showcase/...``, in which only the first process does anything.

    Drawing and scoring are apart, so that a stage need not hold generator and scorers at once.
    """

    def __init__(self, room: Room, guests: Iterable[Guest]):
        self.room = room
        chosen: dict[str, Seat] = {}
        for name, caption, context in guests:
            seed = derive(room.recipe.seed, "showcase", name)
            chosen.setdefault(name, Seat(name, caption, caption, None, context=context, image_seed=seed))
            if len(chosen) == SHOWN:
                break
        self.seats = list(chosen.values())

    def before(self, environment: Callable[[], Environment]) -> None:
        """Draw every caption by the plain generator, before anything is trained."""

        def make(folder: Path) -> None:
            if not first():
                return
            found, generator = environment(), self.room.recipe.generator
            if generator.lora and not has_lora(found.pipe):
                # all its weights were trained: nothing could be switched off
                found = open_environment(dataclasses.replace(generator, lora=None))
            with switched(found.pipe, False):
                self._draw(found, [seat.caption for seat in self.seats], "before", folder)

        self.room.do("showcase/before", make)

    def draw(
        self, version: str, environment: Callable[[], Environment], guider: Callable[[], Guider] | None = None
    ) -> None:
        """Draw every caption by what was trained, rewritten by a guider if there is one.

        A reply that does not parse leaves the caption as it is, as it would in use.
        """

        def make(folder: Path) -> None:
            if not first():
                return
            prompts = [seat.caption for seat in self.seats]
            if guider and self.seats:
                for seat, image in zip(self.seats, self._pictures("before"), strict=True):
                    seat.shown_image = image
                seed = derive(self.room.recipe.seed, "showcase")
                replies = guider().reply([s.task(self.room.recipe.objective) for s in self.seats], [None], seed)
                prompts = [reply.prompt or seat.caption for seat, (reply,) in zip(self.seats, replies, strict=True)]
            (folder / _PROMPTS).write_text(json.dumps(prompts))
            self._draw(environment(), prompts, version, folder)

        self.room.do(f"showcase/{version}-drawn", make)

    def score(self, version: str, studio: Callable[[], Studio]) -> Path:
        """Score what ``draw`` drew, and the pictures before; gives the folder that is shown."""

        def make(folder: Path) -> None:
            if not first():
                return
            plain, drawn = self._pictures("before"), self._pictures(f"{version}-drawn")
            for seat, image in zip(self.seats, plain, strict=True):
                seat.base_image = image
            prompts = json.loads((self._folder(f"{version}-drawn") / _PROMPTS).read_text())
            judge, captions = studio(), [seat.caption for seat in self.seats]
            # both by the same scorers at the same moment: one that learns meanwhile compares with nothing else
            was, now = _scored(judge, self.seats, captions, plain), _scored(judge, self.seats, prompts, drawn)
            self._lay_out(folder, prompts, plain, drawn, was, now)

        return self.room.do(f"showcase/{version}", make)

    def _draw(self, environment: Environment, prompts: list[str], version: str, folder: Path) -> None:
        task = self.room.progress.task(f"{self.room.title} · showcase · {version}", total=len(prompts))
        for i, (prompt, seat) in enumerate(zip(prompts, self.seats, strict=True)):
            # one by one: a stage that draws nothing else may have no room for more
            with needing("generator.dtype", self.room.recipe.generator.dtype):
                (image,) = environment.render([prompt], [seat.image_seed])
            image.save(folder / f"{i:02d}.png")
            self.room.progress.advance(task)

    def _folder(self, name: str) -> Path:
        return self.room.folder / "showcase" / name

    def _pictures(self, name: str) -> list[Image.Image]:
        return [_open(file) for file in sorted(self._folder(name).glob("*.png"))]

    def _lay_out(
        self,
        folder: Path,
        prompts: list[str],
        plain: list[Image.Image],
        drawn: list[Image.Image],
        was: Scores,
        now: Scores,
    ) -> None:
        """Write the rows, the means, the pictures and their grid."""
        rows = [
            {"seed_id": seat.seed_id, "caption": seat.caption, "context": dict(seat.context), "prompt": prompt,
             "image_seed": seat.image_seed, "base": f"showcase/{i:02d}-base.png", "image": f"showcase/{i:02d}.png",
             "base_rewards": old["rewards"], "rewards": new["rewards"], "base_total": old["total"], "total": new["total"]}
            for i, (seat, prompt, old, new) in enumerate(zip(self.seats, prompts, was, now, strict=True))
        ]  # fmt: skip
        said = f"{len(rows)} captions of its training set, one picture each"
        told = {"evaluated_on": said, "rows": rows, "results": _results(self.room.recipe.reward, was, now)}
        (folder / "showcase.json").write_text(json.dumps(told, indent=1))
        pairs = [(_small(base), _small(image)) for base, image in zip(plain, drawn, strict=True)]
        for i, (base, image) in enumerate(pairs):
            base.save(folder / f"{i:02d}-base.png")
            image.save(folder / f"{i:02d}.png")
        if pairs:
            beside = 2 if len(pairs) % 2 == 0 else 1  # pairs beside each other
            cells = [sum(pairs[i : i + beside], ()) for i in range(0, len(pairs), beside)]
            heads = ("before", "after") * beside
            grid(cells, [""] * len(cells), heads, _CELL / max(pairs[0][0].size)).save(folder / "before_after.png")


def seeds_of(room: Room) -> Iterator[Guest]:
    """The captions of a room's seeds."""
    return ((seed.seed_id, seed.caption, seed.context) for seed in room.seeds())


def shown_by(repo: str, revision: str) -> list[Guest]:
    """The captions that an artifact of the Hub shows on its own card; none if it has no showcase."""
    folder = pull(repo, "model", revision, lambda names: [n for n in names if n == _JSON])
    if not (folder / _JSON).is_file():
        return []
    rows = json.loads((folder / _JSON).read_text())["rows"]
    return [(row["seed_id"], row["caption"], row["context"]) for row in rows]


def lay(shown: Path | None, folder: Path) -> dict[str, Any]:
    """Copy a showcase into an artifact's folder; gives what its card tells of it."""
    if shown is None:
        return {"results": [], "evaluated_on": "", "showcase": []}
    shutil.copytree(shown, folder / "showcase", dirs_exist_ok=True)
    told = json.loads((shown / "showcase.json").read_text())
    return {"results": told["results"], "evaluated_on": told["evaluated_on"], "showcase": told["rows"]}


def _scored(studio: Studio, seats: list[Seat], prompts: list[str], images: list[Image.Image]) -> Scores:
    """What pictures get under their captions: total, rewards and measures of each."""
    if not images:
        return []
    scores = studio.rewards.score(images, [seat.brief(prompt) for seat, prompt in zip(seats, prompts, strict=True)])
    measured = studio.measure(images, [seat.caption for seat in seats])
    return [
        {"total": score.pop("total"), "rewards": score, "measures": measures}
        for score, measures in zip(scores, measured, strict=True)
    ]


def _results(weights: dict[str, float], was: Scores, now: Scores) -> list[dict[str, Any]]:
    """Of every measure: mean, standard error and n afterwards, and the mean before."""
    if not now:
        return []
    before, after = [[_flat(weights, row) for row in rows] for rows in (was, now)]
    told = []
    for name in after[0]:
        found = mean_se([row[name] for row in after])
        base = mean_se([row[name] for row in before])["mean"]
        told.append({"name": name, "value": found["mean"], "se": found["se"], "base": base, "n": found["n"]})
    return told


def _flat(weights: dict[str, float], row: dict[str, Any]) -> dict[str, float]:
    """All numbers of a picture by name; the total, where it is more than one scorer's own number."""
    total = {} if list(weights.values()) == [1.0] else {"reward": row["total"]}
    return total | row["rewards"] | row["measures"]


def _small(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((_MOST, _MOST))
    return image


def _open(file: Path) -> Image.Image:
    with Image.open(file) as found:
        return found.convert("RGB")
