# SPDX-License-Identifier: Apache-2.0
"""The parts of a conversion, each by itself: names and shapes, files told apart by content, pieces that fill a tensor, disk and
record. Of retake.worker.oscar.convert, .keymap, .sources and .dcp."""

from __future__ import annotations

import collections
import errno
import io
import itertools
import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.checkpoint import metadata as torch_metadata

from retake.core.errors import InputError, TakeError
from retake.core.files import read_json, sha256_file, sha256_json
from retake.worker.oscar import convert as converting
from retake.worker.oscar import dcp, keymap, sources, terms
from retake.worker.oscar.bench import TINY_TRANSFORMER
from retake.worker.oscar.dcp import Chunk, StorageInfo, TensorEntry, TensorMeta
from retake.worker.oscar.sources import ComponentWeights

torch.set_num_threads(1)
TINY = {
    "in_channels": 4, "control_channels": 3, "out_channels": 5, "num_attention_heads": 2, "attention_head_dim": 6,
    "num_layers": 3, "mlp_ratio": 1.5, "text_embed_dim": 7, "crossattn_proj_in_channels": 11, "adaln_lora_dim": 2,
}  # fmt: skip


def entry(*shape: int, dtype: torch.dtype = torch.float32, value: float = 1.0) -> TensorEntry:
    return TensorEntry(shape, dtype, lambda: torch.full(shape, value, dtype=dtype))


# -- names -----------------------------------------------------------------------------------------------------------------


def source_shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of a tiny checkpoint under the source's names, by trying every source name that a rule may mean."""
    names = [
        "x_embedder.proj.1.weight", "additional_x_embedder.proj.1.weight", "t_embedder.1.linear_1.weight",
        "t_embedder.1.linear_2.weight", "t_embedding_norm.weight", "crossattn_proj.0.weight", "crossattn_proj.0.bias",
        "final_layer.adaln_modulation.1.weight", "final_layer.adaln_modulation.2.weight", "final_layer.linear.weight",
    ]  # fmt: skip
    for index in range(3):
        parts = [f"adaln_modulation_{part}.{n}.weight" for part in ("self_attn", "cross_attn", "mlp") for n in (1, 2)]
        for attention in ("self_attn", "cross_attn"):
            parts += [
                f"{attention}.{part}.weight"
                for part in ("q_proj", "k_proj", "v_proj", "output_proj", "q_norm", "k_norm")
            ]
        names += [f"blocks.{index}.{part}" for part in (*parts, "mlp.layer1.weight", "mlp.layer2.weight")]
    expected = keymap.transformer_shapes(TINY)
    return {f"net.{name}": expected[keymap.rename(name) or ""] for name in names}


def test_a_checkpoint_of_any_size_is_read_off_its_shapes():
    shapes = source_shapes()
    left_out = {
        "net_ema.a": (1,), "net_ema.b": (2,), "net.accum_x": (1,), "net.accum_y": (1,), "net.pos_embedder.seq": (3,),
        "net.blocks.1.self_attn.q_norm._extra_state": (0,),
    }  # fmt: skip
    found = keymap.key_map({**left_out, **shapes})
    assert found.config == TINY
    assert found.dropped == tuple(sorted(left_out))
    assert set(found.source_of) == set(keymap.transformer_shapes(TINY))
    assert set(found.source_of.values()) == set(shapes)


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("what", ["missing", "unexpected", "wrong shape"])
def test_four_of_the_names_that_do_not_match_are_told_and_the_rest_counted(count, what):
    shapes = source_shapes()
    names = [
        f"net.blocks.1.{attention}.{part}_proj.weight" for attention in ("cross_attn", "self_attn") for part in "qkv"
    ]
    names = sorted([*names, "net.blocks.1.mlp.layer2.weight"])[:count]
    if what == "unexpected":
        shapes |= {f"more{k}": (1,) for k in range(count)}
        told = [f"more{k}" for k in range(count)]
    else:
        for name in names:
            shape = shapes.pop(name)
            if what == "wrong shape":
                shapes[name] = (*shape[:-1], shape[-1] + 1)
        told = sorted(keymap.rename(name.removeprefix("net.")) or "" for name in names)
        if what == "wrong shape":
            told = [f"{name} is {list(shapes[name])}" for name in names]
    with pytest.raises(InputError) as caught:
        keymap.key_map(shapes)
    text = str(caught.value)
    assert text.count(": ") == 1, "one kind of trouble"
    assert f"; {what}: {told[0]}" in text
    assert [name in text for name in told] == [True] * min(count, 4) + [False] * max(0, count - 4)
    assert (f"and {count - 4} more" in text) == (count > 4)
    assert ("more" in text.replace("more0", "").replace("more1", "").replace("more2", "").replace("more3", "")) == (
        count > 4
    )
    expected = {f"w{k}": (2,) for k in range(9)}
    tensors = {name: entry(2) for name in expected}
    if what == "unexpected":
        tensors |= {f"x{k}": entry(1) for k in range(count)}
    for k in range(count):
        if what != "unexpected":
            del tensors[f"w{k}"]
        if what == "wrong shape":
            tensors[f"w{k}"] = entry(3)
    with pytest.raises(InputError, match=rf"^f does not match it; {what}: [xw]0") as caught:
        sources._strict(expected, tensors, "f", "it")
    assert str(caught.value).count("x3") + str(caught.value).count("w3") == (count > 3)
    assert (f"and {count - 4} more" in str(caught.value)) == (count > 4)
    assert ("more" in str(caught.value)) == (count > 4)
    sources._strict({name: (2,) for name in expected}, {name: entry(2) for name in expected}, "f", "it")


@pytest.mark.parametrize(("change", "words"), [
    ({"net.x_embedder.proj.1.weight": (12,)}, r"has shape \[12\]; expected 2 non-empty"),
    ({"net.x_embedder.proj.1.weight": (12, 0)}, r"expected 2 non-empty"),
    ({"net.blocks.0.self_attn.q_norm.weight": (6, 1)}, r"expected 1 non-empty"),
    ({"net.blocks.0.self_attn.q_norm.weight": (5,)}, r"its width \(12\) is no multiple of 5"),
    ({"net.x_embedder.proj.1.weight": (12, 25)}, r"its x_embedder features \(25\) is no multiple of 4"),
    ({"net.additional_x_embedder.proj.1.weight": (12, 13)}, r"its additional_x_embedder features \(13\)"),
    ({"net.final_layer.linear.weight": (22, 12)}, r"its final layer features \(22\) is no multiple of 4"),
])  # fmt: skip
def test_shapes_that_no_network_has_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        keymap.key_map({**source_shapes(), **change})


def test_what_is_no_checkpoint_is_told_by_what_it_holds():
    with pytest.raises(InputError, match=r"it has 4 tensors, e\.g\. a, b, c\)"):
        keymap.architecture({name: (1,) for name in "dcba"})
    with pytest.raises(InputError, match=r"it has 0 tensors, e\.g\. none\)"):
        keymap.architecture({})
    shapes = source_shapes()
    shapes["x_embedder.proj.1.weight"] = shapes["net.x_embedder.proj.1.weight"]
    with pytest.raises(InputError, match=r"unexpected: x_embedder.proj.1.weight$"):
        keymap.key_map(shapes)


# -- files -----------------------------------------------------------------------------------------------------------------


def test_files_are_told_apart_by_content(tmp_path):
    weights = {"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
    save_file(weights, tmp_path / "tensors.pth")
    torch.save(weights, tmp_path / "zip.safetensors")
    torch.save(weights, tmp_path / "pickle.safetensors", _use_new_zipfile_serialization=False)
    for name in ("tensors.pth", "zip.safetensors", "pickle.safetensors"):
        found = sources.read_weights(tmp_path / name)
        assert {key: (one.shape, one.dtype, one.nbytes) for key, one in found.items()} == {
            "a": ((2, 3), torch.float32, 24), "b": ((4,), torch.bfloat16, 8)
        }  # fmt: skip
        assert all(torch.equal(found[key].load(), value) for key, value in weights.items())
    with pytest.raises(InputError, match=f"no file at {tmp_path}"):
        sources.read_weights(tmp_path)


KNOWN = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.int32,
         torch.uint8, torch.bool)  # fmt: skip


@pytest.mark.parametrize("dtype", KNOWN)
def test_every_dtype_is_read_as_itself_and_weights_are_floats(tmp_path, dtype):
    save_file({"w": torch.zeros(3, 2).to(dtype)}, tmp_path / "one.safetensors")
    found = sources.read_safetensors(tmp_path / "one.safetensors")
    assert (found["w"].dtype, found["w"].load().dtype, found["w"].nbytes) == (dtype, dtype, 6 * dtype.itemsize)
    together = {"first": entry(1), **found}
    if dtype.is_floating_point:
        assert sources._floats(together, Path("here")) == together
    else:
        with pytest.raises(InputError, match=f"here: w holds {dtype}; weights must be floating point"):
            sources._floats(together, Path("here"))


def test_a_dtype_that_nobody_trains_in_is_refused(tmp_path):
    save_file({"a": torch.zeros(2), "w": torch.zeros(3, dtype=torch.uint16)}, tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="w has dtype U16, which is not supported"):
        sources.read_safetensors(tmp_path / "one.safetensors")


NESTED = ("state_dict", "model_state", "model")


@pytest.mark.parametrize("names", [names for count in (0, 1, 2) for names in itertools.permutations(NESTED, count)])
def test_a_state_dict_may_lie_under_names(tmp_path, names):
    """In the order in which they are looked for, each at most once."""
    state: Any = {"w": torch.ones(2)}
    order = [name for name in NESTED if name in names]
    for name in reversed(names):
        state = {name: state}
    torch.save(state, tmp_path / "one.pth")
    if list(names) == order:
        assert list(dcp.read_pth(tmp_path / "one.pth")) == ["w"]
    else:
        with pytest.raises(InputError, match="holds more than tensors"):
            dcp.read_pth(tmp_path / "one.pth")


@pytest.mark.parametrize(("state", "words"), [
    ({}, "holds a dict, not a state dict"), ([torch.ones(1)], "holds a list"), (torch.ones(1), "holds a Tensor"),
    ({"model": 3, "w": torch.ones(1)}, "holds more than tensors: model$"),
    ({**{f"k{n}": n for n in range(5)}, "w": torch.ones(1)}, "holds more than tensors: k0, k1, k2, k3$"),
])  # fmt: skip
def test_what_is_no_state_dict_is_named(tmp_path, state, words):
    torch.save(state, tmp_path / "one.pth")
    with pytest.raises(InputError, match=words):
        dcp.read_pth(tmp_path / "one.pth")


def test_the_first_line_of_a_reason_is_told():
    assert dcp._first_line("  \n one \n two") == "one "
    assert dcp._first_line(" \n ") == "no reason given"
    assert len(dcp._first_line("x" * 300)) == 200


def folder_of(tmp_path: Path, index: Any, **files: dict[str, torch.Tensor]) -> Path:
    for name, weights in files.items():
        save_file(weights, tmp_path / f"{name}.safetensors")
    if index is not None:
        (tmp_path / "model.safetensors.index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    return tmp_path


ONE, TWO = {"a": torch.zeros(1)}, {"b": torch.zeros(2), "c": torch.zeros(3)}


@pytest.mark.parametrize(("index", "names"), [
    (None, "abcx"), ({"weight_map": {"a": "one.safetensors"}}, "a"),
    ({"weight_map": {"b": "two.safetensors", "a": "one.safetensors"}}, "abc"),
])  # fmt: skip
def test_an_index_says_which_files_of_a_folder_count(tmp_path, index, names):
    folder = folder_of(tmp_path, index, one=ONE, two=TWO, xtra={"x": torch.zeros(1)})
    assert set(sources._folder_weights(folder)) == set(names)


@pytest.mark.parametrize(("index", "words"), [
    ("{", "is unusable"), ("[]", "is unusable"), ({"a": 1}, "is unusable"), ({"weight_map": [1]}, "is unusable"),
    ({"weight_map": {"a": "../one.safetensors"}}, "points outside its folder"),
    ({"weight_map": {"a": 1, "b": "one.safetensors"}}, "is unusable"), ({"weight_map": {"a": 1}}, "points outside"),
    ({"weight_map": {"a": "one.safetensors", "b": "deep/two.safetensors"}}, "points outside its folder"),
    ({"weight_map": {"a": "one.safetensors", "z": "one.safetensors", "y": "one.safetensors"}}, "promises 2 tensors .* e.g. y$"),
])  # fmt: skip
def test_an_index_that_cannot_be_followed_is_refused(tmp_path, index, words):
    with pytest.raises(InputError, match=words):
        sources._folder_weights(folder_of(tmp_path, index, one=ONE))


def test_older_names_of_weights_are_looked_for_after_newer_ones(tmp_path):
    with pytest.raises(InputError, match="holds no weights"):
        sources._folder_weights(tmp_path)
    torch.save(ONE, tmp_path / "pytorch_model-1.bin")
    torch.save(TWO, tmp_path / "pytorch_model-2.bin")
    assert set(sources._folder_weights(tmp_path)) == set("abc")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin"}}))
    assert set(sources._folder_weights(tmp_path)) == {"a"}
    folder_of(tmp_path, {"weight_map": {"b": "two.safetensors"}}, two=TWO)
    assert set(sources._folder_weights(tmp_path)) == set("bc")


VAE = {"base_dim": 4, "decoder_base_dim": 8, "z_dim": 16, "dim_mult": [1, 3, 2, 4]}


def vae_entries(**changes: Any) -> dict[str, TensorEntry]:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"):
        return {
            name: entry(*value.shape) for name, value in AutoencoderKLWan(**{**VAE, **changes}).state_dict().items()
        }


def test_a_vae_of_any_width_is_read_off_its_shapes(monkeypatch):
    entries = vae_entries()
    monkeypatch.setattr(sources, "read_weights", lambda path: entries)
    found = sources.vae_part(Path("v"))
    assert found.config == VAE
    assert found.left_out == ()
    total = sum(one.load().numel() for one in entries.values())
    assert (found.parameters, found.nbytes) == (total, 4 * total)
    for name, shape, words in (
        ("encoder.conv_in.weight", (), "no usable encoder.conv_in.weight"), ("post_quant_conv.weight", (0, 16), "no usable post"),
        ("decoder.norm_out.gamma", (9, 1, 1, 1), "wrong shape"), ("encoder.down_blocks.4.conv2.weight", (0,), "no usable enc"),
    ):  # fmt: skip
        monkeypatch.setattr(
            sources, "read_weights", lambda path, name=name, shape=shape: {**entries, name: entry(*shape)}
        )
        with pytest.raises(InputError, match=words):
            sources.vae_part(Path("v"))
    narrow = vae_entries(z_dim=8)
    monkeypatch.setattr(sources, "read_weights", lambda path: narrow)
    with pytest.raises(InputError, match=r"v has 8 latent channels; OSCAR uses the Wan 2.1 VAE with 16"):
        sources.vae_part(Path("v"))


# -- pieces ----------------------------------------------------------------------------------------------------------------


def pieces(folder: Path, shape: tuple[int, ...], cuts: Any, whole: torch.Tensor, **more: Any) -> Any:
    """A tensor's entry whose pieces, (offsets, sizes) each, lie one behind the other in a file."""
    stream, files, chunks = io.BytesIO(), {}, []
    for offsets, sizes in cuts:
        start = stream.tell()
        part = whole[tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))]
        torch.save(more.get("holds", part).clone(), stream)
        info = {
            "relative_path": "deep/x.distcp",
            "offset": start,
            "length": stream.tell() - start,
            **more.get("info", {}),
        }
        files["w", tuple(offsets)] = StorageInfo(**info)
        chunks.append(Chunk(offsets=offsets, sizes=sizes))
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "deep/x.distcp").write_bytes(stream.getvalue()[: len(stream.getvalue()) - more.get("cut", 0)])
    properties = more.get("properties", dcp.Properties(dtype=torch.float32))
    meta = TensorMeta(properties=properties, size=shape, chunks=chunks)
    return dcp._dcp_entry(folder, "w", meta, {} if more.get("lost") else files)


WHOLE = torch.arange(35.0).reshape(5, 7)
CUTS = [((0, 0), (2, 3)), ((0, 3), (2, 4)), ((2, 0), (3, 1)), ((2, 1), (3, 6))]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_pieces_are_put_where_they_belong(tmp_path, order):
    found = pieces(tmp_path, (5, 7), [CUTS[k] for k in order], WHOLE)
    assert (found.shape, found.dtype, found.nbytes) == ((5, 7), torch.float32, 140)
    assert torch.equal(found.load(), WHOLE)


@pytest.mark.parametrize(("cuts", "words"), [
    (CUTS[:3], "do not fill its shape"), ([*CUTS, CUTS[0]], "do not fill"), ([*CUTS[:3], ((2, 0), (3, 6))], "do not fill"),
    ([((0, 0), (5, 6)), ((0, 5), (5, 1))], "do not fill"), ([((0, 0), (5, 8))], "lies outside"),
    ([((1, 0), (5, 7))], "lies outside"), ([((0, -1), (5, 7))], "lies outside"), ([((0,), (5,))], "lies outside"),
    ([], "do not fill"),
])  # fmt: skip
def test_pieces_that_do_not_fill_the_tensor_once_are_refused(tmp_path, cuts, words):
    large = torch.zeros(9, 9)
    with pytest.raises(InputError, match=words):
        pieces(tmp_path, (5, 7), cuts, large)


def test_touching_is_no_overlap():
    boxes = [((x, y), (w, h)) for x in range(3) for y in range(2) for w in (1, 2) for h in (1, 2)]
    for a, b in itertools.product(boxes, boxes):
        cells = [set(itertools.product(range(o[0], o[0] + s[0]), range(o[1], o[1] + s[1]))) for o, s in (a, b)]
        assert dcp._overlap(a, b) == bool(cells[0] & cells[1])


@pytest.mark.parametrize(("more", "words"), [
    ({"lost": True}, r"names no file for its piece at \[0, 0\]"), ({"cut": 1}, "is truncated"),
    ({"holds": torch.zeros(2, 2)}, r"holds \[2, 2\] torch.float32, the metadata says \[5, 7\]"),
    ({"holds": torch.zeros(5, 7, dtype=torch.float64)}, "holds .* torch.float64, the metadata says .* torch.float32"),
    ({"properties": dcp.Properties(dtype="float32")}, "states no dtype"), ({"properties": dcp.Properties()}, "states no dtype"),
    ({"info": {"relative_path": "../x"}}, "points outside"), ({"info": {"relative_path": "/x"}}, "points outside"),
    ({"info": {"relative_path": "deep/y"}}, "deep/y is missing"),
    ({"info": {"transform_descriptors": ["z"]}}, "is compressed"),
    ({"info": {"offset": -1}}, "is truncated"), ({"info": {"length": -1}}, "is truncated"),
    ({"info": {"length": 0}}, "damaged"),
])  # fmt: skip
def test_pieces_that_cannot_be_read_are_refused(tmp_path, more, words):
    with pytest.raises(InputError, match=words):
        pieces(tmp_path, (5, 7), [((0, 0), (5, 7))], WHOLE, **more).load()


def test_properties_of_older_versions_hold_the_dtype_first(tmp_path):
    older = dcp.Properties()
    older.__setstate__((torch.float32, "layout"))
    assert pieces(tmp_path, (5, 7), [((0, 0), (5, 7))], WHOLE, properties=older).dtype == torch.float32


def test_what_a_pickle_holds_twice_is_looked_at_once_and_the_rest_too():
    twice: list[Any] = []
    forged = [dcp._ENUM_MEMBER, twice, {"deep": (twice,)}, twice]
    with pytest.raises(InputError, match="holds a function where data belongs"):
        dcp._require_data(forged)
    with pytest.raises(InputError, match="holds a function"):
        dcp._require_data([twice, twice, {1: {2: (dcp._PATH,)}}])
    round_ = [1]
    round_.append(round_)
    dcp._require_data([round_, collections.OrderedDict(a=round_), {"b"}])


@pytest.mark.parametrize("held", [None, 5, "a", b"x", (1, 2)])
def test_metadata_lists_tensors_and_leaves_other_entries_unread(tmp_path, held):
    whole = {"w": torch.ones(2, 2), "v": torch.zeros(3)}
    (tmp_path / "model").mkdir()
    storage, tensors = {}, {"blob": torch_metadata.BytesStorageMetadata()}
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    for name, value in whole.items():
        torch.save(value, tmp_path / "model" / f"{name}.distcp")
        length = os.path.getsize(tmp_path / "model" / f"{name}.distcp")
        offsets = torch.Size([0] * value.ndim)
        storage[torch_metadata.MetadataIndex(name, offsets)] = _StorageInfo(f"{name}.distcp", 0, length)
        chunk = torch_metadata.ChunkStorageMetadata(offsets, value.shape)
        properties = torch_metadata.TensorProperties(dtype=value.dtype)
        tensors[name] = torch_metadata.TensorStorageMetadata(properties, value.shape, [chunk])
    path = tmp_path / "model" / ".metadata"
    path.write_bytes(pickle.dumps(torch_metadata.Metadata(tensors, held, storage)))
    for folder in (tmp_path, tmp_path / "model"):
        found = dcp.read_dcp(folder)
        assert list(found) == ["w", "v"]
        assert all(torch.equal(found[name].load(), value) for name, value in whole.items())


# -- writing ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ComponentWeights]:
    """A transformer of 10 numbers and a VAE of 5, whose weights need not be theirs."""
    made = {
        "transformer": ComponentWeights(
            dict(TINY_TRANSFORMER), {"a": entry(4), "b": entry(2, 3, dtype=torch.bfloat16)}, ("x", "y")
        ),
        "vae": ComponentWeights({"base_dim": 8}, {"c": entry(5, dtype=torch.float64, value=3.0)}),
    }
    monkeypatch.setattr(converting, "transformer_part", lambda folder: made["transformer"])
    monkeypatch.setattr(converting, "vae_part", lambda path: made["vae"])
    return made


def run(out: Path, **more: Any) -> converting.Conversion:
    return converting.convert(Path("c"), Path("v"), None, out, **more)


@pytest.mark.parametrize(("dtype", "weights"), [("keep", 4 * 4 + 6 * 2 + 5 * 8), ("bf16", 15 * 2), ("fp32", 15 * 4)])
def test_what_is_written_must_fit_on_the_disk(parts, tmp_path, monkeypatch, dtype, weights):
    needed, asked, left = weights + (16 << 20), [], [0]
    monkeypatch.setattr(
        converting.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=left[0])
    )
    out = tmp_path / "deep" / "er" / "out"
    left[0] = needed - 1
    with pytest.raises(InputError, match="out of disk"):
        run(out, dtype=dtype)
    assert not (tmp_path / "deep").exists()
    left[0] = needed
    run(out, dtype=dtype)
    assert asked == [tmp_path, tmp_path], "the folder above that is there"


@pytest.mark.parametrize(("dtype", "kinds"), [
    ("keep", (torch.float32, torch.bfloat16, torch.float64)), ("bf16", (torch.bfloat16,) * 3), ("fp32", (torch.float32,) * 3),
])  # fmt: skip
def test_the_record_states_what_was_done(parts, tmp_path, dtype, kinds):
    said: list[tuple[int, int, str]] = []
    checks: list[int] = []
    made = run(
        tmp_path / "out", dtype=dtype, accept_terms=True, progress=lambda *words: said.append(words),
        check_cancel=lambda: checks.append(1),
    )  # fmt: skip
    assert said == [(1, 3, "transformer a"), (2, 3, "transformer b"), (3, 3, "vae c")]
    assert len(checks) == 3
    record = read_json(tmp_path / "out/conversion.json")
    files = {f"{name}/diffusion_pytorch_model.safetensors" for name in ("transformer", "vae")}
    assert record["sha256"] == {name: sha256_file(tmp_path / "out" / name) for name in files}
    assert (
        made.revision == sha256_json({k: v for k, v in record["sha256"].items() if k.startswith("transformer/")})[:16]
    )
    del record["sha256"]
    assert record == {
        "version": 1, "revision": made.revision, "dtype": dtype, "parameters": {"transformer": 10, "vae": 5},
        "left_out": {"transformer": 2, "vae": 0}, "terms_accepted": True,
    }  # fmt: skip
    assert (made.folder, made.parameters, made.notes) == (tmp_path / "out", {"transformer": 10, "vae": 5}, ())
    assert made.nbytes == sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    index = read_json(tmp_path / "out/model_index.json")
    assert [index[name] for name in ("text_encoder", "tokenizer", "safety_checker")] == [[None, None]] * 3
    weights = [sources.read_weights(tmp_path / "out" / name) for name in sorted(files)]
    assert tuple(one.dtype for part in weights for one in part.values()) == kinds
    assert not list((tmp_path / "out").rglob("*.index.json"))


@pytest.mark.parametrize("limit", [16, 27, 28])
def test_weights_of_more_than_one_file_have_an_index(parts, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(converting, "_SHARD_BYTES", limit)
    run(tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out/transformer").glob("*.safetensors"))
    path = tmp_path / "out/transformer/diffusion_pytorch_model.safetensors.index.json"
    if limit == 28:
        assert names == ["diffusion_pytorch_model.safetensors"]
        assert not path.exists()
        return
    stem = "diffusion_pytorch_model-0000{}-of-00002.safetensors"
    assert names == [stem.format(1), stem.format(2)]
    assert read_json(path) == {
        "metadata": {"total_size": 28}, "weight_map": {"a": stem.format(1), "b": stem.format(2)}
    }  # fmt: skip


@pytest.mark.parametrize(("limit", "asked"), [(4, True), (5, True), (6, True), (10, True), (11, False)])
def test_terms_are_asked_for_parts_of_full_size(parts, tmp_path, monkeypatch, limit, asked):
    monkeypatch.setattr(terms, "FULL_SIZE_PARAMETERS", limit)
    if not asked:
        run(tmp_path / "out")
        return
    with pytest.raises(InputError, match="read the terms above") as caught:
        run(tmp_path / "out")
    assert ("vae (0.00 B)" in str(caught.value)) == (limit <= 5)
    assert "is a full-size model" in str(caught.value)
    assert not (tmp_path / "out").exists()
    run(tmp_path / "out", accept_terms=True)


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.ENOSPC, "x"), "out of disk"), (OSError(errno.EDQUOT, "x"), "out of disk"),
    (OSError(errno.EFBIG, "x"), "out of disk"),
    (OSError(errno.EACCES, "x"), "cannot write"), (SafetensorError(f"I/O (os error {errno.ENOSPC})"), "out of disk"),
    (SafetensorError(f"I/O (os error {errno.EDQUOT})"), "out of disk"),
    (SafetensorError(f"(os error {errno.EFBIG})"), "out of disk"),
    (SafetensorError("(os error 5)"), "cannot write"),
])  # fmt: skip
def test_a_disk_that_fills_is_told_from_one_that_refuses(tmp_path, error, words):
    with (
        pytest.raises(TakeError, match=f"^{words}.* while converting to .*Nothing was left behind"),
        converting._writing(tmp_path / "o"),
    ):
        raise error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("token", "number", "size", "odd"), [
    ("<|endoftext|>", 1, 151642, False), ("<|endoftext|>", 1, 151643, False), ("<|endoftext|>", 1, 151644, True),
    ("<|endoftext|>", 151643, 151644, False), ("<pad>", 151643, 100, True),
])  # fmt: skip
def test_the_number_of_the_pad_token_is_asked_of_full_vocabularies(token, number, size, odd):
    class Tokenizer:
        pad_token, pad_token_id = token, number

        def __len__(self) -> int:
            return size

    assert bool(converting._odd_padding(Tokenizer())) == odd


@pytest.mark.parametrize(("layers", "tokenizer", "notes"), [(3, "T", 0), (4, "T", 1), (3, None, 1), (2, None, 2)])
def test_a_text_encoder_that_does_not_fit_is_noted(layers, tokenizer, notes):
    text = ComponentWeights(SimpleNamespace(num_hidden_layers=layers, hidden_size=4), {})
    transformer = ComponentWeights({"crossattn_proj_in_channels": 12}, {})
    found = converting._notes({"transformer": transformer, "text_encoder": text}, Path("t"), tokenizer)
    assert len(found) == notes
    assert any(f"{4 * layers} wide and the transformer takes 12" in note for note in found) == (layers != 3)
    assert any("t has no tokenizer files" in note for note in found) == (tokenizer is None)
    assert converting._notes({"transformer": transformer}, None, None) == ()


def test_what_a_killed_conversion_left_is_removed_and_nothing_else(tmp_path):
    kept = (".other.1.tmp", "out.1.tmp", ".out.1.keep", ".outer.tmp")
    for name in (".out.1.tmp", ".out.2.tmp", *kept):
        (tmp_path / name).mkdir()
    converting._sweep(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
