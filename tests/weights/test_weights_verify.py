"""Weights that are missing, cut off or damaged are found, and what cannot be known is said."""

import json
from pathlib import Path

import pytest
import torch

from mouse_facelift.errors import CheckpointError
from mouse_facelift.provenance import sha256
from mouse_facelift.weights.published import FACELIFT, PROMPTS_SHA256
from mouse_facelift.weights.pull import pull
from mouse_facelift.weights.record import RECORD
from mouse_facelift.weights.verify import verify

CHECKPOINT = "gslrm/ckpt_0000000000021125.pt"
UNET = "mvdiffusion/unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def pulled(fake_hub, tmp_path: Path) -> Path:
    return pull(FACELIFT, tmp_path / "facelift", accepted=True)


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_no_folder_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="mfl weights pull facelift --to"):
        verify(FACELIFT, tmp_path / "none")


def test_every_fault_is_named(pulled: Path) -> None:
    flip(pulled / UNET)
    (pulled / CHECKPOINT).unlink()
    config = pulled / "mvdiffusion/vae/config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(CheckpointError) as caught:
        verify(FACELIFT, pulled)
    for part in (f"{CHECKPOINT} is missing", f"{UNET} is damaged", "vae/config.json has"):
        assert part in str(caught.value)


def test_budget_of_hashing_is_kept_and_told(pulled: Path) -> None:
    verdict = verify(FACELIFT, pulled, hash_bytes=20_000)
    assert 0 < verdict.hashed < verdict.files
    assert f"{verdict.hashed} of them with the recorded checksum" in str(verdict)
    flip(pulled / CHECKPOINT)
    assert verify(FACELIFT, pulled, hash_bytes=0).hashed == 0


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "[" * 100_000, '{"files": {"x": {}}}', '{"files": {}}'),
        '{"name": [1], "repository": "", "revision": "", "licence": "", "accepted": "", "files": {}}',
        '{"name": "facelift", "repository": "", "revision": "", "licence": "", "accepted": "", "files": '
        '{"x": {"bytes": "1", "sha256": "", "source": null, "checked_by": ""}}}',
    ],
)
def test_garbled_record_is_no_record(pulled: Path, content: str) -> None:
    (pulled / RECORD).write_text(content)
    with pytest.raises(CheckpointError, match="not a record of `mfl weights pull`"):
        verify(FACELIFT, pulled)


def test_record_cannot_lead_out_of_the_folder(pulled: Path) -> None:
    record = json.loads((pulled / RECORD).read_text())
    record["files"]["../secret"] = record["files"][CHECKPOINT]
    (pulled / RECORD).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="not inside"):
        verify(FACELIFT, pulled)


def test_files_put_there_by_hand_are_whole_but_their_checksums_unknown(pulled: Path) -> None:
    (pulled / RECORD).unlink()
    verdict = verify(FACELIFT, pulled)
    assert not verdict.recorded and "checksums are unknown" in str(verdict)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (CHECKPOINT, "is cut off, damaged or no file of torch.save"),
        (UNET, "its header says"),
        ("mvdiffusion/vae/config.json", "is empty"),
    ],
)
def test_file_by_hand_that_was_cut_off_is_found(pulled: Path, name: str, fault: str) -> None:
    (pulled / RECORD).unlink()
    path = pulled / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if path.suffix != ".json" else 0])
    with pytest.raises(CheckpointError, match=fault):
        verify(FACELIFT, pulled)


def test_archive_with_a_wrong_bit_is_found_by_its_own_checksums(pulled: Path) -> None:
    (pulled / RECORD).unlink()
    flip(pulled / CHECKPOINT, at=(pulled / CHECKPOINT).stat().st_size // 2)
    with pytest.raises(CheckpointError, match=r"is damaged at|is cut off"):
        verify(FACELIFT, pulled)


def test_wrong_bytes_in_an_archive_are_a_fault_and_never_another_error(tmp_path: Path) -> None:
    """Names that are no text, sizes beyond any, encryption: the ZIP library says each in another way."""
    path = tmp_path / "gslrm" / "ckpt_1.pt"
    path.parent.mkdir()
    torch.save({"a": torch.zeros(4)}, path)
    whole = path.read_bytes()
    found = 0
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(CheckpointError) as caught:
            verify(FACELIFT, tmp_path)
        found += f"{path.name} is " in str(caught.value)
    assert found > len(whole) / 7 / 3


@pytest.mark.parametrize(
    "header",
    [
        *(
            b"{]}",
            b"[" * 100_000,
            b'{"a": {"data_offsets": [0, "x"]}}',
            b'{"a": {"data_offsets": [0, 1e999]}}',
        ),
        *(b'{"a": {"data_offsets": [0, null]}}', b'{"__metadata__": {}}'),
    ],
)
def test_header_that_is_no_header_is_found(pulled: Path, header: bytes) -> None:
    (pulled / RECORD).unlink()
    (pulled / UNET).write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="damaged header"):
        verify(FACELIFT, pulled)


def test_other_prompts_under_the_published_name_are_found(pulled: Path) -> None:
    (pulled / RECORD).unlink()
    (pulled / "mvdiffusion" / "clr_embeds.pt").write_bytes(b"other prompts")
    with pytest.raises(CheckpointError, match=r"clr_embeds\.pt is not the published file"):
        verify(FACELIFT, pulled)


def test_checksum_of_the_published_prompts_is_true(shared: Path) -> None:
    path = shared / "data" / "facelift_sample" / "clr_embeds.pt"
    assert sha256(path) == PROMPTS_SHA256[path.name]


def test_missing_prompts_come_with_the_command_that_makes_them(pulled: Path) -> None:
    (pulled / RECORD).unlink()
    (pulled / "mvdiffusion" / "prompt_embeds.safetensors").unlink()
    with pytest.raises(CheckpointError, match="mfl prompts text="):
        verify(FACELIFT, pulled)
