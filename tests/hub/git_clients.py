"""What the tests of git, Xet and the pages ask of the real clients."""

from __future__ import annotations

import hashlib
import os
import random
import struct
from pathlib import Path
from typing import Any

import httpx2
from hub_clients import BIG, add
from huggingface_hub import HfApi, constants, hf_hub_download

__all__ = ["BIG", "commit_files", "lie_by_xet", "move", "push_by_xet", "tag", "two_commits"]


def commit_files(repo: str, files: dict[str, bytes], kind: str = "model") -> str:
    operations = [add(name, content) for name, content in files.items()]
    return HfApi().create_commit(repo, operations, commit_message="files", repo_type=kind).oid


def two_commits(repo: str, kind: str, private: bool = False) -> tuple[str, str]:
    """A repository with a file that changes; the first content has the tag v1."""
    api = HfApi()
    api.create_repo(repo, repo_type=kind, private=private, space_sdk="gradio" if kind == "space" else None)
    first = commit_files(repo, {"a": b"1"}, kind)
    api.create_tag(repo, tag="v1", repo_type=kind)
    return first, commit_files(repo, {"a": b"2"}, kind)


def move(repo: str, to: str) -> None:
    HfApi().move_repo(repo, to)


def push_by_xet(repo: str, folder: str) -> dict[str, Any]:
    """Weights of which halves are the same, by a commit and then by a folder's upload; what came back of both."""
    api, draw = HfApi(), random.Random(0)
    halves = [draw.randbytes(1_000_000) for _ in range(2)]
    files = {
        "a.safetensors": halves[0] + halves[1],
        "b.bin": halves[0] + b"another end",
        "floats.npy": b"".join(draw.randbytes(2) + b"\x80\x3f" for _ in range(100_000)),  # which is packed by fours
        "zeros.bin": bytes(800_001),
    }
    for name, content in files.items():
        Path(folder, name).write_bytes(content[::-1])
    constants.HF_HUB_DISABLE_XET = False
    try:
        api.create_repo(repo)
        made = commit_files(repo, files)
        later = api.upload_folder(repo_id=repo, folder_path=folder).oid
        back = [Path(hf_hub_download(repo, name, revision=made)).read_bytes() == files[name] for name in files]
        back += [Path(hf_hub_download(repo, name, revision=later)).read_bytes() == files[name][::-1] for name in files]
    finally:
        constants.HF_HUB_DISABLE_XET = True
    return {"back": back, "first": files["a.safetensors"]}


def lie_by_xet(repo: str) -> dict[str, int]:
    """HTTP statuses of hand-made uploads: a container of one plain chunk, and shards that tell of it."""
    api = HfApi()
    api.create_repo(repo)
    client = httpx2.Client()
    told = client.get(
        f"{api.endpoint}/api/models/{repo}/xet-write-token/main",
        headers={"Authorization": f"Bearer {os.environ['HF_TOKEN']}"},
    ).json()
    tag = bytes.fromhex("48465265706f4d6574614461746100556967456a7b815783a5bdd95ccdd14aa9")
    content, name = b"seven b", "0f" * 32
    container = bytes([0, 7, 0, 0, 0, 7, 0, 0]) + content

    def raw(hash: str) -> bytes:
        return b"".join(bytes.fromhex(hash[at : at + 16])[::-1] for at in range(0, 64, 16))

    def shard(sha256: str, of: str = name) -> bytes:
        head = bytes(32) + struct.pack("<IIQ", 1 << 30, 1, 0)
        part = raw(of) + struct.pack("<IIII", 0, len(content), 0, 1)
        return tag + struct.pack("<QQ", 2, 0) + head + part + raw(sha256) + bytes(16) + b"\xff" * 32 + bytes(16)

    def post(path: str, body: bytes, token: str = told["accessToken"]) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return client.post(f"{told['casUrl']}/{path}", content=body, headers=headers).status_code

    right, wrong = hashlib.sha256(content).hexdigest(), hashlib.sha256(b"other").hexdigest()
    place = f"v1/xorbs/default/{name}"
    return {
        "no token": post(place, container, os.environ["HF_TOKEN"]),
        "bad container": post(place, container[:-1]),
        "no shard": post("v1/shards", b"nothing"),
        "unknown container": post("v1/shards", shard(right)),
        "wrong sha256": post(place, container) and post("v1/shards", shard(wrong)),
        "good": post("v1/shards", shard(right)),
        "known": post(f"v1/xorb-grants/default/{name}", b"{}"),
    }


def tag(repo: str, name: str, revision: str) -> None:
    HfApi().create_tag(repo, tag=name, revision=revision)
