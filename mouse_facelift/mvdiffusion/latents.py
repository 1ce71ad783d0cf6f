"""A folder of encoded training samples, so that training needs neither pictures nor VAE nor CLIP.

Content-addressed: the sub-folder's name is a hash of whatever decides how samples are encoded, a file's name
a hash of the sample's pictures. What was encoded otherwise, or from other pictures, is therefore never found.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from accelerate import PartialState
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ..errors import ConfigError, DataError
from ..files import free_bytes, write_json
from ..parallel import overlapped
from ..progress import track
from ..samples.datasets import SampleDataset, composite, sample_cameras
from ..samples.keys import MEMO_FILE, PictureKeys
from ..training.process import local_processes
from ..training.trainable import frozen_hash
from ..words import data_size
from .augment import jitter
from .config import AugmentConfig, TrainMVDiffConfig
from .encoding import encoders_on
from .frozen import FrozenParts
from .latent_files import LatentFile

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of every fingerprint; goes up when files of an older version must not be used any more."""
RECIPE_FILE = "recipe.json"
"""In every cache: what its fingerprint is made of, for people."""
AHEAD = 4
"""Samples that are read while others are encoded."""

VAE_KEYS = ("act_fn", "block_out_channels", "down_block_types", "layers_per_block", "norm_num_groups")
CLIP_KEYS = ("hidden_act", "image_size", "layer_norm_eps", "num_attention_heads", "patch_size")
"""What weights do not tell about the networks. Whole configurations differ between library versions."""


@dataclass(frozen=True)
class Recipe:
    """How samples are encoded.

    Attributes:
        image_size: Side of the pictures in pixels.
        backgrounds: Grey levels behind the animal. [G]
        jitter: Colour jitter.
        variants: Jittered versions of a sample, K.
        seed: Of the jitter.
        precision: Of the networks' arithmetic, as training would have it. Half precision is stored as fp16,
            which holds bf16's digits too, so nothing is lost.
    """

    image_size: int
    backgrounds: tuple[float, ...]
    jitter: AugmentConfig
    variants: int
    seed: int
    precision: Literal["fp32", "bf16", "fp16"]

    @classmethod
    def of(cls, config: TrainMVDiffConfig, backgrounds: Sequence[float], device: torch.device) -> "Recipe":
        """The encodings that a training run on this device would compute itself."""
        jittered = config.augment.enabled
        return cls(
            image_size=config.data.image_size,
            backgrounds=tuple(backgrounds),
            jitter=config.augment,
            variants=config.cache.variants if jittered else 1,
            seed=config.training.seed if jittered else 0,
            precision=config.training.precision if device.type == "cuda" else "fp32",
        )

    def generator(self, key: str, variant: int) -> Generator:
        """The source of a sample's jitter: of its pictures and the variant's number alone."""
        digest = hashlib.sha256(f"{self.seed} {key} {variant}".encode()).digest()
        return Generator().manual_seed(int.from_bytes(digest[:7]))

    @property
    def dtype(self) -> torch.dtype:
        """Of the stored tensors."""
        return torch.float32 if self.precision == "fp32" else torch.float16

    def autocast(self, device: torch.device) -> torch.autocast:
        """The arithmetic of the networks; to be used as a context."""
        half = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(device.type, half, enabled=self.precision != "fp32")


class CachedLatents(Dataset[dict[str, Any]]):
    """Encoded samples in place of pictures; every tensor of an item has the view axis first.

    Items:
        id: The sample's name.
        mean: Of the VAE's posterior, unscaled. [V, K, G, 4, h, w]
        logvar: Log variance of the posterior. [V, K, G, 4, h, w]
        embeds: CLIP embedding of each view as a reference. [V, K, G, D]
        K: Intrinsics in pixels at the encoded size, half-pixel centres. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]
        view_ids: The recording's camera ids. [V]
    """

    def __init__(self, data: SampleDataset, files: Sequence["Encodings"]) -> None:
        """`files` hold the encodings of the samples, in their order."""
        self.samples, self.view_ids, self.image_size = data.samples, data.view_ids, data.image_size
        self.files = files

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        return {"id": sample.sample_id, **self.files[index].read(), **sample_cameras(sample, self.image_size)}


class Encodings(Protocol):
    """One sample's: a `LatentFile`, or what stands in for one."""

    def read(self) -> dict[str, Tensor]:
        """See `CachedLatents`."""
        ...


@dataclass(frozen=True, eq=False)
class HeldEncodings:
    """Encodings in memory."""

    tensors: dict[str, Tensor]

    def read(self) -> dict[str, Tensor]:
        """The very tensors."""
        return self.tensors


class LatentCache:
    """The encodings of one data set under one recipe; knows what is there, and computes what is not."""

    def __init__(self, data: SampleDataset, frozen: FrozenParts, recipe: Recipe, folder: Path) -> None:
        """Hash networks and pictures; nothing is encoded or written yet.

        Args:
            data: The samples.
            frozen: The networks that encode.
            recipe: How.
            folder: Where caches lie, this one in a sub-folder.
        """
        self.data, self.frozen, self.recipe = data, frozen, recipe
        self.facts = _facts(frozen, recipe)
        self.fingerprint = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()
        self.folder = folder / self.fingerprint[:16]
        self.pictures = PictureKeys(data.samples, folder / MEMO_FILE)
        self.keys = self.pictures.keys
        shapes = self._shapes()
        self.files = [
            LatentFile(
                self.folder / f"{key[:32]}.safetensors", {"fingerprint": self.fingerprint, "key": key}, shapes
            )
            for key in self.keys
        ]
        self.bytes_per_sample = recipe.dtype.itemsize * sum(math.prod(shape) for shape in shapes.values())

    def pending(self) -> dict[int, str]:
        """Samples to be encoded, one for each file; with it what is wrong with a file that is there."""
        # Equal samples share a file; the first of them stands for it.
        first = {file.path: index for index, file in reversed(list(enumerate(self.files)))}
        faults = {}
        for index in sorted(first.values()):
            try:
                self.files[index].check()
            except DataError as error:
                faults[index] = str(error) if self.files[index].path.exists() else ""
        return faults

    def check_space(self, pending: int) -> None:
        """Refuse to begin what the disk cannot hold.

        Args:
            pending: How many samples are to be encoded.

        Raises:
            ConfigError: they need more than is free.
        """
        needed = pending * self.bytes_per_sample
        free = free_bytes(self.folder)
        if needed > free:
            raise ConfigError(
                f"{self.folder}: the encodings of {pending} samples need {data_size(needed)}, "
                f"{data_size(free)} are free there. Free some, set cache.folder to another disk, lower "
                "cache.variants, or set cache.latents=false."
            )

    def build(self, process: PartialState) -> CachedLatents:
        """Encode what is not there yet, each process its share, and wait for the others.

        What an interrupted build has finished is kept, and the next one goes on from there.

        Args:
            process: This process among those of the run, and its device. VAE and image encoder work there
                and are on the CPU afterwards.

        Raises:
            ConfigError: not enough disk.
            DataError: a sample cannot be read, or its encodings are not finite.
        """
        pending = self.pending()
        self.check_space(len(pending))
        if process.is_main_process:
            self.pictures.save()
            self._announce(pending)
        self._encode_share(pending, process, process.process_index, process.num_processes)
        if process.num_processes > 1:
            # Machines without a common disk lack what others have made.
            self._encode_share(self.pending(), process, process.local_process_index, local_processes())
        return CachedLatents(self.data, self.files)

    def _encode_share(
        self, pending: Iterable[int], process: PartialState, number: int, processes: int
    ) -> None:
        # By place in the data, not among what is pending: the files of other processes appear meanwhile.
        share = [index for index in pending if index % processes == number]
        if share:
            with encoders_on(self.frozen, process.device):
                self._encode(share, process.device, shown=process.is_main_process)
        process.wait_for_everyone()

    def stand_ins(self, process: PartialState) -> CachedLatents:
        """For a trial, which writes nothing: the first sample's encodings in the place of all.

        Raises:
            ConfigError: not enough disk for `build`.
            DataError: as `build`, of the first sample.
        """
        self.check_space(len(self.pending()))
        rgba = self.data[0]["rgba"].to(process.device)
        with encoders_on(self.frozen, process.device):
            first = HeldEncodings(self._encode_sample(0, rgba))
        return CachedLatents(self.data, [first] * len(self.data))

    def _announce(self, pending: Mapping[int, str]) -> None:
        for fault in filter(None, pending.values()):
            log.warning("%s It is encoded anew.", fault)
        if self.recipe.jitter.enabled and self.recipe.variants == 1:
            log.warning("cache.variants is 1: every epoch sees a sample in the same jittered colours")
        log.info(
            "%s: %d of %d samples to be encoded, %s",
            self.folder,
            len(pending),
            len(self.data),
            data_size(len(pending) * self.bytes_per_sample),
        )
        if pending:
            write_json(self.folder / RECIPE_FILE, self.facts)

    def _encode(self, indices: Sequence[int], device: torch.device, shown: bool) -> None:
        items: Iterable[dict[str, Any]] = overlapped(self.data.__getitem__, indices, AHEAD)
        if shown:
            items = track(items, "encoding latents", len(indices))
        for index, item in zip(indices, items, strict=True):
            self.files[index].write(self._encode_sample(index, item["rgba"].to(device)))

    @torch.no_grad()
    def _encode_sample(self, index: int, rgba: Tensor) -> dict[str, Tensor]:
        """Encode every view [V, 4, S, S] in every colour on every background; see `CachedLatents`."""
        parts: dict[str, list[Tensor]] = {"mean": [], "logvar": [], "embeds": []}
        for variant in range(self.recipe.variants):
            generator = self.recipe.generator(self.keys[index], variant)
            coloured = jitter(rgba[None], self.recipe.jitter, generator)[0]
            for background in self.recipe.backgrounds:
                views = composite(coloured, background)
                with self.recipe.autocast(rgba.device):
                    mean, logvar = self.frozen.posterior(views)
                    embeds = self.frozen.image_embeds(views, eight_bit=False)
                for name, value in (("mean", mean), ("logvar", logvar), ("embeds", embeds)):
                    parts[name].append(value.to("cpu", self.recipe.dtype))
        grid = (self.recipe.variants, len(self.recipe.backgrounds))
        tensors = {name: torch.stack(part, 1).unflatten(1, grid) for name, part in parts.items()}
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise DataError(
                f"{self.data.samples[index].folder}: its encodings are not finite numbers in "
                f"{self.recipe.precision}. Set training.precision to bf16 or fp32."
            )
        return tensors

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        vae, side = self.frozen.vae.config, self.recipe.image_size // self.frozen.pixels_per_latent
        every = (len(self.data.view_ids), self.recipe.variants, len(self.recipe.backgrounds))
        latents = (*every, vae.latent_channels, side, side)
        return {
            "mean": latents,
            "logvar": latents,
            "embeds": (*every, self.frozen.image_encoder.config.projection_dim),
        }


def _facts(frozen: FrozenParts, recipe: Recipe) -> dict[str, Any]:
    """Everything but the pictures that decides what is stored, JSON-ready."""
    vae, clip, clip_input = frozen.vae, frozen.image_encoder, frozen.feature_extractor
    return {
        "format": FORMAT,
        "recipe": {**vars(recipe), "jitter": recipe.jitter.model_dump()},
        "vae": {name: vae.config[name] for name in VAE_KEYS},
        "vae_weights": [frozen_hash(part) for part in (vae.encoder, vae.quant_conv) if part is not None],
        "image_encoder": {name: getattr(clip.config, name) for name in CLIP_KEYS},
        "image_encoder_weights": frozen_hash(clip),
        "clip_input": vars(clip_input),
    }
