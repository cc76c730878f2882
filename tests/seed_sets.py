"""What the tests of seeds push and ask; runs in a process whose environment points at a local Hub."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spro_hf import seeds
from spro_hf.errors import UserError
from spro_hf.parts import Seeds

ROWS = [  # number: caption, kind, likes, prompt, score
    ("one", "a", 50, "one A", 1.0),
    (" ", "a", 10, "blank A", 1.0),
    ("two ", "b", 20, "two A", 2.0),
    ("one", "b", 30, "one B", 3.0),
    ("three", "a", 40, "", 4.0),
    (None, "a", 60, "none A", 5.0),
    ("four", "c", 70, "four A", None),
    ("five", "b", 0, "five A", 0.5),
    ("two", "a", None, "two A", 9.0),
    ("six", "c", 80, "six A", 1.5),
]


def red(i: int) -> Image.Image:
    return Image.fromarray(np.full((2, 3, 3), (200, i, 7), np.uint8))


def file_of(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def pictures() -> list[bytes | None]:
    """One picture a row: mostly red ones; of the others one is half transparent, one has a palette, one is CMYK ..."""
    cells: list[bytes | None] = [file_of(red(i), "PNG") for i in range(len(ROWS))]
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 128))
    half.putpixel((1, 0), (0, 0, 0, 0))
    cells[2] = file_of(half, "PNG")
    cells[3] = file_of(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF")
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.info["transparency"] = 1
    cells[4] = file_of(palette, "PNG")
    cells[6], cells[7] = b"no picture", None
    return cells


def fill(folder: str) -> dict[str, str]:
    """Push the data sets of these tests; gives the first commit of spro/made, which has two."""
    from datasets import Dataset, Features, List, Value
    from datasets import Image as Picture
    from huggingface_hub import HfApi

    from tests.shadow.datasets import DATASETS, write

    api, root = HfApi(), Path(folder)

    def push(repo: str, private: bool = False) -> str:
        api.create_repo(repo, repo_type="dataset", exist_ok=True, private=private)
        return api.upload_folder(repo_id=repo, folder_path=root / repo, repo_type="dataset").oid

    features = {
        "caption": Value("string"), "captions": List(Value("string")), "kind": Value("string"), "likes": Value("int64"),
        "prompt": Value("string"), "score": Value("float32"), "image": Picture(), "jpg": Value("binary"),
        "tags": List(Value("string")), "year": Value("int32"),
    }  # fmt: skip
    rows = [
        {"caption": caption, "captions": [caption, f"other {caption}"] if caption else [], "kind": kind, "likes": likes,
         "prompt": prompt, "score": score, "image": cell and {"bytes": cell, "path": None}, "jpg": file_of(red(i), "JPEG"),
         "tags": ["x", f"y{i}"] if i else [], "year": 2000 + i}
        for i, ((caption, kind, likes, prompt, score), cell) in enumerate(zip(ROWS, pictures(), strict=True))
    ]  # fmt: skip
    for split in ("train", "test"):
        write(root / f"spro/made/data/{split}-00000-of-00001.parquet", features, rows)
    first = push("spro/made")
    newer = [row | {"caption": f"new {row['caption']}"} for row in rows]
    write(root / "spro/made/data/train-00000-of-00001.parquet", features, newer)
    push("spro/made")
    for name in ("a", "b"):
        write(root / f"spro/configs/{name}/train.parquet", {"text": Value("string")}, [{"text": f"from {name}"}])
    head = "\n".join(f"- config_name: {n}\n  data_files:\n  - split: train\n    path: {n}/train.parquet" for n in "ab")
    (root / "spro/configs/README.md").write_text(f"---\nconfigs:\n{head}\n---\n")
    push("spro/configs")
    write(
        root / "spro/long/data/train-00000-of-00002.parquet", {"text": Value("string")}, [{"text": "a"}, {"text": "b"}]
    )
    (root / "spro/long/data/train-00001-of-00002.parquet").write_bytes(b"not parquet")
    push("spro/long")
    for repo, name, words in (("spro/script", "script.py", "x = 1"), ("spro/nothing", "weights.bin", "none")):
        (root / repo).mkdir(parents=True)
        (root / repo / name).write_text(words)
        push(repo)
    Dataset.from_dict({"text": ["x"]}, Features({"text": Value("string")})).to_csv(root / "private.csv")
    (root / "spro/private").mkdir()
    (root / "private.csv").rename(root / "spro/private/train.csv")
    push("spro/private", private=True)
    for repo, make in DATASETS.items():
        (root / repo).mkdir(parents=True)
        make(root / repo)
        push(repo)
    return {"first": first, "second": api.dataset_info("spro/made").sha}


def taken(what: Seeds, images: bool = False) -> list[dict[str, Any]]:
    """The seeds as plain data, their pictures as arrays."""
    return [
        {"id": s.seed_id, "caption": s.caption, "prompt": s.prompt, "score": s.score, "context": dict(s.context)}
        | ({"image": np.asarray(s.image())} if images else {})
        for s in seeds.load(what, 0)
    ]


def opened(what: Seeds) -> tuple[list[str], list[str]]:
    """The columns that are read, and the files of the snapshot."""
    from spro_hf.hub.artifacts import pull
    from spro_hf.hub.rows import open_rows

    columns = open_rows(what, "seeds").column_names
    folder = pull(what.source, "dataset", what.revision, lambda _: [".gitattributes"])
    return columns, sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def pictured(what: Seeds, number: int) -> tuple[str, Any]:
    """The mode and pixels of one seed's picture, or the sentence that is told when it is asked for."""
    try:
        image = {s.seed_id: s for s in seeds.load(what, 0)}[f"train-{number:06d}"].image()
    except UserError as error:
        return "told", str(error)
    return image.mode, np.asarray(image).tolist()


def told(what: Seeds, call: str = "load", field: str = "seeds", token: str | None = None) -> str:
    kept = os.environ["HF_TOKEN"]
    os.environ["HF_TOKEN"] = kept if token is None else token
    try:
        seeds.load(what, 0, field) if call == "load" else seeds.preflight(what, field)
    except UserError as error:
        return str(error)
    finally:
        os.environ["HF_TOKEN"] = kept
    raise AssertionError("nothing was told")


def without_network(what: Seeds) -> list[dict[str, Any]]:
    import datasets
    import huggingface_hub

    kept = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        return taken(what)
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = kept


def checked(what: Seeds) -> tuple[str | None, str | None]:
    seeds.preflight(what)
    return seeds.pinned(what), seeds.digest(what)
