# SPDX-License-Identifier: Apache-2.0
"""The training step: numbers of the reference's own classes (float32, CPU), changes that must break them, and laws."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
import tune_golden as golden
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.worker.tune import Batch, LinearSchedule, LoraSettings, ObjectSupervision, TuneConfig, Tuner, flow
from retake.worker.tune.config import golden_config
from retake.worker.tune.optimise import power_ema_beta, trained_parameters

VELOCITY, LOSS, GRADIENT, WEIGHT = 1e-5, 1e-6, 1e-7, 1e-6


def tuner(transformer=None, **changes) -> Tuner:
    return Tuner.from_golden_config(golden.config(), transformer or golden.model(), **changes)


def clipped_gradients(made: Tuner, batch: Batch) -> dict[str, torch.Tensor]:
    made.predict(batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(list(made.optimizer.parameters.values()), 0.1)
    found = {name: p.grad.clone() for name, p in made.optimizer.parameters.items() if p.grad is not None}
    made.optimizer.zero_grad()
    return found


@pytest.mark.parity
@pytest.mark.parametrize("checkpointing", [False, True])
def test_full_fine_tuning(checkpointing):
    expected, made = golden.tensors("full_uniform"), tuner(gradient_checkpointing=checkpointing)
    for name, gradient in clipped_gradients(made, golden.batch(0)).items():
        assert golden.difference(gradient, expected[f"grad_clipped.{golden.source(name)}"]) <= GRADIENT, name
    for step in range(golden.STEPS):
        result = made.step(golden.batch(step))
        for name in ("xt", "timestep", "sigma"):
            assert torch.equal(getattr(result, name), expected[f"s{step}.{name}"]), (step, name)
        assert golden.difference(result.velocity, expected[f"s{step}.velocity_pred"]) <= VELOCITY
        assert abs(result.loss - float(expected[f"s{step}.loss"])) <= LOSS
        assert result.grad_norm == pytest.approx(float(expected[f"s{step}.grad_norm"]), abs=1e-5)
        assert result.lr == pytest.approx(float(expected[f"s{step}.lr"]), rel=1e-12)
        assert power_ema_beta(step, 0.1) == pytest.approx(float(expected[f"s{step}.ema_beta"]), abs=1e-12)
    for name, parameter in made.transformer.named_parameters():
        assert golden.difference(parameter, expected[f"final.{golden.source(name)}"]) <= WEIGHT, name
        assert golden.difference(made.optimizer.ema[name], expected[f"ema.{golden.source(name)}"]) <= WEIGHT, name


@pytest.mark.parity
def test_lora():
    expected, made = golden.tensors("lora_uniform"), tuner(lora=True)
    adapters = dict(made.optimizer.parameters)
    assert len(adapters) == sum(name.startswith("init.") for name in expected)
    with torch.no_grad():
        for name, parameter in adapters.items():
            parameter.copy_(expected[f"init.{golden.lora_source(name)}"])
    for name, gradient in clipped_gradients(made, golden.batch(0, "lora_uniform")).items():
        assert golden.difference(gradient, expected[f"grad_clipped.{golden.lora_source(name)}"]) <= GRADIENT, name
    for step in range(golden.STEPS):
        result = made.step(golden.batch(step, "lora_uniform"))
        assert abs(result.loss - float(expected[f"s{step}.loss"])) <= LOSS
        assert golden.difference(result.velocity, expected[f"s{step}.velocity_pred"]) <= VELOCITY
    for name, parameter in adapters.items():
        assert golden.difference(parameter, expected[f"final.{golden.lora_source(name)}"]) <= WEIGHT, name
    frozen = {name: p for name, p in made.transformer.named_parameters() if "lora_" not in name}
    for name, parameter in frozen.items():
        plain = name.replace(".base_layer", "")
        assert torch.equal(parameter, golden.tensors("base_net")[golden.key_map().source_of[plain]])


@pytest.mark.parity
def test_reweighting():
    expected, made = golden.tensors("full_reweighting"), tuner(time_weight="reweighting")
    for step in range(golden.STEPS):
        result = made.step(golden.batch(step))
        assert abs(result.loss - float(expected[f"s{step}.loss"])) <= LOSS
        assert result.grad_norm == pytest.approx(float(expected[f"s{step}.grad_norm"]), abs=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("fault", ["no valid mask", "first frame out of the denominator", "sigma is u", "target sign"])
def test_controls_that_must_fail(fault, monkeypatch):
    batch, factor = golden.batch(0), 1.0
    if fault == "no valid mask":
        batch = dataclasses.replace(batch, valid=None)
    elif fault == "first frame out of the denominator":
        valid = int(batch.valid.sum())
        factor = valid / (valid - 1)
    elif fault == "sigma is u":
        monkeypatch.setattr(flow, "noise_levels", lambda u, shift: (1000 * u[:, None], u[:, None]))
    else:
        real = flow.interpolate
        monkeypatch.setattr(flow, "interpolate", lambda *a: (real(*a)[0], -real(*a)[1]))
    loss = factor * float(tuner().predict(batch).loss.detach())
    assert abs(loss - float(golden.tensors("full_uniform")["s0.loss"])) > 1000 * LOSS


def test_a_batch_is_its_samples_accumulated():
    ones = [golden.batch(step) for step in range(3)]
    joined = Batch(*(torch.cat([getattr(one, f.name) for one in ones]) for f in dataclasses.fields(Batch)[:6]))
    together, apart = tuner(), tuner()
    a, b = together.step(joined), apart.step_accumulated(ones)
    assert a.loss == pytest.approx(b.loss, abs=LOSS)
    assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-4)
    for (name, one), two in zip(together.transformer.named_parameters(), apart.transformer.parameters(), strict=True):
        assert golden.difference(one, two) <= WEIGHT, name


@pytest.mark.parametrize("time_weight", flow.TIME_WEIGHTS)
def test_weights_of_a_batch_are_per_sample(time_weight):
    made = tuner(time_weight=time_weight)
    ones = [golden.batch(step) for step in range(3)]
    joined = Batch(*(torch.cat([getattr(one, f.name) for one in ones]) for f in dataclasses.fields(Batch)[:6]))
    with torch.no_grad():
        mean = sum(float(made.predict(one).loss) for one in ones) / 3
        assert float(made.predict(joined).loss) == pytest.approx(mean, abs=LOSS)


@given(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=1, max_size=5), st.sampled_from([1.0, 3.0, 5.0]))
def test_noise_levels_are_the_schedulers(draws, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    timestep, sigma = flow.noise_levels(torch.tensor(draws), shift)
    for u, t, s in zip(torch.tensor(draws).tolist(), timestep[:, 0], sigma[:, 0], strict=True):
        w = (1000 - int(torch.tensor(u) * 1000)) / 1000
        assert float(s) == pytest.approx(shift * w / (1 + (shift - 1) * w), abs=1e-6)
        assert float(t) == pytest.approx(1000 * float(s), rel=1e-6)
        assert t in scheduler.timesteps  # as the network will see it, not truncated


def test_time_weights_have_mean_one_and_vanish_at_one_end():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    weights = flow.time_weight(scheduler.timesteps[:, None], "reweighting", 5.0)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
    assert float(weights.min()) == 0


@given(st.integers(0, 50), st.integers(51, 200))
def test_schedule_rises_falls_and_stays(warm_up, cycle):
    schedule = LinearSchedule(warm_up=warm_up, cycle=cycle)
    factors = [schedule.factor(step) for step in range(cycle + 20)]
    assert all(a <= b for a, b in itertools.pairwise(factors[: warm_up + 1]))
    assert all(a >= b for a, b in itertools.pairwise(factors[warm_up:]))
    assert factors[warm_up] == pytest.approx(0.99)
    assert factors[cycle:] == pytest.approx([0.4] * 20)


def test_low_precision_weights_learn_through_masters():
    config = TuneConfig(lr=3e-5, schedule=LinearSchedule(warm_up=0, f_max=1, f_min=1), ema_rate=None)
    model = golden.model().to(torch.bfloat16)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    made = Tuner(model, config)
    for step in range(golden.STEPS):
        made.step(golden.batch(step))
    moved = [golden.difference(master, before[name]) for name, master in made.optimizer.masters.items()]
    assert min(moved) > 0  # every master took every update, also those too small for bfloat16
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, made.optimizer.masters[name].to(torch.bfloat16)), name


def test_object_options_leave_the_first_forward_bit_equal():
    plain = tuner().predict(golden.batch(0))
    golden_objects = golden.batch(1).x0
    embedded = golden.model(object_channels=16)
    torch.nn.init.zeros_(embedded.object_embed.proj.weight)
    for made, extra in (
        (tuner(objects=ObjectSupervision(weight=3.0)), {}),
        (tuner(embedded, objects=ObjectSupervision(control="embed")), {"objects": golden_objects}),
    ):
        found = made.predict(dataclasses.replace(golden.batch(0), **extra))
        assert torch.equal(found.velocity, plain.velocity)
        assert torch.equal(found.loss, plain.loss)
    later = golden.model()
    later.add_object_embed(16)
    found = tuner(later).predict(dataclasses.replace(golden.batch(0), objects=golden_objects))
    assert torch.equal(found.velocity, plain.velocity)


def test_object_embedding_learns():
    model = golden.model()
    model.add_object_embed(16)
    made = tuner(model)
    for step in range(2):  # the first step's learning rate is next to nothing
        made.step(dataclasses.replace(golden.batch(step), objects=golden.batch(1).x0))
    assert float(model.object_embed.proj.weight.detach().abs().max()) > 1e-4


def test_weighted_cells_count_more():
    weight = torch.ones(1, 1, 3, 4, 6)
    weight[:, :, 1, :2] = 5.0
    made = tuner()
    plain = made.predict(golden.batch(0))
    found = made.predict(dataclasses.replace(golden.batch(0), weight=weight))
    extra = (plain.squared_error.detach() * (weight - 1) * golden.batch(0).valid[:, None, :, None, None]).sum()
    cells = float(golden.batch(0).valid.sum()) * 16 * 4 * 6
    assert float(found.loss.detach()) == pytest.approx(float(plain.loss.detach()) + float(extra) / cells, rel=1e-5)
    result = tuner().step(dataclasses.replace(golden.batch(0), weight=weight))
    assert result.object_error is not None
    assert result.background_error is not None


def test_draws_are_the_seeds():
    def losses(seed: int) -> list[float]:
        made = tuner(seed=seed)
        return [made.step(golden.batch(step, epsilon=None, u=None)).loss for step in range(2)]

    assert losses(1) == losses(1) != losses(2)


@pytest.mark.parametrize("which", ["text_dropout", "skeleton_dropout"])
def test_dropout_replaces_by_zeros(which):
    made = tuner(**{which: 0.999})
    part = which.split("_")[0]
    zeroed = {"text": "text", "skeleton": "control"}[part]
    expected = tuner().predict(golden.batch(0, **{zeroed: torch.zeros_like(getattr(golden.batch(0), zeroed))}))
    assert torch.equal(made.predict(golden.batch(0)).velocity, expected.velocity)


@pytest.mark.parametrize("mode", ["loaded", "fused", "average"])
def test_a_saved_adapter_is_read_by_the_pipeline(tmp_path, mode):
    from oscar_golden import pipeline

    pipe = pipeline()
    made = Tuner(pipe.transformer, TuneConfig(lr=1e-2, lora=LoraSettings(rank=4, alpha=8), clip_norm=None,
                                              schedule=LinearSchedule(warm_up=0)))  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    config = pipe.transformer.config
    latents = torch.randn(3, 1, 16, 3, 8, 8, generator=generator)
    text = torch.randn(1, 5, config["crossattn_proj_in_channels"], generator=generator)
    for one in latents:
        made.step(Batch(one, one.flip(0), text))
    probe = dataclasses.replace(Batch(latents[0], latents[1], text), epsilon=latents[2], u=torch.tensor([0.4]))
    from retake.worker.tune.lora import save_adapter

    if mode == "average":
        ema = made.optimizer.ema
        with torch.no_grad():
            for name, parameter in made.optimizer.parameters.items():
                parameter.copy_(ema[name])
    with torch.no_grad():
        expected = made.predict(probe).velocity
    save_adapter(pipe.transformer, tmp_path, made.optimizer.ema if mode == "average" else None)

    fresh = pipeline()
    fresh.load_lora_weights(tmp_path)
    if mode == "fused":
        fresh.fuse_lora()
        fresh.unload_lora_weights()
    reader = Tuner(golden.model(), TuneConfig())
    reader.transformer = reader.forward = fresh.transformer
    with torch.no_grad():
        assert golden.difference(reader.predict(probe).velocity, expected) <= 1e-5
        plain = pipeline()
        reader.transformer = reader.forward = plain.transformer
        assert golden.difference(reader.predict(probe).velocity, expected) > 1e-3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"control": torch.zeros(1, 16, 3, 4, 5)}, "control has shape"),
        ({"valid": torch.ones(3)}, "valid has shape"),
        ({"x0": torch.zeros(16, 3, 4, 6)}, "expected \\(B, C, T, h, w\\)"),
        ({"x0": torch.full((1, 16, 3, 4, 6), float("nan"))}, "x0 holds NaN"),
        ({"u": torch.tensor([1.0])}, "u holds"),
        ({"text": torch.zeros(2, 11, 48)}, "text has shape"),
    ],
)
def test_what_cannot_be_learnt_from_changes_nothing(change, says):
    made = tuner()
    with pytest.raises(InputError, match=says):
        made.step(golden.batch(0, **change))
    assert made.optimizer.iteration == 0
    for name, parameter in made.transformer.named_parameters():
        assert torch.equal(parameter, golden.tensors("base_net")[golden.key_map().source_of[name]]), name


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("scheduler", "Cosine", "expected 'LambdaLinear"),
        ("clip_norm", None, None),
        ("lr", 0, "lr is 0"),
    ],
)
def test_golden_configurations_are_understood_or_refused(key, value, says):
    stated = {**golden.config(), key: value}
    if says is None:
        assert golden_config(stated).clip_norm is None
        return
    with pytest.raises(InputError, match=says):
        golden_config(stated)


def test_only_adapters_are_trained_with_lora():
    assert all("lora_" in name for name in trained_parameters(tuner(lora=True).transformer))
