# SPDX-License-Identifier: Apache-2.0
"""Distillation on tiny weights: its loss against the public reference's numbers, its laws, and a student that is sampled."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
import torch
import tune_golden as golden
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.worker.oscar.few_step import Student, read_student
from retake.worker.tune.config import TuneConfig
from retake.worker.tune.distill import DistillConfig, Distiller, matching_loss

REFERENCE = {
    "loss": 0.8240983486175537,
    "gradient_norm": 0.040119417011737823,
    "gradient": [
        0.0024732276797294617,
        0.0005185678019188344,
        -3.6741490475833416e-05,
        0.0005912194028496742,
        -3.605359233915806e-05,
        -0.002602821681648493,
        -0.0015554840210825205,
        0.0019035856239497662,
    ],
}
"""Outputs of DMD2's own `compute_distribution_matching_loss` (tianweiy/DMD2 @8d8fa55) on the inputs below; its networks
replaced by ones that answer `real` and `fake`."""


def test_the_matching_loss_is_the_public_references():
    generator = torch.Generator().manual_seed(11)
    clean, real, fake = (torch.randn(2, 32, 4, 4, generator=generator) for _ in range(3))
    clean.requires_grad_(True)
    loss = matching_loss(clean, real, fake)
    loss.backward()
    assert clean.grad is not None
    assert float(loss.detach()) == pytest.approx(REFERENCE["loss"], rel=1e-6)
    assert float(clean.grad.norm()) == pytest.approx(REFERENCE["gradient_norm"], rel=1e-6)
    assert clean.grad.flatten()[:8].tolist() == pytest.approx(REFERENCE["gradient"], rel=1e-5)


@given(st.integers(0, 100), st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_nothing_moves_where_critic_and_teacher_agree_and_scale_does_not_matter(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    clean, real, fake = (torch.randn(2, 3, 2, 2, generator=generator) for _ in range(3))
    assert float(matching_loss(clean, real, real)) == 0
    # distances to the teacher scaled by a factor: the same move
    moved = matching_loss(clean, clean + scale * (real - clean), clean + scale * (fake - clean))
    assert float(moved) == pytest.approx(float(matching_loss(clean, real, fake)), rel=1e-3)


def distiller(**changes: Any) -> Distiller:
    fast = TuneConfig(lr=1e-3, ema_rate=None)
    config = DistillConfig(
        **{"student": Student(2), "guidance": 0.0, "optimiser": fast, "critic_optimiser": fast, **changes}
    )
    return Distiller(golden.model(), golden.model(), golden.model(), config)


def test_the_student_learns_every_few_steps_and_the_teacher_never():
    made, batch = distiller(critic_steps=2), golden.batch()
    before = {name: copy.deepcopy(getattr(made, name).state_dict()) for name in ("student", "critic", "teacher")}
    same = lambda name: all(torch.equal(v, before[name][k]) for k, v in getattr(made, name).state_dict().items())  # noqa: E731
    first = made.step(batch)
    assert first.matching is None
    assert first.critic > 0
    assert same("student")
    assert not same("critic")
    second = made.step(batch)
    assert second.matching is not None
    assert not same("student")
    assert same("teacher")


def test_the_given_frame_is_given():
    made, batch = distiller(), golden.batch()
    for rung in (0, 1):
        clean = made.generate(batch, rung)
        assert torch.equal(clean[:, :, :1], batch.x0[:, :, :1].float())


def test_guidance_needs_a_negative_prompt_and_changes_the_loss():
    plain, guided, batch = distiller(), distiller(guidance=2.0), golden.batch()
    with pytest.raises(InputError, match="negative prompt"):
        guided.step(batch)
    clean = torch.zeros_like(batch.x0)
    losses = [float(one.compare(clean, batch, 0 * batch.text)) for one in (plain, guided)]
    assert losses[0] == 0  # critic and teacher are the same network as yet
    assert losses[1] > 0
    with pytest.raises(InputError, match="low < high"):
        DistillConfig(low=0.9, high=0.1)


def test_a_saved_student_is_a_model_folder_that_brings_its_steps(tmp_path):
    from oscar_golden import converted

    folder = shutil.copytree(converted(), tmp_path / "student")
    made = distiller()
    made.save(folder)
    assert read_student(folder) == made.config.student
