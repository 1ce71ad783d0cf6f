"""A Hub on this machine that publishes tiny models in FaceLift's layout."""

import hashlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from mouse_facelift.gslrm import GSLRM, GSLRMConfig
from mouse_facelift.mvdiffusion.config import ComponentSizes
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.weights.published import FACELIFT

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "mvdiffusion"), str(TESTS / "mvdiffusion" / "prompts")]

from published import write_published  # noqa: E402
from text_pipeline import write_text_pipeline  # noqa: E402

LARGE = (".safetensors", ".pt", ".bin")
"""What is kept with Git LFS, and so described by a SHA-256."""


@dataclass
class FakeHub:
    """Answers huggingface_hub's calls from a folder.

    Attributes:
        folder: What the repository holds.
        downloaded: Names of files, as they were fetched.
        damage: Called with every file that arrives, before it is handed over.
    """

    folder: Path
    downloaded: list[str] = field(default_factory=list)
    damage: Callable[[Path], None] = lambda path: None

    def model_info(self, repo_id: str, *, revision: str, timeout: float, files_metadata: bool) -> Any:
        assert (repo_id, revision) == (FACELIFT.repo_id, FACELIFT.revision)
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return SimpleNamespace(siblings=[self._describe(path) for path in files])

    def download(self, repo_id: str, filename: str, *, revision: str, local_dir: Path) -> str:
        assert (repo_id, revision) == (FACELIFT.repo_id, FACELIFT.revision)
        self.downloaded.append(filename)
        target = Path(local_dir) / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / filename, target)
        self.damage(target)
        return str(target)

    def _describe(self, path: Path) -> Any:
        content = path.read_bytes()
        large = path.suffix in LARGE
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        return SimpleNamespace(
            rfilename=path.relative_to(self.folder).as_posix(),
            size=len(content),
            blob_id=blob,
            lfs=SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()) if large else None,
        )


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FaceLift's repository in small, with a model card and an older checkpoint that nobody needs."""
    folder = tmp_path_factory.mktemp("repository")
    sizes = ComponentSizes(
        unet_channels=(16, 16),
        head_channels=8,
        vae_channels=(8, 16, 16),
        prompt_width=16,
        clip_width=16,
        clip_layers=1,
    )
    pipeline = folder / FACELIFT.pipeline
    pipeline.parent.mkdir()
    write_published(pipeline, random_pipeline(sizes, Slots.facelift(32), seed=1))
    (pipeline / "clr_embeds.pt").unlink()
    text = write_text_pipeline(folder.parent / "text", width=16)
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(text / part, pipeline / part)
    (folder / "gslrm").mkdir()
    state = GSLRM(GSLRMConfig(width=64, layers=1)).state_dict()
    torch.save({"model": state}, folder / "gslrm" / "ckpt_0000000000021125.pt")
    torch.save({"model": {}}, folder / "gslrm" / "ckpt_0000000000000100.pt")
    (folder / "README.md").write_text("A model card.")
    return folder


@pytest.fixture
def fake_hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A copy that a test may spoil."""
    hub = FakeHub(tmp_path / "hub")
    shutil.copytree(repository, hub.folder)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, *a, **k: hub.model_info(*a, **k))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    return hub
