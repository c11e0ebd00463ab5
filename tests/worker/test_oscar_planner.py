# SPDX-License-Identifier: Apache-2.0
"""Costs, memory plan and bench: computed from the code that runs, checked against sums done by hand."""

from __future__ import annotations

import json
import os

import pytest
import torch

from retake.core.errors import InputError
from retake.worker.oscar import backends, bench, cli, planner
from retake.worker.oscar import costs as costs_module
from retake.worker.oscar.costs import FULL_TRANSFORMER, meta_vae, stage_costs, vae_costs
from retake.worker.oscar.meter import measure
from retake.worker.oscar.tiers import TIERS, next_tier

GIB = 2**30


@pytest.fixture(scope="module")
def full():
    return stage_costs()


def test_meter_counts_bytes_until_the_last_reference():
    def run():
        a = torch.empty(1000, device="meta")
        b = a + 1  # 8000 bytes live
        del a
        c = b.view(10, 100) * 2  # a view owns nothing
        del b
        return c @ c.T

    cost = measure(run)
    assert cost.peak_bytes == 8000
    assert cost.flops == 2 * 10 * 100 * 10


def test_full_size_forward_matches_the_sum_by_hand(full):
    tokens, width, text, blocks = 21 * 30 * 40, 2048, 512, 28
    linear = 2 * tokens * width * (4 * width + 2 * width + 8 * width) * blocks  # self qkvo, cross qo, mlp
    linear += 2 * text * 1024 * width * 2 * blocks + 2 * tokens * (72 + 64) * width
    attention = 4 * width * tokens * (tokens + text) * blocks
    assert full.forward.flops == pytest.approx(linear + attention, rel=2e-3)
    assert full.forward_batched.flops == pytest.approx(2 * full.forward.flops, rel=1e-6)
    assert full.transformer_bytes == 2 * 2_059_305_984
    assert full.text_bytes / GIB == pytest.approx(13.17, abs=0.01)
    assert full.vae_bytes / GIB == pytest.approx(0.24, abs=0.01)
    hidden, mlp = tokens * width * 2, tokens * width * 4 * 2
    assert hidden + 2 * mlp < full.forward.peak_bytes < 20 * hidden


def test_linear_extrapolation_of_the_vae_is_right():
    latent = 9 if os.environ.get("RETAKE_FULL") == "1" else 5
    coder = meta_vae({"base_dim": 8}, torch.float32)
    encode, decode = vae_costs(coder, latent, 64, 64)
    z = torch.empty(1, 16, latent, 8, 8, device="meta")
    for estimate, real in (
        (encode, measure(lambda: coder.encode(torch.empty(1, 3, 4 * latent - 3, 64, 64, device="meta")))),
        (decode, measure(lambda: coder.decode(z, return_dict=False))),
    ):
        assert estimate.flops == real.flops
        assert estimate.peak_bytes == pytest.approx(real.peak_bytes, rel=0.01)


def test_tiers_need_less_and_less(full):
    plans = planner.plan_tiers(full)
    needed = [plan.needed for plan in plans]
    assert needed == sorted(needed, reverse=True)
    assert [plan.tier for plan in plans] == [tier.name for tier in TIERS]
    assert planner.choose_tier(plans, 80 * GIB).tier == TIERS[0].name
    assert planner.choose_tier(plans, 1 * GIB).tier == TIERS[-1].name
    for plan in plans:
        assert planner.choose_tier(plans, plan.needed).needed <= plan.needed
    assert next_tier(TIERS[-1]) is None
    resident = next(plan for plan in plans if plan.tier == "resident")
    assert resident.needed <= 10 * GIB  # the exact single-take tier's target, as computed


def test_baseline_does_more_and_stock_modulation_costs_what_the_specification_says():
    report = bench.computed()
    takes = report["take_tflop"]
    assert takes["ours, one of 10 takes, prompts cached"] < takes["ours, one take, prompts cached"]
    assert takes["ours, one take, prompts cached"] < takes["ours, one take, unknown prompts"]
    assert takes["ours, one take, unknown prompts"] < takes["baseline, as the reference"]
    assert report["forwards_per_take"] == 72
    forward = report["forward_tflop"]
    assert forward["stock diffusers"] - forward["ours (per-frame modulation)"] == pytest.approx(8.9, abs=0.1)


def test_forecast_needs_a_rate_and_scales_with_it(full):
    unknown = planner.forecast(full, 10, 35, None, 0)
    assert unknown.seconds_per_take is None
    assert "no rate known" in unknown.basis
    assert full.take_flops(35) == pytest.approx(planner.PUBLISHED_TAKE_FLOPS, rel=1e-4)
    one = planner.forecast(full, 1, 35, None, 0)
    assert one.published_seconds == pytest.approx(81 / 2.214, rel=1e-4)
    known = planner.forecast(full, 10, 35, 450e12, 0)
    assert known.seconds_per_take == pytest.approx(unknown.flops_per_take / 450e12)
    assert known.disk_raw_bytes == 10 * 81 * 480 * 640 * 3


def test_plan_command_prints_tier_peaks_minutes_and_disk(capsys):
    assert cli.main(["plan", "--free-gib", "7.5", "--takes", "8", "--tflops", "400"]) == 0
    text = capsys.readouterr().out
    for part in (
        "resident-batched",
        "does not fit",
        "<- this tier",
        "8 takes: about",
        "minutes",
        "H.264",
        "not measured",
    ):
        assert part in text
    assert cli.main(["plan", "--free-gib", "7.5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["tier"] == "staged"
    assert report["text_encoder_on_cpu"]
    assert cli.main(["plan", "--free-gib", "0.5"]) == 0
    assert "no tier is expected to fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--takes", "0"],
        ["--height", "100"],
        ["--frames", "0"],
        ["--model", "/nowhere"],
        ["--device", "cuda:9"],
        ["--device", "gpu"],
    ],
)
def test_plan_refuses_nonsense(arguments):
    with pytest.raises(InputError):
        cli.main(["plan", "--free-gib", "8", *arguments])


def test_plan_for_a_converted_folder(capsys):
    from oscar_golden import converted

    folder = str(converted())
    assert (
        cli.main(["plan", "--model", folder, "--frames", "17", "--height", "64", "--width", "64", "--free-gib", "8"])
        == 0
    )
    assert "resident-batched" in capsys.readouterr().out


def test_bench_command_prints_a_table_and_json(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "measured", lambda: MEASURED())
    assert cli.bench(["--json", str(tmp_path / "bench.json")]) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["measured"]["per_take"]["evaluations"] == 6
    assert report["measured"]["per_take"]["first_frame_frames_encoded"] == 0.5  # two takes of one frame
    if not torch.cuda.is_available():
        assert report["cuda"] is None
        assert "not yet measured" in printed
    assert cli.bench(["--json", "-", "--no-measure"]) == 0
    assert json.loads(capsys.readouterr().out)["computed"]["steps"] == 35


REAL_MEASURED = bench.measured


def MEASURED():
    return REAL_MEASURED(takes=2, frames=5, size=32, steps=2)


def test_the_cuda_bench_runs_at_a_tiny_size_on_the_cpu():
    """The same function that a GPU runs, with its own random weights, backend choice, tier and approximate modes."""
    report = bench.cuda(
        "cpu", steps=2, frames=5, height=32, width=32, transformer=bench.TINY_TRANSFORMER, vae=bench.TINY_VAE,
        approximate=("first-block-cache",),
    )  # fmt: skip
    assert report["seconds_per_take"] > 0
    assert report["evaluations"] == 6
    assert report["peak_gib"] is None
    assert report["attention_backend"] in backends.EXACT_BACKENDS
    assert report["approximations"] == ["first-block-cache:0.05", "steps:2"]
    lines = bench.lines({"computed": bench.computed(), "measured": None, "cuda": [report]})
    assert "s per take of 5 frames" in lines[-1]


def test_full_settings_are_the_golden_key_lists():
    from oscar_golden import GOLDEN

    from retake.worker.oscar.keymap import architecture

    shapes = json.loads((GOLDEN / "full_model_keys_shapes.json").read_text())
    assert architecture({name: tuple(shape) for name, shape in shapes.items()}) == FULL_TRANSFORMER
    assert costs_module.TILE == 256
