"""What can be known to fail before any weights are read: libraries, devices, the output's folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError, ConfigError
from ..provenance import check_maker, check_output
from .checkpoints import checkpoint_to_resume, enclosing_run
from .config import OptimizerConfig, TrainingConfig
from .lock import locked
from .logging import check_loggers
from .optimizer import check_optimizer
from .process import this_process
from .sharding import check_sharding


@contextlib.contextmanager
def run_folder(
    command: str, optimizer: OptimizerConfig, training: TrainingConfig, output: Path, dry_run: bool = False
) -> Iterator[None]:
    """Refuse a run that cannot begin; else no other trainer may use its folder for the duration of a block.

    For trainers to enter first of all.

    Args:
        command: The subcommand.
        optimizer: As for `fit`.
        training: As for `fit`.
        output: The run's folder.
        dry_run: Nothing will be written: lock nothing.

    Raises:
        ConfigError: the optimizer is for other devices or does not go with `training.fsdp`, `output` cannot
            be written to, lies in a checkpoint, is another trainer's or another command's, or it holds
            checkpoints that `training.resume` does not mean.
        CheckpointError: what `training.resume` names holds no complete checkpoint, or one of another command.
        DependencyError: a library is missing.
    """
    check_optimizer(optimizer, this_process().device)
    check_sharding(training, optimizer)
    check_loggers(training)
    check_output(output)
    check_place(output)
    alone = this_process().is_main_process and not dry_run
    with locked(output.resolve()) if alone else contextlib.nullcontext():
        checkpoint = checkpoint_to_resume(output.resolve(), training.resume)
        if checkpoint is not None and checkpoint.manifest.get("command") not in (None, command):
            what = "output" if training.resume in ("auto", "never") else "training.resume"
            raise CheckpointError(
                f"{checkpoint.folder} was made by mfl {checkpoint.manifest['command']}, and this is mfl "
                f"{command}. Choose another {what}."
            )
        check_maker(output, command)
        yield


def check_place(output: Path) -> None:
    """Refuse a folder in a checkpoint, with which it would be deleted one day.

    Raises:
        ConfigError: it is one.
    """
    run = enclosing_run(output)
    if run is not None:
        raise ConfigError(
            f"output: {output.absolute()} lies among the checkpoints of the run {run}, which are deleted one "
            "day. Give the run itself to continue it, or choose another output."
        )
