"""README.md and README.ko.md say the same: whoever changes one must change the other.

What a translation leaves alone is compared section by section. Words are not compared, so a number that is
spelled out in one must be spelled out in the other.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = ROOT / "README.md"
KOREAN = ROOT / "README.ko.md"
TO_KOREAN = "[한국어](README.ko.md)"
TO_ENGLISH = "[English](README.md)"

FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`[^`]+`")
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)
TARGET = re.compile(r"\]\(([^)]+)\)")
MARKER = re.compile(r"^( *(?:[-*+]|\d+\.)) ", re.MULTILINE)
ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True)
class Section:
    """What lies between two headings, as far as it is the same in every language."""

    title: str
    level: int
    blocks: list[str]
    targets: list[str]
    markers: list[str]
    cells: list[int]
    code: Counter[str]
    numbers: Counter[str]


def sections(text: str) -> list[Section]:
    """The text's sections in order; the heading's own words belong to its section."""
    blocks = FENCED.findall(text)
    prose = FENCED.sub("```", text)  # a mark per block keeps `#` comments in code from being headings
    headings = list(HEADING.finditer(prose))
    ends = [heading.start() for heading in headings[1:]] + [len(prose)]
    found = []
    for heading, end in zip(headings, ends, strict=True):
        part = prose[heading.start() : end]
        count = part.count("```")
        found.append(_section(heading, part.replace("```", ""), blocks[:count]))
        blocks = blocks[count:]
    return found


def _section(heading: re.Match[str], part: str, blocks: list[str]) -> Section:
    words = INLINE.sub("", part)
    return Section(
        title=heading[2],
        level=len(heading[1]),
        blocks=blocks,
        targets=TARGET.findall(part),
        markers=MARKER.findall(part),
        cells=[row.count("|") - 1 for row in ROW.findall(words)],
        code=Counter(" ".join(code.split()) for code in INLINE.findall(part)),
        numbers=Counter(NUMBER.findall(TARGET.sub("]", words))),
    )


def differences(english: str, korean: str) -> list[str]:
    """One sentence for each thing that is not the same, with the section in which it stands."""
    ours, theirs = sections(english), sections(korean)
    levels = [[section.level for section in side] for side in (ours, theirs)]
    if levels[0] != levels[1]:
        return [
            f"headings: README.md has {_outline(ours)}; README.ko.md has {_outline(theirs)}. "
            "Levels and count must be equal"
        ]
    found = []
    for one, other in zip(ours, theirs, strict=True):
        where = f"section '{one.title}' / '{other.title}'"
        for name, what in (
            ("blocks", "code block"),
            ("targets", "link or image"),
            ("markers", "list item"),
            ("cells", "table row's number of cells"),
        ):
            found += _first_of(where, what, getattr(one, name), getattr(other, name))
        for name, what in (("code", "code in the text"), ("numbers", "numbers in the text")):
            found += _left_over(where, what, getattr(one, name), getattr(other, name))
    return found


def _outline(side: list[Section]) -> str:
    return ", ".join(f"{'#' * section.level} {section.title}" for section in side)


def _first_of(where: str, what: str, ours: list, theirs: list) -> list[str]:
    """The first place at which two lists part."""
    for index in range(max(len(ours), len(theirs))):
        one, other = (repr(side[index]) if index < len(side) else "none" for side in (ours, theirs))
        if one != other:
            return [f"{where}: {what} {index + 1} is {one} in README.md, {other} in README.ko.md"]
    return []


def _left_over(where: str, what: str, ours: Counter[str], theirs: Counter[str]) -> list[str]:
    """What one side has and the other has not; word order is the language's own."""
    if ours == theirs:
        return []
    only = [", ".join(sorted(side.elements())) or "none" for side in (ours - theirs, theirs - ours)]
    return [f"{where}: {what} only in README.md: {only[0]}; only in README.ko.md: {only[1]}"]


def without_language_link(page: Path, link: str) -> str:
    title, _, rest = page.read_text(encoding="utf-8").partition("\n\n")
    line, _, body = rest.partition("\n\n")
    assert line == link, f"{page.name}: expected {link} below the title, found {line!r}"
    return f"{title}\n\n{body}"


def test_readmes_are_equal() -> None:
    found = differences(without_language_link(ENGLISH, TO_KOREAN), without_language_link(KOREAN, TO_ENGLISH))
    assert not found, "README.md and README.ko.md differ:\n" + "\n".join(found)


@pytest.mark.parametrize("page", [ENGLISH, KOREAN], ids=lambda page: page.name)
def test_readme_is_wholly_in_sections(page: Path) -> None:
    """Nothing stands before the first heading, where it would not be compared, and no block is left open."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert sum(len(section.blocks) for section in sections(text)) * 2 == len(
        re.findall(r"^ *```", text, re.MULTILINE)
    )


PAGE = """# Mouse

It takes 3 s and `mfl view`, see [this](docs/a.md).

## Use

```
mfl demo  # quick
# not a heading
```

1. first
2. second

| a | b |
|---|---|
| 1.5 | 2 |
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "3 s",
            "4 s",
            "section 'Mouse' / 'Mouse': numbers in the text only in README.md: 3; only in README.ko",
        ),
        ("1.5", "15", "section 'Use' / 'Use': numbers in the text only in README.md: 1.5; only in README.ko"),
        (
            "`mfl view`",
            "`mfl runs`",
            "section 'Mouse' / 'Mouse': code in the text only in README.md: `mfl view`",
        ),
        ("docs/a.md", "docs/b.md", "section 'Mouse' / 'Mouse': link or image 1 is 'docs/a.md' in README.md"),
        ("# quick", "# fast", "section 'Use' / 'Use': code block 1 is"),
        ("2. second\n", "", "section 'Use' / 'Use': list item 2 is '2.' in README.md, none in README.ko.md"),
        ("| 1.5 | 2 |\n", "", "section 'Use' / 'Use': table row's number of cells 3 is 2 in README.md, none"),
        ("## Use", "### Use", "headings: README.md has # Mouse, ## Use; README.ko.md has # Mouse, ### Use"),
    ],
)
def test_a_change_of_one_readme_alone_is_named(old: str, new: str, message: str) -> None:
    assert differences(PAGE, PAGE) == []
    assert differences(PAGE, PAGE.replace(old, new))[0].startswith(message)
