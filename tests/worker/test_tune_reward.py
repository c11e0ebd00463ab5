# SPDX-License-Identifier: Apache-2.0
"""Reward tuning at a tiny size: where objects are seen, what rewards prefer, that weights follow, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import test_tune_cli
import torch
import tune_golden as golden
from block_vae import BlockVae
from hypothesis import given
from hypothesis import strategies as st
from tune_clips import SIZE, make_clip, make_trainer, text_of

from retake.core.errors import InputError
from retake.worker.oscar import vae as vae_stage
from retake.worker.oscar.windows import Window
from retake.worker.tune import Batch, LinearSchedule, TuneConfig, Tuner, reward
from retake.worker.tune.cli import main
from retake.worker.tune.latents import collate
from retake.worker.tune.objects import pool_cells
from retake.worker.tune.reward_run import RewardSettings, falling_frames, in_window

FRAMES = 17
model, data = test_tune_cli.model, test_tune_cli.data


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Videos of two clips, their encoded windows, and a VAE that fits them."""
    clips = [make_clip(seed, FRAMES) for seed in range(2)]
    trainer = make_trainer(tmp_path_factory.mktemp("reward") / "run", (clips, []), frames=FRAMES)
    trainer.cache.vae = vae = BlockVae()
    raw = collate([trainer.cache.read(choice) for choice in trainer.sampler.choices])
    vae.fit(raw.x0)
    parts = []
    for clip in clips:
        x0, control = (vae_stage.encode(vae, np.stack(list(read()))) for read in (clip.rgb, clip.skeleton))  # pyright: ignore
        parts.append((x0, control, text_of(clip.caption)))
    x0, control, text = (torch.cat(column) for column in zip(*parts, strict=True))
    videos = torch.cat([vae_stage.to_unit(np.stack(list(clip.rgb()))) for clip in clips])
    return {"vae": vae, "batch": Batch(x0, control, text), "videos": videos, "cells": raw.cells, "falling": raw.falling}


def seen(scene: Any, video: torch.Tensor) -> reward.Scene:
    return reward.see(video, scene["videos"][:, :, 0], scene["cells"], scene["falling"])


def test_objects_are_seen_where_they_are(scene: Any) -> None:
    video = scene["videos"]
    elsewhere = torch.cat([video[:, :, :1], video.roll(12, dims=4)[:, :, 1:]], dim=2)
    true, moved = seen(scene, video), seen(scene, elsewhere)
    assert true.known.all()
    assert (reward.overlap(true) > 0.6).all()
    assert (reward.overlap(moved) < 0.3).all()
    assert (true.cover - scene["cells"]).abs().mean() < 0.06


def test_what_was_not_in_the_first_frame_or_does_not_fall_counts_nothing(scene: Any) -> None:
    hidden = scene["cells"].clone()
    hidden[0, 0] = 0
    resting = scene["falling"].clone()
    resting[1] = 0
    found = reward.see(scene["videos"], scene["videos"][:, :, 0], hidden, resting)
    assert found.known.tolist() == [False, False]
    assert torch.isfinite(reward.overlap(found)).all()
    assert torch.isfinite(reward.acceleration(found)).all()


def test_a_constant_acceleration_is_best_at_any_speed() -> None:
    """A square that moves by a law of time in the picture; the object is seen exactly."""

    def film(law: Any) -> float:
        mask = torch.zeros(1, 13, 64, 64)
        for k in range(13):
            top = round(law(k))
            mask[0, k, top : top + 8, 20:28] = 1
        scene = reward.Scene(mask, mask, mask, mask, mask, torch.ones(1, 13, dtype=torch.bool), torch.ones(1) > 0)
        return float(reward.acceleration(scene)[0])

    falls, still, slides = film(lambda k: 0.3 * k * k), film(lambda k: 5), film(lambda k: 4 * k)
    jumps = film(lambda k: 40 if k > 6 else 5)
    assert still == slides == 0
    assert falls > -0.02  # whole pixels
    assert jumps < 10 * falls


@given(st.integers(0, 4), st.integers(0, 2**31))
def test_masks_are_pooled_as_the_simulators(k: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((1 + 4 * k, 32, 32)) < 0.4
    expected = pool_cells(mask, SIZE)
    found = reward.pool(torch.from_numpy(mask).float()[None])[0]
    assert found.numpy() == pytest.approx(expected, abs=1e-6)


def tuned(scene: Any, name: str, steps: int, shuffle: bool = False, anchor: float = 0.0) -> list[float]:
    """Rewards against the true places, of a training on them or on shuffled ones."""
    torch.manual_seed(0)
    config = TuneConfig(lr=3e-3, schedule=LinearSchedule(warm_up=1, cycle=1000), clip_norm=1.0, ema_rate=None)
    made = reward.RewardTuner(
        Tuner(golden.model(), config), scene["vae"], reward.RewardConfig(name, steps=3, last=1, anchor=anchor)
    )
    cells, falling = scene["cells"], scene["falling"]
    if shuffle:
        cells, falling = (value.roll((2, 2), dims=(2, 3)) for value in (cells, falling))
        cells = torch.cat([scene["cells"][:, :1], cells[:, 1:]], dim=1)  # the object itself is known
    found = []
    for step in range(steps):
        made.tuner.generator.manual_seed(step % 2)
        made.step(scene["batch"], cells, falling)
        with torch.no_grad():
            made.tuner.generator.manual_seed(0)
            rewards, _ = made.judge(scene["batch"], scene["cells"], scene["falling"], made.sample(scene["batch"]))
        found.append(float(rewards.mean()))
    return found


def test_weights_follow_a_reward_and_not_one_of_other_places(scene: Any) -> None:
    """Said plainly: the reward reaches the weights of a tiny model; nothing here says that videos get better."""
    right, wrong = tuned(scene, "overlap", 20), tuned(scene, "overlap", 20, shuffle=True)
    assert right[-1] > right[0] + 0.15
    assert max(wrong) < right[0] + 0.05
    smooth = tuned(scene, "acceleration", 10)
    assert smooth[-1] > 0.2 * smooth[0]  # rewards are negative


def test_gradients_flow_through_the_last_steps_alone(scene: Any) -> None:
    made = reward.RewardTuner(Tuner(golden.model(), TuneConfig()), scene["vae"], reward.RewardConfig(steps=4, last=2))
    calls = []
    forward = made.tuner.forward
    made.tuner.forward = lambda **given: calls.append(torch.is_grad_enabled()) or forward(**given)
    assert made.sample(scene["batch"]).requires_grad
    assert calls == [False, False, True, True]
    assert torch.equal(made.sample(scene["batch"])[:, :, 0], scene["batch"].x0[:, :, 0])


def test_the_anchor_is_the_training_loss(scene: Any) -> None:
    tuner = Tuner(golden.model(), TuneConfig(lr=1e-12))
    none = torch.zeros_like(scene["falling"])  # no reward: the anchor alone is learnt from
    made = reward.RewardTuner(tuner, scene["vae"], reward.RewardConfig(steps=1, last=1, anchor=2.0))
    tuner.generator.manual_seed(1)
    result = made.step(scene["batch"], scene["cells"], none)
    tuner.generator.manual_seed(1)
    made.sample(scene["batch"])  # draws what the step drew before
    expected = float(tuner.predict(scene["batch"]).loss.detach())
    assert result.reward is None
    assert result.loss == pytest.approx(2 * expected, rel=1e-5)


def test_a_reward_that_is_not_finite_changes_nothing(scene: Any) -> None:
    tuner = Tuner(golden.model(), TuneConfig())
    before = {name: value.clone() for name, value in tuner.optimizer.masters.items()}
    made = reward.RewardTuner(tuner, scene["vae"], reward=lambda found: found.cover.sum(dim=(1, 2, 3)) / 0)
    with pytest.raises(InputError, match="reward step 0 is"):
        made.step(scene["batch"], scene["cells"], scene["falling"])
    assert all(torch.equal(value, before[name]) for name, value in tuner.optimizer.masters.items())


@pytest.mark.parametrize(("changes", "says"), [
    ({"reward": "beauty"}, "valid: acceleration, overlap"), ({"gradient_steps": 9}, "1 <= last <= steps"),
    ({"sample_steps": 0}, "1 <= last"), ({"anchor": -1.0}, "0 .off. or more"), ({"anchor": float("nan")}, "0 .off. or more"),
    ({"accumulate": 2}, "give --batch"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        RewardSettings(**changes)


def test_frames_of_a_fall_are_cut_and_padded_with_the_window() -> None:
    falls = falling_frames(make_clip(0, 12))
    assert falls.tolist() == [False] * 4 + [True] * 5 + [False] * 3  # release and settling included
    assert in_window(falls, Window(6, 12, 9)).tolist() == [True] * 3 + [False] * 6


def test_run_stop_and_save(tmp_path: Any, model: Any, data: Any, capsys: Any) -> None:
    out, saved = tmp_path / "reward", tmp_path / "saved"
    command = ["reward", str(data), "--model", str(model), "--out", str(out), "--frames", "9", "--size", "32x32", "--lora",
               "--rank", "4", "--device", "cpu", "--warm-up", "0", "--sample-steps", "2", "--save-every", "1",
               "--validation", "0.5", "--picture-steps", "1"]  # fmt: skip
    assert main([*command, "--steps", "1"]) == 0
    assert main([*command, "--steps", "2"]) == 0
    lines = [json.loads(line) for line in (out / "curves" / "curves.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "reward" in line] == [0, 1]
    assert "experimental" in capsys.readouterr().out
    assert (out / "curves" / "pictures" / "step-000002.png").is_file()
    with pytest.raises(InputError, match=r"anchor: 1\.0 then, 0\.5 now"):
        main([*command, "--steps", "3", "--anchor", "0.5"])
    assert main(["save", str(out), "--model", str(model), "--out", str(saved)]) == 0
    assert json.loads((saved / "tuned.json").read_text())["experimental"] == "reward"
