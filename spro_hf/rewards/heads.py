"""Regression heads, and how their weights are read."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import Tensor, nn

from spro_hf.errors import UserError
from spro_hf.models import locate
from spro_hf.rewards.weights import PICKLED, tensors


class AestheticHead(nn.Linear, PyTorchModelHubMixin):
    """LAION's V1 aesthetic head: one linear map of the L2-normalised projected image embedding, (n, d) to (n,).

    Keys ``weight`` (1, d) and ``bias`` (1), as in ``sa_0_4_vit_l_14_linear``; scores lie about 0 to 10.
    """

    def __init__(self, dimension: int):
        super().__init__(dimension, 1)

    def forward(self, embeddings: Tensor) -> Tensor:
        return super().forward(embeddings)[:, 0]


class ImprovedAestheticHead(nn.Module):
    """LAION's V2 aesthetic head, (n, d) to (n,): d → 1024 → 128 → 64 → 16 → 1 with dropouts and no activations between.

    Keys ``layers.{0,2,4,6,7}``, as in ``sac+logos+ava1-l14-linearMSE``; scores lie about 1 to 10. In evaluation mode the
    dropouts do nothing, so that it is one linear map too.
    """

    def __init__(self, dimension: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dimension, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64),
            nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layers(embeddings)[:, 0]


class EngagementHead(nn.Module, PyTorchModelHubMixin):
    """Two layers on a normalised image embedding, (n, d) to (n,), on EngageNet's scale of 0 to 100.

    A stand-in: EngageNet itself puts such a layer pair on a LLaVA's last hidden state, and its weights are not public.
    """

    def __init__(self, dimension: int, width: int = 128):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dimension, width), nn.GELU(), nn.Linear(width, 1))
        nn.init.constant_(self.layers[2].bias, 0.35)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layers(embeddings)[:, 0] * 100


def read_weights(folder: str | Path, file: str | None, field: str, place: str = ".file") -> dict[str, Tensor]:
    """The tensors of a head's file, float32: of ``file`` if it is named, else of the folder's one safetensors file, else of
    its one .pth, .pt or .bin.

    A pickled file becomes safetensors, once (see ``weights.tensors``).

    Raises:
        UserError: if no file, or more than one, could be meant, or it holds anything but tensors by name. ``field`` is the
            recipe's field that names the repository, ``place`` the one beside it that names the file.
    """
    where = field.rpartition(".")[0] + place
    folder = Path(folder)
    path = folder / file if file else _only_file(folder, field, where)
    if not path.is_file():
        raise UserError(f"{where}: there is no file '{file}' in what {field} names; write its path in that repository.")
    try:
        return {name: value.float() for name, value in tensors(path).items()}
    except ValueError as error:
        raise UserError(
            f"{where}: '{path.name}' cannot be read as plain tensors ({error}); name a file of weights alone."
        ) from error


def _only_file(folder: Path, field: str, where: str) -> Path:
    for kinds in ((".safetensors",), PICKLED):
        found = sorted(path for path in folder.iterdir() if path.suffix in kinds)
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(
                f"{field}: there are several files of weights ({found[0].name}, {found[1].name} …); name one in {where}."
            )
    raise UserError(f"{field}: no file of weights is there; name it in {where} if it is no safetensors file.")


def load_head(kind: type, id: str, revision: str | None, field: str) -> nn.Module:
    """A head saved with its configuration, in evaluation mode and without gradients; never with a weight left random."""
    try:
        head = kind.from_pretrained(locate(id, revision), strict=True)
    except (OSError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:160]
        raise UserError(f"{field}: '{id}' is no {kind.__name__} ({said}); name a repository that holds one.") from error
    return head.eval().requires_grad_(False)


def require_width(width: int, backbone: str, given: int, field: str) -> None:
    """Raise a UserError if a head that takes embeddings of ``width`` numbers is to sit on one that gives another number."""
    if width != given:
        raise UserError(
            f"{field}: this head takes embeddings of {width} numbers and the backbone '{backbone}' gives {given}; name the "
            "backbone that it was trained on (openai/clip-vit-large-patch14 for LAION's)."
        )
