"""Data sets of the shadow Hub: of each that ``recipes/_data`` names a few rows, with the real one's files, columns and types.

The captions are made up, and so are the pictures. As with the real ones, Flickr30k's captions are lists, Pick-a-Pic's
pictures are the bytes of JPEG files and its captions recur, and PartiPrompts is a file of tabs.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pictures

ROWS = 60
TIMES = ("", " in winter", " at dusk")
WHO = ("a brown dog", "two children", "an old sailor", "a red bus", "a street musician")
WHERE = ("on a wet beach", "under a bridge at night", "beside a field of tulips", "in front of a small bakery")
CAPTIONS = [f"{who} {where}{time}" for time, where, who in product(TIMES, WHERE, WHO)]  # ROWS of them, all different
TEXT, WHOLE, REAL = Value("string"), Value("int64"), Value("float64")
PICKED = {
    "are_different": Value("bool"), "best_image_uid": TEXT, "caption": TEXT, "created_at": Value("timestamp[ns]"),
    "has_label": Value("bool"), "image_0_uid": TEXT, "image_0_url": TEXT, "image_1_uid": TEXT, "image_1_url": TEXT,
    "label_0": REAL, "label_1": REAL, "model_0": TEXT, "model_1": TEXT, "ranking_id": WHOLE, "user_id": WHOLE,
    "num_example_per_prompt": WHOLE, "__index_level_0__": WHOLE,
}  # fmt: skip
DAY = datetime.datetime(2023, 3, 1)


def painted(i: int) -> Pictures.Image:
    """A picture of 32×24, another one for each number."""
    y, x = np.mgrid[0:24, 0:32]
    return Pictures.fromarray(
        np.stack([(i * 37 + 5 * x) % 256, (i * 91 + 7 * y) % 256, (x * y + i) % 256], -1).astype("u1")
    )


def jpeg(i: int) -> bytes:
    file = io.BytesIO()
    painted(i).save(file, "JPEG", quality=95)
    return file.getvalue()


def write(file: Path, features: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Rows as a parquet file, the types of datasets' own in its header, as ``push_to_hub`` writes them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [row[name] for row in rows] for name in features}
    Dataset.from_dict(columns, Features(features)).to_parquet(file)


def _card(folder: Path, splits: tuple[str, ...]) -> None:
    """A card as ``push_to_hub`` writes it."""
    lines = [f"  - split: {split}\n    path: data/{split}-*" for split in splits]
    head = "configs:\n- config_name: default\n  data_files:\n" + "\n".join(lines)
    (folder / "README.md").write_text(f"---\n{head}\n---\n# A shadow\n")


def flickr30k(folder: Path) -> None:
    features = {
        "image": Image(),
        "caption": List(TEXT),
        "sentids": List(TEXT),
        "split": TEXT,
        "img_id": TEXT,
        "filename": TEXT,
    }
    parts = ("train", "test", "train", "val")
    rows = [
        {"image": painted(i), "caption": [caption, f"a photo of {caption}"], "sentids": [str(2 * i), str(2 * i + 1)],
         "split": parts[i % 4], "img_id": str(i), "filename": f"{1000 + i}.jpg"}
        for i, caption in enumerate(CAPTIONS)
    ]  # fmt: skip
    write(folder / "TEST/test/0000.parquet", features, rows)


def pick_a_pic(pictures: bool) -> Callable[[Path], None]:
    """Pick-a-Pic with the bytes of its pictures, or without. Three rows share a prompt, but in the splits named unique."""

    def build(folder: Path) -> None:
        features = PICKED | ({"jpg_0": Value("binary"), "jpg_1": Value("binary")} if pictures else {})
        splits = {"train": 3, "validation": 3, "test": 3, "validation_unique": 1, "test_unique": 1}
        for split, share in splits.items():
            rows = [_pair(i, CAPTIONS[i // share]) for i in range(ROWS)]
            write(folder / f"data/{split}-00000-of-00001-{'0' * 16}.parquet", features, rows)
        told = "\n".join(f"  - name: {name}\n    dtype: {value.dtype}" for name, value in features.items())
        (folder / "README.md").write_text(f"---\ndataset_info:\n  features:\n{told}\n---\n# A shadow\n")

    return build


def _pair(i: int, caption: str) -> dict[str, Any]:
    return {
        "are_different": True, "best_image_uid": f"uid-{2 * i}", "caption": caption,
        "created_at": DAY + datetime.timedelta(hours=i), "has_label": True, "image_0_uid": f"uid-{2 * i}",
        "image_0_url": f"https://example.org/{2 * i}.jpg", "image_1_uid": f"uid-{2 * i + 1}",
        "image_1_url": f"https://example.org/{2 * i + 1}.jpg", "jpg_0": jpeg(2 * i), "jpg_1": jpeg(2 * i + 1),
        "label_0": 1.0, "label_1": 0.0, "model_0": "stable-diffusion-xl", "model_1": "dreamlike-photoreal-2.0",
        "ranking_id": i, "user_id": i % 4, "num_example_per_prompt": 3, "__index_level_0__": i,
    }  # fmt: skip


def parti(folder: Path) -> None:
    kinds = ("Animals", "People", "Outdoor Scenes", "Vehicles")
    lines = [f"{caption}\t{kinds[i % 4]}\tBasic\t" for i, caption in enumerate(CAPTIONS)]
    (folder / "PartiPrompts.tsv").write_text("\n".join(["Prompt\tCategory\tChallenge\tNote", *lines]) + "\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A shadow\n")


def engaging_imagenet(folder: Path) -> None:
    """The columns that recipes/_data asks for: the real one is not released. Likes are no order of the rows."""
    features = {
        "image": Image(), "caption": TEXT, "tweet": TEXT, "company": TEXT, "date": TEXT, "tags": List(TEXT), "likes": WHOLE
    }  # fmt: skip
    rows = [
        {"image": painted(i), "caption": caption, "tweet": f"Look who we met: {caption}!", "tags": ["travel", f"day{i}"],
         "company": ("Acme Tours", "Blue Bakery")[i % 2], "date": str((DAY + datetime.timedelta(days=i)).date()),
         "likes": i * 7 % ROWS}
        for i, caption in enumerate(CAPTIONS)
    ]  # fmt: skip
    for split in ("train", "test"):
        write(folder / f"data/{split}-00000-of-00001.parquet", features, rows)
    _card(folder, ("train", "test"))


def lexica(folder: Path) -> None:
    features = {
        "image": Image(), "prompt": TEXT, "id": TEXT, "promptid": TEXT, "width": Value("uint16"),
        "height": Value("uint16"), "seed": Value("uint32"), "grid": Value("bool"), "model": TEXT, "nsfw": TEXT,
        "subject": TEXT, "modifier10": List(TEXT), "modifier10_vector": List(REAL),
    }  # fmt: skip
    rows = [
        {"image": painted(i), "prompt": f"{caption}, oil painting, trending", "id": f"i{i}", "promptid": f"p{i}", "width": 512,
         "height": 512, "seed": i, "grid": False, "model": "stable-diffusion", "nsfw": "False", "subject": caption,
         "modifier10": ["oil painting", "trending"], "modifier10_vector": [1.0, 1.0]}
        for i, caption in enumerate(CAPTIONS)
    ]  # fmt: skip
    for split in ("train", "test"):
        write(folder / f"data/{split}-00000-of-00001-{'0' * 16}.parquet", features, rows)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# A shadow\n")


def spro_prompts(folder: Path) -> None:
    """Four prompts a caption, the third of them the best."""
    features = {
        "filename": TEXT, "caption": TEXT, "improved_prompt_new": TEXT, "score": REAL, "image_path": Image(), "objective": TEXT
    }  # fmt: skip
    ways = ("at dawn", "in soft light", "in golden light, finely composed", "in fog")
    rows = [
        {"filename": f"{1000 + i}.jpg", "caption": caption, "improved_prompt_new": f"{caption} {way}",
         "score": 6.0 + i / 100 + (0.1, 0.4, 1.2, 0.2)[j], "image_path": painted(4 * i + j), "objective": "aesthetics"}
        for i, caption in enumerate(CAPTIONS)
        for j, way in enumerate(ways)
    ]  # fmt: skip
    write(folder / "data/train-00000-of-00001.parquet", features, rows)
    _card(folder, ("train",))


DATASETS: dict[str, Callable[[Path], None]] = {
    "nlphuji/flickr30k": flickr30k,
    "yuvalkirstain/pickapic_v1": pick_a_pic(pictures=True),
    "yuvalkirstain/pickapic_v1_no_images": pick_a_pic(pictures=False),
    "nateraw/parti-prompts": parti,
    "behavior-in-the-wild/EngagingImageNet": engaging_imagenet,
    "vera365/lexica_dataset": lexica,
    "behavior-in-the-wild/spro-optimized-prompts-full": spro_prompts,
}
