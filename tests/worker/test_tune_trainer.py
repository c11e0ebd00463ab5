# SPDX-License-Identifier: Apache-2.0
"""The training loop: windows, latents, checkpoints, resuming, several processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import tune_children
import tune_clips
from hypothesis import given
from hypothesis import strategies as st
from tune_clips import make_clip, make_trainer

from retake.core.errors import Cancelled, InputError, TakeError
from retake.worker.oscar.windows import Window
from retake.worker.tune import LoraSettings, ObjectSupervision, TuneConfig, checkpoints, latents
from retake.worker.tune.latents import collate, valid_frames

FULL = os.environ.get("RETAKE_FULL") == "1"


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.tuner.optimizer.masters.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


# -- latents ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 17))
def test_latent_frames_of_padding_alone_are_not_valid(real):
    valid = valid_frames(Window(0, real, 17))[0].tolist()
    assert valid == [
        float(any(f < real for f in group)) for group in ([0], *(range(1 + 4 * i, 5 + 4 * i) for i in range(4)))
    ]


def test_nothing_is_decoded_twice(tmp_path):
    trainer = make_trainer(tmp_path / "run", ([make_clip(0, 33)], []))
    before = next(tune_clips.decodes)
    assert trainer.cache.prepare(trainer.sampler.choices) == 7
    assert next(tune_clips.decodes) - before == 3  # the video, the skeleton, and this very count
    assert trainer.cache.prepare(trainer.sampler.choices) == 0
    victim = trainer.cache.path(trainer.sampler.choices[0])
    victim.write_bytes(victim.read_bytes()[:100])
    assert trainer.cache.read(trainer.sampler.choices[0]).x0.shape == (1, 16, 3, 4, 4)


def test_a_clip_without_physics_says_what_to_do(tmp_path):
    step = TuneConfig(objects=ObjectSupervision(weight=1.0))
    clips = ([dataclasses.replace(make_clip(0), physics=lambda: None)], [])
    with pytest.raises(InputError, match="has no physics"):
        make_trainer(tmp_path / "run", clips, step=step).run()


def test_windows_of_different_sizes_are_not_mixed(tmp_path):
    trainer = make_trainer(tmp_path / "run", ([make_clip(0, 17)], []))
    one = trainer.cache.read(trainer.sampler.choices[0])
    wide = dataclasses.replace(one, x0=torch.cat([one.x0, one.x0], dim=-1))
    with pytest.raises(InputError, match="different sizes cannot share a batch"):
        collate([one, wide])
    with pytest.raises(InputError, match="some windows of the batch have objects and some have not"):
        collate([dataclasses.replace(one, objects=one.x0), one])
    without = collate(
        [one, dataclasses.replace(one, cells=None, falling=None)]
    )  # a clip without objects has none anywhere
    assert float(without.cells[0].sum()) > 0 == float(without.cells[1].sum())


@pytest.mark.parametrize(("change", "says"), [
    ({"frames": 12}, "the video of 'put the box down 0' .front. ends after 9 of 12 frames"),
    ({"skeleton": lambda: iter(())}, "the skeleton of .* ends after 0 of 9 frames"),
])  # fmt: skip
def test_a_video_that_ends_early_is_named(tmp_path, change, says):
    trainer = make_trainer(tmp_path / "run", ([dataclasses.replace(make_clip(0), **change)], []))
    with pytest.raises(InputError, match=says):
        trainer.run()
    assert not list((tmp_path / "latents").glob("*.safetensors"))


def test_latents_that_are_not_numbers_are_neither_kept_nor_learnt(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path / "run", ([make_clip(0)], []))
    monkeypatch.setattr(latents.vae_stage, "encode", lambda vae, frames: torch.full((1, 16, 3, 4, 4), float("nan")))
    before = weights(trainer)
    with pytest.raises(InputError, match="made NaN or infinite latents of 'put the box down 0', frames 0 on"):
        trainer.run()
    assert same(before, weights(trainer))
    assert not list((tmp_path / "latents").glob("*.safetensors"))


# -- the loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"step": TuneConfig(lr=3e-3, lora=LoraSettings(4, 8), text_dropout=0.3, objects=ObjectSupervision(3.0, 2.0))}],
)
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, changes):
    # adapters start from random numbers: both runs start from the same ones, as they do from one seed
    torch.manual_seed(5)
    whole = make_trainer(tmp_path / "whole", accumulate=2, **changes)
    ended = whole.run()
    asked = iter([False, False, False, True])

    def cancel() -> None:
        if next(asked):
            raise Cancelled("stop")

    torch.manual_seed(5)
    first = make_trainer(tmp_path / "parts", accumulate=2, **changes)
    with pytest.raises(Cancelled):
        first.run(cancel=cancel)
    torch.manual_seed(6)
    second = make_trainer(tmp_path / "parts", accumulate=2, **changes)
    again = second.run()
    assert same(weights(whole), weights(second))
    assert ended.losses[3:] == again.losses
    assert ended.validation[-1] == again.validation[-1]
    assert all(torch.equal(v, second.tuner.optimizer.ema[n]) for n, v in whole.tuner.optimizer.ema.items())


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"frames": 13}, "other settings"), ({"base": "another"}, "other base weights"), ({"clips": 1}, "other data")],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, changes, says):
    make_trainer(tmp_path / "run").run()
    base, clips = changes.pop("base", None), changes.pop("clips", None)
    other = make_trainer(tmp_path / "run", ([make_clip(7)], []) if clips else None, steps=6, **changes)
    other.base = base or other.base
    with pytest.raises(InputError, match=says):
        other.run()
    assert [c.step for c in checkpoints.find(tmp_path / "run" / "checkpoints")] == [2, 4]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    real, calls = checkpoints.save_file, iter(range(99))

    def refusing(*arguments, **named):
        if next(calls) == 3:  # in the middle of the second checkpoint
            raise OSError(28, "No space left on device")
        return real(*arguments, **named)

    monkeypatch.setattr(checkpoints, "save_file", refusing)
    with pytest.raises(TakeError, match=r"step 4 could not be written.*No space left"):
        make_trainer(tmp_path / "run").run()
    folder = tmp_path / "run" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-000002"]
    monkeypatch.setattr(checkpoints, "save_file", real)
    assert make_trainer(tmp_path / "run").run().step == 4


def test_damage_is_named(tmp_path):
    make_trainer(tmp_path / "run").run()
    newest = checkpoints.find(tmp_path / "run" / "checkpoints")[-1]
    (newest.path / "optimizer.safetensors").write_bytes(b"\x08")
    with pytest.raises(InputError, match=r"step-000004 is damaged"):
        make_trainer(tmp_path / "run", steps=6).run()


def test_kill_9_leaves_a_loadable_checkpoint(tmp_path):
    """Killed at random instants of stepping and writing, the folder always holds a whole checkpoint to go on from."""
    reached, rng = 0, np.random.default_rng(4)
    for _ in range(24 if FULL else 2):
        process, steps_done = tune_children.start_alone(tmp_path / "run")
        while steps_done.recv() < reached + 2:
            pass
        time.sleep(float(rng.uniform(0, 0.05)))  # somewhere in the next step or its writing
        process.kill()
        process.join()
        steps_done.close()
        torch.manual_seed(5)
        trainer = make_trainer(tmp_path / "run", steps=400, save_every=1, keep=2)
        step = trainer._resume()
        assert step >= reached + 2
        reached = step


def _launch(folder: Path, how: str, steps: int) -> list[float]:
    """Losses of a training in two processes, of the steps that it did now."""
    told = tune_children.two(folder.parent.parent, tune_children.train, folder, how, steps)
    assert [process.code for process in told] == [0, 0], told
    return json.loads(told[0].out)


@pytest.mark.parametrize("how", ["replicate", "shard"])
def test_two_processes_equal_one(tmp_path, how):
    """Gloo on the CPU: the losses of two processes are those of one with twice the batch, also across a restart."""
    torch.manual_seed(5)
    alone = make_trainer(tmp_path / "one" / "run", batch=2, steps=4)
    # one process draws the noise of both: its two samples come from the generators that the two processes would use
    expected = _losses_by_two_generators(alone)
    folder, first = tmp_path / "two" / "run", 2 if how == "shard" else 4
    found = _launch(folder, how, first)
    if first < 4:  # the second launch goes on from the shards that the first one gathered
        found += _launch(folder, how, 4)
    assert found == pytest.approx(expected, abs=1e-5)


def _losses_by_two_generators(trainer) -> list[float]:
    losses, s = [], trainer.settings
    for step in range(s.steps):
        choices = trainer.sampler.draw(step, 2)
        batches = []
        for rank in range(2):
            generator = torch.Generator().manual_seed((s.step.seed * 1_000_003 + step) * 2 + rank)
            batch = trainer.batch(choices[rank : rank + 1], step)
            epsilon = torch.randn(batch.x0.shape, generator=generator)
            from retake.worker.tune import flow

            batches.append(dataclasses.replace(batch, epsilon=epsilon, u=flow.draw_u(1, generator)))
        losses.append(trainer.tuner.step_accumulated(batches).loss)
    return losses


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_two_processes_go_on_after_one_of_them(tmp_path, how):
    """One is killed: the other ends with an error, and the same command goes on. One is asked to stop: both do, together."""
    torch.manual_seed(5)
    expected = _losses_by_two_generators(make_trainer(tmp_path / "one" / "run", batch=2, steps=4))
    folder = tmp_path / "two" / "run"
    ended = tune_children.two(tmp_path, tune_children.train_until_one_ends, folder, how)
    assert (ended[1].code == -signal.SIGKILL) == (how == "kill")
    if how == "kill":
        assert ended[0].code not in (0, None)
    else:
        assert "another process" in ended[0].out
        assert ended[1].out.strip() == "asked"
    [*_, newest] = checkpoints.find(folder / "checkpoints")
    assert newest.step == 2
    found = _launch(folder, "replicate", 4)
    assert found == pytest.approx(expected[2:], abs=1e-5)
