"""Texts to embeddings, as the published ones were made (facelift_spec.md 6.4), from local files alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ...errors import CheckpointError, ConfigError
from ...training.tensors import read_tensors
from ..weights import TRANSFORMERS_STEMS, find_weights, read_json
from .files import TOKENS

TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
WORD_END = "</w>"
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
)
"""All that decides a text encoder's last hidden state; nothing else of config.json is looked at."""


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """Read a pipeline's `tokenizer/`.

    Raises:
        CheckpointError: a file is missing, damaged, or does not belong to the others.
    """
    folder = folder / "tokenizer"
    missing = [name for name in TOKENIZER_FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: no {', '.join(missing)}; expected {', '.join(TOKENIZER_FILES)}. Download the "
            "tokenizer again, or give the pipeline folder that the UNet comes from."
        )
    vocabulary = read_json(folder / "vocab.json")
    read_json(folder / "tokenizer_config.json")
    special = _special_tokens(folder / "special_tokens_map.json", vocabulary)
    _check_merges(folder / "merges.txt", vocabulary, special)
    try:
        # transformers 5 no longer looks into special_tokens_map.json, the only file that says that SD 2's
        # texts are padded with "!".
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True, **special)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: not a CLIP tokenizer ({str(error).splitlines()[0]}).") from None


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids of texts, padded to the length that a text encoder takes; int64 [V, 77].

    Raises:
        ConfigError: a text is too long; the message quotes what would be lost.
    """
    for text in texts:
        ids = tokenizer(text, verbose=False)["input_ids"]
        if len(ids) > TOKENS:
            lost = tokenizer.decode(ids[TOKENS - 1 : -1], clean_up_tokenization_spaces=False).strip()
            raise ConfigError(
                f"the text {text!r} has {len(ids)} tokens with start and end, at most {TOKENS} fit: "
                f"{lost!r} would be lost. Shorten style."
            )
    return tokenizer(
        list(texts), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    )["input_ids"]


def find_text_encoder(folder: Path, width: int) -> Path:
    """Check that a pipeline has the text encoder of its UNet; returns the file of its weights.

    Args:
        folder: The pipeline.
        width: What the UNet takes, its cross_attention_dim.

    Raises:
        CheckpointError: it or its weights are missing, or it is of another width or length.
    """
    folder = folder / "text_encoder"
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder. Training runs keep no text encoder; give FaceLift's or "
            "SD 2.1-unCLIP's pipeline folder."
        )
    sizes = _sizes(folder)
    if sizes["hidden_size"] != width:
        raise CheckpointError(
            f"{folder}: the text encoder is {sizes['hidden_size']} wide, the UNet takes width={width}. 1024 "
            "is OpenCLIP ViT-H (SD 2.1-unCLIP, FaceLift), 768 is CLIP ViT-L (SD 1, "
            "openai/clip-vit-large-patch14). Give the pipeline folder that the UNet comes from."
        )
    if sizes["max_position_embeddings"] != TOKENS:
        raise CheckpointError(
            f"{folder}: takes texts of {sizes['max_position_embeddings']} tokens, expected {TOKENS} as in "
            "CLIP. Give the pipeline folder that the UNet comes from."
        )
    weights, _ = find_weights(folder, TRANSFORMERS_STEMS)
    return weights


@torch.no_grad()
def encode(weights: Path, tokens: Tensor) -> Tensor:
    """The text encoder's last hidden state in fp32 on the CPU, without attention mask: padding counts.

    Args:
        weights: What `find_text_encoder` found.
        tokens: Of `tokenize`. [V, 77]

    Returns:
        [V, 77, D]

    Raises:
        CheckpointError: the weights do not fit config.json, or the tokenizer is another model's.
    """
    # The two numbers are for the pooled output, which is not used; the defaults need a large vocabulary.
    config = CLIPTextConfig(**_sizes(weights.parent), bos_token_id=0, eos_token_id=2)
    if tokens.max() >= config.vocab_size:
        raise CheckpointError(
            f"{weights.parent}: knows {config.vocab_size} tokens, the tokenizer beside it gives number "
            f"{int(tokens.max())}; they do not belong together."
        )
    try:
        model, report = CLIPTextModel.from_pretrained(
            None, config=config, state_dict=read_tensors(weights), output_loading_info=True
        )
    except RuntimeError as error:
        raise CheckpointError(
            f"{weights}: does not fit config.json ({str(error).splitlines()[0]})."
        ) from None
    problems = {kind: sorted(keys)[:5] for kind, keys in report.items() if keys}
    if problems:
        raise CheckpointError(f"{weights}: does not fit config.json: {problems}.")
    embeds: Tensor = model.float().eval()(input_ids=tokens).last_hidden_state
    if not torch.isfinite(embeds).all():
        raise CheckpointError(f"{weights}: gives NaN or infinity. Fetch it again.")
    return embeds


def view_similarity(embeds: Tensor) -> Tensor:
    """Cosine between the embeddings of every two views, mean over tokens. [V, 77, D] -> [V, V]"""
    unit = F.normalize(embeds.float(), dim=-1)
    return torch.einsum("itd,jtd->ij", unit, unit) / embeds.shape[1]


def _sizes(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    missing = [name for name in SIZES if name not in config]
    if missing:
        raise CheckpointError(f"{folder / 'config.json'}: no {', '.join(missing)}; expected a CLIPTextModel.")
    return {name: config[name] for name in SIZES}


def _special_tokens(path: Path, vocabulary: dict[str, Any]) -> dict[str, str]:
    content = read_json(path)
    values = {name: content.get(name) for name in SPECIAL_TOKENS}
    tokens = {
        name: value.get("content") if isinstance(value, dict) else value for name, value in values.items()
    }
    known = {name: token for name, token in tokens.items() if isinstance(token, str) and token in vocabulary}
    if known != tokens:
        raise CheckpointError(
            f"{path}: holds {tokens}, expected {', '.join(SPECIAL_TOKENS)} that vocab.json knows. Fetch it "
            "again."
        )
    return known


def _check_merges(path: Path, vocabulary: dict[str, Any], special: dict[str, str]) -> None:
    """Every longer token comes from a merge; a file that was cut off would go unnoticed otherwise."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: not a text file. Fetch it again.") from None
    merges = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    broken = [
        merge for merge in merges if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys()
    ]
    if broken:
        raise CheckpointError(
            f"{path}: {len(broken)} of {len(merges)} merges, such as {' '.join(broken[0])!r}, are not two "
            "parts that vocab.json knows. Fetch both files again."
        )
    several = {token for token in vocabulary if len(token.removesuffix(WORD_END)) > 1}
    never = several - {"".join(merge) for merge in merges} - set(special.values())
    if never:
        raise CheckpointError(
            f"{path}: no merge makes {len(never)} tokens of vocab.json, such as {min(never)!r}: the file is "
            "cut off, or another model's. Fetch it again."
        )
