"""A pickled file becomes safetensors, once; nothing but tensors comes out of it."""

import hashlib
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from spro_hf.rewards import weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([1, 2])}  # the first is not contiguous


def equal(found):
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_a_pickled_file_is_unpickled_once(tmp_path, cache, monkeypatch):
    file = tmp_path / "head.pth"
    torch.save(STATE, file)
    assert equal(weights.tensors(file))
    made = cache / f"{hashlib.sha256(file.read_bytes()).hexdigest()}.safetensors"
    assert equal(load_file(made)) and list(cache.iterdir()) == [made]
    monkeypatch.setattr(torch, "load", None)
    assert equal(weights.tensors(file))


def test_a_nested_state_and_safetensors(tmp_path):
    torch.save({"epoch": 3, "state_dict": STATE}, tmp_path / "nested.pt")
    assert equal(weights.tensors(tmp_path / "nested.pt"))
    save_file({name: value.contiguous() for name, value in STATE.items()}, tmp_path / "plain.safetensors")
    assert equal(weights.tensors(tmp_path / "plain.safetensors"))


class Harmful:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize("content", [{"w": STATE["b"], "more": 3}, {}, [STATE["b"]]])
def test_anything_else_is_refused(content, tmp_path, cache):
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(ValueError, match="more than tensors by name"):
        weights.tensors(tmp_path / "x.bin")
    assert not list(cache.glob("*"))


def test_no_code_runs(tmp_path, capsys):
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Harmful()))
    torch.save({"w": Harmful()}, tmp_path / "y.pt")
    for name in ("x.pt", "y.pt"):
        with pytest.raises(ValueError):
            weights.tensors(tmp_path / name)
    assert capsys.readouterr().out == ""
