"""Typed configuration: one pydantic model per subcommand, read from YAML plus `key.sub=value` overrides.

The models themselves live beside the code that uses them (`preprocess/config.py`, ...); this module only
knows how to read, override, check, describe and dump them.
"""

import difflib
import types
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic_core import PydanticUndefined

from .errors import ConfigError


class Config(BaseModel):
    """Base of every configuration model: no unknown keys, validated defaults, fixed values, finite numbers.

    Attributes:
        reused: The model serves several keys, whose descriptions say what its fields mean in each place.
    """

    reused: ClassVar[bool] = False
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="after")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        """`~` is the home folder; a shell expands it only at the beginning of a word."""
        try:
            return value.expanduser() if isinstance(value, Path) else value
        except RuntimeError:
            raise ValueError("no home folder is known for it; write the path in full") from None

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, values: Any) -> Any:
        """A section that is given in part keeps its own defaults for the rest."""
        if not isinstance(values, dict):
            return values
        defaults = {name: info.default for name, info in cls.model_fields.items()}
        return {
            name: {**default.model_dump(), **value}
            if isinstance(default := defaults.get(name), Config) and isinstance(value, dict)
            else value
            for name, value in values.items()
        }


AnyConfig = TypeVar("AnyConfig", bound=Config)


@dataclass(frozen=True)
class Field:
    """One line of a subcommand's configuration table."""

    key: str
    type: str
    default: str
    description: str


def each_once(camera_ids: list[int] | None) -> list[int] | None:
    """A validator for keys that list camera ids."""
    if camera_ids is not None and len(set(camera_ids)) < len(camera_ids):
        raise ValueError("every camera id should be there once")
    return camera_ids


def load_config(
    model: type[AnyConfig],
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    overridden_by: str = "command line",
) -> AnyConfig:
    """Read a configuration.

    Args:
        model: The subcommand's configuration class.
        path: A YAML file, or None for defaults only. Paths inside it are relative to the working directory.
        overrides: `key.sub=value` strings; values are YAML.
        overridden_by: Where the overrides come from, for messages.

    Raises:
        ConfigError: the file is missing or malformed, or a key or value is wrong.
    """
    values = _read_yaml(path) if path is not None else {}
    texts = {field.key for field in describe(model) if field.type.removesuffix(" | null") in ("Path", "str")}
    given = {_apply_override(values, override, texts) for override in overrides}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(model, error, path, given, overridden_by)) from None


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse two values for one key, of which `load_config` takes the last.

    Raises:
        ConfigError: there are.
    """
    given: dict[str, str] = {}
    for override in overrides:
        before = given.setdefault(override.partition("=")[0], override)
        if before != override:
            raise ConfigError(f"command line: '{before}' and '{override}' contradict. Give one of them.")


def dump_config(config: Config) -> dict[str, Any]:
    """Return the resolved configuration as JSON-ready values."""
    return config.model_dump(mode="json")


def describe(model: type[Config], prefix: str = "", section: Config | None = None) -> Iterator[Field]:
    """Yield every key of a configuration, nested ones with dots, in the order of the model.

    Args:
        model: The configuration class.
        prefix: Put before every key.
        section: Where the defaults are taken from; None takes the class's own.
    """
    for name, info in model.model_fields.items():
        default = getattr(section, name) if section else info.get_default()
        inner = _nested(info.annotation)
        if inner is not None:
            inside = default if isinstance(default, Config) else None
            for field in describe(inner, f"{prefix}{name}.", inside):
                lead = f"{info.description} " if inner.reused else ""
                yield replace(field, description=lead + field.description)
            continue
        shown = "required" if default is PydanticUndefined else _show(default)
        yield Field(f"{prefix}{name}", _type_name(info.annotation), shown, info.description or "")


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file. Give --config an existing YAML file.")
    try:
        values = _load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: found a {type(values).__name__} at the top level, expected `key: value` lines."
        )
    return values


class _TwiceError(yaml.YAMLError):
    """A key stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """YAML allows no key twice; PyYAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[Any, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and first.setdefault(key.value, key) is not key:
                lines = (first[key.value].start_mark.line + 1, key.start_mark.line + 1)
                raise _TwiceError(f"'{key.value}' stands in line {lines[0]} and again in line {lines[1]}")
        return super().construct_mapping(node, deep)


def _load_yaml(text: str) -> Any:
    """Plain values only: `_Loader` is a SafeLoader."""
    return yaml.load(text, Loader=_Loader)


def _apply_override(values: dict[str, Any], override: str, texts: Collection[str]) -> str:
    """Set one value; returns its key."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override '{override}' is not of the form key.sub=value.")
    try:
        value = _load_yaml(text)
    except _TwiceError as error:
        raise ConfigError(f"override '{override}': {error}.") from None
    except yaml.YAMLError:
        value = text
    if key in texts and value is not None:
        # A folder may be called 2026 or 2026-11-22, which YAML takes for a number and a date.
        value = text
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        if node.get(parent) is None:
            # Absent, or a section whose lines are all commented out.
            node[parent] = {}
        child = node[parent]
        if not isinstance(child, dict):
            raise ConfigError(f"override '{override}': '{parent}' is a single value, not a section.")
        node = child
    node[last] = value
    return key


def _explain(
    model: type[Config],
    error: ValidationError,
    path: Path | None,
    overrides: Collection[str],
    overridden_by: str,
) -> str:
    """What is wrong, a line each; `overrides` are the keys that came from `overridden_by`."""
    known = [field.key for field in describe(model)]
    sections = {key.rpartition(".")[0] for key in known} - {""}
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        told = any(
            f"{given}.".startswith(f"{key}.") or f"{key}.".startswith(f"{given}.") for given in overrides
        )
        missing = item["type"] == "missing"
        where = overridden_by if path is None or (told and not missing) else str(path)
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, [*known, *sections], n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known keys: {', '.join(known)}"
            lines.append(f"{where}: unknown key '{key}'{hint}")
        elif missing:
            # A missing section is told by the keys in it that must be given.
            inside = [
                f.key for f in describe(model) if f.default == "required" and f.key.startswith(f"{key}.")
            ]
            for needed in inside or [key]:
                lines.append(f"{where}: '{needed}' is required; set it in the file or as {needed}=VALUE")
        elif isinstance(item["input"], dict):
            # A rule between several keys: the section's values would bury the message.
            lines.append(f"{where}: {f'{key}: ' if key else ''}{_rule(item)}")
        else:
            lines.append(f"{where}: {key}: found {item['input']!r}: {_rule(item)}")
    return "\n".join(lines)


def _rule(item: Any) -> str:
    if item["type"] == "path_type":
        return "expected a path"
    message = str(item["msg"]).removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _nested(annotation: Any) -> type[Config] | None:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    return None


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return " | ".join(_type_name(part) for part in get_args(annotation))
    if origin is Literal:
        return " | ".join(repr(part) for part in get_args(annotation))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(_type_name(part) for part in get_args(annotation))}]"
    if annotation is type(None):
        return "null"
    if annotation is Ellipsis:
        return "..."
    return getattr(annotation, "__name__", str(annotation))


def _show(value: Any) -> str:
    if value is None:
        return "null"
    return str(value)
