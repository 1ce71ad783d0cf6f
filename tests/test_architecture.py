"""The import directions of docs/architecture.md, walked in the source."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mouse_facelift"

LAYERS = [
    {"errors", "blur_cuda", "damage"},
    {"blur"},
    {
        *("files", "config", "_lazy", "progress", "metrics", "hub", "words", "spacing", "parallel"),
        "attention_kernels",
    },
    {"pages", "pictures", "videos", "tensor_files"},
    {"provenance", "border"},
    {"geometry"},
    {"capture"},
    {"samples"},
    {"preprocess"},
    {"gaussians"},
    {"viewer"},
    {"training"},
    {"gslrm", "mvdiffusion"},
    {"inference"},
    {"evaluation", "synthesis", "weights"},
    {"demo"},
    {"doctor"},
    {"tools"},
    {"cli"},
    {"__main__"},
]
"""Lowest first. A room may import from lower layers and from itself."""

RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of this package that a file imports, anywhere in it."""
    package = ("mouse_facelift", *path.relative_to(PACKAGE).parts[:-1])
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            names = [alias.name for alias in node.names]
            full = [part for part in base if part]
            rooms |= {full[1]} if len(full) > 1 else {name for name in names if name in RANK}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
            rooms |= {m.split(".")[1] for m in modules if m.startswith("mouse_facelift.")}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upward(path: Path) -> None:
    room = room_of(path)
    assert room in RANK, f"{room} has no layer: place it in LAYERS and in docs/architecture.md"
    for imported in imported_rooms(path):
        assert imported == room or RANK[imported] < RANK[room], f"{path} imports {imported}"


def test_only_the_renderer_imports_gsplat() -> None:
    users = [path.relative_to(PACKAGE).as_posix() for path in FILES if "import gsplat" in path.read_text()]
    users += [path.relative_to(PACKAGE).as_posix() for path in FILES if "from gsplat" in path.read_text()]
    assert set(users) <= {"gaussians/rendering.py"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "geometry").glob("*.py")), ids=lambda path: path.name)
def test_geometry_touches_no_file(path: Path) -> None:
    text = path.read_text()
    assert "open(" not in text
    assert "pathlib" not in text


def test_cli_help_imports_nothing_heavy() -> None:
    import subprocess

    code = "import sys, mouse_facelift.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "pydantic", "diffusers", "cv2"} & set(loaded)
