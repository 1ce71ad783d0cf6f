"""The documentation says what the code does."""

import importlib.util
import re
from pathlib import Path

from typer.testing import CliRunner

from mouse_facelift.cli import SUBCOMMANDS, app

ROOT = Path(__file__).resolve().parents[1]


def test_configuration_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text() == module.page(), "run: python scripts/generate_docs.py"
    assert module.SETTINGS.read_text() == module.settings(), "run: python scripts/generate_docs.py"


def test_readme_names_files_and_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"(?:bash|python|--config) ((?:scripts|configs)/[\w./]+)", text):
        assert (ROOT / path).is_file(), path
    for command in re.findall(r"^ *mfl ([\w-]+)", text, flags=re.MULTILINE):
        assert command in SUBCOMMANDS, command
    assert CliRunner().invoke(app, ["--version"]).exit_code == 0
