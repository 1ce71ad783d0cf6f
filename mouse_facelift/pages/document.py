"""A page as a whole: its head and look, sections, a verdict, tables."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..files import write_text
from .markup import Content, Markup, tag

Level = Literal["good", "look", "beyond"]
"""All well; worth a look; wrong."""

MARKS: dict[Level, str] = {"good": "✓", "look": "!", "beyond": "✕"}
WORDS: dict[Level, str] = {"good": "good", "look": "have a look", "beyond": "beyond a limit"}
"""What the marks mean."""

LOOK = Path(__file__).with_name("page.css")


def write_page(
    path: Path, title: str, *content: Content | Sequence[Content], styles: str = "", script: str = ""
) -> None:
    """Write one self-contained page; it appears only when complete. Equal contents give equal bytes.

    Args:
        path: The page.
        title: Of the window and above the content.
        content: The body below the title.
        styles: CSS rules on top of the common look.
        script: Run after the body is there; the page must be complete without it.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(LOOK.read_text(encoding="utf-8") + styles)),
    )
    code = tag("script", Markup(script)) if script else None
    body = tag("body", tag("h1", title), *content, code)
    write_text(path, f"<!doctype html>\n{tag('html', head, body, lang='en')}\n")


def section(name: str, title: str, *content: Content | Sequence[Content]) -> Markup:
    """A part of the page under a heading; `name` is its anchor."""
    return tag("section", tag("h2", title), *content, id=name)


def verdict(level: Level, headline: str, findings: Sequence[tuple[Level, str]]) -> Markup:
    """The page's answer in a line, and what it rests on."""
    lines = (
        tag("li", tag("span", MARKS[name], class_="mark", title=WORDS[name]), text, class_=name)
        for name, text in findings
    )
    return tag("section", tag("p", headline, class_="headline"), tag("ul", *lines), class_=f"verdict {level}")


def facts(lines: Sequence[tuple[str, str]]) -> Markup:
    """Names and values side by side."""
    return tag("dl", *([tag("dt", key), tag("dd", value)] for key, value in lines), class_="facts")


def html_table(head: Sequence[str], lines: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> Markup:
    """A table that scrolls by itself where it is wider than the page; the columns `words` hold text."""

    def row(name: str, cells: Sequence[str], scope: str) -> Markup:
        return tag(
            "tr",
            *(
                tag(
                    "th" if scope == "col" or column == 0 else name,
                    cell,
                    class_="words" if column in words else None,
                    scope=scope if scope == "col" or column == 0 else None,
                )
                for column, cell in enumerate(cells)
            ),
        )

    body = tag("tbody", *(row("td", line, "row") for line in lines))
    return tag("div", tag("table", tag("thead", row("th", head, "col")), body), class_="scroll")


def data_url(picture: Image.Image | NDArray[np.uint8]) -> str:
    """A picture as the address of an embedded PNG. An array is [H, W], [H, W, 3] or [H, W, 4]."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
