"""A repository's card as HTML. The card's own HTML is shown as text, and an address that is no web address is dropped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


@cache
def _reader() -> MarkdownIt:
    from markdown_it import MarkdownIt  # here, since most servers show no page and should be up soon

    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def rendered(text: str, files: str) -> str:
    """``text`` as HTML; pictures and links that name a file of the repository lead below the address ``files``.

    A picture from elsewhere becomes a link to it, since a page of the local Hub loads nothing from outside.
    """
    reader = _reader()
    tokens = reader.parse(text)
    for block in tokens:
        for token in block.children or []:
            name = {"link_open": "href", "image": "src"}.get(token.type)
            if name is None:
                continue
            address = str(token.attrs[name])
            if _own(address):
                token.attrs[name] = files + address.removeprefix("./")
            elif token.type == "image" and not address.startswith(files):
                token.type, token.tag, token.content = "text", "", f"[picture: {token.content or address}]"
        if block.type in ("heading_open", "heading_close"):  # the first level is the page's own
            block.tag = f"h{min(6, int(block.tag[1]) + 1)}"
    html = reader.renderer.render(tokens, reader.options, {})
    return html.replace("<table>", "<div class=wide><table>").replace("</table>", "</table></div>")


def _own(address: str) -> bool:
    """Whether an address is that of a file of the same repository."""
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc and bool(parts.path) and not parts.path.startswith("/")
