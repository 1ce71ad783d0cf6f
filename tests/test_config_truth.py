"""Configuration says what is true: every key is explained, read by code, and shipped files load."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from mouse_facelift import cli
from mouse_facelift.config import Config, describe, load_config

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mouse_facelift"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml")) + sorted((ROOT / "configs" / "demo").glob("*.yaml"))

REQUIRED = {
    "preprocess": ["input.recording=r", "output=o"],
    "train-mvdiff": ["data.train_list=t", "data.val_list=v", "start.path=s", "output=o"],
    "train-gslrm": ["data.train_list=t", "output=o"],
    "infer": ["gslrm=g", "input=i", "output=o"],
    "compare": ["data=d", "gslrm=g", "mvdiffusion=m", "output=o"],
}
"""What only the user knows, by command."""

MODELS: dict[str, type[Config]] = {
    command: cli._load(subcommand.config) for command, subcommand in cli.SUBCOMMANDS.items()
}
MODELS |= {word: cli._load(of.config) for words in cli.WORDS.values() for word, of in words.items()}
KEYS = [(command, field) for command, model in MODELS.items() for field in describe(model)]


def attributes_read() -> set[str]:
    """Names of all attributes that the code reads; of config modules, only their properties count."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for part in properties(tree) if path.name == "config.py" else [tree]:
            reads = (node for node in ast.walk(part) if isinstance(node, ast.Attribute))
            names |= {node.attr for node in reads if isinstance(node.ctx, ast.Load)}
    return names


def properties(tree: ast.AST) -> list[ast.AST]:
    """Functions that derive a value from others; validators only check."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return [f for f in functions if any(ast.unparse(d) == "property" for d in f.decorator_list)]


READ = attributes_read()


def command_of(path: Path) -> str:
    return path.stem.replace("_", "-")


def leaves(values: dict, prefix: str = "") -> set[str]:
    keys = set()
    for name, value in values.items():
        keys |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return keys


@pytest.mark.parametrize(("command", "field"), KEYS, ids=lambda value: getattr(value, "key", value))
def test_every_key_is_explained_in_a_sentence(command: str, field) -> None:
    assert re.search(r"\w.*\.$", field.description, re.DOTALL), f"{command}: {field.key}"


@pytest.mark.parametrize(("command", "field"), KEYS, ids=lambda value: getattr(value, "key", value))
def test_every_key_is_read_by_code(command: str, field) -> None:
    stages = {"preprocess", "infer", "compare", "train_mvdiff", "train_gslrm"}
    by_name = stages if command == "demo" else set()
    assert field.key.split(".")[-1] in READ | by_name, f"{command}: nothing reads {field.key}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shipped_configuration_loads(path: Path) -> None:
    command = command_of(path)
    given = leaves(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    missing = [setting for setting in REQUIRED.get(command, []) if setting.split("=")[0] not in given]
    load_config(MODELS[command], path, missing)


def test_every_command_has_a_documented_configuration() -> None:
    shipped = {command_of(path) for path in CONFIGS}
    assert set(MODELS) <= shipped
