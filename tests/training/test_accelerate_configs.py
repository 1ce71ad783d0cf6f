"""Our files for `accelerate launch` are what accelerate itself accepts."""

from pathlib import Path
from typing import Any

import pytest
from accelerate.commands import launch
from accelerate.commands.config.config_args import load_config_from_file

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_accelerate_reads_it_and_chooses_the_launcher(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: dict[str, Any] = {}
    for name in ("multi_gpu_launcher", "simple_launcher"):
        monkeypatch.setattr(launch, name, lambda given, name=name: chosen.update({name: given}))
    load_config_from_file(str(path))
    arguments = ["--config_file", str(path), "--module", "mouse_facelift", "train-gslrm", "output=run"]
    launch.launch_command(launch.launch_command_parser().parse_args(arguments))
    ((launcher, given),) = chosen.items()
    assert launcher == ("simple_launcher" if path.stem == "single" else "multi_gpu_launcher")
    assert given.num_processes == {"single": 1, "multi_gpu": 4, "multi_node": 8, "fsdp": 4}[path.stem]
    assert given.training_script_args == ["train-gslrm", "output=run"]
    assert given.mixed_precision == "no"
    assert given.use_fsdp == (path.stem == "fsdp")
    assert given.fsdp_version in (2, "2") or path.stem != "fsdp"


def test_there_is_one_for_each_way() -> None:
    assert [path.stem for path in CONFIGS] == ["fsdp", "multi_gpu", "multi_node", "single"]
