"""Write docs/configuration.md: every key of every subcommand, from the models that check configurations."""

import importlib
from pathlib import Path

from mouse_facelift.cli import SUBCOMMANDS
from mouse_facelift.config import describe

TARGET = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
HEADER = """# Configuration

Every subcommand reads one YAML file (`--config FILE`) and `key.sub=value` settings on top of it. An unknown
key is an error that names the nearest one. This page is written by `python scripts/generate_docs.py`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEADER]
    for name, subcommand in SUBCOMMANDS.items():
        module, _, model = subcommand.config.partition(":")
        config = getattr(importlib.import_module(f"mouse_facelift.{module}"), model)
        parts.append(f"\n## mfl {name}\n\n{subcommand.summary}\n\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|\n")
        for field in describe(config):
            cells = (f"`{field.key}`", field.type, f"`{field.default}`", field.description)
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
