# SPDX-License-Identifier: Apache-2.0
"""Conversion: the real checkpoint format in, an ordinary diffusers folder out; anything wrong is one clear error."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from oscar_golden import GOLDEN, difference, golden_call, tensors, text_folder, text_model
from safetensors.torch import load_file, save_file

from retake.core.errors import Cancelled, InputError, TakeError
from retake.worker.oscar import OscarPipeline, cli, keymap, sources
from retake.worker.oscar import convert as convert_module
from retake.worker.oscar.convert import convert
from retake.worker.oscar.costs import meta_transformer

VAE = GOLDEN / "worldsim_tiny_wanvae.safetensors"
FULL = os.environ.get("RETAKE_FULL") == "1"


def command(checkpoint, out, *extra, vae=VAE):
    return ["convert", "--checkpoint", str(checkpoint), "--vae", str(vae), "--out", str(out), *map(str, extra)]


def run_golden(folder):
    pipe = OscarPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe(**golden_call(output_type="latent")).frames


def copy_checkpoint(tmp_path):
    return shutil.copytree(GOLDEN / "dcp", tmp_path / "dcp")


def nothing_left(tmp_path, *allowed):
    return sorted(p.name for p in tmp_path.iterdir() if p.name not in allowed) == []


def full_size_shapes():
    return {
        name: tuple(shape) for name, shape in json.loads((GOLDEN / "full_model_keys_shapes.json").read_text()).items()
    }


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


# -- what is refused --------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def evil_metadata(folder, marker):
    (folder / "model" / ".metadata").write_bytes(pickle.dumps(Evil(marker)))


def truncated_shard(folder, _):
    shard = folder / "model" / "__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:100_000])


def flipped_shard(folder, _):
    shard = folder / "model" / "__0_0.distcp"
    data = bytearray(shard.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    shard.write_bytes(data)


def escaping_metadata(folder, _):
    path = folder / "model" / ".metadata"
    path.write_bytes(path.read_bytes().replace(b"\x0c__0_0.distcp", b"\x0c/../x.distcp"))


CHECKPOINTS = {
    "missing": (lambda folder, _: shutil.rmtree(folder), "no checkpoint folder"),
    "no metadata": (lambda folder, _: (folder / "model" / ".metadata").unlink(), "has no .metadata"),
    "no shard": (lambda folder, _: (folder / "model" / "__0_0.distcp").unlink(), "__0_0.distcp is missing"),
    "truncated shard": (truncated_shard, "is truncated"),
    "damaged shard": (flipped_shard, "damaged"),
    "truncated metadata": (
        lambda folder, _: (folder / "model" / ".metadata").write_bytes(
            (folder / "model" / ".metadata").read_bytes()[:999]
        ),
        "damaged",
    ),
    "empty metadata": (lambda folder, _: (folder / "model" / ".metadata").write_bytes(b""), "damaged"),
    "foreign metadata": (
        lambda folder, _: (folder / "model" / ".metadata").write_bytes(pickle.dumps({"a": 1})),
        "no distributed-checkpoint metadata",
    ),
    "code in metadata": (evil_metadata, "refused: the pickle asks for posix.system"),
    "path out of the folder": (escaping_metadata, "outside the checkpoint folder"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_bad_checkpoints_are_one_clear_error_and_leave_nothing(tmp_path, case):
    damage, message = CHECKPOINTS[case]
    folder, marker = copy_checkpoint(tmp_path), tmp_path / "marker"
    damage(folder, marker)
    with pytest.raises(InputError, match=message) as caught:
        convert(folder, VAE, None, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert nothing_left(tmp_path, "dcp")


def test_code_inside_a_shard_is_refused(tmp_path):
    folder, marker = copy_checkpoint(tmp_path), tmp_path / "marker"
    with (folder / "model" / ".metadata").open("rb") as stream:
        metadata = pickle.load(stream)
    shard = folder / "model" / "__2_0.distcp"
    torch.save(Evil(marker), shard)
    for index, info in metadata.storage_data.items():
        if index.fqn == "net.final_layer.linear.weight":
            info.relative_path, info.offset, info.length = shard.name, 0, shard.stat().st_size
    (folder / "model" / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(InputError, match=r"refused: the pickle asks for posix.system"):
        convert(folder, VAE, None, tmp_path / "out")
    assert not marker.exists()
    assert nothing_left(tmp_path, "dcp")


def test_bad_vae_files(tmp_path):
    marker = tmp_path / "marker"
    weights = load_file(VAE)
    cases = {}
    torch.save({"x": Evil(marker)}, tmp_path / "evil.pth")
    cases["evil.pth"] = "refused: the pickle asks for posix.system"
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil(marker)))
    cases["raw.pth"] = "refused|damaged"
    torch.save([1, 2], tmp_path / "list.pth")
    cases["list.pth"] = "holds a list, not a state dict"
    torch.save({**weights, "epoch": 3}, tmp_path / "more.pth")
    cases["more.pth"] = "holds more than tensors: epoch"
    (tmp_path / "cut.safetensors").write_bytes(VAE.read_bytes()[:5000])
    cases["cut.safetensors"] = "no readable safetensors"
    (tmp_path / "text.safetensors").write_text("hello")
    cases["text.safetensors"] = "no readable safetensors"
    save_file({k: v for k, v in weights.items() if k != "decoder.conv1.bias"}, tmp_path / "less.safetensors")
    cases["less.safetensors"] = "missing: decoder.conv_in.bias"
    save_file({**weights, "more": torch.zeros(1)}, tmp_path / "extra.safetensors")
    cases["extra.safetensors"] = "unexpected: more"
    save_file({**weights, "conv1.bias": torch.zeros(31)}, tmp_path / "shape.safetensors")
    cases["shape.safetensors"] = r"wrong shape: quant_conv.bias is \[31\], expected \[32\]"
    save_file({**weights, "quant_conv.bias": weights["conv1.bias"] + 1}, tmp_path / "twice.safetensors")
    cases["twice.safetensors"] = "names the same weight twice"
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    cases["foreign.safetensors"] = "not a Wan 2.1 VAE"
    cases["absent.pth"] = "no file at"
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            convert(GOLDEN / "dcp", tmp_path / name, None, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    assert not marker.exists()


def test_bad_text_encoders(tmp_path):
    def broken(name, **changes):
        folder = text_folder(tmp_path / name)
        weights = load_file(folder / "model.safetensors")
        weights.update(changes.get("add", {}))
        for key in changes.get("drop", ()):
            del weights[key]
        save_file(weights, folder / "model.safetensors")
        if "config" in changes:
            raw = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**raw, **changes["config"]}))
        return folder

    key = "model.layers.1.mlp.up_proj.weight"
    cases = [
        (broken("less", drop=[key]), "missing: layers.1.mlp.up_proj.weight"),
        (broken("more", add={"model.layers.9.x": torch.zeros(1)}), "unexpected: layers.9.x"),
        (broken("twice", add={"norm.weight": torch.zeros(64)}), "names the same weight twice: norm.weight"),
        (broken("stray", add={"adapter.weight": torch.zeros(1)}), "unexpected: adapter.weight"),
        (broken("shape", add={key: torch.zeros(95, 64)}), "wrong shape: layers.1.mlp.up_proj.weight"),
        (broken("kind", config={"model_type": "llama"}), "of type 'llama'"),
        (broken("layers", config={"num_hidden_layers": 4}), "missing: layers.3"),
        (broken("head", drop=["model.embed_tokens.weight"]), "found 0 token embeddings"),
        (tmp_path / "absent", "no transformers folder"),
    ]
    for folder, message in cases:
        with pytest.raises(InputError, match=message):
            convert(GOLDEN / "dcp", VAE, folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_nan_weights_are_refused_and_nothing_is_left(tmp_path):
    weights = load_file(VAE)
    weights["conv2.bias"][3] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match=r"post_quant_conv.bias holds NaN"):
        convert(GOLDEN / "dcp", tmp_path / "nan.safetensors", None, tmp_path / "out")
    assert nothing_left(tmp_path, "nan.safetensors")


def test_existing_folders_are_never_overwritten(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    convert(GOLDEN / "dcp", VAE, None, out)  # an empty folder is fine
    before = (out / "conversion.json").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        convert(GOLDEN / "dcp", VAE, None, out)
    assert (out / "conversion.json").read_bytes() == before


def test_full_size_needs_accepted_terms(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(convert_module.terms, "FULL_SIZE_PARAMETERS", 900_000)
    arguments = command(GOLDEN / "dcp", tmp_path / "out", "--no-text-encoder")
    with pytest.raises(InputError, match=r"vae \(0.00 B\) is a full-size model.*--accept-terms"):
        cli.main(arguments)
    assert "Terms of the weights" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert cli.main([*arguments, "--accept-terms"]) == 0
    monkeypatch.undo()
    assert convert_module.terms.needs_acceptance(127_000_000)  # the VAE, the smallest real part


def test_out_of_disk_is_seen_before_and_survived_during(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(InputError, match=r"out of disk: .* needs 0.023 GB, .* has 0.001 GB free"):
        convert(GOLDEN / "dcp", VAE, None, tmp_path / "out")
    monkeypatch.undo()
    real, calls = convert_module.save_file, []

    def full_disk(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args, **kwargs)

    monkeypatch.setattr(convert_module, "save_file", full_disk)
    with pytest.raises(TakeError, match="out of disk while converting"):
        convert(GOLDEN / "dcp", VAE, None, tmp_path / "out")
    assert nothing_left(tmp_path)


def test_cancelling_leaves_nothing(tmp_path):
    count = [0]

    def cancel():
        count[0] += 1
        if count[0] == 100:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        convert(GOLDEN / "dcp", VAE, None, tmp_path / "out", check_cancel=cancel)
    assert nothing_left(tmp_path)


SLOW = """
import sys, time, torch
torch.set_num_threads(1)
from retake.core.errors import Cancelled
from retake.worker.oscar import cli, convert
real = convert.save_file
def slow(*args, **kwargs):
    real(*args, **kwargs)
    print("writing", flush=True)
    time.sleep(60)
convert.save_file = slow
try:
    cli.main(sys.argv[1:])
except Cancelled:
    sys.exit(130)
"""


def test_a_killed_conversion_leaves_no_folder_and_the_next_one_cleans_up(tmp_path):
    running = {}
    for how in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL) if FULL else (signal.SIGTERM, signal.SIGKILL):
        folder = tmp_path / how.name
        folder.mkdir()
        arguments = command(GOLDEN / "dcp", folder / "out", "--no-text-encoder")
        running[how] = (
            folder,
            subprocess.Popen(
                [sys.executable, "-c", SLOW, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ),
        )
    for how, (folder, process) in running.items():
        with process:
            assert process.stdout is not None
            assert any(line.strip() == "writing" for line in process.stdout)
            process.send_signal(how)
            process.stdout.close()
            code = process.wait(timeout=60)
        assert not (folder / "out").exists()
        if how == signal.SIGKILL:
            assert len(list(folder.glob(".out.*.tmp"))) == 1
            convert(GOLDEN / "dcp", VAE, None, folder / "out")
            assert nothing_left(folder, "out")
        else:
            assert code == 130
            assert nothing_left(folder)


def test_golden_pixels_are_what_they_should_be():
    """The tests above mean something only if first frame and skeleton differ and move."""
    call = golden_call()
    assert len({frame.tobytes() for frame in call["skeleton"]}) > 3
    assert not np.array_equal(call["first_frame"], call["skeleton"][0])
