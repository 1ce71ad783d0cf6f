"""Every tensor of a checkpoint, to compare two runs bit for bit."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mouse_facelift.training.checkpoints import list_checkpoints


def tensors(checkpoint: Path) -> dict[str, Tensor]:
    """By file and name: exported weights, raw ones, their average, the optimizer, random generators."""
    found = {}
    for file in sorted(checkpoint.rglob("*.safetensors")):
        name = file.relative_to(checkpoint).with_suffix("").as_posix()
        found |= {f"{name}:{key}": value for key, value in load_file(file).items()}
    state = torch.load(checkpoint / "state" / "optimizer.pt", weights_only=True)
    for index, moments in state["optimizer"]["state"].items():
        found |= {f"state/optimizer:{index}.{key}": value for key, value in moments.items()}
    counters = [state["counters"]["updates"], state["counters"]["samples"], state["averaged_updates"]]
    found["state/optimizer:counters"] = torch.tensor(counters)
    generators = torch.load(checkpoint / "state" / "rng.pt", weights_only=True)["ranks"][0]
    found["state/rng:torch"], found["state/rng:python"] = generators["torch"], generators["python"]["words"]
    found["state/rng:numpy"] = generators["numpy"]["keys"]
    return found


def assert_same_end(run: Path, other: Path, *kinds: str) -> dict[str, Tensor]:
    """The newest checkpoints of two runs hold the same tensors, some of each kind among them: returned."""
    last, other_last = (list_checkpoints(folder)[-1] for folder in (run, other))
    assert last.step == other_last.step
    found, expected = tensors(last.folder), tensors(other_last.folder)
    assert found.keys() == expected.keys()
    differing = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert differing == []
    for kind in kinds:
        assert any(name.startswith(kind) for name in found), kind
    return found
