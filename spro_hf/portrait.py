"""What the card of a data set shows of its rows: counts, statistics and distributions of the rewards, and sample pictures.

Each ``of_...`` looks through an artifact's folder, writes ``card/scores.png`` and ``card/samples.jpg`` into it, and gives the
rest as plain data for the card's field ``told``. Rows are read a row group at a time and without their pictures; of these
only those that are shown are read.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spro_hf import columns, rollouts
from spro_hf.histograms import histograms
from spro_hf.report.grids import grid

SHOWN = 4  # seeds in the sheet of samples
CELL = 128  # pixels to which a side of a small picture is enlarged at least, where it is shown
MOST = 256  # pixels of a side to which a large one is reduced
LABEL = 90  # letters of a caption beside its pictures
BINS = 24
BLOCKS = "▁▂▃▄▅▆▇█"
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B",
         "1B<n<10B", "10B<n<100B", "100B<n<1T")  # fmt: skip
_TOLD = ["seed_id", "candidate", "base_caption", "parsed", "problem", "prompt", "rewards", "total", "base_rewards",
         "base_total", "similarity", "kept", "why"]  # fmt: skip


def of_rollouts(folder: Path) -> dict[str, Any]:
    """Of rollouts: counts, why rows are in no pair, statistics of every reward, and the best and worst of some seeds.

    Returns: ``rows``, ``seeds``, ``parsed``, ``pairs``, ``size``, ``columns``, ``prompt_columns``, ``why`` and ``problems``
    (lists of {"what", "rows"}, the most frequent first), ``statistics`` (see ``describe``; of the candidates' pictures and,
    once a seed, of the base pictures), ``samples`` (of a seed its caption, its base picture's reward, its best and worst
    candidate), ``scores`` and ``sheet`` (picture files in the folder, "" where there is nothing to draw).
    """
    why, problems, rows, parsed, kept = Counter(), Counter(), 0, 0, 0
    found: dict[tuple[str, str], array] = defaultdict(lambda: array("d"))
    seeds: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rollouts.told(folder, _TOLD)):
        rows, parsed, kept = rows + 1, parsed + row["parsed"], kept + row["kept"]
        if not row["kept"]:
            why[row["why"] if row["parsed"] else "the reply could not be read"] += 1
        if not row["parsed"]:
            problems[row["problem"]] += 1
        _gather(found, row)
        _extremes(seeds, row, number)
    shown = _some([seed for seed in seeds.values() if seed["best"]["total"] > seed["worst"]["total"]])
    series = _series(found)
    return {
        "rows": rows, "seeds": len(seeds), "parsed": parsed, "pairs": kept // 2,
        "size": size_category(rows), "columns": columns.told("rollouts"),
        "prompt_columns": columns.told("prompts"), "why": _most(why), "problems": _most(problems),
        "statistics": _statistics(series),
        "samples": [_sample(seed) for seed in shown],
        "scores": _chart(folder, series),
        "sheet": _sheet(folder, [_row(folder, seed) for seed in shown], ["base", "best", "worst"]),
    }  # fmt: skip


def of_pairs(folder: Path) -> dict[str, Any]:
    """Of preference pairs: ``rows``, ``size``, ``columns``, ``statistics``, ``samples``, ``scores``, ``sheet``."""
    found: dict[str, array] = defaultdict(lambda: array("d"))
    rows = []
    wanted = ["base_caption", "score_chosen", "score_rejected"]
    for number, row in enumerate(rollouts.told(folder, wanted)):
        won, lost = row["score_chosen"], row["score_rejected"]
        for of, value in (("chosen", won), ("rejected", lost), ("chosen − rejected", won - lost)):
            found[of].append(value)
        rows.append({"row": number, "caption": row["base_caption"], "chosen": won, "rejected": lost})
    shown = _some(rows)
    numbers = [row["row"] for row in shown]
    pictures = [rollouts.pictures(folder, f"image_{which}", numbers) for which in ("chosen", "rejected")]
    drawn = [
        (f"{_short(row['caption'])} · {row['chosen']:.2f} against {row['rejected']:.2f}", list(images))
        for row, images in zip(shown, zip(*pictures, strict=True), strict=True)
    ]
    return {
        "rows": len(rows), "size": size_category(len(rows)), "columns": columns.told("preferences"),
        "statistics": _statistics({"reward": found} if rows else {}), "samples": shown,
        "scores": _chart(folder, {"reward": {of: found[of] for of in ("chosen", "rejected")}} if rows else {}),
        "sheet": _sheet(folder, drawn, ["chosen", "rejected"]),
    }  # fmt: skip


def of_references(folder: Path) -> dict[str, Any]:
    """Of reference pictures: ``rows``, ``captions``, ``size``, ``columns``, ``sheet``."""
    places: dict[str, list[int]] = defaultdict(list)
    captions: dict[str, str] = {}
    rows = 0
    for number, row in enumerate(rollouts.told(folder, ["seed_id", "caption"])):
        rows += 1
        captions[row["seed_id"]] = row["caption"]
        if len(places[row["seed_id"]]) < 3:
            places[row["seed_id"]].append(number)
    most = max(map(len, places.values()), default=0)
    shown = _some([seed for seed, numbers in places.items() if len(numbers) == most])
    drawn = [(_short(captions[seed]), list(rollouts.pictures(folder, "image", places[seed]))) for seed in shown]
    return {
        "rows": rows, "captions": len(set(captions.values())), "size": size_category(rows),
        "columns": columns.told("references"),
        "sheet": _sheet(folder, drawn, [f"picture {i + 1}" for i in range(most)]),
    }  # fmt: skip


def of_results(folder: Path) -> dict[str, Any]:
    """Of an evaluation's ``told.json`` and ``samples``: ``sheet``, its first captions under every system, and ``unparsed``."""
    told = json.loads((folder / "told.json").read_text())
    systems = told["systems"]
    drawn = [
        (_short(sample["caption"]), [Image.open(folder / sample["systems"][name]["image"]) for name in systems])
        for sample in told["samples"][:SHOWN]
    ]
    unparsed = [{"what": name, "rows": count} for name, count in told["unparsed"].items() if count]
    return {"sheet": _sheet(folder, drawn, systems), "unparsed": unparsed, "pictures": len(told["seed_ids"])}


def describe(values: Sequence[float]) -> dict[str, Any]:
    """``n``, ``mean``, ``std`` (of the sample; 0 of one alone), ``min``, ``q1``, ``median``, ``q3``, ``max``, and ``shape``: the
    distribution between min and max as a line of blocks. Quartiles are interpolated linearly."""
    found = np.asarray(values, dtype=float)
    low, q1, middle, q3, high = np.quantile(found, [0, 0.25, 0.5, 0.75, 1]).tolist()
    bars, _ = np.histogram(found, bins=12)
    shape = "".join(BLOCKS[-(-int(bar) * (len(BLOCKS) - 1) // int(bars.max()))] for bar in bars)
    std = found.std(ddof=1).item() if len(found) > 1 else 0.0
    return {"n": len(found), "mean": found.mean().item(), "std": std, "min": low, "q1": q1, "median": middle, "q3": q3,
            "max": high, "shape": shape}  # fmt: skip


def size_category(rows: int) -> str:
    """The Hub's word for how many rows there are."""
    return next((word for i, word in enumerate(SIZES) if rows < 10 ** (i + 3)), "n>1T")


def _gather(found: dict[tuple[str, str], array], row: dict[str, Any]) -> None:
    """Add the numbers of a row: those of its picture, and once a seed those of the base picture."""
    if row["parsed"]:
        for name, value in {"total": row["total"], **json.loads(row["rewards"])}.items():
            found[name, "candidates"].append(value)
        if row["similarity"] is not None:
            found["similarity", "candidates"].append(row["similarity"])
    if row["candidate"] == 0:
        for name, value in {"total": row["base_total"], **json.loads(row["base_rewards"])}.items():
            found[name, "base pictures"].append(value)


def _extremes(seeds: dict[str, dict[str, Any]], row: dict[str, Any], number: int) -> None:
    """Note of a seed where its base picture, its best and its worst candidate stand."""
    none = {"total": float("-inf")}
    seed = seeds.setdefault(row["seed_id"], {"best": none, "worst": {"total": float("inf")}, "base": None})
    if row["candidate"] == 0:
        seed |= {"caption": row["base_caption"], "base": number, "base_total": row["base_total"]}
    if row["parsed"]:
        told = {"row": number, "total": row["total"], "prompt": row["prompt"]}
        if row["total"] > seed["best"]["total"]:
            seed["best"] = told
        if row["total"] < seed["worst"]["total"]:
            seed["worst"] = told


def _some(found: list[Any]) -> list[Any]:
    """SHOWN of them at even distances, so that no one chose them by their looks."""
    return [found[i * len(found) // SHOWN] for i in range(SHOWN)] if len(found) > SHOWN else found


def _sample(seed: dict[str, Any]) -> dict[str, Any]:
    return {"caption": seed["caption"], "base": seed["base_total"], "best": seed["best"], "worst": seed["worst"]}


def _row(folder: Path, seed: dict[str, Any]) -> tuple[str, list[Image.Image]]:
    label = f"{_short(seed['caption'])} · base {seed['base_total']:.2f}, best {seed['best']['total']:.2f}"
    places = [("image_base", seed["base"]), ("image", seed["best"]["row"]), ("image", seed["worst"]["row"])]
    images = [next(rollouts.pictures(folder, column, [row])) for column, row in places]
    return f"{label}, worst {seed['worst']['total']:.2f}", images


def _most(counted: Counter) -> list[dict[str, Any]]:
    return [{"what": what, "rows": rows} for what, rows in counted.most_common()]


def _short(caption: str) -> str:
    return caption if len(caption) <= LABEL else f"{caption[: LABEL - 2].rstrip()} …"


def _series(found: dict[tuple[str, str], array]) -> dict[str, dict[str, array]]:
    """Numbers by name, then by what they are of; of a total that is a reward once more, the reward alone."""
    series: dict[str, dict[str, array]] = defaultdict(dict)
    for (name, of), values in found.items():
        series[name][of] = values
    if any(name != "total" and values == series["total"] for name, values in series.items()):
        del series["total"]
    return dict(series)


def _statistics(series: dict[str, dict[str, array]]) -> list[dict[str, Any]]:
    return [{"name": name, "of": of} | describe(values) for name, by in series.items() for of, values in by.items()]


def _chart(folder: Path, series: dict[str, dict[str, array]]) -> str:
    """Write the distributions of numbers; gives the file's name, "" of none."""
    if not series:
        return ""
    (folder / "card").mkdir(exist_ok=True)
    histograms(list(series.items()), BINS).save(folder / "card" / "scores.png", optimize=True)
    return "card/scores.png"


def _sheet(folder: Path, rows: list[tuple[str, list[Image.Image]]], heads: list[str]) -> str:
    """Write labelled rows of pictures as one picture of less than a megabyte; gives the file's name, "" of no rows."""
    if not rows:
        return ""
    (folder / "card").mkdir(exist_ok=True)
    images = [[_cell(image) for image in found] for _, found in rows]
    sheet = grid(images, [label for label, _ in rows], heads, scale=1)
    sheet.save(folder / "card" / "samples.jpg", quality=85, subsampling=0)  # `optimize` fails on noisy pictures
    return "card/samples.jpg"


def _cell(image: Image.Image) -> Image.Image:
    """A picture as it is shown: a large one reduced, a small one enlarged without smoothing."""
    side = max(image.size)
    if side > MOST:
        image = image.convert("RGB")
        image.thumbnail((MOST, MOST), Image.Resampling.LANCZOS)
    elif (times := CELL // side) > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    return image
