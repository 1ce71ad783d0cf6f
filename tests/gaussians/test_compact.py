import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.gaussians.compact import CompactSequence, open_compact
from mouse_facelift.gaussians.harmonics import SH_C0
from mouse_facelift.gaussians.turntable import turntable_cameras
from mouse_facelift.metrics import psnr


def scene(count: int, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    return Gaussians(
        1.2 * random(count, 3) - 0.6,
        5 * (random(count, 4) - 0.5),
        (4 * random(count, 3) - 7).exp(),
        random(count),
        (random(count, 1, 3) - 0.5) / SH_C0,
    )


def write(path: Path, *scenes: Gaussians) -> Path:
    with open_compact(path) as writer:
        for number, one in enumerate(scenes):
            matrix = np.diag([60.0, 60.0, 60.0, 1.0])
            matrix[0, 3] = number
            writer.write(one, 10 + 5 * number, matrix)
    return path


def test_every_attribute_comes_back_to_half_a_step(tmp_path: Path) -> None:
    before = scene(500)
    with CompactSequence(write(tmp_path / "all.npz", before)) as file:
        after = file[0]
    box = before.means.amax(0) - before.means.amin(0)
    assert ((after.means - before.means).abs() <= 0.51 * box / 65535 + 1e-7).all()
    range_of_logs = before.log_scales.max() - before.log_scales.min()
    assert (after.log_scales - before.log_scales).abs().max() <= 0.51 * range_of_logs / 255
    assert (after.opacities - before.opacities).abs().max() <= 0.51 / 255
    assert (after.rgb - before.rgb).abs().max() <= 0.51 / 255
    cosine = (F.normalize(before.quats, dim=-1) * after.quats).sum(-1).abs().clamp(max=1)
    assert torch.rad2deg(2 * cosine.acos()).max() < 1.0


def test_pictures_of_it_look_the_same(tmp_path: Path) -> None:
    before = scene(400)
    with CompactSequence(write(tmp_path / "all.npz", before)) as file:
        after = file[0]
    camera = turntable_cameras(1, 64)[0]
    K, w2c = (torch.from_numpy(matrix)[None].float() for matrix in (camera.K, camera.w2c))
    pictures = [render(one, K, w2c, 64, 64).rgb for one in (before, after)]
    assert float(psnr(*pictures)) > 40


def test_moments_keep_their_frames_and_their_places(tmp_path: Path) -> None:
    scenes = [scene(n, seed=n) for n in (5, 0, 9)]
    with CompactSequence(write(tmp_path / "all.npz", *scenes)) as file:
        assert file.frame_indices == (10, 15, 20)
        assert file.world_from_model.shape == (3, 4, 4)
        assert file.world_from_model[:, 0, 3].tolist() == [0, 1, 2]
        assert [len(file[number]) for number in range(len(file))] == [5, 0, 9]
        with pytest.raises(IndexError):
            file[3]


def test_the_file_is_a_third_of_the_ply(tmp_path: Path) -> None:
    many = scene(20_000)
    many.save_ply(tmp_path / "one.ply")
    assert write(tmp_path / "all.npz", many).stat().st_size < 0.35 * (tmp_path / "one.ply").stat().st_size


def test_numpy_reads_it_alone(tmp_path: Path) -> None:
    with np.load(write(tmp_path / "all.npz", scene(7))) as file:
        assert file["000000.means"].shape == (7, 3)
        assert file["000000.colors"].dtype == np.uint8


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_compact(tmp_path / "all.npz") as writer:
        writer.write(scene(3), 0, np.eye(4))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", means=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "later.npz", "w") as archive:
        archive.writestr("index.json", '{"format": "later", "frame_index": [], "world_from_model": []}')
    for name in ("absent", "text", "other", "later"):
        with pytest.raises(DataError, match=f"{name}.npz"):
            CompactSequence(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("index", ["{", '{"format": "another"}', '{"frame_index": 3}'])
def test_a_file_with_a_garbled_index_is_closed(tmp_path: Path, index: str) -> None:
    with zipfile.ZipFile(tmp_path / "all.npz", "w") as archive:
        archive.writestr("index.json", index)
    before = len(list(Path("/proc/self/fd").iterdir()))
    # The error, with its frames and what they hold, lives on.
    with pytest.raises(DataError) as kept:
        CompactSequence(tmp_path / "all.npz")
    assert "all.npz" in str(kept.value)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_damaged_moment_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "all.npz", scene(100), scene(100))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("000001.means.npy").header_offset + 300
    content[start] ^= 255
    path.write_bytes(bytes(content))
    with CompactSequence(path) as file:
        file[0]
        with pytest.raises(DataError, match="moment 1 is damaged"):
            file[1]
