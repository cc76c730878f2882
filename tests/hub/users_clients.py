"""What several users of one local Hub ask of it, by the real clients."""

from __future__ import annotations

import hashlib
import json

import httpx2
from hub_clients import add, refused
from huggingface_hub import HfApi


def two_users(tokens: dict[str, str]) -> dict[str, object]:
    """``anna`` and ``ben`` of the organisation lab, ``carl`` of none, ``dora`` of lab who may only read, ``spro``."""
    api = {name: HfApi(token=token) for name, token in tokens.items()} | {"nobody": HfApi(token=False)}

    def commit(who: str, repo: str, **more: object) -> str:
        return api[who].create_commit(repo, [add(who, b"1")], commit_message=f"by {who}", **more).oid

    for repo, private in (("anna/open", False), ("anna/closed", True), ("lab/shared", True)):
        api["anna"].create_repo(repo, private=private)
        commit("anna", repo)
    commit("ben", "lab/shared")
    commit("spro", "anna/closed")
    found: dict[str, object] = {
        "me": {name: (got["name"], [o["name"] for o in got["orgs"]], got["auth"]["accessToken"]["role"])
               for name in tokens for got in [api[name].whoami()]},
        "named": str(api["ben"].create_repo("mine").repo_id),
        "authors": [c.authors for c in api["anna"].list_repo_commits("lab/shared")],
        "sees": {
            name: [r for r in ("anna/open", "anna/closed", "lab/shared") if who.repo_exists(r)]
            for name, who in api.items()
        },
        "lists": {name: sorted(m.id for m in who.list_models() if m.author in ("anna", "lab"))
                  for name, who in api.items()},
    }  # fmt: skip
    secret, endpoint = b"s" * 3000, api["ben"].endpoint
    api["anna"].create_commit("anna/closed", [add("w.bin", secret)], commit_message="weights")
    known = {"oid": hashlib.sha256(secret).hexdigest(), "size": len(secret)}
    asked = httpx2.post(
        f"{endpoint}/ben/mine.git/info/lfs/objects/batch", json={"operation": "upload", "objects": [known]},
        headers={"Authorization": f"Bearer {tokens['ben']}"},
    ).json()  # fmt: skip
    pointer = {"path": "w.bin", "algo": "sha256", "oid": known["oid"], "size": known["size"]}
    lines = [{"key": "header", "value": {"summary": "mine"}}, {"key": "lfsFile", "value": pointer}]
    taken = httpx2.post(
        f"{endpoint}/api/models/ben/mine/commit/main", content="\n".join(map(json.dumps, lines)),
        headers={"Authorization": f"Bearer {tokens['ben']}"},
    )  # fmt: skip
    found["theft"] = ("actions" in asked["objects"][0], taken.status_code)
    found["own"] = [(r.id, r.type, r.visibility, r.storage > 0) for r in api["dora"].list_user_repos("lab")]
    refusals = {
        "foreign": lambda: commit("ben", "anna/open"),
        "hidden": lambda: commit("ben", "anna/closed"),
        "create": lambda: api["carl"].create_repo("lab/other"),
        "delete": lambda: api["carl"].delete_repo("anna/open"),
        "delete_hidden": lambda: api["carl"].delete_repo("anna/closed"),
        "take": lambda: api["carl"].move_repo("anna/open", "carl/open"),
        "give": lambda: api["anna"].move_repo("anna/open", "carl/open"),
        "tag": lambda: api["ben"].create_tag("anna/open", tag="v1"),
        "settings": lambda: api["ben"].update_repo_settings("anna/open", private=True),
        "own": lambda: list(api["carl"].list_user_repos("lab")),
        "reader": lambda: commit("dora", "lab/shared"),
        "reader_creates": lambda: api["dora"].create_repo("dora/new"),
    }
    found["refused"] = {name: refused(call) for name, call in refusals.items()}
    batch = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 3}]}
    client = httpx2.Client()
    found["batch"] = [
        client.post(f"{api['ben'].endpoint}/anna/open.git/info/lfs/objects/batch", json=batch, **more).status_code
        for more in ({"headers": {"Authorization": f"Bearer {tokens['ben']}"}}, {"auth": ("anna", tokens["anna"])}, {})
    ]
    return found
