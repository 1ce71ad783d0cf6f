from pathlib import Path

import pytest
from pydantic import Field

from mouse_facelift.config import Config, describe, dump_config, load_config
from mouse_facelift.errors import ConfigError


class Inner(Config):
    rate: float = Field(0.5, gt=0, description="How fast.")


class Outer(Config):
    recording: Path = Field(description="Where.")
    count: int | None = Field(None, description="How many.")
    inner: Inner = Field(Inner(), description="Inside.")


def test_file_and_overrides_are_merged(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("recording: here\ninner:\n  rate: 2\n")
    config = load_config(Outer, file, ["inner.rate=3.5", "count=7"])
    assert (config.recording, config.inner.rate, config.count) == (Path("here"), 3.5, 7)


def test_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'inner.rat'; did you mean 'inner.rate'"):
        load_config(Outer, None, ["recording=x", "inner.rat=1"])


def test_missing_key_says_how_to_set_it() -> None:
    with pytest.raises(ConfigError, match=r"'recording' is required.*recording=VALUE"):
        load_config(Outer, None)


def test_value_out_of_range_is_quoted_with_the_rule() -> None:
    with pytest.raises(ConfigError, match=r"inner.rate: found -1: .*greater than 0"):
        load_config(Outer, None, ["recording=x", "inner.rate=-1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "found a list"),
        ("a: [", "not valid YAML"),
        ("recording: !!python/object:os.x {}", "YAML"),
    ],
)
def test_malformed_yaml_is_a_config_error(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, file)


def test_override_into_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="single value"):
        load_config(Outer, None, ["recording=x", "recording.y=1"])


def test_override_without_equals_sign_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"not of the form key\.sub=value"):
        load_config(Outer, None, ["recording"])


def test_dump_loads_back() -> None:
    config = load_config(Outer, None, ["recording=x", "count=3"])
    assert Outer.model_validate(dump_config(config)) == config


def test_describe_lists_nested_keys_with_defaults() -> None:
    fields = {field.key: field for field in describe(Outer)}
    assert list(fields) == ["recording", "count", "inner.rate"]
    assert fields["recording"].default == "required"
    assert fields["count"].type == "int | null"
    assert fields["inner.rate"].default == "0.5"
