import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from mouse_facelift import __version__, cli, progress
from mouse_facelift.config import Config, describe, load_config
from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import write_list, write_sample
from mouse_facelift.training import launch

Outcome = tuple[int, str, str]
Call = Callable[..., Outcome]


class ToyConfig(Config):
    size: int = Field(3, ge=1, description="How large.")
    mode: str = Field("direct", description="Which way.")


@pytest.fixture(autouse=True)
def quiet_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line sets the console of all progress lines; later tests want none."""
    monkeypatch.setattr(progress, "console", None)


@pytest.fixture
def mfl(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as exit_:
            cli.app(list(arguments), prog_name="mfl")
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return call


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Replace what every subcommand loads by ToyConfig and the given entry point."""

    def install(entry: Callable[..., Any]) -> None:
        monkeypatch.setattr(cli, "_load", lambda place: ToyConfig if "Config" in place else entry)

    return install


def raising(error: BaseException) -> Callable[..., None]:
    def entry(config: Config, dry_run: bool) -> None:
        raise error

    return entry


def test_help_answers_fast_and_lists_every_command() -> None:
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "mouse_facelift", "--help"], capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - begin)
    for command in cli.SUBCOMMANDS:
        assert command in done.stdout
    assert min(seconds) < 0.5, seconds


def test_user_error_through_the_real_program(tmp_path: Path) -> None:
    arguments = ["infer", f"gslrm={tmp_path / 'none'}", f"input={tmp_path}", f"output={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-m", "mouse_facelift", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'none'}: no such file or folder")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_log_file_has_whole_lines_and_no_progress(tmp_path: Path) -> None:
    demo = ["demo", f"output={tmp_path / ('long' * 30)}", "recording.frames=1", "recording.width=64"]
    done = subprocess.run(
        [sys.executable, "-m", "mouse_facelift", *demo, "recording.height=64"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[:2] == ["INFO 1/6 recording", "INFO 2/6 preprocess"]


def test_version(mfl: Call) -> None:
    assert mfl("--version") == (0, f"mouse-facelift {__version__}\n", "")


@pytest.mark.parametrize(("given", "used"), [(None, "passive"), ("active", "active")])
def test_idle_threads_sleep_unless_the_user_wants_them_to_spin(
    monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    """On two busy cores a training step took eighteen times as long with threads that spin."""
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(cli, "run_program", lambda _: None)
    cli.main()
    assert os.environ["OMP_WAIT_POLICY"] == used


def test_unknown_command_is_a_user_error(mfl: Call) -> None:
    code, _, err = mfl("inference")
    assert code == 2
    assert "inference" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer", "gslrm=x", "input=x", "outptu=x"], "unknown key 'outptu'; did you mean 'output'?"),
        (["infer", "--config", "missing.yaml"], "missing.yaml: no such configuration file"),
        (
            ["infer", "--mode", "bogus", "gslrm=x", "input=x", "output=x"],
            "mode: found 'bogus': input should be",
        ),
        (["infer", "gslrm=x", "input=x", "output=x", "turntable.size=33"], "turntable.size: found 33"),
        (["infer", "gslrm=x", "input=x"], "'output' is required"),
        (["train-gslrm", "data"], "override 'data' is not of the form key.sub=value"),
        (["train-gslrm", "data.train_list=missing.txt", "output=x"], "missing.txt: no such list file"),
        (["train-mvdiff", "start.kind=magic"], "start.kind: found 'magic'"),
        (["preprocess", "input.recording=missing", "output=x"], "missing"),
        (["demo", "samples=0"], "samples: found 0"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_user_errors_are_messages_without_traceback(
    mfl: Call, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = mfl(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback_too(mfl: Call, toy: Callable) -> None:
    toy(raising(DataError("the disk is round")))
    code, _, err = mfl("infer", "--debug")
    assert code == 2
    assert "Traceback" in err and "test_cli.py" in err
    assert err.endswith("error: the disk is round\n")


def test_interruption_is_130(mfl: Call, toy: Callable) -> None:
    toy(raising(KeyboardInterrupt()))
    assert mfl("preprocess") == (130, "", "interrupted\n")


@pytest.mark.parametrize("as_what", ["itself", "exit", "bug"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)]
)
def test_signal_before_a_command_begins_ends_the_program_with_its_own_code(
    number: signal.Signals,
    code: int,
    as_what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def app(prog_name: str) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            # What the command line's library and the import system make of it.
            if as_what == "exit":
                raise SystemExit(130) from None
            if as_what == "bug":
                raise ImportError from None
            raise

    before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    monkeypatch.setattr(cli, "app", app)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
    assert ended.value.code == code and capsys.readouterr().err == "interrupted\n"


def test_bug_is_1_with_its_traceback(mfl: Call, toy: Callable) -> None:
    toy(raising(ZeroDivisionError("oh")))
    code, _, err = mfl("train-gslrm")
    assert code == 1
    assert "Traceback" in err and "ZeroDivisionError: oh" in err
    assert "This is a bug" in err


def test_output_that_cannot_be_written_is_a_user_error(mfl: Call, toy: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    toy(lambda config, dry_run: (tmp_path / "file" / "out").mkdir(parents=True))
    code, _, err = mfl("infer")
    assert code == 2
    assert err.startswith("error: Not a directory: ") and str(tmp_path / "file") in err
    assert "Traceback" not in err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.ENAMETOOLONG, errno.EMFILE])
def test_what_the_system_refuses_is_no_bug(mfl: Call, toy: Callable, code: int) -> None:
    toy(raising(OSError(code, os.strerror(code))))
    exit_code, _, err = mfl("demo")
    assert exit_code == 2
    assert err.startswith(f"error: {os.strerror(code)}. ")
    assert "Traceback" not in err


def test_reader_of_the_output_who_goes_away_is_no_bug(tmp_path: Path) -> None:
    """`mfl doctor | head -1`, where nobody is left to read."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "mouse_facelift", "runs", "--json", str(tmp_path)],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""


def test_file_that_the_code_itself_forgot_is_a_bug(mfl: Call, toy: Callable, tmp_path: Path) -> None:
    toy(lambda config, dry_run: (tmp_path / "forgotten").read_text())
    assert mfl("infer")[0] == 1


def test_file_then_overrides_then_flags_reach_the_entry(mfl: Call, toy: Callable, tmp_path: Path) -> None:
    seen = []
    toy(lambda config, dry_run: seen.append((config.size, config.mode, dry_run)))
    (tmp_path / "a.yaml").write_text("size: 5\nmode: x\n")
    assert mfl("infer", "--config", str(tmp_path / "a.yaml"), "size=7", "--mode", "e2e", "--dry-run")[0] == 0
    assert mfl("infer", "-c", str(tmp_path / "a.yaml"))[0] == 0
    assert seen == [(7, "e2e", True), (5, "x", False)]


@pytest.mark.parametrize("command", cli.SUBCOMMANDS)
def test_help_shows_every_key_in_full_on_a_narrow_terminal(
    mfl: Call, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = mfl(command, "--help")
    assert code == 0
    fields = list(describe(cli._load(cli.SUBCOMMANDS[command].config)))
    assert fields
    words, flat = set(out.split()), " ".join(out.split())
    for field in fields:
        assert field.key in words
        assert " ".join(field.description.split()) in flat


@pytest.mark.parametrize("name", ["preprocess", "train_mvdiff", "train_gslrm", "demo"])
def test_dry_run_writes_nothing(
    mfl: Call, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether what it finds is in order or not."""
    configs = Path(__file__).resolve().parents[1] / "configs"
    file = configs / "demo" / f"{name}.yaml"
    monkeypatch.chdir(tmp_path)
    settings = ["output=out"]
    if name == "preprocess":
        settings.append("input.recording=none")
    elif name != "demo":
        settings += ["data.train_list=none.txt", "data.val_list=none.txt"]
    code, _, err = mfl(name.replace("_", "-"), "--config", str(file), "--dry-run", *settings)
    assert code == (0 if name == "demo" else 2), err
    assert not list(tmp_path.iterdir())


def test_every_subcommand_has_its_config_and_entry() -> None:
    words = [command for words in cli.WORDS.values() for command in words.values()]
    for subcommand in [*cli.SUBCOMMANDS.values(), *words]:
        assert issubclass(cli._load(subcommand.config), Config)
        assert callable(cli._load(subcommand.entry))


def test_mode_flag_is_the_mode_key() -> None:
    model = cli._load(cli.SUBCOMMANDS["infer"].config)
    config = load_config(model, None, ["gslrm=a", "input=b", "output=c", "mvdiffusion=d", "mode=e2e"])
    assert config.mode == "e2e"


def test_cache_decodes_pictures_once_for_all_trainings(mfl: Call, tmp_path: Path) -> None:
    camera = Camera.look_at((2.7, 0, 0), (0, 0, 0), 30, 16)
    pictures = [np.full((16, 16, 4), 200, np.uint8)]
    write_list(tmp_path / "list.txt", [write_sample(tmp_path / "s", pictures, [camera], [0]).folder])
    code, out, _ = mfl("cache", str(tmp_path / "list.txt"), "--size", "8")
    assert (code, out) == (
        0,
        f"{tmp_path / 'list.txt'}: 1 samples at 8 px are in {tmp_path / 'sample_cache'}\n",
    )
    assert len(list((tmp_path / "sample_cache").glob("*.safetensors"))) == 1


def test_gpus_start_the_same_command_in_as_many_processes(
    mfl: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(launch, "launch", lambda gpus, given: asked.append((gpus, given)) or (143, "ended"))
    (tmp_path / "c.yaml").write_text("output: run")
    arguments = ["--config", str(tmp_path / "c.yaml"), "--overfit", "1", "data.train_list=x"]
    assert mfl("train-gslrm", "--gpus", "3", *arguments) == (143, "", "ended\n")
    expected = ["train-gslrm", "--config", str(tmp_path / "c.yaml"), "data.train_list=x", "overfit=1"]
    assert asked == [(3, expected)]
    assert mfl("train-gslrm", "--gpus", "3", "outptu=x")[0] == 2
    assert len(asked) == 1
