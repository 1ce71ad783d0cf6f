"""The troubleshooting page quotes messages as they are: those of every broken recording, and all others."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mouse_facelift.cli import app
from mouse_facelift.errors import DataError
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
BROKEN = dict(re.findall(r"^\| (\w+) \| `([^`]+)` \|", PAGE, flags=re.MULTILINE))
"""Folder of a broken recording -> the message that the page promises."""
QUOTED = re.findall(r"^\| `([^`]+)` \|", PAGE, flags=re.MULTILINE)
"""All other messages, with … in place of what differs."""
LIBRARY_TEXT = {r"\(ValueError: .*\)\.": "(…).", r"only \d+ can": "only … can"}
"""What Python and FFmpeg say differently from version to version."""
WRITERS = (
    "border.py",
    "cli.py",
    "config.py",
    "files.py",
    "provenance.py",
    "capture",
    "geometry",
    "inference",
    "preprocess",
    "samples",
    "training",
)
"""Where the messages on the page are made."""


@pytest.fixture
def broken(shared: Path) -> Path:
    return shared / "data" / "bad_captures"


def test_every_broken_recording_is_on_the_page(broken: Path) -> None:
    folders = {path.name for path in broken.iterdir() if path.is_dir()}
    assert set(BROKEN) == folders - {"control_valid"}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_recording_is_refused_in_the_words_of_the_page(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    marker, output = tmp_path / "marker", tmp_path / "out"
    monkeypatch.setenv("BAD_PICKLE_MARKER", str(marker))
    monkeypatch.chdir(tmp_path)
    config = PreprocessConfig.model_validate(
        {"input": {"recording": broken / name}, "output": output, "size": 32}
    )
    with pytest.raises(DataError) as refusal:
        run(config)
    message = str(refusal.value).replace(str(broken / name), "DIR")
    for pattern, text in LIBRARY_TEXT.items():
        message = re.sub(pattern, text, message)
    assert message == BROKEN[name]
    # Neither an output folder, nor what the pickle's code would write: the marker or ./pwned.
    assert list(tmp_path.iterdir()) == []


def test_broken_recording_is_exit_code_2_and_one_line(broken: Path, tmp_path: Path) -> None:
    settings = [f"input.recording={broken / 'camera_3_missing'}", f"output={tmp_path / 'out'}"]
    result = CliRunner().invoke(app, ["preprocess", *settings])
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.replace(str(broken / "camera_3_missing"), "DIR").splitlines()
    assert lines == [f"error: {BROKEN['camera_3_missing']}"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def templates() -> list[str]:
    """Every text in the code that makes messages, with … in place of what is filled in."""
    package = ROOT / "mouse_facelift"
    files = [
        file
        for name in WRITERS
        for file in ([package / name] if "." in name else (package / name).rglob("*.py"))
    ]
    return [text for file in files for text in _texts(ast.parse(file.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("message", QUOTED)
def test_message_on_the_page_is_one_of_the_code(templates: list[str], message: str) -> None:
    assert any(message in text for text in templates), f"no such message: {message}"


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        yield re.sub("…+", "…", "".join(parts))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _texts(part.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        # Placeholders of logging and of str.format.
        yield re.sub("…+", "…", re.sub(r"%[-+.\d]*[sdfg]|{}", "…", node.value)).replace("%%", "%")
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)
