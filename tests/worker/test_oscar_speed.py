# SPDX-License-Identifier: Apache-2.0
"""What makes takes faster: fused kernels within their tolerance, and approximate modes that are labelled and calibrated."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oscar_golden import difference, golden_call, pipeline, pixels, tensors, text_model
from tiny_run import make_run

from retake.core.errors import InputError
from retake.worker.backends.oscar import OscarBackend
from retake.worker.oscar import backends, costs, fp8, fused, sparse
from retake.worker.oscar.costs import FULL_TRANSFORMER, meta_transformer
from retake.worker.oscar.stepcache import Calibration, Residuals, calibrate, plan_skips, relative_error

CPU = torch.device("cpu")


def small(**changes: Any) -> dict[str, Any]:
    call = {"num_frames": 5, "height": 32, "width": 32, "num_inference_steps": 6, "output_type": "latent"}
    return golden_call(**{**call, "skeleton": pixels()["skeleton"][:5], **changes})


def forward(model: Any) -> torch.Tensor:
    golden = tensors("dit_forward")
    with torch.no_grad():
        return model(
            torch.cat([golden["x_B_C_T_H_W"], golden["i2v_WAN2PT1_cond_latents"]], dim=1),
            (golden["timesteps_B_T"] * 0.001),
            golden["crossattn_emb"],
            condition_mask=golden["condition_video_input_mask_B_C_T_H_W"],
        ).sample


# -- fused kernels -----------------------------------------------------------------------------------------------------


@pytest.mark.parity
def test_fused_kernels_are_the_references_within_1e_5_and_can_be_undone():
    pipe, reference = pipeline(), forward(pipeline().transformer)
    assert pipe.use_kernels("fused") == ""
    names = {name.rpartition(".")[0].rpartition(".")[2] for name in pipe.transformer.state_dict()}
    assert {"to_qkv", "to_kv"} <= names
    found = forward(pipe.transformer)
    assert difference(found, reference) <= 1e-5
    assert pipe(**small(num_inference_steps=1)).report()["kernels"] == "fused"
    pipe.use_kernels("reference")
    assert torch.equal(forward(pipe.transformer), reference)
    assert pipe(**small(num_inference_steps=1)).report()["kernels"] == "reference"


def test_auto_is_the_reference_on_the_cpu_and_says_why():
    pipe = pipeline()
    assert "CPU" in pipe.use_kernels("auto")
    assert pipe.kernels == "reference"
    with pytest.raises(InputError, match="valid: fused, reference"):
        pipe.use_kernels("quick")


def test_fused_operations_agree_with_their_formulas_and_a_broken_one_is_not_used(monkeypatch):
    assert fused.disagreement(CPU, torch.float32) == ""
    assert fused.disagreement(CPU, torch.bfloat16) == ""
    monkeypatch.setattr(fused, "_run", lambda formula, *arguments: formula(*arguments) * 1.01)
    assert "is off by" in fused.disagreement(CPU, torch.float32)
    monkeypatch.setattr(fused, "_run", lambda *_: (_ for _ in ()).throw(RuntimeError("no compiler")))
    assert "no compiler" in fused.disagreement(CPU, torch.float32)


def test_an_adapter_is_not_lost_to_fused_kernels():
    from peft import LoraConfig

    pipe = pipeline()
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(InputError, match="fuse the adapter"):
        pipe.use_kernels("fused")
    assert pipe.kernels == "reference"
    assert not hasattr(pipe.transformer.transformer_blocks[0].attn2, "to_kv")


def test_triton_kernels_compute_the_same_formulas():
    """Under Triton's interpreter, in a process of its own (the choice is made when Triton is imported)."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed; the kernels' formulas are tested through their plain bodies")
    code = (
        "import torch; from retake.worker.oscar import fused; fused.use_bodies('cpu', 'triton')\n"
        "for kind in (torch.float32, torch.bfloat16):\n"
        "    found = fused.disagreement(torch.device('cpu'), kind); assert not found, found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_body_that_is_not_here_is_refused_in_words():
    with pytest.raises(InputError, match="valid: compiled, plain, triton"):
        fused.use_bodies("cpu", "magic")
    if importlib.util.find_spec("triton") is None:
        with pytest.raises(InputError, match="need the package triton"):
            fused.use_bodies("cpu", "triton")


def test_elementwise_traffic_of_a_full_size_forward():
    model = meta_transformer({**FULL_TRANSFORMER, "num_layers": 2}, torch.bfloat16)
    two = sum(costs.forward_traffic(model, 21, 60, 80).values()), costs.forward_cost(model, 21, 60, 80, 1).flops
    fused.set_kernels(model, "fused")
    fused_two = sum(costs.forward_traffic(model, 21, 60, 80).values()), costs.forward_cost(model, 21, 60, 80, 1).flops
    assert fused_two[1] == two[1]
    # blocks are alike: 28 of them, and what is outside them counted at most twice
    assert 14 * two[0] > 500e9
    assert 14 * fused_two[0] <= 120e9


@pytest.mark.parametrize("kernels", ["reference", "fused"])
def test_a_block_is_one_graph(kernels):
    pipe = pipeline()
    pipe.use_kernels(kernels)
    block = pipe.transformer.transformer_blocks[0]
    width, text = block.norm1.linear_1.in_features, block.attn2.to_out[0].out_features
    context = tensors("dit_forward")["crossattn_emb"].shape[-1]
    del text
    tokens = torch.randn(1, 8, width)
    rope = pipe.transformer.rope_tables(2, 4, 4, CPU)
    projected = pipe.transformer.config["text_embed_dim"]
    assert context
    with torch.no_grad():
        found = torch._dynamo.explain(block)(
            tokens, torch.randn(1, 5, projected), torch.randn(1, 2, width), torch.randn(1, 2, 3 * width), rope
        )
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons
    torch._dynamo.reset()


# -- attention -----------------------------------------------------------------------------------------------------------


def test_kernels_of_other_packages_are_refused_in_words_where_they_are_not():
    for name in ("flash", "_flash_3", "sage"):
        if backends.obstacle(name):
            assert "is not installed here; works now: attention 'native'" in backends.obstacle(name)
    with pytest.raises(InputError, match="approximate mode 'sage'"):
        backends.check_backend("sage")
    if backends.obstacle("_flash_3"):
        with pytest.raises(InputError, match="FlashAttention 3"):
            OscarBackend(pipeline=pipeline(), attention="_flash_3")
    if backends.obstacle("sage"):
        with pytest.raises(InputError, match="SageAttention"):
            pipeline().enable_approximation("sage")


def test_a_kernel_of_the_hub_is_fetched_or_told_and_changes_nothing_where_it_cannot_be(monkeypatch):
    from diffusers.models import attention_dispatch

    asked, pipe = [], pipeline()
    monkeypatch.setattr(backends, "obstacle", lambda name: "")
    monkeypatch.setattr(attention_dispatch, "_maybe_download_kernel_for_backend", asked.append)
    before = backends.attention_of(pipe.transformer)

    def away(backend):
        raise OSError("the Hub is away")

    with monkeypatch.context() as patch:
        patch.setattr(attention_dispatch, "_maybe_download_kernel_for_backend", away)
        with pytest.raises(InputError, match="'sage_blackwell_hub' cannot be fetched: the Hub is away"):
            pipe.enable_approximation("sage", kernel="sage_blackwell_hub")
    assert (pipe.approximations, backends.attention_of(pipe.transformer)) == ((), before)
    pipe.enable_approximation("sage", kernel="sage_blackwell_hub")
    assert [one.value for one in asked] == ["sage_blackwell_hub"]
    assert backends.attention_of(pipe.transformer) == "sage_blackwell_hub"


patterns = st.builds(
    sparse.Pattern, st.sampled_from(sparse.KINDS), st.integers(1, 3),
    st.tuples(st.integers(1, 6), st.integers(1, 13), st.integers(1, 4)),
)  # fmt: skip


@given(patterns)
@settings(max_examples=30, deadline=None)
def test_a_pattern_sees_itself_its_neighbours_and_the_given_frame(pattern):
    t, h, w = pattern.grid
    places = torch.arange(t * h * w)
    mask = pattern.allowed(places[:, None], places[None, :])
    plane = h * w
    assert bool(mask.diagonal().all())
    assert bool(mask[:, :plane].all())
    assert bool((mask[plane:, plane:] == mask[plane:, plane:].T).all())
    assert pattern.density() == pytest.approx(float(mask.float().mean()), abs=1e-6)
    if t <= pattern.reach + 1 and pattern.kind == "radial":
        assert bool(mask.all())


def test_radial_bands_halve_with_every_doubling():
    pattern = sparse.Pattern("radial", 1, (21, 30, 40))
    query = torch.tensor(2 * 1200)
    widths = [int(pattern.allowed(query, torch.arange(1200) + (2 + apart) * 1200).sum()) for apart in (1, 2, 4, 8, 16)]
    assert widths == [1200, 301, 151, 76, 38]  # one side of the band, which is cut at the picture's corner
    assert 0.2 < pattern.density() < 0.4
    assert sparse.Pattern("tile", 1, (21, 30, 40)).density() < 0.2


def test_sparse_attention_of_everything_is_attention():
    q, k, v = (torch.randn(1, 24, 2, 8) for _ in range(3))
    whole = sparse.attention(q, k, v, sparse.Pattern("radial", 5, (2, 3, 4)))
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    assert difference(whole, torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2)) < 1e-5
    with pytest.raises(InputError, match="needs a CUDA device"):
        sparse.attention(*(torch.empty(1, 9000, 1, 8) for _ in range(3)), sparse.Pattern("tile", 1, (9, 10, 100)))


def test_sparse_flops_are_counted_in_proportion():
    model = meta_transformer({**FULL_TRANSFORMER, "num_layers": 1}, torch.bfloat16)
    exact = costs.forward_cost(model, 21, 60, 80, 1).flops
    model.sparse = ("radial", 1)
    saved = exact - costs.forward_cost(model, 21, 60, 80, 1).flops
    attention = 4 * 2048 * 25_200**2
    assert saved / attention == pytest.approx(1 - sparse.Pattern("radial", 1, (21, 30, 40)).density(), abs=1e-3)
    model.sparse = None
    assert costs.forward_cost(model, 21, 60, 80, 1).flops == exact


# -- float8 --------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.sampled_from([16, 48]), st.floats(-6, 6))
@settings(max_examples=20, deadline=None)
def test_float8_products_are_products(rows, columns, magnitude):
    generator = torch.Generator().manual_seed(rows)
    layer = torch.nn.Linear(32, columns, bias=False)
    x = torch.randn(2, rows, 32, generator=generator) * 10**magnitude
    exact, found = layer(x), fp8.Float8Linear(layer)(x)
    assert found.shape == exact.shape
    assert found.dtype == x.dtype
    assert relative_error(found.detach(), exact.detach()) < 0.06  # two roundings to 3 bits of mantissa


def test_float8_is_compute_is_labelled_and_is_refused_by_old_cards(monkeypatch):
    pipe = pipeline()
    exact = pipe(**small(num_inference_steps=2)).frames
    pipe.use_kernels("fused")
    pipe.enable_approximation("fp8")
    block = pipe.transformer.transformer_blocks[0]
    assert type(block.attn1.to_qkv) is type(block.ff.net[2]) is fp8.Float8Linear
    assert type(block.norm1.linear_1).__name__ == "Fp32Linear"
    out = pipe(**small(num_inference_steps=2))
    assert out.approximations == ("fp8", "steps:2")
    assert 0 < relative_error(out.frames, exact) < 0.6  # two steps, guidance 6: what rounding does is amplified
    pipe.enable_memory_tier("group-offload", "cpu")  # float8 weights stream like any other
    assert torch.equal(pipe(**small(num_inference_steps=2)).frames, out.frames)
    with pytest.raises(InputError, match="load the pipeline again"):
        pipe.disable_approximations()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with pytest.raises(InputError, match=r"8.9 or more .* has 8.6"):
        fp8.multiply_in_float8(pipe.transformer, torch.device("cuda"))


# -- steps ---------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 2), min_size=1, max_size=40), st.floats(0, 5))
def test_skips_stay_within_the_budget_and_leave_the_ends(changes, budget):
    skips = plan_skips(changes, budget)
    assert all(2 <= index < len(changes) - 1 for index in skips)
    missed = 0.0
    for index, change in enumerate(changes):
        missed = missed + change if index in skips else 0.0
        assert missed <= budget + 1e-9
    assert set(plan_skips(changes, 0.0)) <= {index for index, change in enumerate(changes) if change == 0}


def test_a_step_cache_keeps_the_error_it_was_calibrated_for(tmp_path):
    pipe = pipeline()
    steps, target = 8, 0.2
    run = lambda seed: pipe(**small(num_inference_steps=steps, seed=seed)).frames  # noqa: E731
    found = calibrate(pipe, run, (1,), target, steps + 1, 6.0)
    assert pipe.transformer.residuals is None
    assert found.skips
    assert found.error <= target
    assert found.changes[0] == 1.0
    found.save(tmp_path / "cache.json")
    assert Calibration.load(tmp_path / "cache.json") == found
    exact = run(1)
    pipe.enable_approximation("step-cache", calibration=tmp_path / "cache.json")
    out = pipe(**small(num_inference_steps=steps, seed=1))
    assert out.approximations[0] == f"step-cache:{len(found.skips)}/{steps + 1}"
    assert 0 < relative_error(out.frames, exact) <= target
    assert pipe.transformer.residuals.reuses == 2 * len(found.skips)
    assert torch.equal(run(1), out.frames)  # nothing leaks from one take into the next
    with pytest.raises(InputError, match="calibrated for evaluations 9, this run has 7"):
        pipe(**small())
    with pytest.raises(InputError, match="exclude each other"):
        pipe.enable_approximation("first-block-cache")
    pipe.disable_approximations()
    assert torch.equal(run(1), exact)
    (tmp_path / "cache.json").write_text("{}")
    with pytest.raises(InputError, match=r"cache\.json"):
        pipe.enable_approximation("step-cache", calibration=tmp_path / "cache.json")


def test_residuals_are_kept_per_branch():
    kept = Residuals((1,))
    kept.begin(0, "cond")
    kept.keep(torch.ones(2), torch.zeros(2))
    kept.begin(1, "uncond")
    assert kept.reused() is None
    kept.begin(1, "cond")
    assert torch.equal(kept.reused(), torch.ones(2))
    kept.reset()
    assert kept.reused() is None


def test_guidance_in_an_interval_saves_forwards():
    pipe = pipeline()
    always = pipe(**small())
    pipe.enable_approximation("guidance-interval", low=0.0, high=1.0)
    assert torch.equal(pipe(**small()).frames, always.frames)
    pipe.disable_approximations()
    pipe.enable_approximation("guidance-interval", low=0.2, high=0.9)
    some = pipe(**small())
    assert some.approximations[0] == "guidance-interval:0.2-0.9"
    assert 7 < some.stats.evaluations < always.stats.evaluations == 14
    pipe.disable_approximations()
    assert torch.equal(pipe(**small()).frames, always.frames)
    with pytest.raises(InputError, match="low < high"):
        pipe.enable_approximation("guidance-interval", low=0.9, high=0.2)
    with pytest.raises(InputError, match="valid: high, low"):
        pipe.enable_approximation("guidance-interval", between=1)


# -- few-step students ---------------------------------------------------------------------------------------------------


def test_a_student_folder_brings_its_own_steps(tmp_path):
    import json
    import shutil

    from oscar_golden import converted

    from retake.worker.oscar import OscarPipeline
    from retake.worker.oscar.few_step import FILE, Student

    folder = shutil.copytree(converted(), tmp_path / "student")
    call = {k: v for k, v in small().items() if k not in ("num_inference_steps", "guidance_scale")}
    frames = {}
    for sampler in ("consistency", "ode"):
        (folder / FILE).write_text(json.dumps({"steps": 4, "sampler": sampler}))
        pipe = OscarPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        out = pipe(**call)
        assert out.approximations == (f"student:4:{sampler}",)
        assert out.stats.evaluations == 4  # guidance is off
        assert torch.equal(pipe(**call).frames, out.frames)
        assert pipe(**call, guidance_scale=2.0).stats.evaluations == 8
        frames[sampler] = out.frames
        with pytest.raises(InputError, match="student of 4 steps"):
            pipe(**call, num_inference_steps=35)
    assert not torch.equal(frames["consistency"], frames["ode"])
    given = pipeline()(**small(num_inference_steps=1, exact_first_frame=True)).frames[:, :, :1]
    assert relative_error(frames["ode"][:, :, :1], given) < 1e-5  # the given frame ends as itself
    (folder / FILE).write_text(json.dumps({"steps": 2, "sigmas": [0.5, 0.9]}))
    with pytest.raises(InputError, match="falling sigmas"):
        OscarPipeline.from_pretrained(folder)
    with pytest.raises(InputError, match="1 to 32"):
        Student(0)


def test_a_perfect_student_lands_on_the_clean_latents_from_any_step():
    """A network that knows the answer: velocity = (x - answer) / sigma."""
    from retake.worker.oscar import sampler as loop
    from retake.worker.oscar.few_step import Student

    answer = torch.randn(1, 16, 2, 4, 4)

    class Knows:
        is_cache_enabled, residuals = False, None

        def __call__(self, hidden_states: Any, timestep: Any, **_: Any) -> Any:
            sigma = student.sigmas[seen.pop(0)]
            return type("O", (), {"sample": (hidden_states - answer) / sigma})()

    for kind in ("consistency", "ode"):
        student, seen = Student(3, kind), [0, 1, 2]
        conditions = loop.Conditions(torch.randn_like(answer), answer[:, :, :1], None, None, None)
        found = loop.denoise_few(Knows(), conditions, student, 7)
        assert difference(found, answer) < 1e-4


# -- what modes cost -----------------------------------------------------------------------------------------------------


def test_quality_compares_every_mode_on_the_same_seeds(capsys, tmp_path):
    import json

    from retake.worker.oscar import cli

    arguments = ["--quality", "--steps", "4", "--frames", "5", "--seeds", "1", "--calibrate", str(tmp_path / "c.json"),
                 "--error", "0.9", "--device", "cpu", "--json", str(tmp_path / "q.json")]  # fmt: skip
    assert cli.bench(arguments) == 0
    rows = {row["mode"]: row for row in json.loads((tmp_path / "q.json").read_text())["rows"]}
    assert rows["kernels fused"]["latent_error"] < 1e-4
    assert 0 < rows["step-cache"]["latent_error"] <= 0.9
    assert rows["step-cache"]["forwards"] < 1
    assert rows["guidance-interval"]["forwards"] < 1
    for name in ("fp8", "fp8-storage"):
        assert rows[name]["latent_error"] > 1e-5
    assert all(row["verdicts_changed"] is None for row in rows.values())
    assert "not here" in capsys.readouterr().out or not backends.obstacle("sage")
    with pytest.raises(InputError, match="exists already"):
        cli.bench(arguments)
    with pytest.raises(InputError, match="--model needs --run"):
        cli.bench(["--quality", "--model", str(tmp_path)])
    with pytest.raises(InputError, match="whole numbers"):
        cli.bench(["--quality", "--seeds", "a"])


def test_a_changed_verdict_is_counted():
    import numpy as np

    from retake.worker.oscar import quality

    pipe_of = lambda: pipeline()  # noqa: E731
    call = {k: v for k, v in small(num_inference_steps=2).items() if k not in ("output_type", "seed")}
    exact = pipeline()(**call, seed=1).frames[0]
    judge = lambda frames: ("pass", 0.9) if np.array_equal(frames, exact) else ("fail", 0.1)  # noqa: E731
    rows = quality.compare(
        pipe_of, call, (1,), {"fp8": ("fp8", {}), "sparse-radial": ("sparse-radial", {"reach": 9})}, judge
    )
    by_name = {row.mode: row for row in rows}
    assert by_name["fp8"].verdicts_changed == 1
    assert by_name["fp8"].probability_shift == pytest.approx(-0.8)
    assert by_name["fp8"].psnr_db > 10
    with pytest.raises(InputError, match="a seed or more"):
        quality.compare(pipe_of, call, (), {})


def test_quality_on_a_run_says_how_many_verdicts_change(tmp_path, capsys):
    """On a converted model and a run folder, through the command: verdicts of the verifier on the run's own episode."""
    import shutil

    from retake.core.files import read_json
    from retake.worker.oscar import cli

    run = make_run(tmp_path)
    for part in ("variants", "skeleton"):
        (run / part).rename(tmp_path / part)
    arguments = ["--quality", "--model", str(text_model()), "--run", str(run), "--seeds", "1,2", "--steps", "2", "--frames", "5",
                 "--size", "64x48", "--approximate", "fp8", "--approximate", "guidance-interval:low=0.2,high=0.9",
                 "--device", "cpu", "--json", str(tmp_path / "q.json")]  # fmt: skip
    with pytest.raises(InputError, match="no variants"):
        cli.bench(arguments)
    shutil.copytree(tmp_path / "variants", run / "variants")
    with pytest.raises(InputError, match="no skeleton of camera 'front'"):
        cli.bench(arguments)
    (tmp_path / "skeleton").rename(run / "skeleton")
    assert cli.bench(arguments) == 0
    rows = {row["mode"]: row for row in read_json(tmp_path / "q.json")["rows"]}
    assert list(rows) == ["kernels fused", "fp8", "guidance-interval:low=0.2,high=0.9"]
    assert rows["guidance-interval:low=0.2,high=0.9"]["label"] == "guidance-interval:0.2-0.9"
    for row in rows.values():
        assert row["reason"] == ""
        assert row["seeds"] == 2
        assert 0 <= row["verdicts_changed"] <= 2
        assert -1 <= row["probability_shift"] <= 1
    assert rows["kernels fused"]["verdicts_changed"] == 0  # the same pixels, the same verdict
    assert "2 seeds, cpu" in capsys.readouterr().out
    for wrong, words in ((["--size", "64"], "WIDTHxHEIGHT"), (["--approximate", "magic"], "approximate mode"),
                         (["--approximate", "fp8:speed=2"], "no option of fp8")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            cli.bench([*arguments, *wrong])
