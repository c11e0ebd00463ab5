# SPDX-License-Identifier: Apache-2.0
"""Every number that the worker computes from shapes alone, against what was computed before: costs, memory plans, forecasts,
sizes of models. One that changes by accident is seen.

`python tests/worker/test_worker_numbers.py` writes them anew where they were changed on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden_values import compare, load, store, summed_up

from retake.worker.first_frame import random_models
from retake.worker.oscar import bench, planner
from retake.worker.oscar.costs import forward_traffic, meta_transformer, stage_costs
from retake.worker.oscar.tiers import TIERS
from retake.worker.tune.config import LoraSettings, ObjectSupervision, TuneConfig
from retake.worker.tune.planning import plan_training

GOLDEN = Path(__file__).parents[1] / "golden" / "worker" / "numbers.json"
SHARE = 1e-3
COUNTED = ("tiny ", "parameters of ")
"""Cases that are counts and settings, the same to the last one everywhere: a width that is off by one is less than a share."""
GIB = 2**30
SMALL = {"frames": 17, "height": 288, "width": 512, "dtype": torch.float32}
TUNED = {
    "whole": TuneConfig(lora=None, gradient_checkpointing=False),
    "lora": TuneConfig(lora=LoraSettings(), gradient_checkpointing=True),
    "objects": TuneConfig(lora=None, objects=ObjectSupervision(control="embed"), ema_rate=None),
}


def report(**size: Any) -> dict[str, Any]:
    costs = stage_costs(**size)
    plan = planner.plan_report(costs, 8, 35, 9 * GIB, 400e12, 3)
    return {"costs": costs, "plan": plan, "lines": planner.plan_lines(plan), "take": costs.take_flops(20, 5, 2)}


def training(name: str) -> dict[str, Any]:
    plan = plan_training(
        TUNED[name], transformer=bench.TINY_TRANSFORMER, frames=9, size=(96, 64), batch=2, dtype=torch.bfloat16
    )
    return {"plan": plan, "peak": plan.peak, "lines": plan.lines()}


def made_at_random(name: str) -> dict[str, Any]:
    """Tiny models of a backend as they are built: their size, and what their classes took of the stated settings."""
    out: dict[str, Any] = {"marks": random_models.MARK_IDS}
    for component, (kind, stated) in random_models.TINY[name].items():
        with torch.device("meta"):
            module = random_models.build(kind, stated)
        taken = module.config if isinstance(module.config, dict) else module.config.to_dict()
        kept = {key: _taken(taken.get(key), value) for key, value in stated.items()}
        out[component] = {"parameters": sum(p.numel() for p in module.parameters()), "settings": kept}
    kind, settings = random_models.SCHEDULERS[name]
    scheduler = getattr(diffusers, kind)(**settings)
    out["scheduler"] = {key: scheduler.config[key] for key in settings}
    tokenizers = random_models._tokenizers(name)
    return {**out, "tokenizers": {part: make()("a <|im_end|>")["input_ids"] for part, make in tokenizers.items()}}


def _taken(taken: Any, stated: Any) -> Any:
    return {key: taken.get(key) for key in stated} if isinstance(stated, dict) and isinstance(taken, dict) else taken


CASES = {
    "full size": report,
    "smaller": lambda: report(**SMALL),
    "tiers": lambda: {tier.name: tier for tier in TIERS},
    "bench": bench.computed,
    "traffic": lambda: forward_traffic(meta_transformer(bench.TINY_TRANSFORMER, torch.bfloat16), 3, 8, 12),
    **{f"training, {name}": lambda name=name: training(name) for name in TUNED},
    **{f"tiny {name}": lambda name=name: made_at_random(name) for name in random_models.TINY},
    **{f"parameters of {name}": lambda name=name: random_models.parameters(name) for name in random_models.FULL},
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_what_they_were(case: str) -> None:
    share = 0.0 if case.startswith(COUNTED) else SHARE
    assert not compare(summed_up(CASES[case]()), load(GOLDEN)[case], share)


if __name__ == "__main__":
    store(GOLDEN, {case: summed_up(make()) for case, make in CASES.items()})
