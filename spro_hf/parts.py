"""The parts that recipes are made of, each checked as it is made; a ValueError names the field and the fix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spro_hf.strict import nearest

OBJECTIVES = ("aesthetics", "engagement", "preference")
GAINS = ("above_mean_gain", "above_mean_reward", "above_base_mean")
SCHEDULERS = ("flow", "ddim")
MISSING = ("error", "leave_out", "any")
BACKENDS = ("transformers", "vllm")
DTYPES = ("float32", "bfloat16", "float16")
_WHERE = {"revision": False, "device": False, "dtype": False, "batch_size": False}
# The fields of every reward's constructor, and whether each must be given (a test holds this against the classes).
SCORERS: dict[str, dict[str, bool]] = {
    "adversarial": {
        "backbone": True,
        "backbone_revision": False,
        "class_weight": False,
        "patches": False,
        "features": False,
    }
    | dict.fromkeys(("device", "dtype", "batch_size"), False),
    "adversarial_pickscore": {"id": True, "processor": False, "processor_revision": False, "against": False} | _WHERE,
    "aesthetic": {"id": True, "backbone": True, "file": False, "backbone_revision": False} | _WHERE,
    "blur": {},
    "clip": {"id": True} | _WHERE,
    "clip_iqa": {"id": True} | _WHERE,
    "engagement": {"id": True, "backbone": True, "backbone_revision": False} | _WHERE,
    "engagenet": {"id": True, "head": False} | _WHERE,
    "hpsv2": {"id": True, "file": False, "processor": False, "processor_revision": False} | _WHERE,
    "imagereward": {"id": True, "file": False, "tokenizer": False, "tokenizer_revision": False} | _WHERE,
    "judge": {"id": True, "revision": False},
    "ocr": {"id": True} | _WHERE,
    "pickscore": {"id": True, "processor": False, "processor_revision": False, "against": False} | _WHERE,
    "similarity": {"id": True} | _WHERE,
    "trained": {"id": True} | _WHERE,
    "vlm": {"id": True, "mode": False, "question": False} | _WHERE,
}
LEARNING = ("adversarial", "adversarial_pickscore", "trained")  # the kinds that can learn beside a generator
# A model's id stands in one of these fields, its revision in the field beside it.
MODEL_FIELDS = {"id": "revision", "backbone": "backbone_revision", "processor": "processor_revision",
                "tokenizer": "tokenizer_revision"}  # fmt: skip


def need(good: bool, message: str) -> None:
    if not good:
        raise ValueError(message)


@dataclass(frozen=True)
class Repo:
    """A repository and the revision of it that is read: a tag, a branch or a commit."""

    repo: str
    revision: str = "main"


@dataclass(frozen=True)
class Bands:
    """Equal parts of the rows whose number in ``column`` lies in each of ``shares``, ranges of its quantiles in [0, 1]."""

    column: str
    shares: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        need(bool(self.shares), "'shares' is empty; give at least one range, e.g. [[0.8, 1.0]].")
        for share in self.shares:
            need(
                len(share) == 2 and 0 <= share[0] < share[1] <= 1,
                f"'shares' holds {list(share)}; a range is its lower and its upper quantile, e.g. [0.8, 1.0].",
            )


@dataclass(frozen=True)
class Seeds:
    """Where base captions come from: "world" (the embedded world's own), a text file with one caption a line, or a data
    set of the Hub, if ``columns`` is given.

    ``columns`` says in which column of the data set what stands: "caption" (needed), "image" (the base picture, rendered
    from the caption if it is not mapped), "prompt" and "score" (a rewritten caption and its reward, where prompts are
    given), and any other name goes to guider and rewards as context ("tweet", "company", "date", "tags" ...). ``where``
    keeps the rows whose columns have these values. ``streaming`` reads rows as they come, without the whole set.
    """

    source: str = "world"
    count: int = 64
    split: str = "train"
    revision: str | None = None
    config: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    bands: Bands | None = None
    streaming: bool = False

    def __post_init__(self) -> None:
        need(self.count > 0, f"'count' is {self.count}: an empty seed set teaches nothing; give at least 1.")
        if self.hub:
            need("caption" in self.columns, "columns: the field 'caption' is missing; name the column of the captions.")
            need(
                not (self.streaming and self.bands),
                "'bands' needs the whole column, and 'streaming' is true; leave one of them out.",
            )
            return
        need(self.split in ("train", "held-out"), f"'split' is '{self.split}'; it is 'train' or 'held-out'.")
        for name in ("revision", "config", "where", "bands", "streaming"):
            need(not getattr(self, name), f"'{name}' is for data sets of the Hub; give 'columns' too, or leave it out.")

    @property
    def hub(self) -> bool:
        """Whether the seeds are a data set of the Hub."""
        return bool(self.columns)


@dataclass(frozen=True)
class References(Seeds):
    """Pictures that a reward learns to prefer: a data set of the Hub with captions and their pictures, several of one caption
    if it has them. ``missing`` says what becomes of a caption to train on that has none: "error" names such captions,
    "leave_out" trains without them, and "any" compares with the pictures of any caption, as for a style. Pictures become RGB,
    on white where they are transparent, and of the size of what is drawn; of another shape they are refused.
    """

    missing: str = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.hub, "the field 'columns' is missing; name the columns of 'caption' and 'image'.")
        need("image" in self.columns, "columns: the field 'image' is missing; name the column of the pictures.")
        need(self.missing in MISSING, f"'missing' is '{self.missing}'; {nearest(self.missing, MISSING)}")


@dataclass(frozen=True)
class Guider:
    """The chat model that rewrites prompts, seeing pictures or not, how it is asked, and the adapter it carries.

    ``adapter`` may also name a guider all of whose weights were trained. ``backend`` "vllm" samples with vLLM; learning
    stays with TRL. ``device`` is an accelerator where there is one, else the CPU.
    """

    id: str
    revision: str | None = None
    adapter: Repo | None = None
    style: str = "full"
    reasoning: bool = True
    word_limit: int | None = 60
    max_new_tokens: int = 512
    batch_size: int = 128
    device: str | None = None
    dtype: str = "float32"
    backend: str = "transformers"

    def __post_init__(self) -> None:
        need(self.batch_size > 0, f"'batch_size' is {self.batch_size}; give at least 1.")
        need(self.dtype in DTYPES, f"'dtype' is '{self.dtype}'; {nearest(self.dtype, DTYPES)}")
        need(self.backend in BACKENDS, f"'backend' is '{self.backend}'; {nearest(self.backend, BACKENDS)}")
        need(self.style in ("full", "compact"), f"'style' is '{self.style}'; it is 'full' or 'compact'.")


@dataclass(frozen=True)
class Generator:
    """A diffusers pipeline, the arguments of its call, and the LoRA it carries.

    ``scheduler`` "flow" or "ddim" takes the place of one that cannot be played; null leaves the pipeline's own.
    """

    id: str
    revision: str | None = None
    lora: Repo | None = None
    call: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    scheduler: str | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        need(self.batch_size > 0, f"'batch_size' is {self.batch_size}; give at least 1.")
        known = self.scheduler is None or self.scheduler in SCHEDULERS
        need(known, f"'scheduler' is '{self.scheduler}'; {nearest(str(self.scheduler), SCHEDULERS)}")
        need(self.dtype in DTYPES, f"'dtype' is '{self.dtype}'; {nearest(self.dtype, DTYPES)}")


@dataclass(frozen=True)
class Select:
    """Filters of a round: the model and floor of image–image similarity, and the wording of the gain filter.

    ``improve`` names scorers by each of which a winner must be above its base picture, as where two objectives are
    pursued at once. ``most`` keeps at most so many pairs, those of the first seeds.
    """

    similarity: str
    similarity_revision: str | None = None
    similarity_dtype: str = "float32"
    min_similarity: float = 0.75
    gain: str = "above_mean_gain"
    improve: tuple[str, ...] = ()
    most: int | None = None

    def __post_init__(self) -> None:
        dtype = self.similarity_dtype
        need(dtype in DTYPES, f"'similarity_dtype' is '{dtype}'; {nearest(dtype, DTYPES)}")
        need(self.gain in GAINS, f"'gain' is '{self.gain}'; {nearest(self.gain, GAINS)}")
        need(self.most is None or self.most > 0, f"'most' is {self.most}; give at least 1, or leave it out.")
        need(-1 <= self.min_similarity <= 1, f"'min_similarity' is {self.min_similarity}; a cosine lies in [-1, 1].")


@dataclass(frozen=True)
class System:
    """One thing to compare: a guider (or none) with an adapter (or none), and a generator LoRA (or none).

    ``hops`` above 1 lets the guider refine its own prompt again, before the picture that it made.
    """

    guided: bool = False
    adapter: Repo | None = None
    lora: Repo | None = None
    best_of: int = 1
    hops: int = 1

    def __post_init__(self) -> None:
        for name in ("best_of", "hops"):
            need(getattr(self, name) > 0, f"'{name}' is {getattr(self, name)}; give at least 1.")
        need(self.hops == 1 or (self.guided and self.best_of == 1), "'hops' needs `guided: true` and no 'best_of'.")
        need(self.guided or (self.best_of == 1 and not self.adapter), "'best_of' and 'adapter' need `guided: true`.")
