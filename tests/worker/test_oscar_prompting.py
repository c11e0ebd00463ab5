# SPDX-License-Identifier: Apache-2.0
"""From a prompt's text to what the network reads: what is encoded, kept, found again and refused. Of
retake.worker.oscar.prompting."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from oscar_golden import converted, pipeline, tensors, text_model, text_pipeline
from test_oscar_pipeline import small_call

from retake.core.errors import InputError, TakeError
from retake.worker import memory
from retake.worker.oscar import OscarPipeline, ProjectedPrompt, prompting
from retake.worker.oscar.output import RunStats
from retake.worker.oscar.prompting import PromptStage
from retake.worker.oscar.prompts import PromptCache, read_encoder_revision


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


def test_cached_prompts_equal_fresh_ones(tmp_path):
    words = {"prompt": "a kitchen", "negative_prompt": "ugly", "prompt_embeds": None, "negative_prompt_embeds": None}
    fresh = text_pipeline()
    first = fresh(**small_call(**words))
    assert (first.stats.text_encodes, first.stats.prompts_from_cache) == (2, 0)

    fresh.enable_prompt_cache(tmp_path)
    fresh.encode_prompt("a kitchen")
    fresh.encode_prompt("ugly")
    assert len(list(tmp_path.glob("*.safetensors"))) == 2

    cached = text_pipeline(lazy_text_encoder=True)
    cached.enable_prompt_cache(tmp_path)
    cached._text_parts = None  # a call of it would fail
    again = cached(**small_call(**words))
    assert (again.stats.text_encodes, again.stats.prompts_from_cache) == (0, 2)
    assert cached.text_encoder is None
    assert np.array_equal(first.frames, again.frames)
    assert torch.equal(cached.encode_prompt("ugly").embeds, text_pipeline().encode_prompt("ugly").embeds)


def test_lazy_text_encoder_is_read_for_an_unknown_prompt_and_freed():
    lazy = text_pipeline(lazy_text_encoder=True)
    out = lazy(**small_call(prompt="a desk", negative_prompt="", prompt_embeds=None, negative_prompt_embeds=None))
    assert out.stats.text_encodes == 2
    assert lazy.text_encoder is None
    assert lazy._lazy_encoder is None
    eager = text_pipeline()
    assert torch.equal(lazy.encode_prompt("a desk").embeds, eager.encode_prompt("a desk").embeds)


def test_cache_knows_revision_dtype_and_text_and_survives_damage(tmp_path):
    pipe = text_pipeline()
    pipe.enable_prompt_cache(tmp_path)
    prompt = pipe.encode_prompt("a shelf")
    cache = pipe.prompt_cache
    (path,) = tmp_path.glob("*.safetensors")
    fresh = type(cache)(tmp_path)
    assert fresh.get(prompt.revision, torch.float32, 512, "a shelf") is not None
    for other in (
        ("x", torch.float32, 512, "a shelf"),
        (prompt.revision, torch.bfloat16, 512, "a shelf"),
        (prompt.revision, torch.float32, 256, "a shelf"),
        (prompt.revision, torch.float32, 512, "a Shelf"),
    ):
        assert fresh.get(*other) is None
    encoder = read_encoder_revision(text_model())
    assert encoder is not None
    assert read_encoder_revision(converted()) is None
    for at_hand, known in ((encoder, True), (None, True), ("another", False)):  # None: a folder without text encoder
        found = type(cache)(tmp_path).get(prompt.revision, torch.float32, 512, "a shelf", at_hand)
        assert (found is not None) == known
    path.write_bytes(path.read_bytes()[:40])
    assert type(cache)(tmp_path).get(prompt.revision, torch.float32, 512, "a shelf") is None


def test_projected_prompt_equals_raw_and_another_models_is_refused(pipe):
    raw = tensors("sampling_run")
    projected = {
        "prompt_embeds": pipe.project_embeddings(raw["prompt_embeds"]),
        "negative_prompt_embeds": pipe.project_embeddings(raw["negative_prompt_embeds"]),
    }
    assert np.array_equal(pipe(**small_call(**projected)).frames, pipe(**small_call()).frames)
    foreign = ProjectedPrompt(projected["prompt_embeds"].embeds, "other")
    with pytest.raises(InputError, match="revision other"):
        pipe(**small_call(prompt_embeds=foreign))


def test_revision_is_stated_by_the_folder_and_computed_without_one(pipe):
    assert len(pipe.model_revision) == 16
    assert pipeline("dcp_quirks").model_revision != pipe.model_revision
    loose = OscarPipeline(pipe.transformer, pipe.vae, pipe.scheduler)
    assert loose.model_revision == OscarPipeline(pipe.transformer, pipe.vae, pipe.scheduler).model_revision


def test_prompts_need_a_text_encoder(pipe):
    with pytest.raises(InputError, match="not cached and this model folder has no tokenizer"):
        pipe(**small_call(prompt="a table", prompt_embeds=None))
    with pytest.raises(InputError, match="not cached"):  # the default negative prompt is a prompt, too
        pipe(**small_call(negative_prompt_embeds=None))


def test_without_guidance_no_negative_is_needed_and_half_the_evaluations_are(pipe):
    out = pipe(**small_call(negative_prompt_embeds=None, guidance_scale=0))
    assert out.stats.evaluations == 3
    assert np.array_equal(out.frames, pipe(**small_call(guidance_scale=0.0)).frames)
    assert not np.array_equal(out.frames, pipe(**small_call()).frames)


def test_tokenisation_is_right_padded_and_truncated():
    from retake.worker.oscar.text import chat, tokenize

    tokenizer = text_pipeline().tokenizer
    ids = tokenize(tokenizer, "a b", 512)[0].tolist()
    plain = tokenizer(chat("a b"), add_special_tokens=False)["input_ids"]
    assert ids == plain + [7] * (512 - len(plain))
    assert len(tokenize(tokenizer, "x" * 2000, 512)[0]) == 512
    assert chat("P") == (
        "<|im_start|>system\nYou are a helpful assistant who will provide prompts to an image generator.<|im_end|>\n"
        "<|im_start|>user\nP<|im_end|>\n"
    )


# -- by itself --------------------------------------------------------------------------------------------------------


class Encoder(torch.nn.Module):
    """Where it was sent."""

    def __init__(self, *full: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1000))
        self.sent: list[str] = []
        self.runs, self.full = 0, full

    def to(self, device: Any) -> Encoder:
        self.sent.append(str(device))
        return self


class Stage(PromptStage):
    """The stage of a pipeline whose other parts a test plays: a prompt's embedding is its length."""

    def __init__(self, encoder: Any = None) -> None:
        config = {"crossattn_proj_in_channels": 3, "text_embed_dim": 2}
        self.transformer = SimpleNamespace(
            config=config, dtype=torch.float32, crossattn_proj="projection", project_text=lambda raw: raw[..., :2] + 1
        )
        self._revision, self._folder, self.tokenizer, self.text_encoder = "r", None, "tokenizer", encoder or Encoder()
        self.prompt_cache, self.stats, self.safety_checker = PromptCache(None), RunStats(), None
        self.run_device, self._tier_device, self.text_device = torch.device("cpu"), None, None
        self.margin_bytes = 0
        self.stages: list[Any] = []

    @contextmanager
    def stage(self, name: str, *modules: Any) -> Any:
        self.stages.append((name, *modules))
        yield


@pytest.fixture(autouse=True)
def text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that counts letters, and an encoder that says what it was given, or has no room for it."""

    def embed(encoder: Any, ids: torch.Tensor) -> torch.Tensor:
        if not isinstance(encoder, Encoder):
            return real(encoder, ids)
        encoder.runs += 1
        if encoder.runs in encoder.full:
            raise torch.OutOfMemoryError("no")
        return torch.full((1, 4, 3), float(ids))

    real, tokens = prompting.text_stage.embed, prompting.text_stage.tokenize
    monkeypatch.setattr(prompting.text_stage, "embed", embed)
    monkeypatch.setattr(prompting.text_stage, "tokenize", lambda tokenizer, prompt, length: (
        torch.tensor(float(len(prompt))) if tokenizer == "tokenizer" else tokens(tokenizer, prompt, length)))  # fmt: skip


def values(prompts: Any) -> list[float]:
    return [float(prompt.embeds[0, 0, 0]) for prompt in prompts]


def test_each_text_is_encoded_once_and_all_in_one_visit():
    stage = Stage()
    found = stage.encode_prompts(["aa", "b", "aa", "ccc"])
    assert (list(found), values(found.values())) == (["aa", "b", "ccc"], [3, 2, 4])
    assert [(prompt.text, prompt.revision) for prompt in found.values()] == [("aa", "r"), ("b", "r"), ("ccc", "r")]
    assert (stage.stats.text_encodes, stage.stats.prompts_from_cache, stage.text_encoder.runs) == (3, 0, 3)
    assert stage.stages == [("text",), ("project", "projection")]
    again = stage.encode_prompts(["ccc", "dddd", "aa"])
    assert (stage.stats.text_encodes, stage.stats.prompts_from_cache) == (4, 2)
    assert set(again) == {"aa", "ccc", "dddd"}
    assert values([stage.encode_prompt("b")]) == [2]
    stage.encode_prompts([])
    assert stage.stats.text_encodes == 4


def request(negative: Any, *prompts: Any) -> Any:
    return SimpleNamespace(negative=negative, prompts=prompts)


def test_the_negative_prompt_comes_first_and_every_take_has_its_own():
    stage, raw = Stage(), torch.full((1, 4, 3), 8.0)
    stage._lazy_encoder = "read from disk"
    known = ProjectedPrompt(torch.full((1, 4, 2), 5.0), "r")
    positive, negative = stage.prepare_prompts(request("nnn", "aa", raw, known, raw, "aa"))
    assert negative is not None
    assert values([negative]) == [4]
    assert values(positive) == [3, 9, 5, 9, 3]
    assert positive[2] is known
    assert positive[1] is positive[3], "projected once"
    assert stage.stats.text_encodes == 2
    assert stage._lazy_encoder is None
    assert stage.prepare_prompts(request(None, "aa"))[1] is None
    with pytest.raises(InputError, match="belongs to model revision other, this is r"):
        stage.prepare_prompts(request(None, ProjectedPrompt(torch.zeros(1, 4, 2), "other")))
    for wrong in (torch.zeros(1, 4, 2), ProjectedPrompt(torch.zeros(1, 4, 3), "r")):
        with pytest.raises(InputError):
            stage.prepare_prompts(request(None, wrong))


def test_a_refused_prompt_is_not_encoded_and_an_encoder_is_let_go_when_it_fails():
    stage, asked = Stage(Encoder(1)), []
    stage._lazy_encoder = "read from disk"
    stage.safety_checker = SimpleNamespace(
        check_prompt=lambda text: asked.append(text) or ("no" if text == "bad" else None)
    )
    with pytest.raises(TakeError, match="the safety checker refused the prompt: no"):
        stage.prepare_prompts(request("n", "fine", "fine", "bad"))
    assert (asked, stage.text_encoder.runs) == (["n", "fine", "bad"], 0)
    with pytest.raises(torch.OutOfMemoryError):
        stage.prepare_prompts(request(None, "fine"))
    assert stage._lazy_encoder is None


@pytest.mark.parametrize(("free", "margin", "place"), [(0, 0, "cuda"), (-1, 0, "cpu"), (5, 5, "cuda"), (5, 6, "cpu")])
def test_the_encoder_runs_on_the_card_where_it_fits_beside_the_margin(monkeypatch, free, margin, place):
    stage = Stage()
    assert stage._place_for(stage.text_encoder).type == "cpu"
    stage.run_device, stage.margin_bytes = torch.device("cuda"), margin
    need = int(4000 * memory.FRAGMENTATION) + memory.CONTEXT_BYTES
    monkeypatch.setattr(memory, "free_device_bytes", lambda device: need + free)
    assert stage._place_for(stage.text_encoder).type == place


def test_without_room_the_rest_is_encoded_on_the_cpu():
    ids = [torch.tensor(float(k)) for k in (1, 2, 3)]
    stage = Stage(Encoder(2))
    stage.text_device = torch.device("meta")
    assert [float(raw[0, 0, 0]) for raw in stage._embed(stage.text_encoder, ids)] == [1, 2, 3]
    assert (stage.text_encoder.sent, stage.text_encoder.runs) == (["meta", "cpu"], 4), "what was done stays done"
    stage = Stage(Encoder(1))
    with pytest.raises(torch.OutOfMemoryError):
        stage._embed(stage.text_encoder, ids)
    hooked = Encoder()
    hooked._hf_hook = "accelerate"
    stage._embed(hooked, ids)
    assert hooked.sent == [], "it moves by itself"


def test_what_is_missing_is_said_with_the_beginning_of_the_prompt():
    stage = Stage()
    stage.text_encoder = None
    for tokenizer, what in (("tokenizer", "no text encoder"), (None, "no tokenizer")):
        stage.tokenizer = tokenizer
        for length, shown in ((40, "x" * 40), (41, "x" * 40 + "…")):
            with pytest.raises(
                InputError, match=f"the prompt '{shown}' is not cached and this model folder has {what}"
            ):
                stage.encode_prompt("x" * length)
