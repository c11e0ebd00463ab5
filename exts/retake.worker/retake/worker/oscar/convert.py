# SPDX-License-Identifier: Apache-2.0
"""Released checkpoint + Wan VAE + text encoder -> one diffusers folder of safetensors, all or nothing.

Layout written: `model_index.json`, `transformer/`, `vae/`, `scheduler/`, `text_encoder/` and `tokenizer/` where given,
and `conversion.json` (format version, revision, dtypes, SHA-256 of every weight file). The folder appears under its
name only when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from retake.core.errors import InputError, TakeError
from retake.core.files import atomic_directory, is_abandoned, sha256_file, sha256_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent

from . import terms
from .schedule import make_scheduler
from .sources import ComponentWeights, text_part, transformer_part, vae_part

CONVERSION_VERSION = 1
DTYPES: dict[str, torch.dtype | None] = {"keep": None, "bf16": torch.bfloat16, "fp32": torch.float32}
_SHARD_BYTES = 4 << 30  # what stays in memory at most, and below diffusers' own 10 GB shards
_SPARE_BYTES = 16 << 20  # configurations, tokenizer, file system overhead
REFERENCE_PAD = ("<|endoftext|>", 151643)
"""Pad token and its number in the reference's tokenizer."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")


@dataclass(frozen=True)
class Conversion:
    """What was written: the folder, its revision, parameters by part, bytes on disk, and remarks for the user."""

    folder: Path
    revision: str
    parameters: dict[str, int]
    nbytes: int
    notes: tuple[str, ...]


def convert(
    checkpoint: Path,
    vae: Path,
    text_encoder: Path | None,
    out: Path,
    *,
    accept_terms: bool = False,
    dtype: str = "keep",
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Conversion:
    """Convert; `text_encoder` None makes a folder that runs on given embeddings.

    Raises InputError for anything wrong with the input (before a byte is written), TakeError if writing fails.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; valid: {', '.join(DTYPES)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; choose another --out, or remove it yourself")
    parts = {"transformer": transformer_part(checkpoint), "vae": vae_part(vae)}
    if text_encoder is not None:
        parts["text_encoder"] = text_part(text_encoder)
    large = [f"{name} ({part.parameters / 1e9:.2f} B)" for name, part in parts.items() if _is_large(part)]
    if large and not accept_terms:
        raise InputError(f"{', '.join(large)} is a full-size model: read the terms above, then add --accept-terms")

    target_dtype = DTYPES[dtype]
    needed = sum(_bytes_written(part, target_dtype) for part in parts.values()) + _SPARE_BYTES
    parent = _existing_parent(out)
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise InputError(f"out of disk: {out} needs {needed / 1e9:.3f} GB, {parent} has {free / 1e9:.3f} GB free")

    _sweep(out)
    with _writing(out) as folder:
        done = _Counter(progress, sum(len(part.tensors) for part in parts.values()), check_cancel)
        hashes: dict[str, str] = {}
        for name, part in parts.items():
            hashes.update(_write_part(folder, name, part, target_dtype, done))
        tokenizer, odd = _write_tokenizer(text_encoder, folder) if text_encoder is not None else (None, "")
        make_scheduler().save_pretrained(folder / "scheduler")
        revision = sha256_json({k: v for k, v in hashes.items() if k.startswith("transformer/")})[:16]
        write_json(folder / "model_index.json", _index("text_encoder" in parts, tokenizer))
        record = {
            "version": CONVERSION_VERSION,
            "revision": revision,
            "dtype": dtype,
            "parameters": {name: part.parameters for name, part in parts.items()},
            "left_out": {name: len(part.left_out) for name, part in parts.items()},
            "sha256": hashes,
            "terms_accepted": accept_terms,
        }
        write_json(folder / "conversion.json", record)
        written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    notes = (*_notes(parts, text_encoder, tokenizer), *([odd] if odd else []))
    return Conversion(out, revision, record["parameters"], written, notes)


def _is_large(part: ComponentWeights) -> bool:
    return terms.needs_acceptance(part.parameters)


def _bytes_written(part: ComponentWeights, dtype: torch.dtype | None) -> int:
    return part.nbytes if dtype is None else part.parameters * dtype.itemsize


def _notes(parts: dict[str, ComponentWeights], text_encoder: Path | None, tokenizer: str | None) -> tuple[str, ...]:
    notes = []
    if "text_encoder" in parts:
        config = parts["text_encoder"].config
        made, taken = (
            config.num_hidden_layers * config.hidden_size,
            parts["transformer"].config["crossattn_proj_in_channels"],
        )
        if made != taken:
            notes.append(
                f"the text encoder makes embeddings {made} wide and the transformer takes {taken}: prompts cannot be "
                "encoded with this pair, given embeddings can be used"
            )
    if text_encoder is not None and tokenizer is None:
        notes.append(
            f"{text_encoder} has no tokenizer files: prompts cannot be tokenised, given embeddings can be used"
        )
    return tuple(notes)


class _Counter:
    def __init__(self, progress: Progress, total: int, check_cancel: CheckCancel) -> None:
        self.progress, self.total, self.check_cancel, self.done = progress, total, check_cancel, 0

    def __call__(self, note: str) -> None:
        self.check_cancel()
        self.done += 1
        self.progress(self.done, self.total, note)


def _write_part(
    folder: Path, name: str, part: ComponentWeights, dtype: torch.dtype | None, done: _Counter
) -> dict[str, str]:  # fmt: skip
    """Write one component's settings and weights; SHA-256 by file path inside the folder."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    from .transformer import OscarTransformer3DModel

    target = folder / name
    target.mkdir()
    stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
    if name == "text_encoder":
        part.config.architectures = ["Qwen2_5_VLTextModel"]
        part.config.save_pretrained(target)
    else:
        with torch.device("meta"):
            model: Any = (OscarTransformer3DModel if name == "transformer" else AutoencoderKLWan)(**part.config)
        model.save_config(target)

    shards = _shards(part, dtype)
    weight_map: dict[str, str] = {}
    hashes: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for key in names:
            tensor = part.tensors[key].load()
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{name}: {key} holds NaN or infinite values; the source is damaged")
            tensors[key] = (tensor if dtype is None else tensor.to(dtype)).contiguous().clone()
            weight_map[key] = file
            done(f"{name} {key}")
        save_file(tensors, target / file, metadata={"format": "pt"})
        with (target / file).open("rb") as stream:
            os.fsync(stream.fileno())
        hashes[f"{name}/{file}"] = sha256_file(target / file)
    if len(shards) > 1:
        total = _bytes_written(part, dtype)
        write_json(
            target / f"{stem}.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
        )
    return hashes


def _shards(part: ComponentWeights, dtype: torch.dtype | None) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for key, entry in part.tensors.items():
        nbytes = int(torch.Size(entry.shape).numel()) * (dtype or entry.dtype).itemsize
        if shards[-1] and size + nbytes > _SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size += nbytes
    return shards


def _write_tokenizer(source: Path, folder: Path) -> tuple[str | None, str]:
    """Copy the tokenizer through transformers; its class name (None if the source has none), and what is odd about it."""
    if not any((source / name).is_file() for name in _TOKENIZER_FILES):
        return None, ""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        tokenizer.save_pretrained(folder / "tokenizer")
    except OSError:
        raise
    except Exception as error:  # transformers raises many kinds for a bad tokenizer
        raise InputError(f"{source} has tokenizer files that cannot be read: {error}") from None
    return type(tokenizer).__name__, _odd_padding(tokenizer)


def _odd_padding(tokenizer: Any) -> str:
    """How its padding differs from the reference's tokenizer (Qwen2.5-VL-7B-Instruct); empty where it does not.

    512 tokens, most of them padding, reach the network unmasked. The reference's number is asked of full vocabularies only.
    """
    token, number = tokenizer.pad_token, tokenizer.pad_token_id
    wanted, wanted_number = REFERENCE_PAD
    if token == wanted and (len(tokenizer) <= wanted_number or number == wanted_number):
        return ""
    return (
        f"the tokenizer pads with {token!r} (id {number}), OSCAR was trained with {wanted!r} (id {wanted_number}): every prompt "
        "is padded, so takes will differ; use the tokenizer of Qwen2.5-VL-7B-Instruct or of Cosmos-Reason1-7B"
    )


def _index(text: bool, tokenizer: str | None) -> dict[str, Any]:
    absent = [None, None]
    return {
        "_class_name": "OscarPipeline",
        "_diffusers_version": diffusers.__version__,
        "transformer": ["retake.worker.oscar.transformer", "OscarTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "Qwen2_5_VLTextModel"] if text else absent,
        "tokenizer": ["transformers", tokenizer] if tokenizer else absent,
        "safety_checker": absent,
    }


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[Path]:
    """The temporary folder that becomes `out`; a full disk becomes one clear TakeError."""
    try:
        with atomic_directory(out) as folder:
            yield folder
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(
            f"os error {code})" in str(error) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        )
        reason = "out of disk" if full else "cannot write"
        raise TakeError(f"{reason} while converting to {out}: {error}. Nothing was left behind") from None


def _existing_parent(path: Path) -> Path:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


def _sweep(out: Path) -> None:
    """Remove what a killed conversion to the same place left: temporary folders whose process is gone."""
    for stale in out.absolute().parent.glob(f".{out.name}.*.tmp"):
        if is_abandoned(stale.name):
            shutil.rmtree(stale, ignore_errors=True)
