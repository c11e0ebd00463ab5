# SPDX-License-Identifier: Apache-2.0
"""Projected prompt embeddings as a type of their own, and their cache on disk.

Raw embeddings are 98 MiB a prompt at full size, projected ones 1 MiB; and with the projection done, a known prompt
needs neither the text encoder nor the projection's weights.

On disk: one safetensors file per prompt, `<sha256 of version, revision, dtype, length, text>.safetensors`, with the
tensor `embeds` (1, L, D) and string metadata `version`, `revision`, `text`, and `encoder` where known. Other versions
are not read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from retake.core.errors import InputError
from retake.core.files import atomic_path, sha256_json

CACHE_VERSION = "1"


@dataclass(frozen=True)
class ProjectedPrompt:
    """A prompt after the cross-attention projection: `embeds` (1, L, D); which model projected it; its text if known."""

    embeds: Tensor
    revision: str
    text: str | None = None

    def __post_init__(self) -> None:
        check_embeddings(self.embeds, "projected prompt")


def check_embeddings(embeds: Tensor, what: str, width: int | None = None) -> None:
    """Refuse embeddings that are not finite (1, L, width) floats. Raises InputError."""
    shape = tuple(embeds.shape)
    wanted = f"(1, L, {width if width is not None else 'D'})"
    if not embeds.is_floating_point():
        raise InputError(f"{what} holds {embeds.dtype}; give floating-point embeddings {wanted}")
    if len(shape) != 3 or shape[0] != 1 or shape[1] == 0 or (width is not None and shape[2] != width):
        raise InputError(f"{what} has shape {shape}; expected {wanted}")
    if not bool(torch.isfinite(embeds).all()):
        bad = int((~torch.isfinite(embeds)).sum())
        raise InputError(f"{what} holds {bad} values that are NaN or infinite; encode the prompt again")


class PromptCache:
    """Projected prompts by model revision, dtype and text; in `folder`, or in memory alone if it is None."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._memory: dict[str, ProjectedPrompt] = {}

    @staticmethod
    def key(revision: str, dtype: torch.dtype, length: int, text: str) -> str:
        return sha256_json([CACHE_VERSION, revision, str(dtype), length, text])

    def get(
        self, revision: str, dtype: torch.dtype, length: int, text: str, encoder: str | None = None
    ) -> ProjectedPrompt | None:
        """The stored prompt (on the CPU), or None. A damaged or foreign file counts as absent and is replaced later.

        `encoder`: the text encoder at hand; another one's prompt is foreign. None (no encoder here) takes any.
        """
        key = self.key(revision, dtype, length, text)
        if key in self._memory or self.folder is None:
            return self._memory.get(key)
        path = self.folder / f"{key}.safetensors"
        try:
            with safe_open(path, "pt") as stream:
                notes = stream.metadata() or {}
                embeds = stream.get_tensor("embeds")
        except (OSError, SafetensorError):
            return None
        if (notes.get("version"), notes.get("revision"), notes.get("text")) != (CACHE_VERSION, revision, text):
            return None
        if embeds.dtype != dtype or (encoder and notes.get("encoder", encoder) != encoder):
            return None
        self._memory[key] = ProjectedPrompt(embeds, revision, text)
        return self._memory[key]

    def put(self, prompt: ProjectedPrompt, length: int, encoder: str | None = None) -> None:
        """Store a prompt whose text is known; `encoder` says which text encoder made it."""
        if prompt.text is None:
            raise InputError("only prompts with a text can be cached")
        embeds = prompt.embeds.detach().cpu().contiguous()
        key = self.key(prompt.revision, embeds.dtype, length, prompt.text)
        self._memory[key] = ProjectedPrompt(embeds, prompt.revision, prompt.text)
        if self.folder is not None:
            notes = {"version": CACHE_VERSION, "revision": prompt.revision, "text": prompt.text}
            notes |= {"encoder": encoder} if encoder else {}
            with atomic_path(self.folder / f"{key}.safetensors") as temporary:
                save_file({"embeds": embeds}, temporary, metadata=notes)


def read_revision(folder: Path) -> str | None:
    """The model revision a converted folder states in `conversion.json`, or None."""
    value = _record(folder).get("revision")
    return value if isinstance(value, str) else None


def read_encoder_revision(folder: Path) -> str | None:
    """A digest of the text encoder's weights as `conversion.json` states them, or None."""
    hashes = _record(folder).get("sha256")
    if not isinstance(hashes, dict):
        return None
    weights = {name: value for name, value in hashes.items() if name.startswith("text_encoder/")}
    return sha256_json(weights)[:16] if weights else None


def _record(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / "conversion.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
