"""HTML and SVG elements as strings that escape whatever is put into them."""

import html
import math
from collections.abc import Iterable


class Markup(str):
    """Text that is markup already; any other string is escaped where an element takes it in."""


Content = str | Markup | None

VOID = frozenset({"br", "img", "input", "meta"})


def tag(name: str, /, *content: Content | Iterable[Content], **attributes: object) -> Markup:
    """One element. In attribute names a trailing `_` is dropped and `_` stands for `-`.

    Args:
        name: Such as "td".
        content: Strings, `Markup`, or iterables of them; None is left out.
        attributes: None leaves the attribute out, True writes it without a value.
    """
    head = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(_text(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inner = join(*content)
    return Markup(f"<{name}{head}>" if name in VOID else f"<{name}{head}>{inner}</{name}>")


def join(*content: Content | Iterable[Content]) -> Markup:
    """Contents one after the other, escaped where they are not markup."""
    parts = []
    for item in content:
        if item is None:
            continue
        if isinstance(item, str):
            parts.append(item if isinstance(item, Markup) else html.escape(item))
        else:
            parts.append(join(*item))
    return Markup("".join(parts))


def number(value: float) -> str:
    """A coordinate without noise: one decimal, no trailing zero, no minus zero."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def shown(value: float, form: str) -> str:
    """A figure for people; a dash where it was not measured."""
    return form.format(value) if math.isfinite(value) else "–"


def _text(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)
