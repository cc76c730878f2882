"""An estimate of what passes need in memory beside the weights: activations, what a chat model keeps of its tokens.

Bytes as ``docs/sizes.py`` measured them for one picture of the generator's own side, or for one token, in bfloat16, times
batch, pixels or tokens, and twice in float32. Attention is taken to be fused. Kernels' workspace, an allocator's holes and
the libraries' own memory (near a gigabyte on a GPU) are what the plan's margin is for. A model that was not measured, as one
in a folder, needs nothing here; the plan then says that its totals are bounds from below.
"""

from __future__ import annotations

from spro_hf.plan.counts import BATCH, EPOCHS, GENERATIONS, Counts, asked, picture
from spro_hf.plan.sizes import BYTES, Size, picture_tokens
from spro_hf.schema import (
    EvaluateRecipe,
    ImageRecipe,
    MultimodalRecipe,
    PromptRecipe,
    Recipe,
    ReferencesRecipe,
    ReinforceRecipe,
)

GPU, HOST = "GPU", "cpu"
PIXEL = 4  # bytes of an RGB pixel as Pillow holds it
REAL = 12  # of one as three float32
MEMO = 1 << 30  # bytes of prompts' embeddings that are remembered, as in spro_hf.diffusion.memo
CHATS = ("vlm", "engagenet", "ocr")
WRITES = {"ocr": 128}  # of the chat models, which write more than the first token: how many, as in spro_hf.rewards.ocr
# Of the rewards' constructors, where a recipe leaves it out; a test holds them against the classes.
BATCHES = {"vlm": 8, "engagenet": 8, "ocr": 8, "imagereward": 32, "hpsv2": 32, "adversarial": 64, "trained": 64}
USUAL_BATCH = 128
GROUP = 64  # references that are drawn and written at once, as in spro_hf.rollouts
PATCHES = 64  # of a picture that a head on a vision model looks at, as in spro_hf.rewards.adversarial
PART = 256  # prompts of a data set that are drawn at once, as in spro_hf.stages.image
QUESTION = 200  # tokens that a judge is asked, its picture apart


def place(device: str | None) -> str:
    """The name of a device: the accelerator of this process is the GPU."""
    return GPU if device in (None, "cuda", "cuda:0") else device


def known(recipe: Recipe, sizes: dict[str, Size | None]) -> bool:
    """Whether the passes of generator and guider were measured; a scorer's are small beside theirs."""
    large = [sizes["generator.id"], *([sizes["guider.id"]] if getattr(recipe, "guider", None) else [])]
    return all(_measured(size) for size in large)


def _measured(size: Size | None) -> bool:
    return size is not None and "passes" in size.about


def _area(recipe: Recipe, generator: Size, learned: bool = False) -> float:
    """Pixels of a picture that is drawn or learned, as a share of those that passes were measured with."""
    size = recipe.finetune.size if learned and hasattr(recipe, "finetune") else None
    height, width = size or picture(recipe, generator)
    return height * width / generator.about["side"] ** 2


def _wide(dtype: str) -> int:
    """How much more a number takes than in bfloat16."""
    return BYTES[dtype] // BYTES["bfloat16"]


def memo(recipe: Recipe, generator: Size, prompts: int | None) -> int:
    """The remembered embeddings of so many prompts, with those of guidance's empty one, up to their bound."""
    if prompts is None:
        return MEMO
    guided = 2 if asked(recipe, generator).number > 1 else 1
    return min(MEMO, prompts * guided * generator.about.get("prompt", 0) * BYTES[recipe.generator.dtype])


def remembered(recipe: Recipe, counts: Counts) -> int | None:
    """How many prompts are drawn before they are forgotten: of a part, of a block, or of a system."""
    if isinstance(recipe, ReinforceRecipe):
        return min(recipe.seeds.count, recipe.prompts * recipe.policy.checkpoint_every)
    if isinstance(recipe, EvaluateRecipe):
        most = max(system.best_of for system in recipe.systems.values())
        return recipe.seeds.count * recipe.noise_seeds * most
    if isinstance(recipe, ReferencesRecipe):  # of a part, in which each caption's first pictures come first
        return min(recipe.part, recipe.seeds.count)
    if isinstance(recipe, PromptRecipe) and recipe.learn.method != "grpo":
        return min(recipe.part, recipe.seeds.count) * len(recipe.temperatures)
    return counts.pictures.number


def drawing(recipe: Recipe, generator: Size | None, counts: Counts) -> int:
    """A batch of pictures: the denoiser, asked as often as guidance wants, or the decoder; and the remembered prompts."""
    if not _measured(generator):
        return 0
    spec, told = recipe.generator, generator.about["passes"]
    each = max(asked(recipe, generator).number * told["forward"], told["decode"])
    scale = _area(recipe, generator) * _wide(spec.dtype)
    return round(spec.batch_size * each * scale) + memo(recipe, generator, remembered(recipe, counts))


def pictures(recipe: Recipe, generator: Size | None) -> dict[str, int]:
    """Pictures that a stage holds in the host's memory at once."""
    pixels = picture(recipe, generator)
    if pixels is None:
        return {}
    if isinstance(recipe, EvaluateRecipe):  # of one system, all as numbers too, whose differences are taken
        most = max(system.best_of for system in recipe.systems.values())
        each = recipe.seeds.count * recipe.noise_seeds * (PIXEL * (most + 1) + REAL)
    elif isinstance(recipe, PromptRecipe) and recipe.learn.method == "grpo":  # its rows are written behind it
        trainer = recipe.learn.trainer
        drawn = (trainer.get("num_generations") or GENERATIONS) * trainer.get("num_train_epochs", EPOCHS)
        each = round(recipe.seeds.count * (drawn + 2) * PIXEL)
    elif isinstance(recipe, PromptRecipe):
        each = min(recipe.part, recipe.seeds.count) * (len(recipe.temperatures) + 2) * PIXEL
    elif isinstance(recipe, ImageRecipe):
        each = min(PART, recipe.prompts.count) * PIXEL
    elif isinstance(recipe, ReferencesRecipe):
        each = GROUP * PIXEL
    else:
        each = PIXEL * (2 * turn(recipe) if recipe.adversary else recipe.prompts * recipe.group)
    return {HOST: each * pixels[0] * pixels[1]}


def turn(recipe: ReinforceRecipe) -> int:
    """How many pictures meet the adversary at once, and as many references."""
    return recipe.prompts * recipe.group * min(recipe.adversary.generator_steps, recipe.steps)


def learner_of(recipe: ReinforceRecipe, sizes: dict[str, Size | None]) -> Size | None:
    """The model that the adversary is, or that its head looks through; None where an earlier run left it."""
    name = recipe.adversary.reward
    return sizes.get(f"scorers.{name}.backbone") or sizes.get(f"scorers.{name}.id")


def opposing(recipe: ReinforceRecipe, sizes: dict[str, Size | None]) -> int:
    """An adversary that learns: of a head what it looks at, of all pictures of a turn, and a batch of tokens; else a batch of
    pictures. Of each drawn picture one, and one of its reference. All of it in float32."""
    size, spec = learner_of(recipe, sizes), recipe.adversary
    if size is None or "adversary" not in size.about:
        return 0
    told, tokens = size.about["adversary"], 1
    if "kept" in told:
        tokens += recipe.scorers[spec.reward].get("patches", PATCHES)
    each = spec.batch_size * told["train"] + turn(recipe) * told.get("kept", 0)
    return 2 * tokens * each * _wide("float32")


def encoding(recipe: ImageRecipe | MultimodalRecipe, generator: Size | None) -> int:
    """A batch of pictures in the autoencoder."""
    if not _measured(generator):
        return 0
    spec = recipe.generator
    scale = _area(recipe, generator, learned=True) * _wide(spec.dtype)
    return round(spec.batch_size * generator.about["passes"]["encode"] * scale)


def learning(recipe: Recipe, generator: Size | None, batch: int, checkpointed: bool, prompts: int | None) -> int:
    """A pass of the denoiser with gradients for ``batch`` latents, and the ``prompts`` that are remembered."""
    if not _measured(generator):
        return 0
    told = generator.about["passes"]
    each = told.get("checkpointed", told["train"]) if checkpointed else told["train"]
    scale = _area(recipe, generator, learned=True) * _wide(recipe.generator.dtype)
    return round(batch * each * scale) + memo(recipe, generator, prompts)


def replaying(recipe: ReinforceRecipe, generator: Size | None, counts: Counts) -> int:
    """A batch of one step of pictures with gradients, asked for as often as guidance wants."""
    policy = recipe.policy
    times = asked(recipe, generator).number if policy.guidance else 1
    batch = min(policy.batch_size, recipe.prompts * recipe.group) * times
    return learning(recipe, generator, batch, policy.gradient_checkpointing, remembered(recipe, counts))


def reading(chat: Size, dtype: str, pixels: tuple[int, int], prompt: int, reply: int) -> int:
    """One reply of a chat model: what its tokens and its picture leave behind, the pass over the prompt, and logits."""
    about = chat.about
    told, kept, rule = about["passes"], about["cache"], about["picture"]
    tower = about["tower"] * (1 if "tokens" in rule else picture_tokens(rule, *pixels))
    forward = prompt * told["forward"] + told.get("picture", {}).get("forward", 0)
    behind = (prompt + reply) * kept["token"] + kept["picture"]
    logits = 16 * about["vocabulary"]  # as they are, in float32, as probabilities, and sorted
    return behind * BYTES[dtype] + max(forward, tower) * _wide(dtype) + logits


def replying(recipe: PromptRecipe | EvaluateRecipe, generator: Size | None, guider: Size | None, counts: Counts) -> int:
    """A batch of replies; with vLLM one, since its engine fits itself into what is free."""
    if not _measured(guider):
        return 0
    spec, rows = recipe.guider, recipe.guider.batch_size
    if isinstance(recipe, PromptRecipe) and recipe.learn.method == "grpo":  # TRL draws as many as it learns from
        trainer = recipe.learn.trainer
        rows = trainer.get("per_device_train_batch_size", BATCH) * trainer.get("gradient_accumulation_steps", 1)
    elif spec.backend == "vllm":
        rows = 1
    rows = min(rows, counts.replies.number)
    return rows * reading(guider, spec.dtype, picture(recipe, generator) or (0, 0), counts.prompt, counts.reply)


def teaching(recipe: PromptRecipe, guider: Size | None, counts: Counts) -> int:
    """A batch of TRL's, which has both replies of a pair where it is DPO's, and saves activations unless told not to."""
    if not _measured(guider):
        return 0
    method, trainer, told = recipe.learn.method, recipe.learn.trainer, guider.about["passes"]
    saving = trainer.get("gradient_checkpointing", trainer.get("activation_checkpointing", True))
    kind = "checkpointed" if saving else "train"
    each = (counts.prompt + counts.reply) * told[kind] + told.get("picture", {}).get(kind, 0)
    batch = trainer.get("per_device_train_batch_size", BATCH) * (2 if method == "dpo" else 1)
    return batch * each * _wide(recipe.guider.dtype)


def seeing(recipe: Recipe, sizes: dict[str, Size | None], only: str = "") -> dict[str, int]:
    """The scorer that needs most for a batch of pictures, on each device; or ``only`` the one of that name."""
    found: dict[str, int] = {}
    for name, spec in recipe.scorers.items():
        if only and name != only:
            continue
        kind, dtype = spec.get("kind", name), spec.get("dtype", "float32")
        size = sizes.get(f"scorers.{name}.{'backbone' if 'backbone' in spec else 'id'}")
        if not _measured(size):
            continue
        batch, device = spec.get("batch_size", BATCHES.get(kind, USUAL_BATCH)), place(spec.get("device"))
        if kind in CHATS:
            pixels = picture(recipe, sizes["generator.id"]) or (0, 0)
            prompt = QUESTION + picture_tokens(size.about["picture"], *pixels)
            need = batch * reading(size, dtype, pixels, prompt, WRITES.get(kind, 0))
        else:
            need = batch * size.about["passes"]["forward"] * _wide(dtype)
        found[device] = max(found.get(device, 0), need)
    return found
