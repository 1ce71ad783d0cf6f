"""Lazy package exports (PEP 562), so that importing a room does not import torch."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, exports: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a module-level `__getattr__` for a package.

    Args:
        package: The package's `__name__`.
        exports: Public name -> submodule that defines it.

    Returns:
        A function to bind as `__getattr__` in the package's `__init__.py`.
    """

    def __getattr__(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{exports[name]}"), name)

    return __getattr__
