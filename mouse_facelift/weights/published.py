"""Which weights are published where, under which licence, and where their files belong on this machine."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, ConfigError
from ..hub import HubFile

HOME = Path("checkpoints")
"""Customary place of all weights, relative to the working folder."""
GSLRM, PIPELINE = "gslrm", "mvdiffusion"
"""Folders below the place of one publication, which `mfl infer` takes."""

PROMPTS_SHA256 = {"clr_embeds.pt": "b9e51666588d0f075e031262744d371e12076160231aab19a531dbf7ab976e4d"}
"""The one published file whose checksum is known beforehand: it comes from FaceLift's code repository."""

TEXT_FILES = (
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
)
"""Of a pipeline, what `mfl prompts` reads."""

_CHECKPOINT = re.compile(r"ckpt_(\d+)\.pt")
_OTHER_NAMES = {
    "diffusion_pytorch_model.safetensors": "diffusion_pytorch_model.bin",
    "model.safetensors": "pytorch_model.bin",
}
"""How older versions of diffusers and transformers name the same."""


@dataclass(frozen=True)
class Published:
    """Weights of one publication at one commit of a repository on the Hugging Face Hub.

    Attributes:
        name: What users call it, and its folder below `checkpoints/`.
        repo_id: "owner/name".
        revision: A full commit hash.
        gslrm: Folder of GS-LRM's `ckpt_*.pt` in the repository; None where there is none.
        pipeline: Folder of the diffusion pipeline in the repository; "" is its top.
        licence: Name of the licence.
        notice: What its user has to know, in a sentence or two.
        style: Of the texts whose embeddings belong to the weights; None where they have none of their own.
    """

    name: str
    repo_id: str
    revision: str
    gslrm: str | None
    pipeline: str
    licence: str
    notice: str
    style: str | None

    @property
    def home(self) -> Path:
        """Customary folder, relative to the working folder."""
        return HOME / self.name

    def local_name(self, name: str) -> str | None:
        """Where a file of the repository belongs below the local folder; None for files that nobody reads."""
        folder, _, file = name.rpartition("/")
        if self.gslrm is not None and folder == self.gslrm and _CHECKPOINT.fullmatch(file):
            return f"{GSLRM}/{file}"
        below = name.removeprefix(f"{self.pipeline}/") if self.pipeline else name
        inside = not self.pipeline or below != name
        return f"{PIPELINE}/{below}" if inside and _reader_of(below) else None

    def choose(self, offered: Mapping[str, HubFile]) -> dict[str, HubFile]:
        """The files to have, by their place below the local folder.

        Of several GS-LRM checkpoints the newest is taken. Text encoder and tokenizer are taken where offered.

        Raises:
            CheckpointError: the repository lacks a file that is needed.
        """
        placed = {local: file for name, file in offered.items() if (local := self.local_name(name))}
        older = sorted((name for name in placed if _CHECKPOINT.search(name)), key=_number)[:-1]
        # Of the same weights in two formats, the one that can hold nothing but tensors.
        twins = {
            name.replace(plain, other)
            for name in placed
            for plain, other in _OTHER_NAMES.items()
            if name.endswith(f"/{plain}")
        }
        chosen = {name: file for name, file in placed.items() if name not in {*older, *twins}}
        if missing := missing_files(self, set(chosen)):
            raise CheckpointError(
                f"{self.repo_id} at {self.revision} has no {', '.join(missing)} (as they are called here), "
                f"but {len(offered)} files, {', '.join(sorted(offered)[:5])}, ... Please report it."
            )
        return chosen

    def by_hand(self, folder: Path) -> str:
        """Which files go where, and the commands that fetch them on another machine."""
        parts = [(f"{self.pipeline}/" if self.pipeline else "", PIPELINE)]
        parts += [(f"{self.gslrm}/", GSLRM)] if self.gslrm is not None else []
        includes = " ".join(f'--include "{source}*"' for source, _ in parts)
        moves = [f"  DIR/{source}*  ->  {folder / place}/" for source, place in parts]
        prompts = [
            "Prompt embeddings, which are not on the Hub, once the files are there:",
            f"  mfl prompts text={folder / PIPELINE} output={folder / PIPELINE}",
        ]
        return "\n".join(
            [
                "By hand, on a machine with a network and this package:",
                f"  mfl weights pull {self.name} --to DIR --accept-licence",
                f"and copy DIR to {folder}. Without this package:",
                f"  hf download {self.repo_id} --revision {self.revision} {includes} --local-dir DIR",
                "and copy",
                *moves,
                f"so that there are: {', '.join(needed_files(self))}.",
                *(prompts if self.style else []),
                f"Then: mfl weights verify {self.name} --to {folder}",
            ]
        )


FACELIFT = Published(
    name="facelift",
    repo_id="wlyu/OpenFaceLift",
    revision="3ebac9f8e2d791f02507b8aa61520e1ba379a115",
    gslrm="gslrm",
    pipeline="mvdiffusion/pipeckpts",
    licence="Adobe Research License",
    notice="FaceLift's weights are for non-commercial research only, and so is what is trained from them or "
    "made with them. Read the licence on https://huggingface.co/wlyu/OpenFaceLift before you accept it.",
    style="facelift",
)
SD21UNCLIP = Published(
    name="sd21unclip",
    repo_id="stabilityai/stable-diffusion-2-1-unclip",
    revision="e99f66a92bdcd1b0fb0d4b6a9b81b3b37d8bea44",
    gslrm=None,
    pipeline="",
    licence="CreativeML Open RAIL++-M",
    notice="The licence of Stable Diffusion 2.1-unCLIP restricts uses, and passes the restrictions on to "
    "what is trained from it. Read it on https://huggingface.co/stabilityai/stable-diffusion-2-1-unclip.",
    style=None,
)
PUBLISHED = {published.name: published for published in (FACELIFT, SD21UNCLIP)}


def find_published(name: str) -> Published:
    """Look up a publication.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"weights '{name}' are not known; expected one of {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]


def needed_files(published: Published) -> list[str]:
    """Places of the files without which nothing works, below the local folder; * stands for a step."""
    from ..mvdiffusion.start import PIPELINE_FILES

    checkpoint = [f"{GSLRM}/ckpt_*.pt"] if published.gslrm is not None else []
    return [*checkpoint, *(f"{PIPELINE}/{name}" for name in PIPELINE_FILES)]


def missing_files(published: Published, there: set[str]) -> list[str]:
    """Those of the needed files that are not among the ones that are there, under no name that is read."""
    return [
        name
        for name in needed_files(published)
        if name not in there
        and _other_name(name) not in there
        and not (name.startswith(GSLRM) and any(_CHECKPOINT.search(other) for other in there))
    ]


def local_files(folder: Path) -> Iterator[str]:
    """What lies below a local folder that weights are pulled to, sorted, as in its record."""
    for place in (GSLRM, PIPELINE):
        for path in sorted((folder / place).rglob("*")):
            if path.is_file():
                yield path.relative_to(folder).as_posix()


def _reader_of(name: str) -> bool:
    """Whether a file of a pipeline is read here, under any of its names."""
    from ..mvdiffusion.start import PIPELINE_FILES

    known = (*PIPELINE_FILES, *TEXT_FILES)
    return name in {*known, *map(_other_name, known), *PROMPTS_SHA256}


def _other_name(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{_OTHER_NAMES[file]}" if file in _OTHER_NAMES else name


def _number(name: str) -> int:
    found = _CHECKPOINT.search(name)
    return int(found[1]) if found else -1
