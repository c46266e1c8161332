"""What HTML pages share: one file that needs no other, and tables that a screen reader can read."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

_STYLE = (
    ":root{color-scheme:light}"
    "body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem;"
    "background:#fff;color:#1a1a1a}"
    "table{border-collapse:collapse;font-size:12px}"
    "caption{text-align:left;padding:.2rem .5rem;color:#555}"
    "th,td{padding:.2rem .5rem;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd;"
    "vertical-align:top}"
    "th:first-child,td.words,th.words{text-align:left}tbody th{font-weight:normal}"
    "th:first-child,td.words{white-space:normal;overflow-wrap:anywhere;min-width:7rem;"
    "max-width:36rem}"
    ".wide{overflow-x:auto;margin:.5rem 0 1rem}img{max-width:none}.fit img{max-width:100%}"
    ".flag{color:#a40000;font-weight:bold}"
    "pre{font-size:11px;background:#f4f4f4;padding:.5rem;overflow-x:auto}"
    "@media print{body{margin:0;max-width:none}.wide{overflow:visible}img{max-width:100%}"
    "h2,h3,caption{break-after:avoid}tr,img{break-inside:avoid}pre{white-space:pre-wrap}}"
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Flag(str):
    """A cell, or a line, that is to stand out."""

    __slots__ = ()


def html_page(title: str, parts: Iterable[str]) -> str:
    """The page; what it holds may not load or run anything.

    Args:
        title: Of the window.
        parts: HTML.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """A heading; the text is escaped."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph; the text is escaped."""
    return f"<p>{_inline(text)}</p>"


def bullets(lines: Iterable[str]) -> str:
    """A list; the lines are escaped."""
    return f"<ul>{''.join(f'<li>{_inline(line)}</li>' for line in lines)}</ul>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", words: int = 0
) -> str:
    """A table whose first column names its rows; all texts are escaped.

    Args:
        head: Names of the columns.
        rows: Cells.
        caption: Said above it.
        words: So many of the last columns hold words, not numbers.
    """
    first_words = len(head) - words
    kinds = [' class="words"' if n >= first_words else "" for n in range(len(head))]
    top = "".join(
        f'<th scope="col"{kind}>{_inline(cell)}</th>'
        for cell, kind in zip(head, kinds, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{_inline(row[0])}</th>'
        + "".join(
            f"<td{kind}>{_inline(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{said}<thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def image(
    content: bytes,
    text: str,
    *,
    kind: Literal["png", "jpeg", "svg+xml"] = "png",
    fit: bool = False,
) -> str:
    """A picture inside the page.

    Args:
        content: The bytes of its file.
        text: What it shows, for those who cannot see it.
        kind: Of file.
        fit: Never wider than the page.
    """
    data = base64.b64encode(content).decode("ascii")
    box = "wide fit" if fit else "wide"
    return (
        f'<div class="{box}"><img alt="{escape(text)}" src="data:image/{kind};base64,{data}"></div>'
    )


def _inline(text: str) -> str:
    safe = escape(text)
    return f'<span class="flag">{safe}</span>' if isinstance(text, Flag) else safe
