# SPDX-License-Identifier: Apache-2.0
"""The backend around the pipeline: the tier it is told is the tier it runs in, on the card that was chosen, as pinned."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from oscar_golden import pipeline, text_model

from retake.core.errors import InputError, TakeError
from retake.worker import memory
from retake.worker.backends import oscar as backend_module
from retake.worker.backends.oscar import OscarBackend


class Recorded:
    """Notes what is asked of a pipeline's memory."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.tier = type("T", (), {"name": "", "group_offload": False})()
        self.transformer, self.model_revision, self.margin_bytes = object(), "r", 0
        self.approximations, self.student = (), None

    def set_progress_bar_config(self, **_: Any) -> None:
        pass

    def enable_memory_tier(self, name: str, device: Any = None) -> None:
        self.tier.name = name
        self.calls.append(("tier", name, str(device)))

    def enable_planned_memory(self, device: Any, height: int, width: int, frames: int) -> None:
        self.tier.name = "planned"
        self.calls.append(("plan", str(device), height, width, frames, self.margin_bytes))

    def use_kernels(self, name: str) -> str:
        return ""

    def release_memory(self) -> None:
        self.calls.append(("release",))


@pytest.fixture
def cuda(monkeypatch):
    """A machine with two cards, as far as the backend asks; kernels are not chosen (there is none)."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (1, 2))
    uuids = ["aaaa-1", "bbbb-2"]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: type("P", (), {"uuid": uuids[index]})())
    monkeypatch.setattr(OscarBackend, "_use_kernels", lambda *_: None)


def test_the_named_tier_is_obeyed_and_a_plan_leaves_the_margin(cuda):
    made = OscarBackend(pipeline=Recorded())
    made.use_tier("staged")
    made._place(480, 640, 81)
    made._place(480, 640, 81)  # nothing changed: nothing moves
    made.use_tier("auto")
    made.margin_bytes = 3
    made._place(480, 640, 81)
    made._place(720, 1280, 33)  # another size is planned for itself
    assert made.pipeline.calls == [
        ("tier", "staged", "cuda"), ("plan", "cuda", 480, 640, 81, 3), ("plan", "cuda", 720, 1280, 33, 3),
    ]  # fmt: skip
    with pytest.raises(InputError, match="memory tier"):
        made.use_tier("residential")


def test_without_a_word_a_card_is_used(cuda):
    """`retake takes` and the local runner name no tier."""
    made = OscarBackend(pipeline=Recorded())
    made._place(480, 640, 81)
    assert made.pipeline.calls == [("plan", "cuda", 480, 640, 81, memory.MARGIN_BYTES)]


def test_the_chosen_card_is_the_one_that_runs(cuda):
    made = OscarBackend(pipeline=Recorded())
    made.use_card("GPU-bbbb-2")
    made.use_tier("resident")
    made._place(480, 640, 81)
    assert made.pipeline.calls == [("release",), ("tier", "resident", "cuda:1")]
    with pytest.raises(InputError, match="CUDA_VISIBLE_DEVICES"):
        made.use_card("GPU-cccc-3")


def test_cpu_is_taken_at_its_word(cuda):
    made = OscarBackend(pipeline=Recorded())
    made.use_tier("cpu")
    made._place(480, 640, 81)
    assert (made.device, made.pipeline.calls) == ("cpu", [("tier", "resident", "cpu")])


@pytest.mark.parametrize(("device", "dtype"), [("cuda", "bfloat16"), ("cuda:1", "bfloat16"), ("cpu", "float32")])
def test_every_card_is_bfloat16(cuda, monkeypatch, device, dtype):
    asked = []
    monkeypatch.setattr(backend_module, "load_pipeline", lambda *arguments: asked.append(arguments) or Recorded())
    OscarBackend(model="anywhere", device=device)
    assert asked[0][1:] == (device, dtype)


def test_what_is_pinned_is_part_of_the_identity_and_not_overruled(cuda):
    plain, pinned = OscarBackend(pipeline=Recorded()), OscarBackend(
        pipeline=Recorded(), tier="staged", attention="native", deterministic=True
    )  # fmt: skip
    assert plain.arithmetic == ""
    assert pinned.arithmetic == "tier staged, attention native, deterministic yes"
    pinned.use_tier("resident")
    pinned._place(480, 640, 81)
    assert pinned.pipeline.calls == [("tier", "staged", "cuda")]
    torch.backends.cudnn.deterministic = False
    for wrong in ({"tier": "huge"}, {"attention": "magic"}):
        with pytest.raises(InputError, match="valid"):
            OscarBackend(pipeline=Recorded(), **wrong)


def test_a_mode_is_pinned_with_its_options_and_a_file_with_what_is_in_it(tmp_path):
    """Other options are other pixels: a take that was kept must not pass for one of these."""
    file = tmp_path / "calibration.json"

    def pins(**options: Any) -> str:
        return OscarBackend(pipeline=Recorded(), device="cpu", approximate={"first-block-cache": options}).arithmetic

    file.write_text("one")
    found = [pins(), pins(threshold=0.05), pins(threshold=0.2), pins(threshold=str(file)), pins(threshold=file)]
    assert found[1] == "approximate first-block-cache(threshold=0.05)"
    assert len(set(found)) == 4
    assert str(tmp_path) not in found[3]
    file.write_text("two")
    assert pins(threshold=str(file)) not in found


@pytest.mark.parametrize(("pinned", "ran", "fine"), [
    ("", "group-offload", True), ("auto", "staged-tiled", True), ("resident", "resident", True), ("resident", "staged", True),
    ("resident-overlap", "staged", True), ("resident", "staged-tiled", False), ("resident-batched", "resident", False),
    ("staged-tiled", "group-offload", True),
])  # fmt: skip
def test_a_pinned_tier_is_not_left_for_one_with_other_pixels(cuda, pinned, ran, fine):
    """Its name is part of the take's identity, so a take must not carry it falsely."""
    made = OscarBackend(pipeline=Recorded(), tier=pinned)
    if fine:
        made._check_pinned(ran)
        return
    with pytest.raises(TakeError, match="pixels differ") as raised:
        made._check_pinned(ran)
    assert memory.fault_of(raised.value) == "memory"  # the executor gives the card back, and the job is tried again


def test_a_take_says_what_it_ran_with(tmp_path):
    from tiny_run import make_run

    from retake.core.takes import make_take
    from retake.core.takes.base import TakeRequest
    from retake.core.takes.make import read_take

    run = make_run(tmp_path)
    made = OscarBackend(
        model=str(text_model()), device="cpu", attention="native", approximate={"guidance-interval": {"low": 0.2}}
    )
    request = TakeRequest(run / "episode", "front", run / "skeleton" / "front", run / "variants" / "kitchen" / "front",
                          "a packet on a table", seed=1, frames=5,
                          settings={"steps": 2, "window": 5, "width": 64, "height": 48})  # fmt: skip
    take = make_take(request, made, tmp_path / "take")
    assert take.approximations == read_take(tmp_path / "take").approximations == ("guidance-interval:0.2-1", "steps:2")
    ran = made.report["oscar"]
    assert ran["approximations"] == list(take.approximations)
    wanted = {"device": "cpu", "dtype": "float32", "attention": "native", "tiled": False, "compiled": False,
              "deterministic": False, "tier": "resident", "kernels": "reference"}  # fmt: skip
    assert {key: ran[key] for key in wanted} == wanted
    exact = OscarBackend(model=str(text_model()), device="cpu")
    plain = make_take(
        TakeRequest(**{**request.__dict__, "settings": {**request.settings, "steps": 35}}), exact, tmp_path / "x"
    )
    assert plain.approximations == ()
    assert "approximations" not in json.loads((tmp_path / "x" / "take.json").read_text())
    assert take.inputs_sha256 != plain.inputs_sha256


def test_an_encoder_that_does_not_fit_is_run_on_the_cpu(monkeypatch):
    pipe = pipeline()
    encoder = torch.nn.Linear(1000, 1000)
    pipe._tier_device = torch.device("cuda")
    free = [memory.CONTEXT_BYTES + int(4_004_000 * memory.FRAGMENTATION)]
    monkeypatch.setattr(memory, "free_device_bytes", lambda device: free[0])
    assert pipe._place_for(encoder).type == "cuda"
    pipe.margin_bytes = 1
    assert pipe._place_for(encoder).type == "cpu"


def test_an_encoder_that_runs_out_of_memory_goes_on_on_the_cpu(monkeypatch):
    from retake.worker.oscar import prompting

    pipe, seen = pipeline(), []

    class Encoder(torch.nn.Module):
        def to(self, device: Any) -> Encoder:
            seen.append(str(device))
            return self

    def embed(encoder: Any, ids: Any) -> Any:
        if not seen:
            seen.append("failed")
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
        return ids

    pipe.text_device, pipe._tier_device = torch.device("meta"), torch.device("meta")
    monkeypatch.setattr(prompting.text_stage, "embed", embed)
    ids = torch.ones(1, 3)
    assert torch.equal(pipe._embed(Encoder(), [ids])[0], ids)
    assert seen == ["failed", "cpu"]


def test_modes_are_pinned_labelled_and_checked():
    made = OscarBackend(
        pipeline=pipeline(),
        device="cpu",
        kernels="fused",
        approximate={"guidance-interval": {"low": 0.1, "high": 0.8}, "fp8": {}},
    )
    assert made.arithmetic == "kernels fused, approximate fp8 guidance-interval(high=0.8, low=0.1)"
    made._place(32, 32, 5)
    made._place(64, 64, 5)
    assert made.pipeline.kernels == "fused"
    assert made.pipeline.approximations == ("guidance-interval:0.1-0.8", "fp8")
    for wrong in ({"kernels": "quick"}, {"approximate": ["magic"]}):
        with pytest.raises(InputError, match="valid"):
            OscarBackend(pipeline=Recorded(), device="cpu", **wrong)
