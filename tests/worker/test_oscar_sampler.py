# SPDX-License-Identifier: Apache-2.0
"""The sampling loop around a network that a test writes: what it is shown, how often, and that a take goes on where it was. Of
retake.worker.oscar.sampler."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retake.worker.oscar import schedule
from retake.worker.oscar.few_step import Student, renoise_seed
from retake.worker.oscar.sampler import Conditions, Loop, denoise, denoise_few, evaluate, guide

SHAPE = (1, 16, 3, 2, 2)
torch.set_num_threads(1)


class Network:
    """A velocity that depends on everything it is shown."""

    def __init__(self, residuals: Any = None, cached: bool = False) -> None:
        self.calls: list[dict[str, torch.Tensor]] = []
        self.residuals, self.is_cache_enabled = residuals, cached
        self.contexts: list[str] = []
        self.resets = 0

    def __call__(self, **call: Any) -> Any:
        self.calls.append(call)
        told = call["encoder_hidden_states"].mean((1, 2)).reshape(-1, 1, 1, 1, 1)
        times = call["timestep"][:, None, :, None, None]
        return SimpleNamespace(sample=0.3 * call["hidden_states"] + told + times + 0.01 * call["control_tokens"].sum())

    @contextmanager
    def cache_context(self, name: str) -> Any:
        self.contexts.append(name)
        yield

    def _reset_stateful_cache(self) -> None:
        self.resets += 1


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conditions(guided: bool = True, words: int = 4) -> Conditions:
    return Conditions(
        drawn(*SHAPE, seed=1), drawn(1, 16, 1, 2, 2, seed=2), drawn(1, 3, 5, seed=3), drawn(1, 4, 6, seed=4),
        drawn(1, words, 6, seed=5) if guided else None,
    )  # fmt: skip


def test_guidance_goes_beyond_what_the_prompt_says_by_what_it_adds():
    a, b = drawn(2, 3), drawn(2, 3, seed=1)
    assert torch.allclose(guide(a, b, 6.0), b + 7 * (a - b), atol=1e-5)
    assert torch.equal(guide(a, b, 0.0), a)


@pytest.mark.parametrize(("batched", "guided", "words", "cached", "calls"), [
    (True, True, 4, False, 1), (True, True, 5, False, 2), (True, True, 4, True, 2), (True, False, 4, False, 1),
    (False, True, 4, False, 2), (False, False, 4, True, 1),
])  # fmt: skip
def test_both_prompts_go_through_together_where_they_can(batched, guided, words, cached, calls):
    given, net = conditions(guided, words), Network(cached=cached)
    state, times = drawn(*SHAPE, seed=8), torch.tensor([[0.1, 0.7, 0.7]])
    first, second = evaluate(net, given, state, times, batched)  # type: ignore[arg-type]
    assert len(net.calls) == calls
    assert net.contexts == (["cond", "uncond"][: 1 + guided] if cached else [])
    shown = torch.cat([given.given, state[:, :, 1:]], dim=2)
    for call in net.calls:
        for k in range(len(call["hidden_states"])):
            assert torch.equal(call["hidden_states"][k : k + 1], shown), (
                "the given frame itself, and the rest of the state"
            )
            assert torch.equal(call["timestep"][k : k + 1], times)
            mask = call["condition_mask"][k]
            assert mask.shape == (1, 3, 2, 2)
            assert mask[0, :, 0, 0].tolist() == [1, 0, 0]
        assert call["text_is_projected"] is True
        assert torch.equal(call["control_tokens"], given.control)
    alone = Network()
    wanted = [alone(hidden_states=shown, timestep=times, encoder_hidden_states=text, control_tokens=given.control).sample
              for text in (given.text, *([given.negative] if guided else []))]  # fmt: skip
    assert torch.allclose(first, wanted[0])
    assert (second is None) == (not guided)
    if guided:
        assert torch.allclose(second, wanted[1])  # type: ignore[arg-type]


def test_a_step_cache_is_told_which_evaluation_of_which_prompt_comes():
    begun: list[Any] = []
    residuals = SimpleNamespace(begin=lambda *at: begun.append(at), reset=lambda: begun.append("reset"))
    net = Network(residuals)
    evaluate(net, conditions(), drawn(*SHAPE), torch.zeros(1, 3), True, 7)  # type: ignore[arg-type]
    assert begun == [(7, "cond"), (7, "uncond")]
    begun.clear()
    denoise(net, schedule.make_scheduler(), conditions(), 2, 1.0)  # type: ignore[arg-type]
    assert begun == ["reset", *[(k, name) for k in range(3) for name in ("cond", "uncond")]]
    cached = Network(cached=True)
    denoise(cached, schedule.make_scheduler(), conditions(), 2, 1.0)  # type: ignore[arg-type]
    assert cached.resets == 1


def run(
    steps: int = 4, guidance: float = 2.0, net: Any = None, given: Conditions | None = None, **more: Any
) -> torch.Tensor:
    return denoise(net or Network(), schedule.make_scheduler(), given or conditions(), steps, guidance, **more)  # type: ignore


def test_the_given_frame_is_followed_along_the_line_from_its_noise():
    given, seen = conditions(), []
    final = run(on_step=lambda index, time, tensors: seen.append((index, time, tensors)) or None)
    assert [index for index, _, _ in seen] == list(range(5)), "so many steps mean one evaluation more"
    scheduler = schedule.make_scheduler()
    assert [time for _, time, _ in seen] == schedule.start_schedule(scheduler, 4, "cpu").tolist()
    for _, _, tensors in seen:
        assert torch.equal(tensors["velocity"][:, :, :1], given.noise[:, :, :1] - given.given)
    assert torch.equal(seen[-1][2]["latents"], final)
    assert torch.allclose(final[:, :, :1], given.given, atol=0.05)


def test_guidance_is_on_between_two_sigmas_alone():
    scheduler = schedule.make_scheduler()
    schedule.start_schedule(scheduler, 6, "cpu")
    sigmas = scheduler.sigmas.tolist()
    low, high = sigmas[4], sigmas[2]
    loop, seen = Loop(), []
    run(6, loop=loop, interval=(low, high), on_step=lambda *_: seen.append(loop.evaluated) or None)
    assert seen == [1, 1, 2, 2, 2, 1, 1], "both ends included"
    plain = run(6, given=conditions(guided=False))
    assert torch.equal(run(6, interval=(2.0, 3.0)), plain)
    assert torch.equal(run(6, interval=(0.0, 1.0)), run(6))
    assert not torch.allclose(run(6), plain, atol=1e-3)
    assert torch.allclose(run(6, batched=True), run(6), atol=1e-5)


@pytest.mark.parametrize("few", [None, "ode", "consistency"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_take_that_was_interrupted_goes_on_to_the_same_bits(few, stop):
    def whole(**more: Any) -> torch.Tensor:
        if few is None:
            return run(3, **more)
        return denoise_few(Network(), conditions(), Student(4, few), 11, 1.5, **more)  # type: ignore[arg-type]

    class Stop(Exception):
        pass

    def halt(index: int, *_: Any) -> None:
        if index == stop:
            raise Stop

    loop = Loop()
    with pytest.raises(Stop):
        whole(loop=loop, on_step=halt)
    assert loop.index == stop
    loop.to_host()
    assert torch.equal(whole(loop=loop), whole())
    assert loop.index == 4
    assert loop.evaluated == 2


def test_latents_that_a_hook_replaces_are_gone_on_from():
    def zero(index: int, *_: Any) -> torch.Tensor | None:
        return torch.zeros(SHAPE) if index == 4 else None

    assert torch.equal(run(on_step=zero), torch.zeros(SHAPE))
    for sampler in ("ode", "consistency"):
        found = denoise_few(Network(), conditions(), Student(2, sampler), 3, on_step=lambda i, *_: torch.zeros(SHAPE))  # type: ignore
        assert torch.equal(found, torch.zeros(SHAPE))


@pytest.mark.parametrize("sampler", ["ode", "consistency"])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_a_student_is_sampled_at_its_own_sigmas(sampler, guidance):
    """By hand: ode follows the velocity from sigma to sigma, consistency goes to the clean latents and noises them anew."""
    student, given, net, seen = Student(3, sampler, guidance, (0.9, 0.5, 0.2)), conditions(guidance > 0), Network(), []  # type: ignore
    found = denoise_few(net, given, student, 21, guidance, on_step=lambda *at: seen.append(at) or None)  # type: ignore[arg-type]
    state, by_hand = given.noise, Network()
    for k, (sigma, following) in enumerate([(0.9, 0.5), (0.5, 0.2), (0.2, 0.0)]):
        times = schedule.net_timesteps(int(1000 * sigma), 3, "cpu")
        a, b = evaluate(by_hand, given, state, times, False)  # type: ignore[arg-type]
        velocity = a if b is None else guide(a, b, guidance)
        velocity = torch.cat([(state[:, :, :1] - given.given) / sigma, velocity[:, :, 1:]], dim=2)
        if sampler == "ode":
            state = state + (following - sigma) * velocity
        else:
            clean = state - sigma * velocity
            fresh = schedule.make_noise(renoise_seed(21, k), SHAPE) if following else torch.zeros(SHAPE)
            state = (1 - following) * clean + following * fresh
        assert seen[k][:2] == (k, int(1000 * sigma))
        assert torch.allclose(seen[k][2]["latents"], state, atol=1e-5)
        assert torch.allclose(seen[k][2]["velocity"], velocity, atol=1e-5)
    assert torch.allclose(found, state, atol=1e-5)
    assert torch.allclose(found[:, :, :1], given.given, atol=1e-5), "the given frame comes out as it is"
    assert len(net.calls) == 3 * (1 + (guidance > 0))
