# SPDX-License-Identifier: Apache-2.0
"""What a training will need, byte by byte against the parameters that it trains. Of retake.worker.tune.planning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from retake.core.errors import InputError
from retake.worker.memory import CONTEXT_BYTES, FRAGMENTATION, GIB
from retake.worker.oscar.bench import TINY_TRANSFORMER
from retake.worker.oscar.costs import meta_transformer
from retake.worker.tune.config import LoraSettings, ObjectSupervision, TuneConfig
from retake.worker.tune.lora import add_adapter
from retake.worker.tune.planning import TunePlan, check_fits, plan_training

torch.set_num_threads(1)
WHOLE = TuneConfig(lora=None, gradient_checkpointing=False)


SMALL = {**TINY_TRANSFORMER, "num_layers": 1}
_PLANS: dict[str, TunePlan] = {}


def planned(config: TuneConfig = WHOLE, **more: Any) -> TunePlan:
    """Counted once for each of what is asked."""
    told = {"transformer": SMALL, "frames": 5, "size": (48, 32), "dtype": torch.bfloat16, **more}
    key = f"{config} {told}"
    if key not in _PLANS:
        _PLANS[key] = plan_training(config, **told)
    return _PLANS[key]


def counted(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def test_all_weights_but_those_of_projected_prompts_are_trained():
    model = meta_transformer(SMALL, torch.bfloat16)
    whole, n = counted(model), counted(model) - counted(model.crossattn_proj)
    plan = planned()
    assert (plan.weights, plan.trained, plan.parameters_trained) == (2 * whole, 2 * n, n)
    assert (plan.gradients, plan.masters, plan.optimizer, plan.average) == (2 * n + 4 * n, 4 * n, 8 * n, 4 * n)
    wide = planned(dtype=torch.float32)
    assert (wide.weights, wide.gradients, wide.masters) == (4 * whole, 4 * n, 0), "float32 is its own master"
    assert planned(replace(WHOLE, ema_rate=None)).average == 0
    embedded = planned(replace(WHOLE, objects=ObjectSupervision(control="embed")))
    model.add_object_embed(16)
    assert embedded.weights - plan.weights == 2 * counted(model.object_embed) > 0
    assert embedded.parameters_trained - n == counted(model.object_embed)


def test_adapters_are_float32_and_the_rest_stands_still():
    model = meta_transformer(SMALL, torch.bfloat16)
    base = counted(model)
    add_adapter(model, LoraSettings(rank=4))
    n = counted(model) - base
    plan = planned(TuneConfig(lora=LoraSettings(rank=4), gradient_checkpointing=False))
    assert (plan.weights, plan.trained, plan.parameters_trained) == (2 * base + 4 * n, 4 * n, n)
    assert (plan.gradients, plan.masters, plan.optimizer) == (4 * n, 0, 8 * n)


def test_work_grows_with_batch_window_size_and_checkpoints():
    plan = planned()
    twice = planned(batch=2)
    assert twice.flops == pytest.approx(plan.flops, rel=0.02), "of one sample"
    assert 1.8 * plan.activations < twice.activations < 2.2 * plan.activations
    longer, larger = planned(frames=17), planned(size=(32, 96))
    for more in (longer, larger):
        assert more.flops > 1.3 * plan.flops
        assert more.activations > 1.05 * plan.activations
    again = planned(replace(WHOLE, gradient_checkpointing=True))
    assert again.flops > 1.1 * plan.flops, "every block runs twice"


def test_the_worst_instant_is_the_sum_with_what_is_lost_and_is_told_in_gibibytes():
    plan = TunePlan(GIB, 2 * GIB, 3 * GIB, 4 * GIB, 5 * GIB, 6 * GIB, 7 * GIB, 2_500_000_000_000, 12_340_000)
    assert plan.peak == int(26 * GIB * FRAGMENTATION) + CONTEXT_BYTES
    *table, needed, note = plan.lines()
    assert [line.split()[-2:] for line in table] == [[f"{gib}.00", "GiB"] for gib in (1, 3, 4, 5, 6, 7)]
    assert needed.split()[:4] == ["needed", "in", "all", "29.35"]
    assert note == "12.3 M parameters trained, 2.5 TFLOP per sample and step"
    check_fits(plan, plan.peak, "cuda:0")
    with pytest.raises(InputError, match=r"training needs 29\.3 GiB and cuda:0 has 29\.3 GiB free; what helps"):
        check_fits(plan, plan.peak - 1, "cuda:0")
    with pytest.raises(InputError, match=r"and cpu has 1\.5 GiB free"):
        check_fits(plan, 3 * GIB // 2, "cpu")
