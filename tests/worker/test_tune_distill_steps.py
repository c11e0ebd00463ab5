# SPDX-License-Identifier: Apache-2.0
"""Distillation step by step on networks of one number each: what they are shown, at which noise, and who learns when. Of
retake.worker.tune.distill."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from retake.core.errors import InputError
from retake.worker.oscar.few_step import Student
from retake.worker.tune import distill
from retake.worker.tune.config import LinearSchedule, TuneConfig
from retake.worker.tune.distill import DistillConfig, Distiller
from retake.worker.tune.step import Batch

FAST = TuneConfig(lr=1e-2, ema_rate=None, schedule=LinearSchedule(warm_up=0))
SIGMAS = (0.9, 0.6, 0.3)
torch.set_num_threads(1)


class Net(nn.Module):
    """A velocity that one weight decides."""

    dtype = torch.float32
    config = {"crossattn_proj_in_channels": 7}  # noqa: RUF012

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.calls: list[dict[str, Any]] = []

    def forward(self, **call: Any) -> tuple[torch.Tensor]:
        self.calls.append({**call, "gradients": torch.is_grad_enabled()})
        latents, control = call["hidden_states"].chunk(2, dim=1)
        told = call["encoder_hidden_states"].mean((1, 2)).reshape(-1, 1, 1, 1, 1)
        return (self.weight * latents + 0.1 * control + told,)


def batch(width: int = 5) -> Batch:
    draw = torch.Generator().manual_seed(1)
    x0, control = (torch.randn(2, 3, 4, 2, 2, generator=draw) for _ in range(2))
    return Batch(x0, control, torch.randn(2, 6, width, generator=draw))


def made(**changes: Any) -> Distiller:
    config = {
        "student": Student(3, sigmas=SIGMAS),
        "guidance": 0.0,
        "critic_steps": 3,
        "optimiser": FAST,
        "critic_optimiser": FAST,
    }
    return Distiller(Net(0.5), Net(0.4), Net(0.7), DistillConfig(**{**config, **changes}))


def velocity(weight: float, state: torch.Tensor, given: Batch, text: torch.Tensor | None = None) -> torch.Tensor:
    told = (given.text if text is None else text).mean((1, 2)).reshape(-1, 1, 1, 1, 1)
    shown = torch.cat([given.x0[:, :, :1], state[:, :, 1:]], dim=2)
    return weight * shown + 0.1 * given.control + told


def clean(
    weight: float, state: torch.Tensor, given: Batch, sigma: float, text: torch.Tensor | None = None
) -> torch.Tensor:
    found = state - sigma * velocity(weight, state, given, text)
    return torch.cat([given.x0[:, :, :1], found[:, :, 1:]], dim=2)


@pytest.mark.parametrize("rung", [0, 1, 2])
def test_a_student_s_latents_come_from_noise_through_the_rungs_before(rung):
    one, given = made(), batch()
    one.generator.manual_seed(4)
    found = one.generate(given, rung)
    draw = torch.Generator().manual_seed(4)
    state = torch.randn(given.x0.shape, generator=draw)
    for index in range(rung):
        following = SIGMAS[index + 1]
        fresh = torch.randn(given.x0.shape, generator=draw)
        state = (1 - following) * clean(0.5, state, given, SIGMAS[index]) + following * fresh
    assert torch.allclose(found, clean(0.5, state, given, SIGMAS[rung]), atol=1e-5)
    calls = one.student.calls
    assert [call["gradients"] for call in calls] == [False] * rung + [True]
    for call, sigma in zip(calls, SIGMAS, strict=False):
        assert call["timestep"][0].tolist() == pytest.approx([1e-4, sigma, sigma, sigma])
        assert call["timestep"].shape == (2, 4)
        assert call["condition_mask"][:, 0, :, 0, 0].tolist() == [[1, 0, 0, 0]] * 2
        assert torch.equal(call["hidden_states"][:, :3, :1], given.x0[:, :, :1])
        assert torch.equal(call["hidden_states"][:, 3:], given.control)


@pytest.mark.parametrize(("width", "projected"), [(5, True), (7, False)])
def test_a_prompt_is_told_from_a_projected_one_by_its_width(width, projected):
    one = made()
    one.generate(batch(width), 0)
    assert one.student.calls[0]["text_is_projected"] is projected


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_both_networks_judge_the_same_noised_latents(monkeypatch, guidance):
    one, given, judged = made(guidance=guidance, low=0.2, high=0.6), batch(), []
    monkeypatch.setattr(distill, "matching_loss", lambda *parts: judged.append(parts) or torch.tensor(0.0))
    own, negative = torch.randn(given.x0.shape, generator=torch.Generator().manual_seed(2)), torch.ones(1, 6, 5)
    for seed in range(5):
        one.generator.manual_seed(seed)
        one.compare(own, given, negative)
        draw = torch.Generator().manual_seed(seed)
        sigma = 0.2 + 0.4 * float(torch.rand((), generator=draw))
        noised = (1 - sigma) * own + sigma * torch.randn(given.x0.shape, generator=draw)
        fake, real = clean(0.4, noised, given, sigma), clean(0.7, noised, given, sigma)
        if guidance:
            real = real + guidance * (real - clean(0.7, noised, given, sigma, negative.expand(2, -1, -1)))
        wanted = [part[:, :, 1:] for part in (own, real, fake)]
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(judged[-1], wanted, strict=True))
    assert len(one.teacher.calls) == 5 * (2 if guidance else 1)
    assert not any(call["gradients"] for call in (*one.teacher.calls, *one.critic.calls))


def test_the_critic_learns_the_velocity_of_the_student_s_latents():
    one, given = made(), batch()
    own = torch.randn(given.x0.shape)
    sigmas = []
    for seed in range(40):
        one.generator.manual_seed(seed)
        found = one.critic_loss(own, given)
        draw = torch.Generator().manual_seed(seed)
        sigma = float(torch.rand((), generator=draw)) * 0.998 + 0.001
        noise = torch.randn(given.x0.shape, generator=draw)
        said = velocity(0.4, (1 - sigma) * own + sigma * noise, given)
        wanted = ((said - (noise - own))[:, :, 1:] ** 2).mean()
        assert float(found.detach()) == pytest.approx(float(wanted), rel=1e-4)
        sigmas.append(sigma)
    assert 0 < min(sigmas) < max(sigmas) < 1


@pytest.mark.parametrize("every", [1, 3])
def test_the_student_learns_once_in_so_many_steps_and_the_critic_in_each(every):
    one, given = made(critic_steps=every), batch()
    results, weights = [], []
    for _ in range(7):
        results.append(one.step(given))
        weights.append((float(one.student.weight.detach()), float(one.critic.weight.detach())))
    due = [(k + 1) % every == 0 for k in range(7)]
    assert [result.matching is not None for result in results] == due
    assert [a != b for (a, _), (b, _) in zip([(0.5, 0.4), *weights], weights, strict=False)] == due
    assert all(a != b for (_, a), (_, b) in zip([(0.5, 0.4), *weights], weights, strict=False))
    assert (one.iteration, one.optimizer.iteration, one.critic_optimizer.iteration) == (7, sum(due), 7)
    assert {result.rung for result in results} <= {0, 1, 2}
    assert len({made().step(given).rung for _ in range(2)}) == 1
    assert all(result.loss == result.critic for result in results)
    assert float(one.teacher.weight) == pytest.approx(0.7)
    assert one.student.weight.grad is None
    assert one.critic.weight.grad is None


def test_every_rung_is_drawn():
    one, given = made(), batch()
    assert {one.step(given).rung for _ in range(30)} == {0, 1, 2}


def test_a_loss_that_is_no_number_changes_nothing(monkeypatch):
    one, given = made(critic_steps=1), batch()
    monkeypatch.setattr(distill, "matching_loss", lambda clean, real, fake: clean.sum() / 0)
    with pytest.raises(InputError, match="the student's loss of step 0 is"):
        one.step(given)
    assert (float(one.student.weight.detach()), float(one.critic.weight.detach())) == pytest.approx((0.5, 0.4))
    assert one.iteration == 0
    monkeypatch.undo()
    one = made()
    monkeypatch.setattr(one, "critic_loss", lambda clean, batch: clean.sum() * float("nan"))
    with pytest.raises(InputError, match="the critic's loss of step 0 is nan"):
        one.step(given)
    with pytest.raises(InputError, match="needs a negative prompt"):
        made(guidance=1.0).step(given)


def test_gradients_move_towards_the_teacher_and_away_from_the_critic():
    own = torch.zeros(2, 3, 2, 2, 2, requires_grad=True)
    real, fake = torch.full(own.shape, 2.0), torch.full(own.shape, -1.0)
    distill.matching_loss(own, real, fake).backward()
    assert own.grad is not None
    # the move is (real - fake) over the distance to real, 3 / 2, and its gradient that over the count
    assert torch.allclose(own.grad, torch.full(own.shape, -1.5 / own.numel()), atol=1e-6)
    one = distill.matching_loss(torch.zeros(1, 4), torch.ones(1, 4), torch.full((1, 4), -1.0))
    assert float(one) == pytest.approx(0.5 * 4)
    both = distill.matching_loss(torch.zeros(2, 4), torch.tensor([[1.0] * 4, [10.0] * 4]), torch.zeros(2, 4))
    assert float(both) == pytest.approx(0.5), "each sample by its own distance"
