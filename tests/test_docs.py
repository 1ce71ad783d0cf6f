"""The documentation says what the code does."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mouse_facelift.cli import SUBCOMMANDS, WORDS, app
from mouse_facelift.config import Config, describe
from mouse_facelift.preprocess.config import Limit, QualityConfig

ROOT = Path(__file__).resolve().parents[1]
FILE = re.compile(r"\.(csv|html|json|jsonl|mp4|py|safetensors)$")
COMMANDS = {str(command.name) for command in (*app.registered_commands, *app.registered_groups)}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_generated_files_are_current() -> None:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for file, content in module.WRITTEN.items():
        assert file.read_text() == content(), f"{file.name} is stale, run: python scripts/generate_docs.py"


def test_command_line_page_has_every_command_and_flag() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert {f"## mfl {name}" for name in COMMANDS} <= set(text.splitlines())
    for place in ("## mfl weights pull", "`--accept-licence`", "`--shard I/N`", "`--config, -c FILE`"):
        assert place in text


def test_readme_names_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"(?:bash|python|--config) ((?:scripts|configs)/[\w./]+)", text):
        assert (ROOT / path).is_file(), path
    assert CliRunner().invoke(app, ["--version"]).exit_code == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_commands_that_exist(page: Path) -> None:
    for command in re.findall(
        r"(?:^ *|`)mfl ([a-z]+(?:-[a-z]+)*)(?![\w*-])", page.read_text(), flags=re.MULTILINE
    ):
        assert command in COMMANDS, command


def test_every_command_is_on_some_page() -> None:
    text = "\n".join(page.read_text() for page in PAGES if page.name != "cli.md")
    assert set(re.findall(r"\bmfl ([\w-]+)", text)) >= COMMANDS


def test_training_room_is_described_module_by_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.partition("## Training")[2].partition("\n## ")[0]
    described = [
        name
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall(r"\w+", row)
    ]
    modules = {path.stem for path in (ROOT / "mouse_facelift" / "training").glob("*.py")} - {"__init__"}
    assert sorted(described) == sorted(modules)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_link_to_places_that_exist(page: Path) -> None:
    for path, place in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not place or place in _anchors(target), f"{path}#{place}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_tests_that_exist(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert f"def {name}" in (ROOT / path).read_text(), f"{path}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_keys_and_modules_that_exist(page: Path) -> None:
    text = page.read_text()
    commands = [*SUBCOMMANDS.values(), *(command for words in WORDS.values() for command in words.values())]
    known = {field.key for command in commands for field in describe(_config(command.config))}
    sections = {key.rpartition(".")[0] for key in known} - {""}
    rooms = {section.partition(".")[0] for section in sections}
    for key in re.findall(r"`([a-z]\w*(?:\.[a-z]\w*)+)(?:=[^`]*)?`", text):
        if key.partition(".")[0] in rooms and not FILE.search(key):
            assert key in known | sections, key
    for module in re.findall(r"`((?:capture|geometry|preprocess|samples|training)/\w+\.py)", text):
        assert (ROOT / "mouse_facelift" / module).is_file(), module


def test_limits_on_the_page_are_the_defaults() -> None:
    text = (ROOT / "docs" / "preprocessing.md").read_text()
    table = re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+|null) \| (warn|drop|stop) \|$", text, flags=re.MULTILINE)
    limits = {name: value for name, value in QualityConfig() if isinstance(value, Limit)}
    assert {name: (value, action) for name, value, action in table} == {
        name: ("null" if limit.value is None else f"{limit.value:g}", limit.action)
        for name, limit in limits.items()
    }


def _anchors(page: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _config(place: str) -> type[Config]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"mouse_facelift.{module}"), name)
