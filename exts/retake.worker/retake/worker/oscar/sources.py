# SPDX-License-Identifier: Apache-2.0
"""The three things a model is made of, found on disk, identified by shape and renamed; nothing is read before it is needed.

Each function returns a `ComponentWeights`: settings plus target name -> tensor entry, already strict (all there, nothing unknown,
every shape right).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from retake.core.errors import InputError

from .dcp import TensorEntry, read_dcp, read_pth
from .keymap import key_map

_SAFE_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_TEXT_LEFT_OUT = ("lm_head.", "model.lm_head.", "visual.", "model.visual.", "vision_tower.", "model.vision_tower.")


@dataclass(frozen=True)
class ComponentWeights:
    """One component: its settings, its tensors by target name, the source names left out on purpose."""

    config: Any
    tensors: dict[str, TensorEntry]
    left_out: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(int(torch.Size(entry.shape).numel()) for entry in self.tensors.values())

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.tensors.values())


def read_safetensors(path: Path) -> dict[str, TensorEntry]:
    """Tensors of one safetensors file, read on demand. Raises InputError."""
    try:
        with safe_open(path, "pt") as stream:
            names = list(stream.keys())
            slices = {name: stream.get_slice(name) for name in names}
            shapes = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no readable safetensors file: {error}") from None

    def loader(name: str) -> torch.Tensor:
        with safe_open(path, "pt") as stream:
            return stream.get_tensor(name)

    entries = {}
    for name, (shape, dtype) in shapes.items():
        if dtype not in _SAFE_DTYPES:
            raise InputError(f"{path}: {name} has dtype {dtype}, which is not supported")
        entries[name] = TensorEntry(shape, _SAFE_DTYPES[dtype], lambda name=name: loader(name))
    return entries


def read_weights(path: Path) -> dict[str, TensorEntry]:
    """A `.safetensors`, `.pth`, `.pt` or `.bin` file, told apart by content. Raises InputError."""
    if not path.is_file():
        raise InputError(f"no file at {path}; expected weights as .safetensors or .pth")
    with path.open("rb") as stream:
        head = stream.read(9)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return read_pth(path)
    return read_safetensors(path)


def transformer_part(folder: Path) -> ComponentWeights:
    """The diffusion transformer of a released checkpoint folder. Raises InputError."""
    entries = read_dcp(folder)
    mapping = key_map({name: entry.shape for name, entry in entries.items()})
    tensors = {target: entries[source] for target, source in mapping.source_of.items()}
    return ComponentWeights(mapping.config, _floats(tensors, folder), mapping.dropped)


def vae_part(path: Path) -> ComponentWeights:
    """The Wan 2.1 VAE, in its original naming (or diffusers' own). Raises InputError."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    entries = read_weights(path)
    renamed: dict[str, str] = convert_wan_vae_to_diffusers({name: name for name in entries})
    if swallowed := sorted(set(entries) - set(renamed.values())):
        raise InputError(f"{path} names the same weight twice: {swallowed[0]} beside its other name")
    tensors = {target: entries[source] for target, source in renamed.items()}

    def size(name: str, axis: int = 0) -> int:
        entry = tensors.get(name)
        if entry is None or len(entry.shape) <= axis or entry.shape[axis] == 0:
            raise InputError(f"{path} is not a Wan 2.1 VAE: no usable {name} (it has {len(entries)} tensors)")
        return entry.shape[axis]

    base = size("encoder.conv_in.weight")
    # each level ends in a residual block; the last of its two sits before the level's downsampler
    levels = [size(f"encoder.down_blocks.{index}.conv2.weight") for index in (1, 4, 7, 10)]
    config = {
        "base_dim": base,
        "decoder_base_dim": size("decoder.norm_out.gamma"),
        "z_dim": size("post_quant_conv.weight"),
        "dim_mult": [level // base for level in levels],
    }
    if config["z_dim"] != 16:
        raise InputError(f"{path} has {config['z_dim']} latent channels; OSCAR uses the Wan 2.1 VAE with 16")
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in AutoencoderKLWan(**config).state_dict().items()}
    _strict(expected, tensors, str(path), "the Wan 2.1 VAE")
    return ComponentWeights(config, _floats(tensors, path))


def text_part(folder: Path) -> ComponentWeights:
    """The Qwen2.5-VL language model of a transformers folder; vision tower and lm_head are left out. Raises InputError."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        kind = raw["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no transformers folder: config.json is unusable ({error!r})") from None
    if kind not in ("qwen2_5_vl", "qwen2_5_vl_text"):
        raise InputError(f"{path} is of type {kind!r}; OSCAR's text encoder is Qwen2.5-VL (qwen2_5_vl)")
    try:
        config = (
            Qwen2_5_VLTextConfig.from_dict(raw)
            if kind == "qwen2_5_vl_text"
            else Qwen2_5_VLConfig.from_dict(raw).text_config
        )
        with torch.device("meta"):
            expected = {name: tuple(t.shape) for name, t in Qwen2_5_VLTextModel(config).state_dict().items()}
    except Exception as error:  # transformers raises many kinds for a bad configuration
        raise InputError(f"{path} does not describe a Qwen2.5-VL language model: {error}") from None

    entries = _folder_weights(folder)
    heads = [name for name in entries if name == "embed_tokens.weight" or name.endswith(".embed_tokens.weight")]
    if len(heads) != 1:
        raise InputError(f"{folder}: found {len(heads)} token embeddings (…embed_tokens.weight); expected one")
    prefix = heads[0].removesuffix("embed_tokens.weight")
    tensors, left_out = {}, []
    for name, entry in entries.items():
        if name.startswith(_TEXT_LEFT_OUT) or name.endswith("rotary_emb.inv_freq"):
            left_out.append(name)
        elif (target := name.removeprefix(prefix)) in tensors:
            raise InputError(f"{folder} names the same weight twice: {target} with and without {prefix!r}")
        else:
            tensors[target] = entry
    _strict(expected, tensors, str(folder), "the Qwen2.5-VL language model")
    return ComponentWeights(config, _floats(tensors, folder), tuple(left_out))


def _folder_weights(folder: Path) -> dict[str, TensorEntry]:
    for index_name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        index = folder / index_name
        if index.is_file():
            try:
                weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                names = sorted(set(weight_map.values()))
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
                raise InputError(f"{index} is unusable: {error!r}") from None
            if any(not isinstance(name, str) or Path(name).name != name for name in names):
                raise InputError(f"refused: {index} points outside its folder")
            entries: dict[str, TensorEntry] = {}
            for name in names:
                entries.update(read_weights(folder / name))
            absent = sorted(set(weight_map) - set(entries))
            if absent:
                raise InputError(f"{index} promises {len(absent)} tensors its files do not hold, e.g. {absent[0]}")
            return entries
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise InputError(f"{folder} holds no weights (*.safetensors)")
    entries = {}
    for path in files:
        entries.update(read_weights(path))
    return entries


def _strict(expected: Mapping[str, Any], found: Mapping[str, TensorEntry], where: str, what: str) -> None:
    groups = (
        ("missing", sorted(set(expected) - set(found))),
        ("unexpected", sorted(set(found) - set(expected))),
        (
            "wrong shape",
            [
                f"{name} is {list(found[name].shape)}, expected {list(expected[name])}"
                for name in sorted(set(expected) & set(found))
                if tuple(found[name].shape) != tuple(expected[name])
            ],
        ),
    )
    problems = [
        f"{title}: {', '.join(items[:4])}{f' and {len(items) - 4} more' if len(items) > 4 else ''}"
        for title, items in groups
        if items
    ]
    if problems:
        raise InputError(f"{where} does not match {what}; {'; '.join(problems)}")


def _floats(tensors: dict[str, TensorEntry], where: Path) -> dict[str, TensorEntry]:
    for name, entry in tensors.items():
        if not entry.dtype.is_floating_point:
            raise InputError(f"{where}: {name} holds {entry.dtype}; weights must be floating point")
    return tensors
