# SPDX-License-Identifier: Apache-2.0
"""What a training may be told, to the last value that is allowed. Of retake.worker.tune.config and
retake.worker.tune.settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retake.core.errors import InputError
from retake.worker.oscar.few_step import Student
from retake.worker.tune.config import LinearSchedule, LoraSettings, ObjectSupervision, TuneConfig
from retake.worker.tune.distill import DistillConfig
from retake.worker.tune.distill_run import DistilSettings
from retake.worker.tune.reward import RewardConfig
from retake.worker.tune.settings import RunSettings


@pytest.mark.parametrize(("made", "fine", "wrong"), [
    (lambda v: RunSettings(steps=v), [1, 10**6], [0, -1, 1.5]), (lambda v: RunSettings(batch=v), [1], [0]),
    (lambda v: RunSettings(accumulate=v), [1], [0]), (lambda v: RunSettings(stride=v), [1], [0]),
    (lambda v: RunSettings(validate_every=v), [1], [0]), (lambda v: RunSettings(save_every=v), [1], [0]),
    (lambda v: RunSettings(keep=v), [1], [0]), (lambda v: RunSettings(picture_steps=v), [0, 35], [-1, 36, 1.5]),
    (lambda v: RunSettings(size=v), [(16, 16), (32, 480)], [(0, 16), (16, 8), (24, 16), (16, 24), (-16, 16)]),
    (lambda v: RunSettings(frames=v), [1, 5, 81], [2, 4, 80, 83]),
    (lambda v: LinearSchedule(warm_up=v, cycle=10), [0, 9], [-1, 10]), (lambda v: LoraSettings(rank=v), [1], [0]),
    (lambda v: LoraSettings(alpha=v), [1e-6], [0, -1, float("nan")]),
    (lambda v: LoraSettings(targets=v), [("to_q",)], [(), ("to_x",)]),
    (lambda v: ObjectSupervision(weight=v), [0, 9], [-0.1, float("nan")]),
    (lambda v: ObjectSupervision(release_boost=v), [0, 9], [-0.1]),
    (lambda v: ObjectSupervision(control=v), ["none", "drawn", "embed"], ["paint"]),
    (lambda v: TuneConfig(lr=v), [1e-12], [0, -1, float("inf"), float("nan")]), (lambda v: TuneConfig(eps=v), [1e-12], [0]),
    (lambda v: TuneConfig(shift=v), [0.1], [0]), (lambda v: TuneConfig(text_dropout=v), [0, 0.99], [-0.1, 1]),
    (lambda v: TuneConfig(skeleton_dropout=v), [0, 0.99], [-0.1, 1]), (lambda v: TuneConfig(clip_norm=v), [None, 0.1], [0, -1]),
    (lambda v: TuneConfig(ema_rate=v), [None, 0.1], [0, -1]), (lambda v: TuneConfig(time_weight=v), ["reweighting"], ["even"]),
    (lambda v: RewardConfig(steps=v), [1, 35], [0, 36]), (lambda v: RewardConfig(last=v), [1, 8], [0, 9]),
    (lambda v: RewardConfig(anchor=v), [0, 5], [-1, float("inf")]),
    (lambda v: DistillConfig(critic_steps=v), [1], [0]), (lambda v: DistillConfig(low=v), [0.01, 0.97], [0, 0.98, 0.99]),
    (lambda v: DistillConfig(high=v), [0.03, 0.99], [0.02, 1]),
    (lambda v: DistilSettings(accumulate=v), [1], [2, 3]),
    (lambda v: DistilSettings(guidance=v), [0, 9], [-1, float("inf")]),
    (lambda v: DistilSettings(step=v), [TuneConfig(ema_rate=None)],
     [TuneConfig(lora=LoraSettings()), TuneConfig(objects=ObjectSupervision(1.0)),
      TuneConfig(objects=ObjectSupervision(control="drawn"))]),
])  # fmt: skip
def test_settings_are_taken_up_to_their_bounds(made, fine, wrong):
    for value in fine:
        made(value)
    for value in wrong:
        with pytest.raises(InputError):
            made(value)


def test_a_distillation_hands_its_settings_on():
    step = TuneConfig(lr=0.25, ema_rate=None, seed=7)
    found = DistilSettings(step=step, student=Student(2), guidance=3.0, critic_steps=4, critic_lr=0.5).config()
    assert (found.student, found.guidance, found.critic_steps, found.seed) == (Student(2), 3.0, 4, 7)
    assert found.optimiser == step
    assert found.critic_optimiser == replace(step, lr=0.5)
