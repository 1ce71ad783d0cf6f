"""Write docs/configuration.md and configs/preprocess.yaml from the models that check configurations."""

import importlib
import textwrap
from pathlib import Path

import yaml
from pydantic_core import PydanticUndefined

from mouse_facelift.cli import SUBCOMMANDS, WORDS
from mouse_facelift.config import Config, describe
from mouse_facelift.preprocess.config import PreprocessConfig

ROOT = Path(__file__).resolve().parents[1]
TARGET, SETTINGS = ROOT / "docs" / "configuration.md", ROOT / "configs" / "preprocess.yaml"
PREPROCESS_HEADER = """# mfl preprocess: a recording becomes FaceLift samples.
# Every key with its default. Both required keys are best given on the command line:
#   mfl preprocess --config configs/preprocess.yaml input.recording=DIR output=DIR
# This file is written by `python scripts/generate_docs.py`.
"""
HEADER = """# Configuration

Every subcommand reads one YAML file (`--config FILE`) and `key.sub=value` settings on top of it. An unknown
key is an error that names the nearest one. This page is written by `python scripts/generate_docs.py`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEADER]
    commands = dict(SUBCOMMANDS)
    for name, words in WORDS.items():
        commands |= {f"{name} {word}": subcommand for word, subcommand in words.items()}
    for name, subcommand in commands.items():
        module, _, model = subcommand.config.partition(":")
        config = getattr(importlib.import_module(f"mouse_facelift.{module}"), model)
        parts.append(f"\n## mfl {name}\n\n{subcommand.summary}\n\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|\n")
        for field in describe(config):
            cells = (f"`{field.key}`", field.type, f"`{field.default}`", field.description)
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


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


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    SETTINGS.write_text(settings(), encoding="utf-8")
