from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, model_validator

from mouse_facelift.config import Config, check_overrides, describe, dump_config, load_config
from mouse_facelift.errors import ConfigError


class Inner(Config):
    rate: float = Field(0.5, gt=0, description="How fast.")


class Outer(Config):
    recording: Path = Field(description="Where.")
    count: int | None = Field(None, description="How many.")
    inner: Inner = Field(Inner(), description="Inside.")


class Needy(Config):
    path: Path = Field(description="Where.")
    count: int = Field(2, description="How many.")

    @model_validator(mode="after")
    def _even(self) -> "Needy":
        if self.count % 2:
            raise ValueError(f"count {self.count} is odd")
        return self


class Wrapper(Config):
    inner: Needy


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


def test_missing_section_names_the_keys_in_it_that_must_be_given() -> None:
    class Section(Config):
        inner: Needy

    with pytest.raises(ConfigError, match=r"'inner\.path' is required.*inner\.path=VALUE") as caught:
        load_config(Section, None)
    assert "inner.count" not in str(caught.value)


def test_rule_between_keys_is_told_without_the_whole_section() -> None:
    with pytest.raises(ConfigError, match=r"^command line: inner: count 3 is odd$"):
        load_config(Wrapper, None, ["inner.path=x", "inner.count=3"])


def test_value_out_of_range_is_quoted_with_the_rule() -> None:
    with pytest.raises(ConfigError, match=r"inner.rate: found -1: .*greater than 0"):
        load_config(Outer, None, ["recording=x", "inner.rate=-1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "found a list"),
        ("a: [", "not valid YAML"),
        ("recording: !!python/object:os.x {}", "YAML"),
        ("recording: x\ninner: {}\nrecording: y\n", "'recording' stands in line 1 and again in line 3"),
        ("inner: {rate: 1, rate: 2}\n", "'rate' stands in line 1 and again in line 1"),
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


def test_override_that_gives_a_key_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="'rate' stands in line 1 and again"):
        load_config(Outer, None, ["recording=x", "inner={rate: 1, rate: 2}"])


def test_two_values_for_one_key_contradict() -> None:
    check_overrides(["count=1", "count=1", "inner.rate=2"])
    with pytest.raises(ConfigError, match="'count=1' and 'count=2' contradict"):
        check_overrides(["count=1", "inner.rate=2", "count=2"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["count=x"], "^command line: count: found 'x'"),
        (["inner.rate=0"], "^command line: inner.rate: found 0"),
        (["inner={rate: 0}"], "^command line: inner.rate: found 0"),
        (["iner.rate=1"], "^command line: unknown key 'iner'; did you mean 'inner'"),
        ([], "^[^ ]*a.yaml: count: found 'many'"),
        (["recording=null"], "^command line: recording: found None: expected a path"),
    ],
)
def test_what_is_wrong_is_told_of_where_it_was_given(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("recording: x\n" + ("" if overrides else "count: many\n"))
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, file, overrides)


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


def test_overrides_fill_a_section_that_the_file_leaves_empty(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("recording: here\ninner:\n")
    assert load_config(Outer, file, ["inner.rate=2"]).inner.rate == 2


def test_types_are_shown_as_people_write_them() -> None:
    class Shown(Config):
        kind: Literal["a", "b"] = Field("a", description="Which.")
        sizes: tuple[int, ...] = Field((1,), description="How large.")

    assert [field.type for field in describe(Shown)] == ["'a' | 'b'", "tuple[int, ...]"]


class Places(Config):
    output: Path
    style: str = "a"
    other: Path | None = None


@pytest.mark.parametrize("name", ["2026", "2026-11-22", "1e3", "yes", "a: b"])
def test_folders_may_have_names_that_yaml_takes_for_something_else(name: str) -> None:
    places = load_config(Places, None, [f"output={name}", f"style={name}"])
    assert (places.output, places.style) == (Path(name), name)


def test_home_is_expanded_and_null_stays_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = load_config(Places, None, ["output=~/mice", "other=null"])
    assert found == Places(output=Path("/home/me/mice"), other=None)


def test_home_of_nobody_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="output: found '~nobody-of-that-name/x': no home folder is known"):
        load_config(Places, None, ["output=~nobody-of-that-name/x"])
