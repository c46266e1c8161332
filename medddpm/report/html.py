"""What all pages share: one file that needs no other, one template, one style sheet."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import quote

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

ImageKind = Literal["png", "jpeg", "svg+xml", "webp"]
_FOLDER = files("medddpm") / "report" / "files"


class Flag(str):
    """A cell, or a line, that is to stand out."""

    __slots__ = ()


@dataclass(frozen=True)
class Picture:
    """A picture of a row of them.

    Attributes:
        source: See `data_uri`.
        label: Said below it.
        words: What it shows, for those who cannot see it.
        left: Letter of the side of the patient on the left of the picture, or "".
        right: The same on its right.
    """

    source: str
    label: str
    words: str
    left: str = ""
    right: str = ""


@cache
def text(name: str) -> str:
    """A file of the pages' folder."""
    return (_FOLDER / name).read_text(encoding="utf-8").replace("\r\n", "\n")


@cache
def _templates() -> Environment:
    """The templates of the pages' folder; all that goes in is escaped."""
    found = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(text),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["address"] = address
    found.tests["flag"] = lambda value: isinstance(value, Flag)
    return found


def address(path: str) -> str:
    """A relative path as a link holds it."""
    return quote(os.fsencode(path))


def policy(*scripts: str) -> str:
    """A content security policy: these scripts, inline styles, pictures of the page; no network."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    run = f"script-src {hashes}; " if scripts else ""
    return (
        f"default-src 'none'; {run}style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def render(template: str, scripts: Sequence[str] = (), /, **content: Any) -> str:
    """A page from its template, with the style sheet and the policy of all pages.

    Args:
        template: Its name.
        scripts: Files that the page runs, joined in this order to one script.
        content: What the template names.
    """
    script = "\n".join(text(script) for script in scripts)
    assert "</script" not in script, "a script that ends its own element"
    return _templates().get_template(template).render(
        policy=policy(script) if scripts else policy(),
        css=Markup(text("look.css")),
        script=Markup(script),
        **content,
    )  # fmt: skip


def html_page(title: str, parts: Iterable[str]) -> str:
    """A page without a script of parts that are HTML already.

    Args:
        title: Of the window.
        parts: HTML.
    """
    return render("page.html", title=title, content=Markup("\n".join(parts)))


def heading(text: str, level: int = 2) -> str:
    """A heading; the text is escaped."""
    return _macro("heading", text, level)


def paragraph(text: str) -> str:
    """A paragraph; the text is escaped."""
    return _macro("paragraph", text)


def bullets(lines: Iterable[str]) -> str:
    """A list; the lines are escaped."""
    return _macro("bullets", list(lines))


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
    return _macro("table", list(head), [list(row) for row in rows], caption, words)


def image(content: bytes, text: str, *, kind: ImageKind = "png", fit: bool = False) -> str:
    """A picture inside the page.

    Args:
        content: The bytes of its file.
        text: What it shows, for those who cannot see it.
        kind: Of file.
        fit: Never wider than the page.
    """
    return _macro("image", data_uri(content, kind), text, fit)


def fold(summary: str, content: str) -> str:
    """HTML that is shown when its summary, which is escaped, is pressed."""
    return _macro("fold", summary, Markup(content))


def statement(text: str) -> str:
    """The line that every page of results carries; the text is escaped."""
    return _macro("statement", text)


def summary(text: str, notices: Sequence[str] = ()) -> str:
    """The result in one sentence, and what to look at; green where there is nothing."""
    return _macro("summary", "notice" if notices else "good", text, list(notices))


def chips(alarms: Sequence[tuple[str, str]], notices: Sequence[tuple[str, str]]) -> str:
    """Labels for alarms and notices, each (two words, the sentence); the texts are escaped."""
    return _macro("chips", list(alarms), list(notices))


def pictures(items: Sequence[Picture], across: int = 0) -> str:
    """Pictures side by side.

    Args:
        items: In this order.
        across: So many in a row of a wide window, for rows that are to line up; else as many as
            fit.
    """
    return _macro("pictures", list(items), across)


def link(text: str, path: str) -> Markup:
    """A link to a page nearby; the text is escaped.

    Args:
        text: What is pressed.
        path: Relative to the page.
    """
    return Markup('<a href="{}">{}</a>').format(address(path), text)


def plots(charts: Iterable[str]) -> str:
    """Charts side by side, as many as fit."""
    return f'<div class="plots">{"".join(charts)}</div>'


def data_uri(content: bytes, kind: ImageKind = "png") -> str:
    """A picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _macro(name: str, *arguments: Any) -> str:
    """What a macro of `macros.html` makes, without the lines between its parts."""
    module = _templates().get_template("macros.html").module
    return str(getattr(module, name)(*arguments)).strip()
