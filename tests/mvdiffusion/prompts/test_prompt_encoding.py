"""Texts become the embeddings that the published way gives, and unsuitable files are refused by name."""

import json
import os
import pickle
import re
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from text_pipeline import END, IDS, START, write_text_pipeline
from transformers import CLIPTextModel, CLIPTokenizer

from mouse_facelift.errors import CheckpointError, ConfigError
from mouse_facelift.mvdiffusion.prompts.encoding import (
    TOKENIZER_FILES,
    encode,
    find_text_encoder,
    read_tokenizer,
    tokenize,
    view_similarity,
)

WIDTH = 16


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return write_text_pipeline(tmp_path / "pipeline", WIDTH)


def published_way(folder: Path, texts: list[str], **special: str) -> torch.Tensor:
    """Facelift_spec.md 6.4, spelled out with transformers alone."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True, **special)
    model = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True).eval()
    tokens = tokenizer(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        return model(tokens)[0]


def embed(folder: Path, texts: list[str], width: int = WIDTH) -> torch.Tensor:
    return encode(find_text_encoder(folder, width), tokenize(read_tokenizer(folder), texts))


def test_embeddings_are_those_of_the_published_way(pipeline: Path) -> None:
    texts = ["a rendering image of 3D models, front_left view, color map.", "front view"]
    embeds = embed(pipeline, texts)
    assert embeds.shape == (2, 77, WIDTH) and embeds.dtype == torch.float32
    torch.testing.assert_close(embeds, published_way(pipeline, texts, pad_token="!"), rtol=1e-5, atol=1e-5)


@pytest.mark.parity
def test_embeddings_of_the_published_layout(shared: Path) -> None:
    folder = shared / "fixtures" / "facelift" / "tiny_pipeline"
    width = json.loads((folder / "unet" / "config.json").read_text())["cross_attention_dim"]
    pad = json.loads((folder / "tokenizer" / "special_tokens_map.json").read_text())["pad_token"]
    vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    known = [token.removesuffix("</w>") for token in vocabulary if re.fullmatch(r"[a-z]+</w>", token)]
    # Longest last: those are made by merges.
    words = sorted(known, key=lambda word: (len(word), word))[-12:]
    texts = [" ".join(words), " ".join(reversed(words * 2)), words[-1]]
    assert len(words) > 1
    expected = published_way(folder, texts, pad_token=pad["content"] if isinstance(pad, dict) else pad)
    torch.testing.assert_close(embed(folder, texts, width), expected, rtol=1e-5, atol=1e-6)


def test_text_is_split_as_clip_does(pipeline: Path) -> None:
    tokens = tokenize(read_tokenizer(pipeline), ["Front_right VIEW 3D"])
    words = [START, "front</w>", "_</w>", "r", "i", "g", "h", "t</w>", "view</w>", "3</w>", "d</w>", END]
    assert tokens.shape == (1, 77) and tokens.dtype == torch.int64
    assert tokens[0, :12].tolist() == [IDS[word] for word in words]


def test_padding_is_what_special_tokens_map_says(pipeline: Path) -> None:
    """SD 2 pads with "!" (number 0), which transformers 5 does not read by itself."""
    tokens = tokenize(read_tokenizer(pipeline), ["front"])
    assert tokens[0, 3:].eq(IDS["!"]).all() and IDS["!"] == 0
    wrong = published_way(pipeline, ["front"], pad_token=END)
    assert (embed(pipeline, ["front"]) - wrong).abs().max() > 0.1


def test_tokens_before_the_differing_word_are_the_same(pipeline: Path) -> None:
    """Causal attention without mask: a word changes what follows it, the padding included."""
    a, b = embed(pipeline, ["x front view", "x right view"])
    assert torch.equal(a[:2], b[:2])
    assert (a[2:] - b[2:]).abs().amax(-1).min() > 1e-3


def test_half_precision_weights_and_old_keys_are_read(pipeline: Path) -> None:
    """As published: fp16, with the position numbers that older versions stored."""
    path = pipeline / "text_encoder" / "model.safetensors"
    state = {key: value.half() for key, value in load_file(path).items()}
    save_file({**state, "text_model.embeddings.position_ids": torch.arange(77)[None]}, path, {"format": "pt"})
    assert torch.isfinite(embed(pipeline, ["front"])).all()


def test_longest_text_fits_and_one_token_more_is_quoted(pipeline: Path) -> None:
    tokenizer = read_tokenizer(pipeline)
    tokens = tokenize(tokenizer, ["front " * 75])
    assert tokens[0, -2:].tolist() == [IDS["front</w>"], IDS[END]]
    with pytest.raises(ConfigError, match=r"has 79 tokens with start and end.*'view x' would be lost"):
        tokenize(tokenizer, ["front " * 75 + "view x"])


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_missing_tokenizer_file_is_named(pipeline: Path, name: str) -> None:
    (pipeline / "tokenizer" / name).unlink()
    with pytest.raises(CheckpointError, match=rf"tokenizer: no {name};"):
        read_tokenizer(pipeline)


def test_missing_tokenizer_names_all_its_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"no {', '.join(TOKENIZER_FILES)};")):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("merges.txt", "#version: 0.2\nf r\nfr o\n", r"no merge makes 5 tokens .* 'ew</w>'"),
        ("merges.txt", "#version: 0.2\nf r\nq z\n", "1 of 2 merges, such as 'q z'"),
        ("merges.txt", "#version: 0.2\nf\n", "1 of 1 merges, such as 'f'"),
        ("vocab.json", "{", "not valid JSON"),
        ("vocab.json", "[]", "expected an object"),
        ("tokenizer_config.json", "", "not valid JSON"),
        ("special_tokens_map.json", '{"bos_token": "<|startoftext|>"}', "'pad_token': None"),
        ("special_tokens_map.json", '{"pad_token": ["x"]}', r"'pad_token': \['x'\]"),
    ],
)
def test_damaged_tokenizer_file_is_named(pipeline: Path, name: str, content: str, message: str) -> None:
    (pipeline / "tokenizer" / name).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{name}: .*{message}"):
        read_tokenizer(pipeline)


def test_missing_text_encoder_is_refused(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="text_encoder: no such folder"):
        find_text_encoder(tmp_path, WIDTH)
    (pipeline / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights; expected model\.safetensors"):
        find_text_encoder(pipeline, WIDTH)
    (pipeline / "text_encoder" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        find_text_encoder(pipeline, WIDTH)


def test_text_encoder_of_another_width_is_explained(pipeline: Path) -> None:
    change_config(pipeline, hidden_size=768)
    with pytest.raises(CheckpointError, match=r"768 wide, the UNet takes width=1024.*768 is CLIP ViT-L"):
        find_text_encoder(pipeline, 1024)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_position_embeddings": 64}, "64 tokens, expected 77"),
        ({"hidden_act": None}, "no hidden_act; expected a CLIPTextModel"),
        ({"num_hidden_layers": 3}, "missing_keys"),
        ({"num_hidden_layers": 1}, "unexpected_keys"),
        ({"intermediate_size": 8}, "does not fit config.json"),
        ({"vocab_size": 150}, "knows 150 tokens, the tokenizer beside it gives number"),
    ],
)
def test_text_encoder_that_does_not_fit_is_refused(pipeline: Path, change: dict, message: str) -> None:
    change_config(pipeline, **change)
    with pytest.raises(CheckpointError, match=message):
        embed(pipeline, ["front"])


@pytest.mark.parametrize("damage", [b"", b"123", b"\x08" + b"\0" * 20])
def test_damaged_weights_are_refused(pipeline: Path, damage: bytes) -> None:
    (pipeline / "text_encoder" / "model.safetensors").write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not readable as weights"):
        embed(pipeline, ["front"])


def test_weights_that_give_nan_are_refused(pipeline: Path) -> None:
    path = pipeline / "text_encoder" / "model.safetensors"
    state = load_file(path)
    key = next(key for key in state if key.endswith("final_layer_norm.bias"))
    save_file({**state, key: state[key] * torch.nan}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        embed(pipeline, ["front"])


def test_weights_that_are_a_program_are_not_run(pipeline: Path, tmp_path: Path) -> None:
    class Program:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    (pipeline / "text_encoder" / "model.safetensors").unlink()
    (pipeline / "text_encoder" / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Program()}, protocol=2))
    with pytest.raises(CheckpointError, match="not readable as weights"):
        embed(pipeline, ["front"])
    assert not (tmp_path / "ran").exists()


def test_nothing_is_fetched(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"connects to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert embed(pipeline, ["front"]).shape == (1, 77, WIDTH)


def test_similarity_is_the_mean_cosine_of_tokens() -> None:
    a = torch.nn.functional.one_hot(torch.arange(77) % 4, 4).float()
    b = a.roll(1, dims=-1)
    mixed = torch.cat([3 * a[:7], b[7:]])
    similarity = view_similarity(torch.stack([a, b, mixed]))
    expected = torch.tensor([[1, 0, 7 / 77], [0, 1, 70 / 77], [7 / 77, 70 / 77, 1]])
    torch.testing.assert_close(similarity, expected)


@pytest.mark.parity
def test_published_views_are_nearly_the_same_text(shared: Path) -> None:
    """The figures of docs/mvdiffusion.md."""
    embeds = torch.load(shared / "data" / "facelift_sample" / "clr_embeds.pt", weights_only=True)
    similarity = view_similarity(embeds)
    front, front_right, right, back, left, front_left = range(6)
    assert similarity[front_right, front_left].item() == pytest.approx(0.995, abs=5e-4)
    assert similarity[right, left].item() == pytest.approx(0.992, abs=5e-4)
    assert similarity[front, back].item() == pytest.approx(0.980, abs=5e-4)
    assert similarity.min().item() == pytest.approx(0.882, abs=5e-4)


def change_config(pipeline: Path, **change: object) -> None:
    path = pipeline / "text_encoder" / "config.json"
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
