"""Which attributes of which classes the package reads, as mypy resolves them: equal names are told apart."""

import ast
import os
from pathlib import Path

from mypy.build import build
from mypy.modulefinder import BuildSource
from mypy.nodes import MemberExpr
from mypy.options import Options
from mypy.types import Instance, Type, TypeVarType, UnionType, get_proper_type


def attributes_read(package: Path) -> set[tuple[str, str]]:
    """Full name of the class and name of the attribute, for every `object.attribute` in the code.

    Of modules that define configuration only properties count, which derive a value from others; validators
    only check. Other packages are not looked into, which would take minutes: what they return has no type.
    """
    options = Options()
    options.export_types = options.preserve_asts = options.check_untyped_defs = True
    options.follow_imports, options.follow_imports_for_stubs = "skip", True
    options.incremental, options.cache_dir = False, os.devnull
    options.ignore_missing_imports = options.ignore_errors = True
    files = sorted(package.rglob("*.py"))
    result = build([BuildSource(str(file), _module(package, file), _text(file)) for file in files], options)
    reads = [expression for expression in result.types if isinstance(expression, MemberExpr)]
    return {
        (name, read.name)
        for read in reads
        if read.expr in result.types
        for name in _classes(result.types[read.expr])
    }


def _module(package: Path, file: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _text(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if not file.stem.endswith("config"):
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "property" not in map(ast.unparse, node.decorator_list):
            node.body = ast.parse("raise NotImplementedError").body
    return ast.unparse(tree)


def _classes(found: Type) -> set[str]:
    kind = get_proper_type(found)
    if isinstance(kind, UnionType):
        return {name for item in kind.items for name in _classes(item)}
    if isinstance(kind, TypeVarType):
        return _classes(kind.upper_bound)
    return {kind.type.fullname} if isinstance(kind, Instance) else set()
