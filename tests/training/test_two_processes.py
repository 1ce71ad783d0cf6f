"""Two processes on the CPU: the same training as one process with the doubled batch."""

from pathlib import Path

import pytest
import torch
from forks import run_in_two
from two_processes import losses, tensors_of, train

TOLERANCE = {"rtol": 1e-5, "atol": 1e-7}
"""The mean over four samples is added up in another order, and AdamW divides by what is nearly 0 at first."""

RUNS = """
import sys
from pathlib import Path

from mouse_facelift.training import sharding
from two_processes import train

# Small enough that the toy's blocks are gathered by themselves.
sharding.UNIT = (1, 60)
folder, fsdp, keys = Path(sys.argv[1]), {fsdp}, {{"gradient_accumulation": 2, "keep_checkpoints": 9}}
train(folder / "whole", steps=6, fsdp=fsdp, **keys)
train(folder / "parts", steps=3, fsdp=fsdp, **keys)
train(folder / "parts", steps=6, fsdp=fsdp, **keys)
train(folder / "mixed", steps=3, fsdp=not fsdp, **keys)
train(folder / "mixed", steps=6, fsdp=fsdp, **keys)
"""


@pytest.fixture(scope="module", params=[False, True], ids=["ddp", "fsdp"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by two processes: `whole` in one go, `parts` resumed, `mixed` resumed from the other kind."""
    folder = tmp_path_factory.mktemp("two")
    run_in_two(RUNS.format(fsdp=request.param), folder)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by one process that sees as many samples in a forward pass as the two did together."""
    return train(tmp_path_factory.mktemp("one") / "run", steps=6, gradient_accumulation=2, batch_size=4)


def test_losses_are_those_of_one_process_with_the_doubled_batch(one: Path, two: Path) -> None:
    assert len(losses(one)) == 6
    assert losses(two / "whole") == pytest.approx(losses(one), rel=1e-5)


@pytest.mark.parametrize("run", ["whole", "mixed"])
def test_checkpoint_is_that_of_one_process(one: Path, two: Path, run: str) -> None:
    expected, found = tensors_of(one), tensors_of(two / run)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_resumed_run_is_the_undisturbed_one_bit_for_bit(two: Path) -> None:
    expected, found = tensors_of(two / "whole"), tensors_of(two / "parts")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert losses(two / "parts") == losses(two / "whole")


def test_one_process_goes_on_where_two_have_stopped(one: Path, two: Path, tmp_path: Path) -> None:
    older = str(two / "parts" / "checkpoints" / "step_00000003")
    run = train(
        tmp_path / "run", steps=6, gradient_accumulation=2, batch_size=4, resume=older, keep_checkpoints=9
    )
    assert losses(run) == pytest.approx(losses(one)[3:], rel=1e-5)
