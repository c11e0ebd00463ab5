# SPDX-License-Identifier: Apache-2.0
"""Conversion: the real checkpoint format in, an ordinary diffusers folder out."""

from __future__ import annotations

import itertools
import json
import pickle
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from convert_support import VAE, command, copy_checkpoint, full_size_shapes, nothing_left, run_golden
from hypothesis import given
from hypothesis import strategies as st
from oscar_golden import GOLDEN, difference, golden_call, tensors, text_folder, text_model
from safetensors.torch import load_file, save_file

from retake.core.errors import InputError
from retake.worker.oscar import OscarPipeline, cli, keymap, sources
from retake.worker.oscar import convert as convert_module
from retake.worker.oscar.convert import convert
from retake.worker.oscar.costs import meta_transformer

# -- the key map ------------------------------------------------------------------------------------------------------


def test_full_size_key_map_leaves_nothing_over():
    shapes = full_size_shapes()
    assert len(shapes) == 577
    mapping = keymap.key_map(shapes)
    assert (len(mapping.source_of), len(mapping.dropped)) == (570, 7)
    assert set(mapping.source_of.values()) | set(mapping.dropped) == set(shapes)
    model = meta_transformer(mapping.config, torch.float32)
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == {
        target: shapes[source] for target, source in mapping.source_of.items()
    }
    assert sum(p.numel() for p in model.parameters()) == 2_059_305_984
    expected = {"num_attention_heads": 16, "attention_head_dim": 128, "num_layers": 28, "mlp_ratio": 4.0,
                "adaln_lora_dim": 256, "crossattn_proj_in_channels": 100352, "text_embed_dim": 1024}  # fmt: skip
    assert expected.items() <= mapping.config.items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("net.blocks.3.mlp.layer1.weight"), "missing: transformer_blocks.3.ff.net.0.proj.weight"),
        (lambda s: s.update({"net.extra.weight": (2,)}), "unexpected: net.extra.weight"),
        (lambda s: s.update({"net.blocks.28.mlp.layer1.weight": (8192, 2048)}), "missing: transformer_blocks.28"),
        (
            lambda s: s.update({"net.blocks.2.mlp.layer1.weight": (8192, 2047)}),
            r"wrong shape: net.blocks.2.mlp.layer1.weight is",
        ),
        (lambda s: s.pop("net.additional_x_embedder.proj.1.weight"), "not an OSCAR checkpoint: it has no"),
        (lambda s: s.pop("net.x_embedder.proj.1.weight"), "not an OSCAR checkpoint"),
        (lambda s: s.update({"net.blocks.0.self_attn.q_norm.weight": (100,)}), "no multiple of 100"),
        (lambda s: s.update({"other.weight": (1,)}), "unexpected: other.weight"),
    ],
)
def test_key_map_names_what_does_not_match(change, message):
    shapes = full_size_shapes()
    change(shapes)
    with pytest.raises(InputError, match=message):
        keymap.key_map(shapes)


def test_key_map_drops_counters_buffers_extra_state_and_ema():
    shapes = full_size_shapes()
    extra = {"net.blocks.0.self_attn.q_norm._extra_state": (0,), "net_ema.x_embedder.proj.1.weight": (1,)}
    mapping = keymap.key_map({**shapes, **extra})
    assert set(mapping.dropped) >= set(extra)
    assert mapping.source_of == keymap.key_map(shapes).source_of


@pytest.mark.parametrize(("width", "head_dim", "blocks"), [(96, 24, 1), (128, 32, 3), (192, 48, 2)])
def test_architecture_is_inferred_for_any_size(width, head_dim, blocks):
    """Shapes written back under the original names give the same settings: heads from the q-norm, depth, ranks, widths."""
    config = {
        "in_channels": 16, "control_channels": 16, "out_channels": 16, "num_attention_heads": width // head_dim,
        "attention_head_dim": head_dim, "num_layers": blocks, "mlp_ratio": 2.0, "text_embed_dim": 40,
        "crossattn_proj_in_channels": 56, "adaln_lora_dim": 8,
    }  # fmt: skip
    forward = keymap.key_map(tiny_names())
    backward = {
        target.replace("transformer_blocks.1", "transformer_blocks.0"): source
        for target, source in forward.source_of.items()
    }
    shapes = {}
    for target, shape in keymap.transformer_shapes(config).items():
        number = target.split(".")[1] if target.startswith("transformer_blocks") else None
        source = backward[target if number is None else target.replace(f"blocks.{number}.", "blocks.0.", 1)]
        shapes[source if number is None else source.replace(source.split(".")[2], number, 1)] = shape
    assert keymap.key_map(shapes).config == config


def tiny_names():
    return {name: entry.shape for name, entry in sources.read_dcp(GOLDEN / "dcp").items()}


# -- whole conversions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "number", "size", "odd"), [
    ("<|endoftext|>", 151643, 151665, False), ("<|endoftext|>", 7, 300, False), ("<|endoftext|>", 7, 151665, True),
    ("<pad>", 151643, 151665, True), ("<|im_end|>", 151645, 151665, True), (None, None, 300, True),
])  # fmt: skip
def test_padding_other_than_the_references_is_noted(token, number, size, odd):
    """OSCAR's prompts were tokenised by Qwen2.5-VL-7B-Instruct's tokenizer, whatever encoder read them."""
    from retake.worker.oscar.convert import _odd_padding

    class Tokenizer:
        pad_token, pad_token_id = token, number

        def __len__(self) -> int:
            return size

    note = _odd_padding(Tokenizer())
    assert bool(note) is odd
    if odd:
        assert f"pads with {token!r} (id {number})" in note
        assert "151643" in note


def test_the_command_says_when_padding_is_another(tmp_path, capsys):
    text = text_folder(tmp_path / "text", tokenizer=True)
    settings = text / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"pad_token": "<|endoftext|>"', '"pad_token": "<|im_end|>"'))
    assert cli.main(command(GOLDEN / "dcp", tmp_path / "out", "--text-encoder", text)) == 0
    assert "note: the tokenizer pads with '<|im_end|>'" in capsys.readouterr().err


def test_convert_by_the_command_line_gives_the_golden_run(tmp_path, capsys):
    text = text_folder(tmp_path / "text", tokenizer=True)
    assert cli.main(command(GOLDEN / "dcp", tmp_path / "out", "--text-encoder", text)) == 0
    printed = capsys.readouterr()
    assert "carries the tag apache-2.0" in printed.out
    assert "NVIDIA's Open Model License" in printed.out
    assert "non-commercial use only" in printed.out
    assert "embeddings 192 wide and the transformer takes 96" in printed.err
    parts = {p.name for p in (tmp_path / "out").iterdir()}
    assert parts == {
        "transformer",
        "vae",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "model_index.json",
        "conversion.json",
    }
    assert nothing_left(tmp_path, "out", "text")
    assert difference(run_golden(tmp_path / "out"), tensors("sampling_run")["latents_final"]) <= 1e-4
    pipe = OscarPipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.float32)
    from retake.worker.oscar.text import embed

    golden = tensors("text_encoder")
    assert difference(embed(pipe.text_encoder, golden["input_ids"]), golden["embeddings"]) <= 1e-5
    assert not any("lm_head" in name or "visual" in name for name in pipe.text_encoder.state_dict())


@pytest.mark.parametrize("prefix", ["model.", "model.language_model.", "language_model.model.", "language_model.", ""])
def test_text_encoder_in_every_naming(tmp_path, prefix):
    part = sources.text_part(text_folder(tmp_path, prefix=prefix))
    assert set(part.left_out) == {"lm_head.weight", "visual.patch_embed.proj.weight"}
    assert "layers.2.self_attn.k_proj.bias" in part.tensors


def test_text_encoder_in_shards(tmp_path):
    folder = text_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    files = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, keys in files.items():
        save_file({key: weights[key] for key in keys}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {key: file for file, keys in files.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert len(sources.text_part(folder).tensors) == len(names) - 2
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="no file at"):
        sources.text_part(folder)


def test_vae_as_pth_gives_the_same_weights(tmp_path):
    torch.save(load_file(VAE), tmp_path / "new.pth")
    torch.save(load_file(VAE), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": load_file(VAE)}, tmp_path / "nested.pth")
    original = sources.vae_part(VAE)
    for name in ("new.pth", "old.pth", "nested.pth"):
        part = sources.vae_part(tmp_path / name)
        assert part.config == original.config
        assert part.tensors.keys() == original.tensors.keys()
        assert all(torch.equal(part.tensors[k].load(), original.tensors[k].load()) for k in part.tensors)
    convert(GOLDEN / "dcp", tmp_path / "new.pth", None, tmp_path / "out")
    assert difference(run_golden(tmp_path / "out"), tensors("sampling_run")["latents_final"]) <= 1e-4


def test_checkpoint_in_several_shards(tmp_path):
    """Tensors cut into pieces over files, as a multi-GPU run writes them."""
    from torch.distributed.checkpoint.metadata import Metadata

    folder = copy_checkpoint(tmp_path)
    with (folder / "model" / ".metadata").open("rb") as stream:
        metadata: Metadata = pickle.load(stream)
    entries = sources.read_dcp(folder)
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

    name = "net.blocks.0.mlp.layer1.weight"
    whole = entries[name].load()
    meta = metadata.state_dict_metadata[name]
    meta.chunks = []
    metadata.storage_data = {k: v for k, v in metadata.storage_data.items() if k.fqn != name}
    offset = 0
    shard = folder / "model" / "__1_0.distcp"
    with shard.open("wb") as stream:
        for row in range(0, whole.shape[0], 128):
            piece = whole[row : row + 128].clone()
            torch.save(piece, stream)
            end = stream.tell()
            meta.chunks.append(ChunkStorageMetadata(torch.Size([row, 0]), piece.shape))
            index = MetadataIndex(name, torch.Size([row, 0]), 0)
            metadata.storage_data[index] = _StorageInfo(shard.name, offset, end - offset)
            offset = end
    with (folder / "model" / ".metadata").open("wb") as stream:
        pickle.dump(metadata, stream)
    assert torch.equal(sources.read_dcp(folder)[name].load(), whole)

    meta.chunks[1] = meta.chunks[0]  # the sizes still add up, but one place is written twice and one never
    with (folder / "model" / ".metadata").open("wb") as stream:
        pickle.dump(metadata, stream)
    with pytest.raises(InputError, match="the pieces do not fill its shape"):
        sources.read_dcp(folder)


def test_dtype_choice_and_sharded_output(tmp_path, monkeypatch):
    monkeypatch.setattr(convert_module, "_SHARD_BYTES", 300_000)
    result = convert(GOLDEN / "dcp", VAE, None, tmp_path / "out", dtype="bf16")
    files = sorted(p.name for p in (tmp_path / "out" / "transformer").glob("*.safetensors"))
    assert len(files) > 2
    assert (tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    pipe = OscarPipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.bfloat16)
    assert pipe.transformer.proj_out.weight.dtype == torch.bfloat16
    entries = sources.transformer_part(GOLDEN / "dcp").tensors
    assert torch.equal(pipe.transformer.proj_out.weight, entries["proj_out.weight"].load().to(torch.bfloat16))
    assert result.nbytes < 6_000_000


def test_conversion_record_states_revision_and_hashes(tmp_path):
    from retake.core.files import sha256_file

    one = convert(GOLDEN / "dcp", VAE, None, tmp_path / "a")
    two = convert(GOLDEN / "dcp", VAE, None, tmp_path / "b")
    other = convert(GOLDEN / "dcp_quirks", VAE, None, tmp_path / "c")
    assert one.revision == two.revision != other.revision
    record = json.loads((tmp_path / "a" / "conversion.json").read_text())
    for name, digest in record["sha256"].items():
        assert sha256_file(tmp_path / "a" / name) == digest


def test_text_model_folder_encodes_prompts():
    from oscar_golden import text_pipeline

    prompt = text_pipeline().encode_prompt("hello")
    assert prompt.embeds.shape == (1, 512, 64)
    assert text_model().joinpath("tokenizer", "tokenizer.json").is_file()


def test_golden_pixels_are_what_they_should_be():
    """The tests above mean something only if first frame and skeleton differ and move."""
    call = golden_call()
    assert len({frame.tobytes() for frame in call["skeleton"]}) > 3
    assert not np.array_equal(call["first_frame"], call["skeleton"][0])


@given(st.lists(st.integers(0, 60), max_size=12), st.sampled_from([None, torch.float32, torch.float64]))
def test_shards_hold_every_tensor_once_and_as_many_as_fit(counts, dtype):
    """In order, none empty, none larger than allowed unless one tensor is, and none that the next tensor still fits into."""
    part: Any = SimpleNamespace(
        tensors={f"w{i}": SimpleNamespace(shape=(n,), dtype=torch.float32) for i, n in enumerate(counts)}
    )
    nbytes = {f"w{i}": n * (8 if dtype is torch.float64 else 4) for i, n in enumerate(counts)}
    with mock.patch.object(convert_module, "_SHARD_BYTES", 200):
        shards = convert_module._shards(part, dtype)
    assert [key for shard in shards for key in shard] == list(nbytes)
    assert all(shards) or not counts
    for shard, after in itertools.pairwise(shards):
        held = sum(nbytes[key] for key in shard)
        assert held <= 200 or len(shard) == 1
        assert held + nbytes[after[0]] > 200
