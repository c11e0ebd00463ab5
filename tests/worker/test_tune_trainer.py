# SPDX-License-Identifier: Apache-2.0
"""The training loop: windows, latents, checkpoints, resuming, several processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import tune_clips
from hypothesis import given
from hypothesis import strategies as st
from tune_clips import SIZE, make_clip, make_trainer

from retake.core.errors import Cancelled, InputError, TakeError
from retake.worker.oscar.windows import Window
from retake.worker.tune import LoraSettings, ObjectSupervision, TuneConfig, checkpoints, latents
from retake.worker.tune.clips import split
from retake.worker.tune.latents import collate, valid_frames
from retake.worker.tune.objects import loss_weight, object_cells, object_video, pool_cells, read_truth
from retake.worker.tune.sampling import FLOOR, Sampler, candidate_windows, event_weight

FULL = os.environ.get("RETAKE_FULL") == "1"
HERE = Path(__file__).parent


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.tuner.optimizer.masters.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


# -- windows ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.sampled_from([9, 33, 81]), st.integers(1, 20))
def test_windows_cover_every_frame_and_stay_inside(frames, length, stride):
    windows = candidate_windows(frames, length, stride)
    assert all(0 <= w.start < w.stop <= frames and w.length == length for w in windows)
    assert windows[-1].stop == frames
    if stride <= length:
        assert set().union(*(range(w.start, w.stop) for w in windows)) == set(range(frames))
    assert all(w.stop - w.start == length for w in windows) or frames < length


def test_windows_are_biased_to_events():
    held, beside = Window(40, 121, 81), Window(200, 281, 81)
    assert event_weight(held, (70, 90)) == 1.0 > event_weight(Window(68, 149, 81), (70, 90)) > FLOOR
    assert event_weight(beside, (70, 90)) == FLOOR


@given(st.integers(0, 500), st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_processes_together_draw_what_one_draws(step, count, ranks):
    sampler = Sampler([make_clip(0, 33), make_clip(1, 20, domain="sim")], 9, seed=3)
    alone = sampler.draw(step, count * ranks)
    together = [choice for rank in range(ranks) for choice in sampler.draw(step, count, rank, ranks)]
    assert [(c.clip.uid, c.window) for c in alone] == [(c.clip.uid, c.window) for c in together]


@pytest.mark.parametrize(
    ("weights", "balance", "share"), [(None, False, 0.8), (None, True, 4 ** (1 / 3)), ({"sim": 1}, False, 0.0)]
)
def test_domains_get_their_share(weights, balance, share):
    clips = [make_clip(0, 80), make_clip(1, 20, domain="sim")]
    sampler = Sampler(clips, 9, weights=weights, balance=balance)
    expected = share if not balance else share / (share + 1)
    assert sampler.shares["composite"] == pytest.approx(expected)
    drawn = [c.clip.domain for step in range(400) for c in sampler.draw(step, 2)]
    assert drawn.count("composite") / len(drawn) == pytest.approx(expected, abs=0.06)


def test_a_domain_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="composite"):
        Sampler([make_clip(0)], 9, weights={"recorded": 1.0})


@given(st.integers(2, 12), st.floats(0.05, 0.9), st.integers(0, 5))
def test_no_motion_is_on_both_sides(episodes, share, seed):
    clips = [
        make_clip(i, episode=f"e{i % episodes}", domain=d) for i in range(2 * episodes) for d in ("sim", "composite")
    ]
    if round(share * episodes) in (0, episodes):
        with pytest.raises(InputError, match="leaves one side empty"):
            split(clips, share, seed)
        return
    train, held = split(clips, share, seed)
    assert len(train) + len(held) == len(clips)
    assert not {c.episode for c in train} & {c.episode for c in held}


# -- latents and objects ----------------------------------------------------------------------------------------------


@given(st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_pooling_keeps_the_covered_area(k, seed):
    cover = np.random.default_rng(seed).random((1 + 4 * k, 32, 32)) < 0.3
    cells = pool_cells(cover, SIZE)
    assert cells.shape == (1 + k, 4, 4)
    assert cells[0].mean() == pytest.approx(cover[0].mean(), abs=1e-6)
    if k:
        assert cells[1:].mean() == pytest.approx(cover[1:].mean(), abs=1e-6)


@given(st.integers(1, 17))
def test_latent_frames_of_padding_alone_are_not_valid(real):
    valid = valid_frames(Window(0, real, 17))[0].tolist()
    assert valid == [
        float(any(f < real for f in group)) for group in ([0], *(range(1 + 4 * i, 5 + 4 * i) for i in range(4)))
    ]


def test_object_cells_follow_the_object_and_free_fall():
    clip = make_clip(0, 17)
    truth = read_truth(clip.physics(), 17, SIZE)
    cells, falling = object_cells(truth, slice(0, 17), 17, SIZE)
    assert cells.sum(axis=(1, 2)) == pytest.approx([cells[0].sum()] * 5, rel=0.02)  # the object keeps its size
    assert falling[0].sum() == 0
    assert falling[2].sum() > 0
    assert (falling <= cells + 1e-6).all()
    weight = loss_weight(torch.from_numpy(cells)[None], torch.from_numpy(falling)[None], ObjectSupervision(4.0, 2.0))
    assert float(weight.min()) >= 1
    assert float(weight.max()) == pytest.approx(1 + 8 * float(falling.max()), rel=0.2)


def test_objects_are_drawn_in_colours_of_their_own():
    truth = read_truth(make_clip(0).physics(), 9, SIZE)
    video = object_video(truth, None)
    assert {tuple(c) for c in video.reshape(-1, 3)} == {(0, 0, 0), (255, 0, 255)}
    skeleton = np.full((9, 32, 32, 3), 7, np.uint8)
    assert ((object_video(truth, skeleton) == 7).all(-1) == (video == 0).all(-1)).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"object_movable": np.array([False])}, "no movable object"),
        ({"time_s": np.arange(5)}, "belongs to another sample"),
        ({"object_masks": None}, "no object_masks"),
    ],
)
def test_physics_that_does_not_fit_is_refused(change, says):
    arrays = {**make_clip(0).physics(), **change}
    arrays = {name: value for name, value in arrays.items() if value is not None}
    with pytest.raises(InputError, match=says):
        read_truth(arrays, 9, SIZE)


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


_RUN = """
import sys, torch
sys.path.insert(0, {here!r})
from pathlib import Path
from tune_clips import make_trainer
torch.manual_seed(5)
print("ready", flush=True)
trainer = make_trainer(Path(sys.argv[1]), steps=400, save_every=1, keep=2)
trainer.run(progress=lambda done, total, note: print(done, flush=True))
"""


def test_kill_9_leaves_a_loadable_checkpoint(tmp_path):
    """Killed at random instants of stepping and writing, the folder always holds a whole checkpoint to go on from."""
    reached, rng = 0, np.random.default_rng(4)
    for _ in range(24 if FULL else 2):
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN.format(here=str(HERE)), str(tmp_path / "run")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit() and int(line) >= reached + 2:
                break
        time.sleep(float(rng.uniform(0, 0.05)))  # somewhere in the next step or its writing
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        torch.manual_seed(5)
        trainer = make_trainer(tmp_path / "run", steps=400, save_every=1, keep=2)
        step = trainer._resume()
        assert step >= reached + 2
        reached = step


_WORLD = """
import sys, torch, json
sys.path.insert(0, {here!r})
from pathlib import Path
from tune_clips import make_trainer
from retake.worker.tune.distributed import join_world, leave_world
world = join_world(torch.device("cpu"))
torch.manual_seed(5)
trainer = make_trainer(Path(sys.argv[1]), world=world, shard=sys.argv[2] == "shard", steps=int(sys.argv[3]))
found = trainer.run()
if world.is_main:
    print(json.dumps(found.losses), flush=True)
leave_world()
"""


def _launch(folder: Path, how: str, steps: int) -> list[float]:
    """Losses of a training in two processes, of the steps that it did now."""
    told = _start(_WORLD, str(folder), how, str(steps))
    assert [process.returncode for process in told] == [0, 0], told
    return json.loads(told[0].stdout)


def _start(code: str, *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """How two processes of one group ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(2):
        environment = {
            **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        command = [sys.executable, "-c", code.format(here=str(HERE)), *arguments]
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    told = [process.communicate(timeout=400) for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, out, err)
        for process, (out, err) in zip(started, told, strict=True)
    ]


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


_KILLED = """
import os, signal, sys, torch
sys.path.insert(0, {here!r})
from pathlib import Path
from tune_clips import make_trainer
from retake.core.errors import Cancelled
from retake.worker.tune.distributed import join_world, leave_world
world = join_world(torch.device("cpu"))
torch.manual_seed(5)
trainer = make_trainer(Path(sys.argv[1]), world=world, steps=4)
def progress(done, total, note):
    if done == 2 and world.rank == 1 and sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
def cancel():
    if world.rank == 1 and sys.argv[2] == "stop" and trainer.tuner.optimizer.iteration == 2:
        raise Cancelled("asked")
try:
    trainer.run(progress, cancel)
except Cancelled as error:
    print(error, flush=True)
leave_world()
"""


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_two_processes_go_on_after_one_of_them(tmp_path, how):
    """One is killed: the other ends with an error, and the same command goes on. One is asked to stop: both do, together."""
    torch.manual_seed(5)
    expected = _losses_by_two_generators(make_trainer(tmp_path / "one" / "run", batch=2, steps=4))
    folder = tmp_path / "two" / "run"
    ended = _start(_KILLED, str(folder), how)
    assert (ended[1].returncode == -signal.SIGKILL) == (how == "kill")
    if how == "kill":
        assert ended[0].returncode not in (0, None)
    else:
        assert "another process" in ended[0].stdout
        assert ended[1].stdout.strip() == "asked"
    [*_, newest] = checkpoints.find(folder / "checkpoints")
    assert newest.step == 2
    found = _launch(folder, "replicate", 4)
    assert found == pytest.approx(expected[2:], abs=1e-5)


def test_objects_are_not_drawn_through_one_camera_on_a_canvas_of_several():
    arrays = {**make_clip(0).physics(), "canvas_cameras": np.array(["wrist", "front"])}
    with pytest.raises(InputError, match="wrist, front on one picture"):
        object_video(read_truth(arrays, 9, SIZE), None)
