"""Prompts: one text per view, encoded once and stored; no tokenizer or text encoder when the model runs."""

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from .files import PROMPTS_FILE, TOKENS, load_prompt_embeds, read_prompt_azimuths, save_prompt_embeds

__all__ = ["PROMPTS_FILE", "TOKENS", "load_prompt_embeds", "read_prompt_azimuths", "save_prompt_embeds"]

__getattr__ = lazy_exports(__name__, dict.fromkeys(__all__, "files"))
