"""A pipeline folder with a tokenizer that knows ASCII and a few merges, and a tiny random text encoder."""

import json
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModel

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = ["f r", "fr o", "n t</w>", "fro nt</w>", "v i", "e w</w>", "vi ew</w>"]
SYMBOLS = [chr(code) for code in range(33, 127)]
VOCABULARY = [*SYMBOLS, *(f"{c}</w>" for c in SYMBOLS), *(m.replace(" ", "") for m in MERGES), START, END]
IDS = {token: number for number, token in enumerate(VOCABULARY)}


def write_text_pipeline(folder: Path, width: int = 16, seed: int = 0) -> Path:
    """Write `tokenizer/` and `text_encoder/` as in SD 2.1: only special_tokens_map.json names the padding."""
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END}
    _write(tokenizer / "vocab.json", IDS)
    (tokenizer / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    _write(
        tokenizer / "tokenizer_config.json",
        {**special, "pad_token": END, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"},
    )
    _write(
        tokenizer / "special_tokens_map.json",
        {**special, "bos_token": {"content": START, "normalized": True}, "pad_token": "!"},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CLIPTextConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=IDS[START],
            eos_token_id=IDS[END],
            initializer_factor=30.0,
        )
        CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
