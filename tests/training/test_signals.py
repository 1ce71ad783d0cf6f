"""Signals end a run after its step, with the right exit code; a second request ends it at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forks import end, start

from mouse_facelift.errors import Interrupted
from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import write_list, write_sample
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.heartbeat import read_status
from mouse_facelift.training.signals import StopRequest, stop_request

INT, TERM, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1


def outcome(*received: tuple[signal.Signals, float], launched: bool = False) -> list[bool]:
    """For each signal and its time: whether it ends the process at once."""
    request = StopRequest(launched)
    return [request.receive(number, when) for number, when in received]


@pytest.mark.parametrize("number", [INT, TERM, USR1])
def test_first_signal_asks_to_stop_after_the_step(number: signal.Signals) -> None:
    request = StopRequest()
    assert not request
    assert not request.receive(number, 5.0)
    assert request
    assert request.interruption.exit_code == (130 if number == INT else 143)


def test_pressing_ctrl_c_twice_ends_at_once_however_fast() -> None:
    assert outcome((INT, 5.0), (INT, 5.001)) == [False, True]
    assert outcome((TERM, 5.0), (INT, 5.001)) == [False, True]


def test_sigterm_within_a_second_is_an_echo_and_later_a_request() -> None:
    assert outcome((TERM, 5.0), (TERM, 5.002), (TERM, 5.9)) == [False, False, False]
    assert outcome((TERM, 5.0), (TERM, 5.002), (TERM, 6.1)) == [False, False, True]
    assert outcome((INT, 5.0), (TERM, 5.1), (TERM, 6.1)) == [False, False, True]


def test_launcher_passes_ctrl_c_on_so_that_it_may_be_an_echo_too() -> None:
    assert outcome((INT, 5.0), (INT, 5.1), launched=True) == [False, False]
    assert outcome((INT, 5.0), (INT, 6.5), launched=True) == [False, True]


def test_warning_never_ends_at_once_and_sigterm_after_it_is_the_first() -> None:
    assert outcome((USR1, 5.0), (USR1, 9.0), (TERM, 30.0), (TERM, 35.0)) == [False, False, False, True]
    assert outcome((TERM, 5.0), (USR1, 9.0)) == [False, False]


def test_process_that_was_not_asked_itself_ends_as_by_sigterm() -> None:
    assert StopRequest().interruption.exit_code == 143


def test_handlers_are_as_before_after_the_block_and_after_a_second_request() -> None:
    before = [signal.getsignal(number) for number in (INT, TERM, USR1)]
    with stop_request() as request:
        os.kill(os.getpid(), TERM)
        assert request
    assert [signal.getsignal(number) for number in (INT, TERM, USR1)] == before
    with pytest.raises(Interrupted) as error, stop_request():
        os.kill(os.getpid(), INT)
        os.kill(os.getpid(), INT)
    assert error.value.exit_code == 130
    assert [signal.getsignal(number) for number in (INT, TERM, USR1)] == before


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    cameras = [
        Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.3), (0, 0, 0), 34.0, 32) for a in (0.0, 1.5, 3.0)
    ]
    picture = np.full((32, 32, 4), 200, np.uint8)
    picture[:8, :, 3] = 0
    write_sample(folder / "sample_000000", [picture] * 3, cameras, range(3))
    write_list(folder / "list.txt", [folder / "sample_000000"])
    return folder / "list.txt"


PROGRAM = """
from mouse_facelift import cli

cli.main()
"""


def arguments(samples: Path, output: Path) -> list[str]:
    """Of a tiny GS-LRM training that goes on for ever."""
    return [
        "train-gslrm",
        f"data.train_list={samples}",
        "data.image_size=32",
        "model={width: 32, head_width: 16, layers: 1, scale_bias: -3.5}",
        "views={input_views: 2, target_views: 1}",
        "validation={samples: 1, input_views: 2}",
        "training={steps: 100000, batch_size: 1, workers: 1, log_every: 1}",
        f"output={output}",
    ]


class Training:
    """One through the real command line, in a process of its own."""

    def __init__(self, samples: Path, output: Path, program: str = PROGRAM) -> None:
        self.output, self.told = output, output.with_suffix(".txt")
        self.process = start(program, arguments(samples, output), self.told, {"CUDA_VISIBLE_DEVICES": ""})

    def wait_for_steps(self) -> None:
        log, deadline = self.output / "log.jsonl", time.monotonic() + 60
        while not (log.is_file() and log.read_text().count("\n") >= 2):
            assert self.process.is_alive(), self.told.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int | None, str]:
        return end(self.process, self.told, timeout=60)


@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (USR1, 143), (INT, 130)])
def test_program_saves_and_exits_with_the_signals_code(
    number: signal.Signals, code: int, samples: Path, tmp_path: Path
) -> None:
    training = Training(samples, tmp_path / "run")
    training.wait_for_steps()
    training.send(number)
    time.sleep(0.001)
    if number == TERM:
        # A launcher's echo.
        training.send(number)
    returned, told = training.end()
    assert returned == code, told
    assert f"{number.name}: finishing the step, then saving" in told
    [checkpoint] = list_checkpoints(tmp_path / "run")
    status = read_status(tmp_path / "run")
    assert (status["status"], status["step"]) == ("interrupted", checkpoint.step)


SLOW = """
import time

from mouse_facelift import cli
from mouse_facelift.gslrm.train import GSLRMTask

def slow(self, module, batch, generator):
    if batch["step"] >= 2:
        time.sleep(60)
    return loss(self, module, batch, generator)

loss, GSLRMTask.loss = GSLRMTask.loss, slow
cli.main()
"""


def test_second_ctrl_c_ends_the_program_at_once_in_the_midst_of_a_step(samples: Path, tmp_path: Path) -> None:
    training = Training(samples, tmp_path / "run", SLOW)
    training.wait_for_steps()
    time.sleep(0.3)
    begin = time.monotonic()
    training.send(INT)
    time.sleep(0.05)
    training.send(INT)
    returned, told = training.end()
    assert returned == 130, told
    assert time.monotonic() - begin < 10
    assert "Ctrl-C again stops at once" in told
    assert list_checkpoints(tmp_path / "run") == []


@pytest.mark.parametrize("after_s", [0.3, 0.7, 1.4])
def test_signal_while_libraries_load_ends_the_program_with_its_code(
    after_s: float, samples: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "mouse_facelift", *arguments(samples, tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(after_s)
        process.send_signal(TERM)
        _, told = process.communicate(timeout=60)
    # Before it can take signals, the interpreter ends as the system does it.
    assert process.returncode in (143, -TERM) and "bug" not in told, told
