"""The rewards of spro_hf as an ``evaluate`` metric: score your own pictures, by path or from a Space.

    metric = evaluate.load("metrics/spro_reward", "pickscore")
    metric.compute(predictions=pictures, references=captions)  # {"pickscore": mean, "pickscore_scores": [...]}

This file is all that ``evaluate`` fetches; what it calls is in the package spro_hf, which is installed apart.
"""

import inspect
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import datasets
import evaluate
from PIL import Image, ImageOps

try:
    import spro_hf
    from spro_hf.errors import UserError
    from spro_hf.parts import SCORERS
    from spro_hf.strict import nearest, parse_yaml
except ModuleNotFoundError as error:
    if error.name != "spro_hf":
        raise
    raise ModuleNotFoundError(
        "spro_reward: the package spro_hf is not installed, and is on no registry; install it from its repository, as by "
        "pip install git+https://<where you have it>.",
        name="spro_hf",
    ) from None

_DESCRIPTION = """
How good pictures are to a reward of text-to-image models: PickScore, LAION's aesthetic predictor, ImageReward, HPSv2, CLIP
score, CLIP-IQA and others, or a reward that has learned beside a generator. The config's name says which.
"""
_INPUTS = """
Args:
    predictions (list of PIL pictures or of paths): the pictures.
    references (list of str): their captions; pictures to compare with for "similarity"; none for a reward that looks at the
        picture alone.
    **fields: the scorer's fields (id, revision, device, dtype, batch_size ...). Without an `id` those of the recipes hold.
        All but `revision` are taken by `evaluate.load` too, where `id` may be "user/repository@revision".
Returns:
    the mean under the config's name, and each picture's score under that name with "_scores".
"""
_CITATION = "SPRO: Improving Image Generation via Self-Play, NeurIPS 2025, https://openreview.net/forum?id=A4JiifkTzq"
_AS_THEY_ARE = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # modes that PNG keeps


class SproReward(evaluate.Metric):
    """One reward over a list of pictures. They are kept on disk, as files are, until each is scored."""

    def __init__(self, config_name: str | None = None, **options):
        known = inspect.signature(evaluate.EvaluationModule.__init__).parameters
        self.given = {name: options.pop(name) for name in [*options] if name not in known}
        self.reward = None  # the fields of the one that was loaded last, and the reward
        super().__init__(config_name=config_name, **options)
        _check_fields(self.kind, self.given)

    def _info(self) -> evaluate.MetricInfo:
        names = {kind: {} for kind in SCORERS if kind != "adversarial"} | _published()
        if self.config_name == "adversarial":
            raise UserError(
                "spro_reward: a new 'adversarial' knows nothing; give what it became, as 'trained' with its id."
            )
        if self.config_name not in names:
            said = "no reward is named" if self.config_name == "default" else f"there is no '{self.config_name}'"
            raise UserError(
                f"spro_reward: {said}; name one, as in evaluate.load(path, 'pickscore'); {nearest(self.config_name, names)}"
            )
        self.usual = names[self.config_name]
        self.kind = self.usual.get("kind", self.config_name)
        references = datasets.Image(decode=False) if self.kind == "similarity" else datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            inputs_description=_INPUTS,
            citation=_CITATION,
            features=datasets.Features({"predictions": datasets.Image(decode=False), "references": references}),
        )

    def add(self, *, prediction=None, reference=None, **inputs):
        """Add one picture and its caption."""
        given = {"predictions": prediction, "references": reference} | inputs
        self.add_batch(**{name: None if value is None else [value] for name, value in given.items()})

    def add_batch(self, *, predictions=None, references=None, **inputs):
        """Add pictures and their captions. Paths are kept as paths, pictures as PNG; a mistake adds nothing."""
        pictures = _stored(_list(predictions, "predictions"), "predictions")
        if references is None and self.kind != "similarity":
            references = [""] * len(pictures)
        references = _list(references, "references")
        if len(references) != len(pictures):
            raise UserError(
                f"spro_reward: there are {len(pictures)} predictions and {len(references)} references; give one for each."
            )
        if self.kind == "similarity":
            references = _stored(references, "references")
        elif wrong := [i for i, caption in enumerate(references) if not isinstance(caption, str)]:
            name = type(references[wrong[0]]).__name__
            raise UserError(f"spro_reward: references[{wrong[0]}] is of type {name}; give the picture's caption.")
        super().add_batch(predictions=pictures, references=references, **inputs)

    def compute(self, *, predictions=None, references=None, **fields):
        """Score what was added. A mistake in the fields is told before: what was added is still there."""
        self._fields(fields)
        return super().compute(predictions=predictions, references=references, **fields)

    def _compute(self, predictions, references, **options):
        from spro_hf.rewards import Brief

        fields = self._fields(options)
        if self.kind == "similarity":
            briefs = [Brief("", base=picture) for picture in _Pictures(references, "references")]
        else:
            _check_captions(self.kind, fields, references)
            briefs = [Brief(caption) for caption in references]
        rows = self._load(fields).score(_Pictures(predictions, "predictions"), briefs)
        scores = [row[self.config_name] for row in rows]
        return {self.config_name: sum(scores) / len(scores), f"{self.config_name}_scores": scores}

    def _fields(self, options: dict) -> dict:
        """The scorer's fields: those given here, over those given to ``evaluate.load``, over the recipes'."""
        _check_fields(self.kind, options)
        given = self.given | options
        # the recipes' fields are those of one model, and another may have its processor, its file ... elsewhere
        usual = {} if "id" in given else {key: value for key, value in self.usual.items() if key != "kind"}
        fields = usual | given
        if "id" in fields:
            fields["id"] = str(fields["id"])
        if "@" in fields.get("id", "") and not Path(fields["id"]).is_dir():
            fields["id"], _, revision = fields["id"].partition("@")
            if fields.get("revision") not in (None, revision):
                raise UserError(
                    f"spro_reward: id says '{revision}', revision '{fields['revision']}'; give one of them."
                )
            fields["revision"] = revision
        missing = [name for name, needed in SCORERS[self.kind].items() if needed and name not in fields]
        if missing:
            raise UserError(
                f"spro_reward: '{self.kind}' needs {missing[0]}; give it, as in compute(..., {missing[0]}=...)."
            )
        if self.kind == "vlm" and fields.get("mode") == "pairwise":
            raise UserError("spro_reward: mode 'pairwise' needs captions and base pictures; choose 'yes' or 'rubric'.")
        return fields

    def _load(self, fields: dict):
        from spro_hf import rewards

        if self.reward is None or self.reward[0] != fields:
            self.reward = None  # not two of them in memory
            spec = {self.config_name: {"kind": self.kind} | fields}
            self.reward = fields, rewards.load(spec, {self.config_name: 1.0})
        return self.reward[1]


class _Pictures(Sequence):
    """Stored pictures, RGB, each read when it is asked for: upright, on white where it is transparent."""

    def __init__(self, stored: list[dict], field: str):
        self.stored, self.field = stored, field

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, at):
        from spro_hf.hub.rows import UNREADABLE, decoded, said

        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        try:
            return decoded(self.stored[at]["bytes"], self.stored[at]["path"])
        except UNREADABLE as error:
            place = f"{self.field}[{at}], {self.stored[at]['path']},"
            raise UserError(f"spro_reward: {place} holds no picture that can be read ({said(error)}).") from error


def _published() -> dict[str, dict]:
    """Name → fields of the public scorers, as the recipes' objectives name them."""
    package = Path(spro_hf.__file__).parent
    # a wheel carries the recipes inside the package; a checkout has them beside it
    home = package if (package / "recipes").is_dir() else package.parent
    found = {}
    for file in sorted((home / "recipes" / "_objectives").glob("*.yaml")):
        found |= parse_yaml(file.read_text(encoding="utf-8")).get("scorers", {})
    return found


def _check_fields(kind: str, given: dict) -> None:
    for name in given:
        if name not in SCORERS[kind]:
            hint = nearest(name, SCORERS[kind]) if SCORERS[kind] else "it takes none."
            raise UserError(f"spro_reward: '{kind}' has no field '{name}'; {hint}")


def _check_captions(kind: str, fields: dict, captions: list[str]) -> None:
    """Raise a ``UserError`` if a picture has no caption, unless the reward looks at nothing but the picture."""
    from spro_hf.score import ALONE

    if "" not in captions:
        return
    if kind == "trained":
        from spro_hf.models import locate
        from spro_hf.rewards.learning import read_reward

        kind, *_ = read_reward(Path(locate(fields["id"], fields.get("revision"))), fields["id"], "spro_reward: id")
    if kind not in ALONE:
        raise UserError(
            f"spro_reward: '{kind}' scores a picture for its caption, and references[{captions.index('')}] is blank; give a "
            "caption for each picture."
        )


def _list(values, field: str) -> list:
    if values is None or isinstance(values, str | bytes | os.PathLike | Image.Image) or not hasattr(values, "__iter__"):
        said = "missing" if values is None else f"of type {type(values).__name__}"
        raise UserError(f"spro_reward: {field} is {said}; give a list.")
    return list(values)


def _stored(pictures: list, field: str) -> list[dict]:
    """Pictures as ``datasets.Image`` stores them. Its own way with a picture would keep the path of the file that it once was
    opened from, whatever became of it since, and compress a JPEG again."""
    if not pictures:
        raise UserError(f"spro_reward: {field} holds no pictures; give at least one.")
    return [_one_stored(picture, f"{field}[{i}]") for i, picture in enumerate(pictures)]


def _one_stored(picture, place: str) -> dict:
    if isinstance(picture, str | os.PathLike):
        if not Path(picture).is_file():
            raise UserError(f"spro_reward: {place}: there is no file '{picture}'; check the path.")
        return {"bytes": None, "path": os.path.abspath(picture)}
    if not isinstance(picture, Image.Image):
        raise UserError(f"spro_reward: {place} is of type {type(picture).__name__}; give a PIL picture or a path.")
    if picture.mode in ("I", "F"):
        raise UserError(f"spro_reward: {place} has the mode {picture.mode}, which says not what is white; give RGB.")
    upright, buffer = ImageOps.exif_transpose(picture), BytesIO()
    (upright if upright.mode in _AS_THEY_ARE else upright.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}
