# SPDX-License-Identifier: Apache-2.0
"""One take from files to a file, and the small parts beside it: prompts kept on disk, prompts as tokens, objects over a skeleton,
reports. The pipeline is a stand-in. Of retake.worker.oscar.take_file, .prompts, .text, .object_control and .output."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from retake.core.errors import InputError, TakeError
from retake.core.files import read_json, sha256_file, sha256_json
from retake.worker import memory
from retake.worker.oscar import backends, object_control, pipeline, take_file, text
from retake.worker.oscar.output import OscarPipelineOutput
from retake.worker.oscar.prompts import (
    ProjectedPrompt,
    PromptCache,
    check_embeddings,
    read_encoder_revision,
    read_revision,
)
from retake.worker.oscar.windows import SEAM_JUMP, SEAM_PSNR_DB, Seam

torch.set_num_threads(1)
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 16, 32, 3), dtype=np.uint8)


# -- a take --------------------------------------------------------------------------------------------------------


class Pipe:
    """Writes down what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.transformer, self.model_revision = "network", "r1"

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("enable", "use")):
            raise AttributeError(name)
        return lambda *words, **more: self.told.append((name, *words, *([more] if more else [])))

    def __call__(self, *words: Any, **call: Any) -> OscarPipelineOutput:
        self.told.append(("take", words, call))
        return OscarPipelineOutput(FRAMES[None], seeds=(7,), tier="staged")


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    made = Pipe()
    monkeypatch.setattr(pipeline.OscarPipeline, "from_pretrained", staticmethod(
        lambda *words, **more: made.told.append(("load", *words, more)) or made
    ))  # fmt: skip
    monkeypatch.setattr(memory, "usable_device", lambda name: torch.device(name or "cpu"))
    monkeypatch.setattr(backends, "check_backend", lambda name: made.told.append(("check", name)))
    monkeypatch.setattr(backends, "set_backend", lambda model, name: made.told.append(("set", model, name)))
    monkeypatch.setattr(backends, "select_backend", lambda *words: made.told.append(("select", *words)))
    monkeypatch.setattr(backends, "attention_of", lambda model: f"attention of {model}")
    return made


def told(tmp_path: Path, **changes: Any) -> Any:
    first, skeleton = tmp_path / "first.png", tmp_path / "skeleton"
    first.write_bytes(b"first")
    skeleton.mkdir(exist_ok=True)
    (skeleton / "0.png").write_bytes(b"0")
    return SimpleNamespace(**{
        "device": None, "dtype": None, "embeds": None, "approximate": [], "kernels": "auto", "attention": "auto", "model": "m",
        "prompt_cache": None, "tier": None, "height": 16, "width": 32, "frames": 5, "first_frame": first, "skeleton": skeleton,
        "prompt": "p", "negative_prompt": "n", "steps": 3, "guidance": 2.0, "seed": 7, "as_reference": False, "fit": "pad",
        "compile": False, "out": tmp_path / "take.npz", "fps": 12.0, **changes,
    })  # fmt: skip


def test_a_take_and_its_record_are_written(pipe, tmp_path):
    arguments = told(tmp_path)
    assert take_file.make_take(arguments) == f"{arguments.out}: 5 frames, tier staged, seed 7"
    load, kernels, (_, words, call) = pipe.told
    assert load == ("load", "m", {"torch_dtype": torch.float32, "lazy_text_encoder": True})
    assert kernels == ("use_kernels", "auto")
    assert words == (arguments.first_frame, arguments.skeleton)
    assert call == {
        "prompt": "p", "negative_prompt": "n", "num_frames": 5, "height": 16, "width": 32, "num_inference_steps": 3,
        "guidance_scale": 2.0, "seed": 7, "exact_first_frame": True, "fit": "pad",
    }  # fmt: skip
    assert np.array_equal(np.load(arguments.out)["frames"], FRAMES)
    record = read_json(tmp_path / "take.json")
    skeleton = sha256_json({"0.png": sha256_file(arguments.skeleton / "0.png")})
    assert record["inputs_sha256"] == {"first_frame": sha256_file(arguments.first_frame), "skeleton": skeleton}
    assert [record[key] for key in ("model_revision", "prompt", "steps", "guidance", "dtype", "device", "attention")] == [
        "r1", "p", 3, 2.0, "fp32", "cpu", "attention of network"
    ]  # fmt: skip
    assert (record["seeds"], record["tier"]) == ([7], "staged")
    take_file.make_take(told(tmp_path, as_reference=True))
    assert pipe.told[-1][2]["exact_first_frame"] is False


@pytest.mark.parametrize(("device", "dtype", "made"), [
    ("cpu", None, torch.float32), ("cuda", None, torch.bfloat16), ("cpu", "bf16", torch.bfloat16),
    ("cuda", "fp32", torch.float32),
])  # fmt: skip
def test_weights_are_of_the_type_that_suits_the_device(pipe, tmp_path, device, dtype, made):
    take_file.make_take(told(tmp_path, device=device, dtype=dtype))
    assert pipe.told[0][2]["torch_dtype"] == made
    assert read_json(tmp_path / "take.json")["dtype"] == ("bf16" if made == torch.bfloat16 else "fp32")


CUDA = torch.device("cuda")
PLANNED, SELECT = ("enable_planned_memory", CUDA, 32, 48, 13), ("select", "network", 4 * 2 * 3, CUDA)


@pytest.mark.parametrize(("changes", "between"), [
    ({}, [("use_kernels", "auto")]), ({"kernels": "fused"}, [("use_kernels", "fused")]),
    ({"device": "cuda"}, [PLANNED, ("use_kernels", "auto"), SELECT]),
    ({"device": "cuda", "tier": "staged"}, [("enable_memory_tier", "staged", CUDA), ("use_kernels", "auto"), SELECT]),
    ({"tier": "staged"}, [("enable_memory_tier", "staged", torch.device("cpu")), ("use_kernels", "auto")]),
    ({"attention": "flash", "device": "cuda"},
     [("check", "flash"), PLANNED, ("use_kernels", "auto"), ("set", "network", "flash")]),
    ({"attention": "flash"}, [("check", "flash"), ("use_kernels", "auto"), ("set", "network", "flash")]),
    ({"approximate": ["fp8", "steps:9"]}, [("use_kernels", "auto"), ("enable_approximation", "fp8"),
                                           ("enable_approximation", "steps", {"steps": 9})]),
    ({"approximate": ["sage"], "device": "cuda"}, [PLANNED, ("use_kernels", "auto"), ("enable_approximation", "sage")]),
    ({"compile": True, "prompt_cache": "c"}, [("enable_prompt_cache", "c"), ("use_kernels", "auto"), ("enable_compile",)]),
])  # fmt: skip
def test_the_way_to_run_is_chosen_in_order(pipe, tmp_path, changes, between, monkeypatch):
    monkeypatch.setattr("retake.worker.oscar.approximate.read_mode", lambda text: (
        text.partition(":")[0], {"steps": int(text.partition(":")[2])} if ":" in text else {}
    ))  # fmt: skip
    take_file.make_take(told(tmp_path, height=32, width=48, frames=13, **changes))
    load = next(entry for entry in pipe.told if entry[0] == "load")
    assert [entry for entry in pipe.told if entry != load][:-1] == between
    assert pipe.told[-1][0] == "take"


def test_unknown_kernels_are_refused_before_anything_is_loaded(pipe, tmp_path):
    with pytest.raises(InputError, match="kernels"):
        take_file.make_take(told(tmp_path, kernels="quick"))
    assert pipe.told == []


def test_embeddings_are_handed_on_and_the_positive_ones_are_needed(pipe, tmp_path):
    path = tmp_path / "e.safetensors"
    positive, negative = torch.ones(1, 2, 3), torch.zeros(1, 2, 3)
    save_file({"prompt_embeds": positive, "other": negative}, path)
    take_file.make_take(told(tmp_path, embeds=path))
    assert set(pipe.told[-1][2]) & {"prompt_embeds", "negative_prompt_embeds"} == {"prompt_embeds"}
    save_file({"prompt_embeds": positive, "negative_prompt_embeds": negative}, path)
    take_file.make_take(told(tmp_path, embeds=path))
    assert torch.equal(pipe.told[-1][2]["negative_prompt_embeds"], negative)
    save_file({"negative_prompt_embeds": negative}, path)
    with pytest.raises(
        InputError, match="holds negative_prompt_embeds; expected prompt_embeds and negative_prompt_embeds"
    ):
        take_file.make_take(told(tmp_path, embeds=path))


@pytest.mark.parametrize(("name", "there", "words"), [
    ("a.avi", (), "must end in .npz or .mp4"), ("a.npz", ("a.npz",), "a.npz exists"), ("a.mp4", ("a.json",), "a.json exists"),
    ("a.npz", ("a.mp4",), ""), ("a.b.npz", ("a.json",), ""),
])  # fmt: skip
def test_nothing_is_overwritten(tmp_path, name, there, words):
    for other in there:
        (tmp_path / other).touch()
    if words:
        with pytest.raises(InputError, match=words):
            take_file.check_target(tmp_path / name)
    else:
        take_file.check_target(tmp_path / name)


def test_a_video_has_its_size_rate_and_colours(tmp_path):
    frames = np.zeros((6, 32, 64, 3), np.uint8)
    frames[..., 0] = 250  # red
    take_file.write_take(tmp_path / "a.mp4", frames, 12.0)
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert [video.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS)] == [
        64,
        32,
        12,
    ]
    read = []
    while (found := video.read())[0]:
        read.append(found[1])
    assert len(read) == 6
    assert read[0].mean((0, 1)) == pytest.approx([0, 0, 250], abs=12), "BGR"


# -- prompts on disk -------------------------------------------------------------------------------------------------

BF16 = torch.bfloat16


def prompt(
    value: float = 1.0, words: str | None = "a cup", revision: str = "r", dtype: torch.dtype = BF16
) -> ProjectedPrompt:
    return ProjectedPrompt(torch.full((1, 2, 3), value, dtype=dtype), revision, words)


@pytest.mark.parametrize("disk", [False, True])
def test_a_prompt_is_found_under_all_that_made_it(tmp_path, disk):
    folder = tmp_path / "new" if disk else None
    kept = PromptCache(folder)
    assert kept.get("r", BF16, 2, "a cup") is None
    kept.put(prompt(), 2, "e1")
    for cache in (kept, PromptCache(folder)):
        found = cache.get("r", BF16, 2, "a cup")
        assert (found is not None) == (disk or cache is kept)
        assert found is None or (
            torch.equal(found.embeds, prompt().embeds) and found.text == "a cup" and found.revision == "r"
        )
        for other in (
            ("s", BF16, 2, "a cup"),
            ("r", torch.float32, 2, "a cup"),
            ("r", BF16, 3, "a cup"),
            ("r", BF16, 2, "cup"),
        ):
            assert cache.get(*other) is None
    with pytest.raises(InputError, match="only prompts with a text"):
        kept.put(prompt(words=None), 2)
    if folder is not None:
        [path] = folder.iterdir()
        assert path.name == f"{PromptCache.key('r', BF16, 2, 'a cup')}.safetensors"
        with safe_open(path, "pt") as stream:
            assert stream.metadata() == {"version": "1", "revision": "r", "text": "a cup", "encoder": "e1"}


@pytest.mark.parametrize(("encoder", "asked", "taken"), [
    ("e1", "e1", True), ("e1", "e2", False), ("e1", None, True), (None, "e2", True), (None, None, True),
])  # fmt: skip
def test_a_prompt_of_another_encoder_is_foreign(tmp_path, encoder, asked, taken):
    PromptCache(tmp_path).put(prompt(), 2, encoder)
    assert (PromptCache(tmp_path).get("r", BF16, 2, "a cup", asked) is not None) == taken


@pytest.mark.parametrize("change", ["version", "revision", "text", "dtype", "damaged", "name", None])
def test_a_file_of_something_else_counts_as_absent(tmp_path, change):
    notes = {"version": "1", "revision": "r", "text": "a cup"}
    if change in notes:
        notes[change] = "other"
    embeds = prompt(dtype=torch.float32 if change == "dtype" else BF16).embeds
    path = tmp_path / f"{PromptCache.key('r', BF16, 2, 'a cup')}.safetensors"
    save_file({"embeds": embeds}, path, metadata=notes)
    if change == "damaged":
        path.write_bytes(path.read_bytes()[:20])
    found = PromptCache(tmp_path).get("r", BF16, 2, "another cup" if change == "name" else "a cup")
    assert (found is None) == (change is not None)


@pytest.mark.parametrize(("shape", "width", "fine"), [
    ((1, 2, 3), None, True), ((1, 2, 3), 3, True), ((1, 1, 3), 3, True), ((1, 2, 3), 4, False), ((2, 2, 3), None, False),
    ((1, 0, 3), None, False), ((2, 3), None, False), ((1, 2, 3, 1), None, False),
])  # fmt: skip
def test_embeddings_are_one_prompt_of_finite_floats(shape, width, fine):
    values = torch.ones(shape)
    if not fine:
        with pytest.raises(InputError, match=rf"it has shape .*; expected \(1, L, {width or 'D'}\)"):
            check_embeddings(values, "it", width)
        return
    check_embeddings(values, "it", width)
    with pytest.raises(InputError, match=r"it holds torch\.int64"):
        check_embeddings(values.long(), "it", width)
    values[0, 0, 1:] = torch.tensor([np.nan, np.inf])
    with pytest.raises(InputError, match="it holds 2 values that are NaN or infinite"):
        check_embeddings(values, "it", width)


@pytest.mark.parametrize(("record", "revision", "encoder"), [
    (None, None, None), ("{", None, None), ("[1]", None, None), ("{}", None, None),
    ('{"revision": 3, "sha256": []}', None, None),
    ('{"revision": "r", "sha256": {"transformer/a": "x"}}', "r", None),
    ('{"sha256": {"transformer/a": "x", "text_encoder/b": "y"}}', None, sha256_json({"text_encoder/b": "y"})[:16]),
])  # fmt: skip
def test_revisions_are_what_a_converted_folder_states(tmp_path, record, revision, encoder):
    if record is not None:
        (tmp_path / "conversion.json").write_text(record)
    assert (read_revision(tmp_path), read_encoder_revision(tmp_path)) == (revision, encoder)


# -- prompts as tokens -------------------------------------------------------------------------------------------------


class Letters:
    """One token per letter."""

    pad_token_id: int | None = 7

    def __call__(self, words: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert add_special_tokens is False
        return {"input_ids": [ord(letter) for letter in words]}


def test_a_prompt_is_padded_or_cut_at_the_right():
    whole = [ord(letter) for letter in text.chat("hi")]
    assert text.chat("hi").endswith("<|im_start|>user\nhi<|im_end|>\n")
    assert text.chat("hi").startswith(f"<|im_start|>system\n{text.SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user")
    for length in (5, len(whole) - 1, len(whole), len(whole) + 1, 512):
        found = text.tokenize(Letters(), "hi", length)
        assert found.tolist() == [(whole + [7] * 512)[:length]]
        assert found.dtype == torch.long
    assert text.tokenize(Letters(), "hi").shape == (1, 512)
    with pytest.raises(InputError, match="a prompt is text, not bytes"):
        text.tokenize(Letters(), b"hi")  # pyright: ignore[reportArgumentType]
    none = Letters()
    none.pad_token_id = None
    with pytest.raises(TakeError, match="has no pad token"):
        text.tokenize(none, "hi")
    zero = Letters()
    zero.pad_token_id = 0
    assert text.tokenize(zero, "", 512)[0, -1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_layer_but_the_first_is_normalised_and_put_side_by_side(dtype):
    states = [torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(k)).to(dtype) for k in range(3)]
    calls: list[Any] = []
    encoder: Any = lambda **call: calls.append(call) or SimpleNamespace(hidden_states=states)  # noqa: E731
    encoder.device = "cpu"
    ids = torch.tensor([[1, 2, 3]])
    found = text.embed(encoder, ids)
    assert calls[0].pop("input_ids").tolist() == ids.tolist()
    assert calls == [{"output_hidden_states": True, "use_cache": False}]
    assert (found.shape, found.dtype) == ((1, 3, 16), dtype)
    for k in (0, 1):
        part, state = found[..., 8 * k : 8 * k + 8].float(), states[k + 1].float()
        mean, std = state.numpy().mean(-1, keepdims=True), state.numpy().std(-1, ddof=1, keepdims=True)
        assert part.numpy() == pytest.approx((state.numpy() - mean) / std, abs=1e-5 if dtype == torch.float32 else 0.02)
    assert not text.normalise(torch.full((1, 1, 4), 3.0)).any(), "a flat state becomes nothing, not NaN"


# -- objects, reports ---------------------------------------------------------------------------------------------------


def test_glyphs_cover_a_skeleton_as_far_as_they_are_there():
    for value, cover in itertools.product((0, 100, 255), (0, 51, 128, 255)):
        skeleton, glyphs = np.full((1, 1, 1, 3), value, np.uint8), np.array([[[[cover, 0, cover]]]], np.uint8)
        rest = value * (1 - cover / 255)
        found = object_control.drawn_on(skeleton, glyphs).ravel()
        assert found.dtype == np.uint8
        assert found.tolist() == [min(255, round(cover + rest)), round(rest), min(255, round(cover + rest))]
    bright = object_control.drawn_on(np.full((1, 1, 1, 3), 255, np.uint8), np.array([[[[128, 2, 128]]]], np.uint8))
    assert bright.max() == 255


@pytest.mark.parametrize("movable", [[True, False], [False, False], []])
def test_objects_are_drawn_where_one_moves(monkeypatch, movable):
    asked: list[Any] = []
    monkeypatch.setattr(
        object_control, "physics_arrays", lambda *words: asked.append(words) or {"object_movable": movable}
    )
    monkeypatch.setattr(object_control, "draw_control", lambda canvas, arrays: iter(canvas + 9))
    camera = SimpleNamespace(size=(4, 2))
    episode: Any = SimpleNamespace(header=SimpleNamespace(camera=lambda name: camera))
    if any(movable):
        found = object_control.control_of_episode(episode, "front", 3, 5)
        assert (found.shape, set(found.ravel())) == ((5, 2, 4, 3), {9})
        assert asked == [(episode, "front", 3, 5)]
    else:
        with pytest.raises(InputError, match="no movable object"):
            object_control.control_of_episode(episode, "front", 3, 5)


def test_a_folder_says_how_its_model_is_shown_objects(tmp_path):
    assert object_control.object_control_of(tmp_path) == "none"
    record = {"settings": {"step": {"objects": {"control": "drawn"}}}}
    (tmp_path / "tuned.json").write_text(json.dumps(record))
    assert object_control.object_control_of(tmp_path) == "drawn"


def test_a_report_is_plain_json_whatever_was_measured():
    seams = ((Seam(9, float("inf"), float("nan")), Seam(17, SEAM_PSNR_DB, SEAM_JUMP)), ())
    report = OscarPipelineOutput(FRAMES, seeds=(1, 2), seams=seams, approximations=("fp8",), retried=True).report()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    first = {"frame": 9, "psnr_db": None, "jump": None, "ok": False}
    second = {"frame": 17, "psnr_db": SEAM_PSNR_DB, "jump": SEAM_JUMP, "ok": True}
    assert report["seams"] == [[first, second], []]
    assert (report["retried"], report["exact_first_frame"], report["kernels"]) == (True, False, "reference")
    assert (report["skeleton_fit"], report["first_frame_fits"], report["windows"]) == (None, [], [])
    assert (report["stats"]["evaluations"], report["stats"]["seconds"]) == (0, {})
