"""What the tests ask of a Hub; runs in a process whose environment points at a local one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from spro_hf import space
from spro_hf.errors import UserError

sys.path.append(str(space.home()))
EMBEDDED = space.home() / "artifacts"


def fill() -> None:
    """A pipeline and its rollouts as they are embedded, the same in private, and pipelines that ask for too much."""
    api = HfApi()
    for repo, kind, folder, private in (
        ("spro/good", "model", "aesthetics", False),
        ("spro/secret", "model", "aesthetics", True),
        ("spro/rows", "dataset", "aesthetics-rollouts", False),
        ("spro/secret-rows", "dataset", "aesthetics-rollouts", True),
        ("spro/tiny-aesthetics-pairs", "dataset", "aesthetics-rollouts", False),  # of its name its lineage says: pairs
    ):
        api.create_repo(repo, repo_type=kind, private=private)
        api.upload_folder(repo_id=repo, repo_type=kind, folder_path=EMBEDDED / folder)
        api.create_tag(repo, repo_type=kind, tag="v1")
    index = json.loads((EMBEDDED / "aesthetics/model_index.json").read_text())
    lineage = json.loads((EMBEDDED / "aesthetics/lineage.json").read_text())
    long = index["base"] | {"call": {"num_inference_steps": 10_000}}
    for name, files in {
        "slow": {"model_index.json": index | {"base": long}, "lineage.json": lineage},
        "spy": {
            "model_index.json": index | {"guider": index["guider"] | {"id": "spro/secret"}},
            "lineage.json": lineage,
        },
        "here": {"model_index.json": index | {"base": index["base"] | {"id": "/etc"}}, "lineage.json": lineage},
        "away": {"model_index.json": index | {"base": index["base"] | {"lora": "../../x"}}, "lineage.json": lineage},
        "bare": {"model_index.json": index},
        "other": {"model_index.json": index | {"_class_name": "FluxPipeline"}},
        "empty": {"notes.json": {}},
    }.items():
        api.create_repo(f"spro/{name}")
        for file, content in files.items():
            text = json.dumps(content).encode()
            api.upload_file(repo_id=f"spro/{name}", path_or_fileobj=text, path_in_repo=file)
    api.create_repo("spro/no-rows", repo_type="dataset")


def said(call: Callable[..., Any], *arguments: Any) -> str:
    """What a call answers to a mistake; "" if it goes through."""
    try:
        call(*arguments)
    except UserError as error:
        return str(error)
    return ""


def of_pipeline(id: str, own: str | None = None) -> str:
    """What the Space says to a pipeline's id; ``own`` is the one that it was published with."""
    import sources

    sources.configured = lambda kind: own
    return said(sources.pipeline, id)


def of_rollouts(id: str) -> str:
    import sources

    sources.configured = lambda kind: None
    return said(lambda: [sources.part(id, file) for file in sources.rollouts(id)])


def weighed(heaviest: float) -> str:
    """What the Space says if it takes less than the pipeline weighs."""
    import sources

    sources.configured, usual, sources.HEAVIEST = lambda kind: None, sources.HEAVIEST, heaviest
    try:
        return said(sources.pipeline, "spro/good@v1")
    finally:
        sources.HEAVIEST = usual


def found(id: str) -> dict[str, bytes]:
    """The files of a pipeline as the Space would load it."""
    import sources

    folder = sources.pipeline(id)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def seed_of(id: str) -> dict[str, Any]:
    """The first seed of rollouts on the Hub."""
    import explorer
    import sources

    (file,) = sources.rollouts(id)
    _, rows = explorer.rows(id, file)
    seen = explorer.look(id, file, rows[0]["seed_id"])
    return {"rows": len(rows), "totals": [c["total"] for c in seen["candidates"]], "caption": seen["caption"]}


def publish_before() -> None:
    """The Space as an earlier version left it: with a file that this one has not."""
    HfApi().create_repo("spro/spro", repo_type="space", space_sdk="gradio")
    HfApi().upload_file(repo_id="spro/spro", repo_type="space", path_or_fileobj=b"", path_in_repo="of_before.py")


def push(repo: str | None, shown: dict[str, str], private: bool = False) -> str:
    return space.push(repo, shown, private)


def push_said(repo: str | None, shown: dict[str, str]) -> str:
    return said(space.push, repo, shown)


def pushed(repo: str) -> dict[str, Any]:
    """A published Space, fetched."""
    info, folder = HfApi().space_info(repo), Path(snapshot_download(repo, repo_type="space"))
    return {
        "files": sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()),
        "told": json.loads((folder / "space.json").read_text()),
        "private": info.private,
        "spaces": [HfApi().repo_exists(repo, repo_type=kind) for kind in ("space", "model")],
    }


def exists(repo: str) -> bool:
    return HfApi().repo_exists(repo, repo_type="space")
