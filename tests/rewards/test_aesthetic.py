"""LAION's aesthetic heads: known answers of the real ones, both forms of file, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spro_hf import models, rewards
from spro_hf.errors import UserError
from spro_hf.rewards.aesthetic import aesthetic_head
from spro_hf.rewards.clip import ClipTower
from spro_hf.rewards.heads import ImprovedAestheticHead, read_weights

WORLD = "spro_hf/tiny/"
PACKAGE = Path(models.__file__).parent / "rewards" / "laion"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "laion-aesthetic"
V1_FILE, V2_FILE = SHARED / "sa_0_4_vit_l_14_linear.pth", SHARED / "sac+logos+ava1-l14-linearMSE.pth"
V1_SHA = "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba"
V2_SHA = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
# Ten L2-normalised CLIP ViT-L/14 embeddings that LAION published, named rating0 to rating9.
EMBEDDINGS = load_file(Path(__file__).parent / "data" / "laion_embeddings_vit_l_14.safetensors")["embeddings"]
# What LAION's own files say to them, worked once from the .pth with numpy in float64: for V1 weight @ x + bias, for V2
# x = weight_k @ x + bias_k over k = 0, 2, 4, 6, 7.
V1 = [-2.4579, -0.1379, 1.8951, 3.5849, 5.0997, 6.4701, 7.7870, 9.0480, 10.2264, 11.3044]
V2 = [1.6555, 2.3593, 3.0698, 3.6725, 4.2380, 4.7010, 5.0731, 5.3654, 5.5767, 5.7468]
IMAGES = [Image.new("RGB", (32, 32), colour) for colour in ("red", "navy")]

real = pytest.mark.skipif(not SHARED.is_dir(), reason="LAION's original files are not beside this checkout")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def head(id, file=None):
    return aesthetic_head(read_weights(models.locate(id), file, "scorers.aesthetic.id"), id)


def test_the_head_that_ships_says_what_laions_says_to_laions_embeddings():
    assert torch.allclose(EMBEDDINGS.norm(dim=1), torch.ones(10), atol=1e-5)
    scores = head("spro_hf/laion/v1")(EMBEDDINGS).tolist()
    assert scores == pytest.approx(V1, abs=1e-3)
    # they rise with the rating that they are named by, each step by 1 to 2.5, and stay within 2.5 of it
    rises = np.diff(scores)
    assert (rises > 1).all() and (rises < 2.5).all()
    assert all(abs(score - rating) < 2.5 for rating, score in enumerate(scores))


def test_the_head_that_ships_is_small_safe_and_says_where_it_comes_from():
    files = {file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*") if file.is_file()}
    assert files == {"README.md", "v1/LICENSE", "v1/model.safetensors"}
    assert V1_SHA in (PACKAGE / "README.md").read_text() and "MIT License" in (PACKAGE / "v1" / "LICENSE").read_text()
    assert (PACKAGE / "v1" / "model.safetensors").stat().st_size < 4000
    assert len(models.commit("spro_hf/laion/v1")) == 64
    with pytest.raises(UserError, match=r"ships no head 'spro_hf/laion/v3'; it has spro_hf/laion/v1"):
        models.locate("spro_hf/laion/v3")


@real
def test_the_originals_are_the_files_that_the_answers_are_of():
    assert (sha256(V1_FILE), sha256(V2_FILE)) == (V1_SHA, V2_SHA)
    ours, theirs = head("spro_hf/laion/v1").state_dict(), torch.load(V1_FILE, weights_only=True)
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    published = [np.load(SHARED / "embeddings_vit_l_14" / f"rating{rating}.npy")[0] for rating in range(10)]
    assert np.array_equal(EMBEDDINGS.numpy(), np.stack(published))


@real
def test_laions_own_files_are_read_as_they_are():
    assert head(str(SHARED), V1_FILE.name)(EMBEDDINGS).tolist() == pytest.approx(V1, abs=1e-3)
    improved = head(str(SHARED), V2_FILE.name)
    assert isinstance(improved, ImprovedAestheticHead)
    assert improved(EMBEDDINGS).tolist() == pytest.approx(V2, abs=1e-3)
    with pytest.raises(UserError, match=r"scorers\.aesthetic\.id: there are several files of weights"):
        head(str(SHARED))


@pytest.fixture
def improved(tmp_path):
    """A random V2 head for the embedded world's CLIP, as a pickled state dictionary, as the Hub has the real one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = ImprovedAestheticHead(128).state_dict()
    torch.save(state, tmp_path / "aesthetic-model.pth")
    return tmp_path, state


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_v2_is_a_chain_of_linear_layers_on_the_normalised_embedding(improved, form):
    folder, state = improved
    if form == "safetensors":
        save_file(state, folder / "head.safetensors")  # the one safetensors file goes before the pickled one
        (folder / "aesthetic-model.pth").write_bytes(b"not read")
    reward = rewards.Aesthetic(str(folder), WORLD + "clip")
    x = ClipTower(WORLD + "clip").images(IMAGES).double().T
    for k in (0, 2, 4, 6, 7):
        x = state[f"layers.{k}.weight"].double() @ x + state[f"layers.{k}.bias"].double()[:, None]
    assert reward(IMAGES, ["", ""]) == pytest.approx(x[0].tolist(), abs=1e-5)
    named = rewards.Aesthetic(str(folder), WORLD + "clip", file="head.safetensors" if form != "pth" else None)
    assert named(IMAGES, ["", ""]) == reward(IMAGES, ["", ""])


def test_v2_gives_gradients_to_the_pixels(improved):
    reward = rewards.Aesthetic(str(improved[0]), WORLD + "clip")
    pixels = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    reward.of_pixels(pixels, ["", ""]).sum().backward()
    assert pixels.grad.isfinite().all() and (pixels.grad.flatten(1).norm(dim=1) > 0).all()


def test_a_head_for_another_width_is_refused():
    with pytest.raises(
        UserError, match=r"scorers\.aesthetic\.id: .* 768 numbers and the backbone 'spro_hf/tiny/clip' gives 128"
    ):
        rewards.Aesthetic("spro_hf/laion/v1", WORLD + "clip")


def test_what_is_no_head_is_named(tmp_path, improved):
    folder, state = improved
    with pytest.raises(UserError, match=r"scorers\.aesthetic\.id: .*spro_hf/tiny/clip' holds neither .* name one"):
        rewards.Aesthetic(WORLD + "clip", WORLD + "clip")
    with pytest.raises(UserError, match=r"scorers\.aesthetic\.file: there is no file 'other.pth'"):
        rewards.Aesthetic(str(folder), WORLD + "clip", file="other.pth")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"no file of weights is there; name it in scorers\.aesthetic\.file"):
        rewards.Aesthetic(str(empty), WORLD + "clip")
    lacking = {name: value for name, value in state.items() if name != "layers.7.bias"}
    save_file(lacking, empty / "head.safetensors")
    with pytest.raises(UserError, match="holds neither"):
        rewards.Aesthetic(str(empty), WORLD + "clip")
    save_file(state | {"layers.7.weight": torch.zeros(2, 16)}, empty / "head.safetensors")
    with pytest.raises(UserError, match="holds neither"):
        rewards.Aesthetic(str(empty), WORLD + "clip")


class Trap:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path):
    sprung = tmp_path / "sprung"
    torch.save({"weight": Trap(sprung)}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"weight": Trap(sprung)}, protocol=2))
    torch.save({"state": [1, 2]}, tmp_path / "c.pth")
    for name, said in (("a.pth", "plain tensors"), ("b.pth", "plain tensors"), ("c.pth", "more than tensors by name")):
        with pytest.raises(UserError, match=rf"scorers\.aesthetic\.file: '{name}' .*{said}"):
            rewards.Aesthetic(str(tmp_path), WORLD + "clip", file=name)
    assert not sprung.exists()
