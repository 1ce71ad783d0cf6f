"""What a checkpoint holds besides weights for inference, so that a run goes on exactly where it was.

<checkpoint>/state/
    model.safetensors   trained parameters and buffers
    ema.safetensors     their average, where one is kept
    optimizer.pt        optimizer, fp16 scaler, counters
    rng.pt              states of the random generators of every process
"""

import contextlib
import errno
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import AveragedModel

from .schedule import averaging
from .sharding import ShardedAverage, spread, spread_optimizer, whole_optimizer, whole_tensors
from .tensors import read_tensors
from .trainable import load_trained_state, share_frozen, trained_state

MODEL, AVERAGE = "model.safetensors", "ema.safetensors"
OPTIMIZER, GENERATORS = "optimizer.pt", "rng.pt"

SETTINGS = ("betas", "eps", "weight_decay")
"""Of the optimizer: those of now hold, which a resumed run may have changed, not those that were saved."""


@dataclass(frozen=True)
class Captured:
    """The parts of a training at one moment, as whole tensors, ready to be written.

    Attributes:
        model: Trained parameters and buffers.
        average: Their average, where one is kept.
        rest: Optimizer, scaler and counts.
    """

    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None
    rest: Mapping[str, Any]

    def write(
        self, folder: Path, counters: Mapping[str, Any], generators: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write all into an existing folder.

        Args:
            folder: Where.
            counters: How far the training is, in numbers, words and lists.
            generators: `generator_state` of every process, by rank.

        Raises:
            OSError: the disk is full or failing.
            SafetensorError: likewise.
        """
        save_file(dict(self.model), folder / MODEL)
        if self.average is not None:
            save_file(dict(self.average), folder / AVERAGE)
        _save({**self.rest, "counters": dict(counters)}, folder / OPTIMIZER)
        _save({"ranks": list(generators)}, folder / GENERATORS)


@dataclass
class TrainState:
    """The parts of a training that change with every update.

    They may be spread over the processes of a run: then all of these must call each method together. Files
    do not tell.

    Attributes:
        module: What is trained, unwrapped.
        optimizer: Its optimizer.
        average: Its averaged weights, where they are kept.
        scaler: The loss scaler of fp16.
        twin: Of a sharded module, in the first process: a whole copy on the CPU, its weights of any time.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | ShardedAverage | None = None
    scaler: Any = None
    twin: nn.Module | None = None

    def show(self) -> nn.Module | None:
        """What is validated and exported: the averaged weights where they are kept.

        Of a sharded module, its twin in the first process and None in the others.
        """
        if not isinstance(self.module, FSDPModule):
            return self.average.module if isinstance(self.average, AveragedModel) else self.module
        tensors = self._average() or whole_tensors(trained_state(self.module))
        if self.twin is not None:
            load_trained_state(self.twin, tensors)
        return self.twin

    def size(self) -> int:
        """Bytes of tensors that a checkpoint of now holds, exported weights included."""
        trained = _size(trained_state(self.module).values())
        moments = (value for entry in self.optimizer.state.values() for value in entry.values())
        copies = 2 if self.average is not None else 1
        return copies * trained + _size(moments) + _size(self.module.state_dict().values())

    def capture(self) -> Captured:
        """What is to be written. It refers to the training's own tensors where they are whole."""
        rest = {
            "optimizer": whole_optimizer(self.optimizer),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "averaged_updates": int(self.average.n_averaged) if self.average is not None else 0,
        }
        return Captured(whole_tensors(trained_state(self.module)), self._average(), rest)

    def _average(self) -> dict[str, Tensor] | None:
        if isinstance(self.average, ShardedAverage):
            return whole_tensors({**trained_state(self.module), **self.average.values})
        return trained_state(self.average.module) if self.average is not None else None

    def read(self, folder: Path) -> dict[str, Any]:
        """Restore what was captured and written, generators apart; returns the counters.

        A run that has kept no average so far begins one from its weights.

        Raises:
            CheckpointError: the state is not of these parameters, or unreadable.
        """
        # Everything is read on the CPU: whoever takes it moves it to its own device.
        model = read_tensors(folder / MODEL)
        here = self.module.state_dict()
        load_trained_state(self.module, {k: spread(v, here.get(k, v)) for k, v in model.items()})
        content = read_tensors(folder / OPTIMIZER)
        settings = [{key: group[key] for key in SETTINGS} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(spread_optimizer(content["optimizer"], self.optimizer))
        for group, wanted in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(wanted)
        if self.scaler is not None and content["scaler"] is not None:
            self.scaler.load_state_dict(content["scaler"])
        if self.average is not None:
            averaged = folder / AVERAGE
            state = read_tensors(averaged) if averaged.is_file() else model
            if isinstance(self.average, ShardedAverage):
                self.average.load(state, content["averaged_updates"])
            else:
                load_trained_state(self.average.module, state)
                self.average.n_averaged.fill_(content["averaged_updates"])
        return content["counters"]


def make_average(module: nn.Module, decay: float) -> AveragedModel | ShardedAverage:
    """The running average of what a module trains; of a sharded one, this process's part of it."""
    rule = averaging(decay)
    if isinstance(module, FSDPModule):
        return ShardedAverage(module, rule)
    average = AveragedModel(module, multi_avg_fn=rule)
    share_frozen(module, average.module)
    return average


def read_generators(folder: Path, rank: int) -> dict[str, Any] | None:
    """The generators' state of one process; None if the run had fewer processes."""
    ranks = read_tensors(folder / GENERATORS)["ranks"]
    return ranks[rank] if rank < len(ranks) else None


def generator_state() -> dict[str, Any]:
    """This process's global random generators (Python, NumPy, torch, CUDA) as tensors and numbers."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - other people's code draws from it
    return {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_generators(state: Mapping[str, Any]) -> None:
    """Set this process's generators to what `generator_state` returned."""
    python, legacy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = legacy["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, legacy["position"], legacy["has_gauss"], legacy["cached"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def untouched_generators() -> Iterator[None]:
    """Let a block draw what it likes; training goes on as if it had not."""
    state = generator_state()
    try:
        yield
    finally:
        restore_generators(state)


def _size(values: Any) -> int:
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def _save(content: Any, path: Path) -> None:
    try:
        torch.save(content, path)
    except RuntimeError as error:
        # How torch reports a full disk.
        raise OSError(errno.EIO, str(error).strip().split("\n")[0], str(path)) from error
