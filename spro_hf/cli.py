"""The command line: ``spro-hf plan`` a recipe and ``run`` it, ``score`` pictures, ``hub serve`` what a run left and ``report`` it
again; ``lineage``, ``diff`` and ``reproduce`` of what is on a Hub; the ``space`` that shows it."""

from __future__ import annotations

import argparse
import errno
import sys
from pathlib import Path
from typing import Any

import yaml

from spro_hf import space
from spro_hf.errors import UserError
from spro_hf.hub import users
from spro_hf.hub.server import hub_of, port, serve_forever
from spro_hf.lineage import diff, reproduce, show
from spro_hf.strict import parse_yaml

DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
)  # what a user can mend


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spro-hf", description="Self-play reward optimisation of image generators.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a recipe, or a list of them; continues a run that was killed")
    _add_recipe(run)
    run.add_argument("--out", type=Path, help="the run's folder (default: runs/<folder of the recipe>-<its name>)")
    run.add_argument(
        "--hub", default="local", help='"local" (default) or the address of a Hub, e.g. https://huggingface.co'
    )
    run.add_argument(
        "--dry-run", action="store_true", help="push nothing; what would be pushed is laid out in the run's folder"
    )
    _add_plan(
        commands.add_parser("plan", help="what a run will take: models, pictures, memory, disk, hours; no weights")
    )
    _add_score(
        commands.add_parser("score", help="score pictures by a recipe's scorers, or by a reward that has learned")
    )
    hub = commands.add_parser("hub", help="the local Hub").add_subparsers(dest="action", required=True)
    serve = hub.add_parser("serve", help="keep a run's local Hub up")
    serve.add_argument("folder", type=Path, help="a run's folder, e.g. runs/tiny-spro, or a Hub's own")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=port, default=8642)
    users.add(hub.add_parser("user", help="add a user to a local Hub; prints their token once"))
    show.add(commands.add_parser("lineage", help="where an artifact of a Hub comes from, as a tree and as a picture"))
    diff.add(commands.add_parser("diff", help="what changed between two versions: recipe, inputs, results, pictures"))
    reproduce.add(commands.add_parser("reproduce", help="make an artifact of a Hub again, and say whether it is equal"))
    space.add(commands.add_parser("space", help="the demo app: run it here, or publish it as a Space"))
    report = commands.add_parser("report", help="write report.html again from a run's results.json")
    report.add_argument("folder", type=Path)
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a YAML file, e.g. recipes/tiny/spro.yaml")
    _add_changes(parser, "rounds=2")
    parser.add_argument("--seeds", type=Path, help="a text file of captions to train on, one a line")
    parser.add_argument("--seed", type=int, help="the seed of everything random (default: the recipe's)")


def _add_changes(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="changes",
        help=f"a field that wins over the recipe's, e.g. --set {example}; may be repeated",
    )  # fmt: skip


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", help="a recipe's YAML file, or a trained reward: user/repo, user/repo@revision, or a folder"
    )
    parser.add_argument(
        "pictures", type=Path, nargs="+",
        help="files, or folders with PNG, JPEG or WebP files, which are taken in the order of their names; what is "
        "transparent is put on white",
    )  # fmt: skip
    captions = parser.add_mutually_exclusive_group()
    captions.add_argument("--caption", help="the caption of every picture")
    captions.add_argument("--captions", type=Path, help="a text file with one caption a line, in the pictures' order")
    parser.add_argument("--hub", help="the folder of a run, whose local Hub is started, or the address of a Hub")
    _add_changes(parser, "scorers.pickscore.device=cpu")
    parser.add_argument("--json", action="store_true", help="plain data in place of a table")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    parser.add_argument("--images-per-second", type=float, help="what the generator draws on one device")
    parser.add_argument("--tokens-per-second", type=float, help="what the guider writes on one device")
    parser.add_argument("--samples-per-second", type=float, help="what training takes in on one device")
    parser.add_argument("--throughput", type=Path, help="a file of such numbers, as --calibrate writes it")
    parser.add_argument("--calibrate", action="store_true", help="load the models and time a batch of each first")
    parser.add_argument("--hub", help="the address of a Hub to ask for sizes that are not known here")
    parser.add_argument("--json", action="store_true", help="plain data in place of tables")


def _changes(pairs: list[str]) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise UserError(f"'{pair}' is not of the form field=value, e.g. --set rounds=2.")
        try:
            found[key] = parse_yaml(value)
        except yaml.YAMLError:
            raise UserError(f"{key}: {value!r} is not a YAML value; quote it.") from None
    return found


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 if all went well, 2 after a mistake of the user's, told in one sentence."""
    arguments = _parser().parse_args(argv)
    try:
        return COMMANDS[arguments.command](arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in DISK:
            raise
        print(
            f"error: {error.strerror}: {error.filename or 'the disk'}; mend that, and the same command continues.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command continues from here.", file=sys.stderr)
        return 130


def _plan(arguments: argparse.Namespace) -> int:
    from spro_hf.plan import main as plan

    return plan(arguments, _all_changes(arguments))


def _all_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    return _changes(arguments.changes) | ({} if arguments.seed is None else {"seed": arguments.seed})


def _run(arguments: argparse.Namespace) -> int:
    from spro_hf.run import run

    changes = _all_changes(arguments)
    name = f"{arguments.recipe.resolve().parent.name}-{arguments.recipe.stem}"
    out = arguments.out or Path("runs") / name
    command = ["spro-hf", *sys.argv[1:]]
    run(arguments.recipe, out, arguments.hub, arguments.seeds, changes, command, arguments.dry_run)
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from spro_hf.score import main as score

    return score(arguments, _changes(arguments.changes))


def _hub(arguments: argparse.Namespace) -> int:
    if arguments.action == "user":
        return users.main(arguments)
    serve_forever(hub_of(arguments.folder), arguments.host, arguments.port)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from spro_hf.report import write_report

    print(write_report(arguments.folder))
    return 0


COMMANDS = {"run": _run, "plan": _plan, "score": _score, "hub": _hub, "report": _report, "lineage": show.main,
            "diff": diff.main, "reproduce": reproduce.main, "space": space.main}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
