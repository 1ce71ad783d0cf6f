"""Encodings on disk: the same numbers as without, never stale, never half there."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError as WrongConfig
from tiny_sizes import SIZES
from torch.utils.data import DataLoader, default_collate

from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.geometry.rays import select_views
from mouse_facelift.mvdiffusion import latents
from mouse_facelift.mvdiffusion.config import AugmentConfig, TrainMVDiffConfig
from mouse_facelift.mvdiffusion.encoding import Encoded, encode_batch, encoders_on, from_cache
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.frozen import FrozenParts
from mouse_facelift.mvdiffusion.latent_files import LatentFile
from mouse_facelift.mvdiffusion.latents import LatentCache, Recipe
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.mvdiffusion.task import MVDiffusionTask, SlotDataset
from mouse_facelift.mvdiffusion.train import run
from mouse_facelift.samples.datasets import SampleDataset

CPU = torch.device("cpu")
BACKGROUNDS = (1.0, 0.0, 0.5)
RECIPE = Recipe(
    image_size=32, backgrounds=BACKGROUNDS, jitter=AugmentConfig(), variants=1, seed=0, precision="fp32"
)
JITTERED = replace(RECIPE, jitter=AugmentConfig(brightness=0.2, contrast=0.1), variants=3, seed=7)


@dataclass
class Process:
    """One of several processes, which are run one after the other."""

    process_index: int = 0
    num_processes: int = 1
    device: torch.device = CPU

    @property
    def is_main_process(self) -> bool:
        return self.process_index == 0

    @property
    def local_process_index(self) -> int:
        return self.process_index if latents.local_processes() > 1 else 0

    def wait_for_everyone(self) -> None:
        pass


@pytest.fixture
def data(write_samples: Callable[..., Path], tmp_path: Path) -> SampleDataset:
    return SampleDataset.from_list(write_samples(tmp_path / "data", 4), 32)


@pytest.fixture
def frozen(tiny_pipeline: MVDiffusionPipeline) -> FrozenParts:
    return tiny_pipeline.frozen


@pytest.fixture
def make(data: SampleDataset, frozen: FrozenParts, tmp_path: Path) -> Callable[..., LatentCache]:
    def cache(recipe: Recipe = RECIPE, frozen: FrozenParts = frozen) -> LatentCache:
        return LatentCache(data, frozen, recipe, tmp_path / "latents")

    return cache


def both_ways(cache: LatentCache, variant: int = 0) -> tuple[Encoded, Encoded]:
    """Encodings of all samples, each on another background with another reference: with and without files."""
    files = cache.build(Process())
    stored = default_collate([files[index] for index in range(len(files))])
    rgba = default_collate([cache.data[index] for index in range(len(files))])["rgba"]
    background = torch.tensor([0, 1, 2, 1])
    order = torch.tensor([[0, 1, 2, 3], [2, 3, 0, 1], [3, 0, 1, 2], [1, 2, 3, 0]])
    with cache.recipe.autocast(CPU):
        direct = encode_batch(cache.frozen, select_views(rgba, order), torch.tensor(BACKGROUNDS)[background])
    return direct, from_cache(cache.frozen, stored, order, background, torch.full((4,), variant))


def same(first: Encoded, second: Encoded, **tolerances: float) -> None:
    for name, value in vars(first).items():
        torch.testing.assert_close(getattr(second, name), value, **tolerances)


def test_cached_encodings_are_those_of_the_pictures(make: Callable[..., LatentCache]) -> None:
    direct, stored = both_ways(make())
    same(direct, stored, rtol=0, atol=1e-6)
    assert direct.mean.std() > 0.01
    assert not torch.allclose(direct.embeds[0], direct.embeds[1])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_stored_in_half_the_bytes_without_loss(
    make: Callable[..., LatentCache], precision: str
) -> None:
    cache = make(replace(RECIPE, precision=precision))
    direct, stored = both_ways(cache)
    same(direct, stored, rtol=0, atol=2**-24)
    assert 2 * cache.bytes_per_sample == make().bytes_per_sample


def test_a_file_takes_little_more_than_its_numbers(
    make: Callable[..., LatentCache],
) -> None:
    cache = make()
    assert cache.bytes_per_sample == 4 * 3 * (2 * 4 * 8 * 8 + 16) * 4
    file = cache.build(Process()).files[0]
    assert 0 <= file.path.stat().st_size - cache.bytes_per_sample < 1000


def test_items_have_what_the_pictures_data_set_has_but_the_pictures(
    make: Callable[..., LatentCache], data: SampleDataset
) -> None:
    item = next(iter(DataLoader(make().build(Process()), batch_size=None)))
    plain = data[0]
    assert item.keys() - {"mean", "logvar", "embeds"} == plain.keys() - {"rgba"}
    assert item["id"] == plain["id"]
    for name in ("K", "w2c", "view_ids"):
        assert torch.equal(item[name], plain[name])


def test_cameras_are_those_of_the_resized_pictures(
    write_samples: Callable[..., Path], frozen: FrozenParts, tmp_path: Path
) -> None:
    large = SampleDataset.from_list(write_samples(tmp_path / "large", 1, size=48), 32)
    item = LatentCache(large, frozen, RECIPE, tmp_path / "latents").build(Process())[0]
    assert torch.equal(item["K"], large[0]["K"])


def test_variants_are_other_colours_of_the_same_pictures(make: Callable[..., LatentCache]) -> None:
    cache = make(JITTERED)
    item = cache.build(Process())[0]
    first, second = item["mean"][:, 0], item["mean"][:, 1]
    assert item["mean"].shape[1] == 3
    assert not torch.allclose(first, second)
    again = cache.stand_ins(Process())[0]
    assert torch.equal(again["mean"], item["mean"])
    direct, stored = both_ways(make(), variant=0)
    same(direct, stored, rtol=0, atol=1e-6)


def test_second_build_encodes_nothing(
    make: Callable[..., LatentCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    make().build(Process())
    monkeypatch.setattr(LatentCache, "_encode", lambda *_, **__: pytest.fail("encoded again"))
    assert make().pending() == {}
    make().build(Process())


def test_changed_picture_is_encoded_again(make: Callable[..., LatentCache], data: SampleDataset) -> None:
    before = make().build(Process())[2]["mean"]
    path = data.samples[2].views[1].file
    pixels = np.asarray(Image.open(path)).copy()
    pixels[16, 16, 0] ^= 64
    stat = path.stat()
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    cache = make()
    assert list(cache.pending()) == [2]
    assert not torch.equal(cache.build(Process())[2]["mean"], before)


def test_equal_samples_share_a_file(frozen: FrozenParts, data: SampleDataset, tmp_path: Path) -> None:
    folder = data.samples[0].folder
    shutil.copytree(folder, folder.with_name("copy"))
    twice = SampleDataset([folder, folder.with_name("copy")], 32)
    cache = LatentCache(twice, frozen, RECIPE, tmp_path / "latents")
    assert list(cache.pending()) == [0]
    files = cache.build(Process())
    assert torch.equal(files[0]["mean"], files[1]["mean"])


def test_fingerprint_is_of_all_that_decides_the_numbers(
    make: Callable[..., LatentCache], frozen: FrozenParts, tmp_path: Path
) -> None:
    fingerprints = {make().fingerprint, make(JITTERED).fingerprint}
    for change in (
        {"backgrounds": (1.0,)},
        {"precision": "bf16"},
        {"seed": 8},
        {"variants": 2},
        {"jitter": AugmentConfig(brightness=0.2)},
    ):
        fingerprints.add(make(replace(JITTERED, **change)).fingerprint)
    for module in (frozen.vae.encoder, frozen.vae.quant_conv, frozen.image_encoder):
        weight = next(module.parameters())
        weight.data.view(-1)[0] += 1e-3
        fingerprints.add(make().fingerprint)
    assert len(fingerprints) == 10
    next(frozen.vae.decoder.parameters()).data += 1
    assert make().fingerprint in fingerprints


def test_fingerprint_survives_saving_and_loading(
    make: Callable[..., LatentCache], frozen: FrozenParts, tmp_path: Path
) -> None:
    (tmp_path / "parts").mkdir()
    frozen.save(tmp_path / "parts")
    assert make(frozen=FrozenParts.load(tmp_path / "parts")).fingerprint == make().fingerprint


def test_two_processes_share_the_work(
    make: Callable[..., LatentCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[tuple[int, Path]] = []
    write = LatentFile.write

    def watched(file: LatentFile, tensors: dict) -> None:
        encoded.append((rank, file.path))
        write(file, tensors)

    monkeypatch.setattr(LatentFile, "write", watched)
    monkeypatch.setattr(latents, "local_processes", lambda: 2)
    for rank in (1, 0):
        files = make().build(Process(rank, 2))
    assert sorted(rank for rank, _ in encoded) == [0, 0, 1, 1]
    assert len({path for _, path in encoded}) == 4
    assert all(file.path.is_file() for file in files.files)


def test_machines_without_a_common_disk_make_all_themselves(
    make: Callable[..., LatentCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "local_processes", lambda: 1)
    files = make().build(Process(1, 2))
    assert len(files.files) == 4 and all(file.path.is_file() for file in files.files)


def test_a_full_disk_is_an_error_before_anything_is_encoded(
    make: Callable[..., LatentCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ConfigError, match=r"4 samples need \d+ kB, 1 kB are free .* cache\.folder"):
        make().build(Process())
    assert not (tmp_path / "latents").exists()


def test_dry_run_looks_at_the_disk(
    data: SampleDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "data" / "data.txt", tmp_path / "run", cache={"latents": True})
    run(config, dry_run=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ConfigError, match=r"4 samples need .* cache\.folder"):
        run(config, dry_run=True)
    assert not (tmp_path / "run").exists()


def test_trial_step_is_one_on_encodings_and_leaves_no_files(
    make: Callable[..., LatentCache], data: SampleDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make()
    held, built = cache.stand_ins(Process()), make().build(Process())
    assert len(held) == len(data) and held[2]["id"] == data[2]["id"]
    assert all(torch.equal(held[2][name], built[0][name]) for name in ("mean", "logvar", "embeds"))
    assert torch.equal(held[2]["w2c"], data[2]["w2c"])

    monkeypatch.setattr("mouse_facelift.mvdiffusion.task.encode_batch", lambda *_: pytest.fail("encoded"))
    run(config_of(tmp_path / "data" / "data.txt", tmp_path / "run", cache={"latents": True}), dry_run=True)
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_finite_are_refused(
    make: Callable[..., LatentCache], frozen: FrozenParts
) -> None:
    cache = make(replace(RECIPE, precision="bf16"))
    frozen.vae.quant_conv.bias.data.fill_(1e6)
    with pytest.raises(DataError, match="sample_000000: its encodings are not finite"):
        cache.build(Process())


KILLED_BUILD = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], os.path.dirname(sys.argv[1])]
import test_latents as t
from mouse_facelift import files
folder = Path(sys.argv[2])
flush, done = files._flush, []
def killed(path):
    if path.suffix == ".safetensors":
        done.append(path)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    flush(path)
files._flush = killed
data = t.SampleDataset.from_list(folder / "data" / "data.txt", 32)
t.LatentCache(data, t.FrozenParts.load(folder / "parts"), t.RECIPE, folder / "latents").build(t.Process())
"""


def test_killed_build_goes_on_where_it_was(
    make: Callable[..., LatentCache], frozen: FrozenParts, tmp_path: Path
) -> None:
    (tmp_path / "parts").mkdir()
    frozen.save(tmp_path / "parts")
    command = [sys.executable, "-c", KILLED_BUILD, str(Path(__file__).parent), str(tmp_path)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert list(make().pending()) == [2, 3]
    direct, stored = both_ways(make())
    same(direct, stored, rtol=0, atol=1e-6)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def relabel(path: Path) -> None:
    """A file under another sample's name."""
    others = [other for other in path.parent.glob("*.safetensors") if other != path]
    shutil.copyfile(others[0], path)


@pytest.mark.parametrize(("damage", "fault"), [(cut, "unreadable"), (relabel, "labelled")])
def test_damaged_file_is_named_and_encoded_again(
    make: Callable[..., LatentCache],
    damage: Callable[[Path], None],
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = make().build(Process()).files[1].path
    damage(path)
    with caplog.at_level(logging.WARNING):
        direct, stored = both_ways(make())
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert str(path) in warning
    assert fault in warning
    same(direct, stored, rtol=0, atol=1e-6)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "fault"), [(cut, "unreadable"), (flip, "checksum"), (Path.unlink, "No such")]
)
def test_file_that_is_damaged_in_training_is_an_error_that_names_it(
    make: Callable[..., LatentCache], damage: Callable[[Path], None], fault: str
) -> None:
    files = make().build(Process())
    damage(files.files[1].path)
    files[0]
    with pytest.raises(DataError, match=rf"{files.files[1].path.name}.*{fault}.*Delete the file"):
        files[1]


def test_frozen_jitter_is_told(make: Callable[..., LatentCache], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make(replace(JITTERED, variants=1)).build(Process())
    assert "same jittered colours" in caplog.text


def config_of(list_file: Path, output: Path, **sections: dict) -> TrainMVDiffConfig:
    data = {"train_list": list_file, "val_list": list_file, "image_size": 32, **sections.pop("data", {})}
    start = {"kind": "random", "sizes": SIZES.model_dump(), "vae_steps": 5}
    return TrainMVDiffConfig.model_validate({"data": data, "start": start, "output": output, **sections})


def test_recipe_of_a_run(tmp_path: Path) -> None:
    training = {"training": {"precision": "bf16", "seed": 5}, "cache": {"latents": True, "variants": 6}}
    plain = config_of(tmp_path, tmp_path, **training)
    assert Recipe.of(plain, BACKGROUNDS, torch.device("cuda")) == replace(RECIPE, precision="bf16")
    assert Recipe.of(plain, BACKGROUNDS, CPU).precision == "fp32"
    jittered = config_of(tmp_path, tmp_path, augment={"contrast": 0.1}, **training)
    recipe = Recipe.of(jittered, BACKGROUNDS, CPU)
    assert (recipe.variants, recipe.seed) == (6, 5)


@pytest.mark.parametrize("reference", ["first", "random"])
def test_loss_is_the_same_with_and_without_the_cache(
    data: SampleDataset, reference: str, tmp_path: Path
) -> None:
    """The same background, reference, views and noise are drawn, whether pictures or encodings are given."""
    views = {"reference_view": reference, "views_per_object": 3}
    plain = config_of(tmp_path / "data" / "data.txt", tmp_path, data=views)
    cached = config_of(tmp_path / "data" / "data.txt", tmp_path, data=views, cache={"latents": True})
    slots = Slots.pose(data.samples, 32, "first")
    pipeline = random_pipeline(SIZES, slots, seed=2)
    cache = LatentCache(data, pipeline.frozen, Recipe.of(cached, BACKGROUNDS, CPU), tmp_path / "latents")
    losses = []
    for config, source in ((plain, data), (cached, cache.build(Process()))):
        dataset = SlotDataset(source, slots)
        task = MVDiffusionTask(pipeline, dataset, SlotDataset(data, slots), config)
        batch = default_collate([dataset[index] for index in range(4)])
        generators = [torch.Generator().manual_seed(seed) for seed in range(5)]
        losses.append([task.loss(task.module, batch, generator)["loss"].item() for generator in generators])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert len(set(losses[0])) == 5


def test_run_with_cached_latents_trains_the_same_weights(data: SampleDataset, tmp_path: Path) -> None:
    training = {"steps": 2, "batch_size": 2, "precision": "fp32", "workers": 0}
    weights = []
    for cached in (False, True):
        config = config_of(
            tmp_path / "data" / "data.txt",
            tmp_path / f"run_{cached}",
            cache={"latents": cached},
            training=training,
            validation={"samples": 1, "sampling": {"solver": "ddim", "steps": 2}},
            optimizer={"lr": 1e-3, "warmup_steps": 0, "eps": 1e-3},
        )
        weights.append(dict(MVDiffusionPipeline.load(run(config)).unet.named_parameters()))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-5)
    assert len(list((tmp_path / "run_True" / "latents").glob("*/*.safetensors"))) == 4


def test_cached_pictures_and_cached_latents_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(WrongConfig, match=r"training\.sample_cache is disk"):
        config_of(tmp_path, tmp_path, cache={"latents": True}, training={"sample_cache": "disk"})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_networks_leave_the_gpu_and_the_numbers_stay(
    make: Callable[..., LatentCache], precision: str
) -> None:
    device = torch.device("cuda", 0)
    cache = make(replace(RECIPE, precision=precision))
    files = cache.build(Process(device=device))
    frozen = cache.frozen
    assert frozen.vae.device == frozen.image_encoder.device == CPU
    stored = {name: value[None].to(device) for name, value in files[0].items() if name != "id"}
    rgba, first = cache.data[0]["rgba"][None].to(device), torch.zeros(1, dtype=torch.long)
    with encoders_on(frozen, device), cache.recipe.autocast(device):
        direct = encode_batch(frozen, rgba, torch.ones(1))
    # Kernels may sum in another order, but the batch of pictures is the same.
    same(direct, from_cache(frozen, stored, torch.arange(4)[None], first, first), rtol=0, atol=1e-5)


def test_pictures_that_the_vae_cannot_halve_are_refused(frozen: FrozenParts) -> None:
    with pytest.raises(DataError, match="30x32, sides must be divisible by 4"):
        frozen.posterior(torch.zeros(1, 3, 32, 30))
