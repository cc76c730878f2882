"""``spro-hf space``: run the Space of ``spaces/spro`` here, or publish it on a Hub.

Published is the folder as it stands, and beside app.py this very package, so that ``import spro_hf`` works there without a
release of it being anywhere; requirements.txt lists the libraries alone. Of the embedded world's weights only those go
along that the embedded pipelines name. Which pipeline and which rollouts are shown first stands in space.json, which the
app reads on the real Hub and on a local one alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from spro_hf.errors import UserError
from spro_hf.hub.server import at_hub, port
from spro_hf.lineage.place import read_json

PACKAGE = Path(__file__).resolve().parent
KINDS = {"pipeline": "model", "rollouts": "dataset"}
NAME = "spro"  # of the Space, where no other is given
# of the package: what the wheel carries for the command line alone, and how the embedded world was made
_ASIDE = ("__pycache__", "spaces", "recipes", "model_cards", "datasets_cards", "make")
_INDEX = "model_index.json"


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``spro-hf space``."""
    actions = parser.add_subparsers(dest="action", required=True)
    push = actions.add_parser("push", help="publish the Space on a Hub")
    push.add_argument("--repo", help=f"where to, as user/name (default: the token's account, with the name {NAME})")
    push.add_argument("--private", action="store_true", help="only the account may see it")
    run = actions.add_parser("run", help="run the Space here, at http://127.0.0.1:7860")
    run.add_argument("--port", type=port, default=7860)
    for action in (push, run):
        action.add_argument("--pipeline", help="the SPROPipeline that it shows first, as user/repo or user/repo@tag")
        action.add_argument("--rollouts", help="the rollouts that it shows first, as user/repo or user/repo@tag")
        action.add_argument("--hub", help="the folder of a run, whose local Hub is started, or the address of a Hub")


def main(arguments: argparse.Namespace) -> int:
    """Run or publish."""
    shown = {kind: id for kind in KINDS if (id := getattr(arguments, kind))}
    with at_hub(arguments.hub):
        if arguments.action == "run":
            return run(shown, arguments.port)
        print(push(arguments.repo, shown, arguments.private))
    return 0


def home() -> Path:
    """The folder of the Space: in a wheel inside the package, in a checkout beside it."""
    inside = PACKAGE / "spaces" / "spro"
    return inside if inside.is_dir() else PACKAGE.parent / "spaces" / "spro"


def run(shown: dict[str, str], port: int) -> int:
    """Run the app in a process of its own until it is stopped; gives its exit status."""
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError("space run: gradio is not installed; pip install 'spro_hf[space]'.") from None
    paths = filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")])
    told = {"PYTHONPATH": os.pathsep.join(paths), "GRADIO_SERVER_PORT": str(port)}
    told |= {f"SPRO_{kind.upper()}": id for kind, id in shown.items()}
    with subprocess.Popen([sys.executable, "app.py"], cwd=home(), env=os.environ | told) as app:
        signal.signal(signal.SIGTERM, lambda *_: app.terminate())  # as a container or a scheduler ends it
        return app.wait()


def push(repo: str | None, shown: dict[str, str], private: bool = False) -> str:
    """Publish the Space as one commit and give its address; what an earlier one had beside it is gone.

    Args:
        repo: where to; None is the account of the token, with the usual name.
        shown: ids of what it shows first, by kind ("pipeline", "rollouts").

    Raises:
        UserError: before anything is uploaded if the token may not write there, or an id names no such artifact.
    """
    from huggingface_hub import HfApi

    from spro_hf.hub.artifacts import check_token
    from spro_hf.hub.trouble import explained, patiently

    check_token([repo] if repo else [], f"--repo {{}}/{NAME}")
    api = HfApi()
    repo = repo or f"{api.whoami()['name']}/{NAME}"
    for kind, id in shown.items():
        _check(kind, id)
    with tempfile.TemporaryDirectory() as folder, explained(repo, "space", writes=True):
        lay_out(Path(folder), shown)
        patiently(lambda: api.create_repo(repo, repo_type="space", space_sdk="gradio", private=private, exist_ok=True))
        patiently(
            lambda: api.upload_folder(
                repo_id=repo, repo_type="space", folder_path=folder, delete_patterns="*", commit_message="SPRO's Space"
            )
        )
    return f"{api.endpoint}/spaces/{repo}"


def _check(kind: str, id: str) -> None:
    """Raise a UserError if an id does not name a version of what it should be."""
    from spro_hf.hub.artifacts import pull

    repo, _, revision = id.partition("@")
    field, wanted = f"--{kind}", _INDEX if kind == "pipeline" else "lineage.json"
    try:
        folder = pull(repo, KINDS[kind], revision or "main", lambda files: [f for f in files if f == wanted])
    except UserError as error:
        raise UserError(f"{field}: {error}") from error
    told = read_json(folder / wanted)
    told = told if isinstance(told, dict) else {}
    if kind == "pipeline" and told.get("_class_name") != "SPROPipeline":
        raise UserError(f"{field}: '{id}' is no SPROPipeline; name what a multimodal recipe pushes as its pipeline.")
    recipe = told.get("recipe")
    push = recipe.get("push") if isinstance(recipe, dict) else None
    pushed = {repo: what for what, repo in push.items()} if isinstance(push, dict) else {}
    if kind == "rollouts" and ("rollouts" not in pushed.values() or pushed.get(repo, kind) != kind):  # pairs, say
        raise UserError(f"{field}: '{id}' holds no rollouts; name what a prompt recipe pushes as its rollouts.")


def lay_out(folder: Path, shown: dict[str, str]) -> None:
    """Fill an empty folder with what is published: the Space, space.json, and the package that it imports."""
    shutil.copytree(home(), folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    (folder / "space.json").write_text(json.dumps(shown, indent=2) + "\n", encoding="utf-8")
    weights, needed = PACKAGE / "tiny" / "weights", _needed()

    def left_out(where: str, names: list[str]) -> list[str]:
        if Path(where) == weights:
            return [name for name in names if (weights / name).is_dir() and name not in needed]
        return [name for name in names if name in _ASIDE]

    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=left_out)


def _needed() -> set[str]:
    """The models of the embedded world that the embedded pipelines were made with and are scored by."""
    from spro_hf.models import BUILT_IN

    lineages = [json.loads(file.read_text()) for file in home().glob("artifacts/*/lineage.json")]
    ids = {id.partition("@")[0] for lineage in lineages for id in lineage["models"].values()}
    return {id.removeprefix(BUILT_IN) for id in ids if id.startswith(BUILT_IN)}
