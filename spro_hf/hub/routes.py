"""Which function answers which call. Routes are matched on the raw path, since branches, tags and revisions arrive
percent-encoded as one segment."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.responses import Response

from spro_hf.hub import git_http, info, pages, reading, writing, xet
from spro_hf.hub.call import Call

_REPO = r"(?P<kinds>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
_SITE = r"(?:(?P<kinds>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)"
_GIT = r"(?:(?P<kinds>datasets|spaces)/)?(?P<id>[^/]+/[^/]+?)(?:\.git)?"
_REV, _PATH = r"(?P<revision>[^/]+)", r"(?P<path>.*)"
# a repository without a namespace, of which there are none here
SHORT = re.compile(
    r"/api/(?P<kinds>models|datasets|spaces)/(?P<id>[^/]+)(?:/(?:revision|tree|refs|commits|paths-info)(?:/.*)?)?"
    r"|/(?:(?P<site>datasets|spaces)/)?(?P<name>[^/]+)/resolve/[^/]+/.*"
)
# method, path, what answers, and who may ask: "any", "user" (needs a token), "read" (sees the repository), "write" (may
# write to it), "xet" (has a write token of Xet), "git" and "page" (read, by a token as password too)
_ROUTES: list[tuple[str, str, Callable[[Call], Response], str]] = [
    ("GET", "/api/whoami-v2", reading.whoami, "user"),
    ("POST", "/api/validate-yaml", reading.validate_yaml, "any"),
    ("GET", "/api/(?P<kinds>models|datasets|spaces)", info.found, "any"),
    ("GET", "/api/settings/repositories", info.own, "user"),
    ("GET", "/api/organizations/(?P<path>[^/]+)/settings/repositories", info.own, "user"),
    ("GET", f"/api/{_REPO}(?:/revision/{_REV})?", info.info, "read"),
    ("GET", f"/api/{_REPO}/tree/{_REV}(?:/{_PATH})?", reading.tree, "read"),
    ("POST", f"/api/{_REPO}/paths-info/{_REV}", reading.paths_info, "read"),
    ("GET", f"/api/{_REPO}/auth-check", reading.auth_check, "read"),
    ("GET", f"/api/{_REPO}/refs", reading.refs, "read"),
    ("GET", f"/api/{_REPO}/commits/{_REV}", reading.commits, "read"),
    ("GET", r"/api/(?P<kinds>spaces)/(?P<id>[^/]+/[^/]+)/runtime", info.runtime, "read"),
    ("GET", f"/{_SITE}/resolve/{_REV}/{_PATH}", reading.resolve, "file"),
    ("POST", "/api/repos/create", writing.create, "user"),
    ("DELETE", "/api/repos/delete", writing.delete, "user"),
    ("POST", "/api/repos/move", writing.move, "user"),
    ("PUT", f"/api/{_REPO}/settings", writing.settings, "write"),
    ("POST", f"/api/{_REPO}/preupload/{_REV}", writing.preupload, "write"),
    ("POST", f"/api/{_REPO}/commit/{_REV}", writing.commit, "write"),
    ("POST", f"/api/{_REPO}/branch/{_REV}", writing.add_branch, "write"),
    ("DELETE", f"/api/{_REPO}/branch/{_REV}", writing.remove_branch, "write"),
    ("POST", f"/api/{_REPO}/tag/{_REV}", writing.add_tag, "write"),
    ("DELETE", f"/api/{_REPO}/tag/{_REV}", writing.remove_tag, "write"),
    ("POST", f"/{_GIT}/info/lfs/objects/batch", git_http.lfs_batch, "git"),
    ("GET", f"/{_GIT}/info/refs", git_http.references, "git"),
    ("POST", f"/{_GIT}/git-upload-pack", git_http.upload_pack, "git"),
    ("POST", f"/{_GIT}/git-receive-pack", git_http.receive_pack, "git"),
    ("GET", f"/api/{_REPO}/xet-write-token/{_REV}", xet.write_token, "write"),
    ("GET", r"/xet/v1/chunks/.*", xet.nothing_known, "xet"),
    ("POST", r"/xet/v1/xorb-grants/.*", xet.nothing_known, "xet"),
    ("POST", r"/xet/v1/xorbs/default/(?P<path>[0-9a-f]{64})", xet.put_xorb, "xet"),
    ("POST", r"/xet/v1/shards", xet.put_shard, "xet"),
    ("POST", r"/xet/v2/shards", xet.put_shard_with_progress, "xet"),
    ("GET", "/", pages.index, "page"),
    ("GET", "/login", pages.login, "page"),
    ("GET", pages.STYLE_ADDRESS, pages.style, "file"),
    ("GET", f"/(?!api/){_SITE}(?:/(?:tree|commit)/{_REV})?/?", pages.repository, "page"),
]
TABLE = [(method, re.compile(path), answer, access) for method, path, answer, access in _ROUTES]
LARGE = (writing.commit, xet.put_xorb, xet.put_shard, xet.put_shard_with_progress)  # whose bodies may be large
