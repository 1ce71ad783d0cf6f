"""Configuration says what is true: every key is explained, read by code, and shipped files load."""

import re
from pathlib import Path

import pytest
import yaml
from attribute_reads import attributes_read
from pydantic import Field

from mouse_facelift import cli
from mouse_facelift.config import Config, describe, load_config
from mouse_facelift.demo.config import DemoConfig
from mouse_facelift.evaluation.compare_config import MEASURED, OF_BOTH, OF_E2E, CompareConfig
from mouse_facelift.gslrm.config import DataConfig, LossConfig
from mouse_facelift.gslrm.losses import TERMS
from mouse_facelift.training.config import TrainingConfig

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


BY_NAME = {
    LossConfig: {*TERMS},
    CompareConfig: {*OF_BOTH, *OF_E2E, *MEASURED},
    DemoConfig: {"preprocess", "infer", "compare", "train_mvdiff", "train_gslrm"},
}
"""Keys that code reads through tables of names."""


@pytest.fixture(scope="module")
def read() -> set[tuple[str, str]]:
    return attributes_read(PACKAGE)


def unread(model: type[Config], read: set[tuple[str, str]], prefix: str = "") -> list[str]:
    """Keys of a configuration that no code reads of a value of this type, or of one that it is a kind of."""
    keys = []
    for name, field in model.model_fields.items():
        kin = [model, *(base for base in model.__mro__ if name in getattr(base, "model_fields", ()))]
        kin += descendants(model)
        known = any(name in BY_NAME.get(kind, ()) for kind in kin)
        if not known and not any((f"{kind.__module__}.{kind.__qualname__}", name) in read for kind in kin):
            keys.append(f"{prefix}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            keys += unread(field.annotation, read, f"{prefix}{name}.")
    return keys


def descendants(model: type[Config]) -> list[type[Config]]:
    return [kind for child in model.__subclasses__() for kind in (child, *descendants(child))]


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


def test_every_key_is_read_by_code(read: set[tuple[str, str]]) -> None:
    assert {command: keys for command, model in MODELS.items() if (keys := unread(model, read))} == {}


class DeadData(DataConfig):
    mode: str = Field("fast", description="Many other things have a mode.")


class DeadTraining(TrainingConfig):
    name: str = Field("mouse", description="Nearly everything has a name.")


class DeadKeys(Config):
    data: DeadData = Field(description="As GS-LRM's.")
    training: DeadTraining = Field(DeadTraining(), description="As any trainer's.")


def test_key_that_only_other_things_have_is_noticed(read: set[tuple[str, str]]) -> None:
    assert {"mode", "name"} <= {attribute for _, attribute in read}
    assert unread(DeadKeys, read) == ["data", "data.mode", "training", "training.name"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shipped_configuration_loads(path: Path) -> None:
    command = command_of(path)
    given = leaves(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    missing = [setting for setting in REQUIRED.get(command, []) if setting.split("=")[0] not in given]
    load_config(MODELS[command], path, missing)


def test_every_command_has_a_documented_configuration() -> None:
    shipped = {command_of(path) for path in CONFIGS}
    assert set(MODELS) <= shipped
