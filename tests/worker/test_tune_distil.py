# SPDX-License-Identifier: Apache-2.0
"""`retake tune distil` from folders to a student that the pipeline samples, on tiny weights: it goes on bit for bit, learns by
its own schedule, and refuses in words."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oscar_golden import golden_call, pixels, text_model
from safetensors.torch import load_file
from test_tune_cli import sample

from retake.core.errors import Cancelled, InputError
from retake.worker.backends.oscar import OscarBackend
from retake.worker.oscar import OscarPipeline
from retake.worker.oscar.cli import read_settings
from retake.worker.tune import distill_run, evaluate, launch
from retake.worker.tune.cli import main
from retake.worker.tune.config import TuneConfig
from retake.worker.tune.planning import plan_training


@pytest.fixture(scope="module")
def model() -> Path:
    return text_model()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for seed in range(2):
        sample(root / f"retake_composite/e{seed}", seed)
    return root


def command(data: Path, model: Path, out: Path, steps: int, *extra: str) -> list[str]:
    return ["distil", str(data), "--model", str(model), "--out", str(out), "--frames", "9", "--size", "32x32", "--lr", "0.01",
            "--critic-lr", "0.01", "--warm-up", "0", "--critic-steps", "2", "--student-steps", "2", "--save-every", "1",
            "--device", "cpu", "--steps", str(steps), *extra]  # fmt: skip


def parts(out: Path, step: int) -> dict[str, torch.Tensor]:
    found = {}
    for file in sorted((out / "checkpoints" / f"step-{step:06d}").glob("*.safetensors")):
        found |= {f"{file.name} {key}": value for key, value in load_file(file).items()}
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory, data, model) -> Path:
    """Four steps at once."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(command(data, model, out, 4)) == 0
    assert any((out / "prompts").iterdir()), "prompts are kept: going on needs no text encoder"
    return out


def test_a_distillation_goes_on_bit_for_bit(tmp_path, data, model, made, capsys):
    out = tmp_path / "out"
    for steps in (1, 3, 4):
        assert main(command(data, model, out, steps)) == 0
    assert "experimental" in capsys.readouterr().out
    whole, resumed = parts(made, 4), parts(out, 4)
    files = {f"{who}.{what}.safetensors" for who in ("student", "critic") for what in ("trained", "optimizer")}
    assert {name.partition(" ")[0] for name in whole} == files
    assert set(whole) == set(resumed)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    lines = [json.loads(line) for line in (out / "curves" / "curves.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert [("matching" in line, line["critic"] > 0) for line in lines] == [(False, True), (True, True)] * 2
    state = json.loads((out / "checkpoints" / "step-000004" / "state.json").read_text())
    assert state["iterations"] == {"student": 2, "critic": 4}  # the student learns in every second step


def test_what_is_saved_is_sampled_in_its_own_few_steps(tmp_path, data, model, made, capsys):
    saved = tmp_path / "student"
    assert main(["save", str(made), "--model", str(model), "--out", str(saved)]) == 0
    told = capsys.readouterr().out
    assert "student:2:consistency (experimental)" in told
    assert "terms: CC0-1.0" in told
    assert json.loads((saved / "tuned.json").read_text())["experimental"] == "distilled"
    teacher = OscarPipeline.from_pretrained(model, torch_dtype=torch.float32, lazy_text_encoder=True)
    student = OscarPipeline.from_pretrained(saved, torch_dtype=torch.float32, lazy_text_encoder=True)
    assert student.model_revision != teacher.model_revision
    weights = parts(made, 4)
    for name, value in student.transformer.named_parameters():
        assert torch.equal(value, weights[f"student.trained.safetensors weight.{name}"])
    student.set_progress_bar_config(disable=True)
    call = golden_call(num_frames=5, height=32, width=32, skeleton=pixels()["skeleton"][:5])
    out = student(**{k: v for k, v in call.items() if k not in ("num_inference_steps", "guidance_scale")})
    assert (out.stats.evaluations, out.approximations) == (2, ("student:2:consistency",))
    request: Any = SimpleNamespace(settings={})
    assert OscarBackend(model=str(saved), device="cpu")._options(request)["num_inference_steps"] == 2
    with pytest.raises(InputError, match="is a student already"):
        main(command(data, saved, tmp_path / "again", 1))
    with pytest.raises(InputError, match="exists already"):
        main(["save", str(made), "--model", str(model), "--out", str(saved)])


def test_a_student_is_judged_in_its_own_steps(tmp_path, monkeypatch):
    """Both arms were given 35 steps, which a student refuses."""
    seen = []

    def judge(*_: Any, settings: dict[str, Any], **__: Any) -> dict[str, Any]:
        seen.append(settings)
        return {"rows": [], "arm_follows_worse": []}

    monkeypatch.setattr(launch, "eval_backends", lambda *_: {})
    monkeypatch.setattr(launch, "training_episodes", lambda _: [])
    monkeypatch.setattr(evaluate, "evaluate", judge)
    arguments = ["eval", "teacher", "student", "--episodes", "run", "--out", str(tmp_path)]
    assert main(arguments) == main([*arguments, "--steps", "8"]) == 0
    assert seen == [{}, {"steps": 8}]


def test_stop_is_heard_and_the_same_command_goes_on(tmp_path, data, model, made, monkeypatch):
    out, steps = tmp_path / "out", []
    step = distill_run.DistilTrainer._step

    def stopping(trainer: Any, number: int) -> Any:
        steps.append(number)
        if steps == [0, 1, 2]:
            assert main(["stop", str(out)]) == 0
        return step(trainer, number)

    monkeypatch.setattr(distill_run.DistilTrainer, "_step", stopping)
    with pytest.raises(Cancelled):
        main(command(data, model, out, 4, "--save-every", "100"))
    assert steps == [0, 1, 2]
    assert main(command(data, model, out, 4, "--save-every", "100")) == 0
    assert steps == [0, 1, 2, 3]
    found = parts(out, 4)
    assert all(torch.equal(value, found[name]) for name, value in parts(made, 4).items())


@pytest.mark.parametrize(("extra", "says"), [
    (("--student-steps", "0"), "1 to 32 steps"), (("--student-steps", "40"), "1 to 32 steps"),
    (("--sampler", "magic"), "valid: consistency, ode"), (("--guidance", "-1"), "valid: 0"), (("--guidance", "nan"), "valid: 0"),
    (("--guidance", "inf"), "valid: 0"), (("--critic-steps", "0"), "1 or more"), (("--lr", "0"), "above 0"),
    (("--critic-lr", "nan"), "above 0"), (("--size", "30x32"), "multiples of 16"), (("--frames", "8"), r"1 \+ 4k"),
    (("--domain", "x"), "NAME=SHARE"), (("--domain", "recorded=1"), "domain"),
], ids=str)  # fmt: skip
def test_what_cannot_be_distilled_is_refused_before_anything_is_written(tmp_path, data, model, extra, says):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=says):
        main(command(data, model, out, 1, *extra))
    assert not (out / "checkpoints").exists()


def test_other_settings_or_several_processes_are_refused(data, model, made, monkeypatch):
    for extra, says in (
        (("--student-steps", "3"), "other settings"),
        (("--guidance", "2"), "guidance: 6.0 then, 2.0 now"),
    ):
        with pytest.raises(InputError, match=says):
            main(command(data, model, made, 6, *extra))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one process"):
        main(command(data, model, made, 6))


def test_without_guidance_no_negative_prompt_is_needed(tmp_path, data, model, monkeypatch):
    asked: list[str] = []
    encode = OscarPipeline.encode_prompts
    monkeypatch.setattr(OscarPipeline, "encode_prompts", lambda pipe, texts: asked.extend(texts) or encode(pipe, texts))
    assert main(command(data, model, tmp_path / "out", 1, "--guidance", "0")) == 0
    assert asked
    assert all("box" in text for text in asked)


def test_memory_of_three_models_is_counted_and_asked_for(tmp_path, data, model, monkeypatch, capsys):
    plan = ["plan", "--model", str(model), "--frames", "9", "--size", "64x64", "--json"]
    assert main([*plan, "--distil", "--no-average"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["peak"] + told["weights"] < told["distil_peak"] < 3 * told["peak"]
    with pytest.raises(InputError, match="no adapters"):
        main([*plan, "--distil", "--lora"])
    counted = plan_training(TuneConfig(ema_rate=None), transformer=read_settings(model)[0], frames=9, size=(32, 32))
    need = distill_run.distil_peak(counted)
    distill_run.check_distil_fits(counted, need, "cuda:0")
    with pytest.raises(InputError, match="student, critic and teacher"):
        distill_run.check_distil_fits(counted, need - 1, "cuda:0")
    monkeypatch.setattr(distill_run, "usable_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(distill_run, "free_device_bytes", lambda _: 2**20)
    with pytest.raises(InputError, match=r"distillation needs .* and cuda has 0.0 GiB free"):
        main(command(data, model, tmp_path / "out", 1))
