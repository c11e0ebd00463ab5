# SPDX-License-Identifier: Apache-2.0
"""The pipeline's prompt stage: text -> projected prompt, from the cache where it is known."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from retake.core.errors import InputError, TakeError
from retake.worker import memory

from . import text as text_stage
from .prompts import ProjectedPrompt, check_embeddings, read_encoder_revision, read_revision
from .request import Prompt, Request
from .streaming import visiting


class PromptStage:
    """Mixed into OscarPipeline: everything between a prompt's text and the network's context."""

    @property
    def model_revision(self: Any) -> str:
        """What cached prompts are keyed by: the converted folder's revision, or else a digest of the projection."""
        if self._revision is None:
            stated = read_revision(self._folder) if self._folder is not None else None
            self._revision = stated or _fingerprint(self.transformer)
        return self._revision

    @property
    def _encoder_revision(self: Any) -> str | None:
        """Which text encoder the folder has; None where there is none or it is not known."""
        return read_encoder_revision(self._folder) if self._folder is not None else None

    @torch.no_grad()
    def project_embeddings(self: Any, raw: Tensor, text: str | None = None) -> ProjectedPrompt:
        """Raw embeddings (1, L, D) -> ProjectedPrompt on the CPU. Raises InputError."""
        return self._project([raw], [text])[0]

    def _project(self: Any, raws: Sequence[Tensor], texts: Sequence[str | None]) -> list[ProjectedPrompt]:
        for raw in raws:
            check_embeddings(raw, "prompt embeddings", self.transformer.config["crossattn_proj_in_channels"])
        with self.stage("project", self.transformer.crossattn_proj):
            projected = [self.transformer.project_text(raw.to(self.run_device)).cpu() for raw in raws]
        return [
            ProjectedPrompt(embeds, self.model_revision, text)
            for embeds, text in zip(projected, texts, strict=True)
        ]  # fmt: skip

    @torch.no_grad()
    def encode_prompt(self: Any, prompt: str) -> ProjectedPrompt:
        """One text -> ProjectedPrompt, from the cache if it is there. Raises InputError, TakeError."""
        return self.encode_prompts([prompt])[prompt]

    @torch.no_grad()
    def encode_prompts(self: Any, prompts: Sequence[str]) -> dict[str, ProjectedPrompt]:
        """Every distinct text -> ProjectedPrompt, in this order; those that are not cached in one visit of the text encoder.

        Raises InputError, TakeError.
        """
        dtype, length = self.transformer.dtype, text_stage.PROMPT_LENGTH
        found: dict[str, ProjectedPrompt] = {}
        fresh: list[str] = []
        for prompt in dict.fromkeys(prompts):
            known = self.prompt_cache.get(self.model_revision, dtype, length, prompt, self._encoder_revision)
            if known is None:
                fresh.append(prompt)
            else:
                self.stats.prompts_from_cache += 1
                found[prompt] = known
        if fresh:
            encoder, tokenizer = self._text_parts(fresh[0])
            ids = [text_stage.tokenize(tokenizer, prompt, length) for prompt in fresh]
            with self.stage("text"):
                raws = self._embed(encoder, ids)
            self.stats.text_encodes += len(fresh)
            for prompt, projected in zip(fresh, self._project(raws, fresh), strict=True):
                self.prompt_cache.put(projected, length, self._encoder_revision)
                found[prompt] = projected
        return found

    def _embed(self: Any, encoder: Any, ids: Sequence[Tensor]) -> list[Tensor]:
        """Run the text encoder where memory allows; in a memory tier it visits the device once for all of them. Raw
        embeddings, on the CPU where there are several: beside the encoder there may be no room for them."""
        done: list[Tensor] = []

        def embed() -> list[Tensor]:
            while len(done) < len(ids):
                raw = text_stage.embed(encoder, ids[len(done)])
                done.append(raw if len(ids) == 1 else raw.cpu())
            return done

        if hasattr(encoder, "_hf_hook"):  # accelerate's offloading moves it by itself
            return embed()
        device = self.text_device or self._place_for(encoder)
        try:
            if self._tier_device is None:  # no tier: it stays where it ran
                encoder.to(device)
                return embed()
            with visiting([encoder], device, pin=False):
                return embed()
        except (RuntimeError, MemoryError) as error:
            if device.type == "cpu" or not memory.is_out_of_memory(error):
                raise
        # somebody took the memory between the look and the use; the CPU is slow and always there
        encoder.to("cpu")
        return embed()

    def _place_for(self: Any, encoder: Any) -> torch.device:
        """The run device where the encoder fits now, beside what is there and the margin; else the CPU."""
        device = self.run_device
        if device.type != "cuda":
            return device
        size = sum(p.numel() * p.element_size() for p in encoder.parameters() if p.device.type != "cuda")
        need = int(size * memory.FRAGMENTATION) + memory.CONTEXT_BYTES
        fits = need <= memory.free_device_bytes(device) - self.margin_bytes
        return device if fits else torch.device("cpu")

    def prepare_prompts(self: Any, request: Request) -> tuple[tuple[ProjectedPrompt, ...], ProjectedPrompt | None]:
        """Every distinct prompt of a run once, the negative first (the reference's order); then the text encoder may go."""
        given: list[Prompt] = [*([] if request.negative is None else [request.negative]), *request.prompts]
        texts = [prompt for prompt in given if isinstance(prompt, str)]
        if self.safety_checker is not None:
            for text in dict.fromkeys(texts):
                if (reason := self.safety_checker.check_prompt(text)) is not None:
                    raise TakeError(f"the safety checker refused the prompt: {reason}")
        try:
            done: dict[Any, ProjectedPrompt] = dict(self.encode_prompts(texts))
        finally:
            self._lazy_encoder = None
        for prompt in given:
            if not isinstance(prompt, str) and id(prompt) not in done:
                done[id(prompt)] = self._project_one(prompt)
        found = [done[prompt if isinstance(prompt, str) else id(prompt)] for prompt in given]
        return (tuple(found), None) if request.negative is None else (tuple(found[1:]), found[0])

    def _project_one(self: Any, prompt: Tensor | ProjectedPrompt) -> ProjectedPrompt:
        if isinstance(prompt, Tensor):
            return self.project_embeddings(prompt)
        wanted = self.transformer.config["text_embed_dim"]
        check_embeddings(prompt.embeds, "projected prompt", wanted)
        if prompt.revision != self.model_revision:
            raise InputError(
                f"the projected prompt belongs to model revision {prompt.revision}, this is {self.model_revision}; "
                "project it again"
            )
        return prompt

    _lazy_encoder: Any = None

    def _text_parts(self: Any, prompt: str) -> tuple[Any, Any]:
        """Text encoder and tokenizer; a lazy encoder is read from the model folder here. Raises InputError."""
        shown = prompt if len(prompt) <= 40 else prompt[:40] + "…"
        if self.tokenizer is None:
            raise InputError(
                f"the prompt {shown!r} is not cached and this model folder has no tokenizer: give prompt_embeds (and "
                "negative_prompt_embeds, or guidance_scale=0), or convert with a text encoder and its tokenizer"
            )
        encoder = self.text_encoder if self.text_encoder is not None else self._lazy_encoder
        if encoder is None:
            folder = self._folder / "text_encoder" if self._folder is not None else None
            if folder is None or not folder.is_dir():
                raise InputError(
                    f"the prompt {shown!r} is not cached and this model folder has no text encoder: give prompt_embeds "
                    "(and negative_prompt_embeds, or guidance_scale=0), or convert with --text-encoder"
                )
            from transformers import Qwen2_5_VLTextModel

            encoder = Qwen2_5_VLTextModel.from_pretrained(
                folder, dtype=self.transformer.dtype, use_safetensors=True
            ).eval()
            self._lazy_encoder = encoder
        return encoder, self.tokenizer


def _fingerprint(transformer: Any) -> str:
    digest = hashlib.sha256(repr(sorted(transformer.config.items(), key=str)).encode())
    for tensor in (transformer.crossattn_proj[0].weight, transformer.crossattn_proj[0].bias):
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
