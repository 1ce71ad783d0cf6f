"""Write the files that only repeat what the code says: configuration keys, commands with their options.

That is docs/configuration.md, docs/cli.md and configs/preprocess.yaml; a test fails where one is stale.
"""

import importlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import PydanticUndefined
from typer.main import get_command

from mouse_facelift.cli import SUBCOMMANDS, WORDS, app
from mouse_facelift.config import Config, describe
from mouse_facelift.preprocess.config import PreprocessConfig

ROOT = Path(__file__).resolve().parents[1]
PREPROCESS_HEADER = """# mfl preprocess: a recording becomes FaceLift samples.
# Every key with its default. Both required keys are best given on the command line:
#   mfl preprocess --config configs/preprocess.yaml input.recording=DIR output=DIR
# This file is written by `python scripts/generate_docs.py`.
"""
CONFIGURATION_HEADER = """# Configuration

Every subcommand reads one YAML file (`--config FILE`) and `key.sub=value` settings on top of it. An unknown
key is an error that names the nearest one. This page is written by `python scripts/generate_docs.py`.
"""
COMMANDS_HEADER = """# Command line

Every command with its arguments and options; `--help` shows the same, with the configuration keys. Of
settings, KEY.SUB=VALUE, there may be any number. Flags are off and other options empty unless a default is
given. What the exit codes mean: [training](training.md#exit-codes). This page is written by
`python scripts/generate_docs.py`.
"""


def configuration() -> str:
    """docs/configuration.md: every key of every command."""
    parts = [CONFIGURATION_HEADER]
    commands = dict(SUBCOMMANDS)
    for name, words in WORDS.items():
        commands |= {f"{name} {word}": subcommand for word, subcommand in words.items()}
    for name, subcommand in commands.items():
        module, _, model = subcommand.config.partition(":")
        config = getattr(importlib.import_module(f"mouse_facelift.{module}"), model)
        parts.append(f"\n## mfl {name}\n\n{subcommand.summary}\n\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|\n")
        for field in describe(config):
            parts.append(_row(f"`{field.key}`", field.type, f"`{field.default}`", field.description))
    return "".join(parts)


def command_line() -> str:
    """docs/cli.md: every command with its arguments and options."""
    parts = [COMMANDS_HEADER]
    for name, command in _commands("mfl", get_command(app)):
        arguments = [param.metavar for param in command.params if param.param_type_name == "argument"]
        options = ["[OPTIONS]"] if len(command.params) > len(arguments) else []
        usage = " ".join([name, *options, *arguments, *(["COMMAND"] if _below(command) else [])])
        parts.append(f"\n## {name}\n\n    {usage}\n\n{command.help}\n{_keys(name)}")
        if command.params:
            parts.append("\n| argument or option | default | meaning |\n|---|---|---|\n")
        parts += [_row(f"`{_written(param)}`", _default(param), param.help) for param in command.params]
    return "".join(parts)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, below in _below(command).items():
        yield from _commands(f"{name} {word}", below)


def _below(command: Any) -> dict[str, Any]:
    return getattr(command, "commands", {})


def _keys(name: str) -> str:
    """Where the command's configuration keys are."""
    command = name.removeprefix("mfl ")
    names = [command, *(f"{command} {word}" for word in WORDS.get(command, {}))]
    links = [f"[mfl {each}](configuration.md#mfl-{each.replace(' ', '-')})" for each in names]
    return f"Keys: {', '.join(links)}.\n" if command in SUBCOMMANDS else ""


def _written(param: Any) -> str:
    """An argument or option as it is written on the command line."""
    if param.param_type_name == "argument":
        return str(param.metavar)
    return ", ".join(param.opts) + ("" if param.is_flag else f" {param.metavar}")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    return "" if param.default is None or param.default is False else f"`{param.default}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def settings() -> str:
    """configs/preprocess.yaml: every key with its default."""
    return PREPROCESS_HEADER + _section(PreprocessConfig, None, "")


def _section(model: type[Config], values: Config | None, indent: str) -> str:
    lines = []
    for name, info in model.model_fields.items():
        value = getattr(values, name) if values else info.get_default()
        section = isinstance(info.annotation, type) and issubclass(info.annotation, Config)
        required = value is PydanticUndefined
        text = f"{info.description}{' Required.' if required and not section else ''}"
        lines += ["" if section and not indent else None]
        lines += textwrap.wrap(text, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if section and not info.annotation.reused:
            inside = None if required else value
            lines += [f"{indent}{name}:", _section(info.annotation, inside, f"{indent}  ").rstrip("\n")]
        elif required:
            lines.append(f"{indent}# {name}: DIR")
        else:
            plain = value.model_dump() if section else value
            shown = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=1000)
            lines.append(f"{indent}{name}: {shown.splitlines()[0]}")
    return "\n".join(line for line in lines if line is not None) + "\n"


WRITTEN = {
    ROOT / "docs" / "configuration.md": configuration,
    ROOT / "docs" / "cli.md": command_line,
    ROOT / "configs" / "preprocess.yaml": settings,
}

if __name__ == "__main__":
    for file, content in WRITTEN.items():
        file.write_text(content(), encoding="utf-8")
