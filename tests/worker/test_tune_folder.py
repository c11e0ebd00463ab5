# SPDX-License-Identifier: Apache-2.0
"""What a training leaves beside its checkpoints: curves, pictures, who writes there, and the request to stop."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oscar_golden import pipeline
from tune_clips import make_clip, make_trainer

from retake.core.errors import Cancelled, InputError
from retake.worker.oscar import vae as vae_stage
from retake.worker.tune import TuneConfig, cli, curves, pictures
from retake.worker.tune.folder import STOP, ask_to_stop, is_running, only_writer


def decode(latents: torch.Tensor) -> np.ndarray:
    return vae_stage.to_uint8(vae_stage.decode(pipeline().vae, latents))


# -- curves -----------------------------------------------------------------------------------------------------------


def test_of_a_step_that_was_done_twice_the_last_line_counts(tmp_path):
    made = curves.Curves(tmp_path)
    made.add_step(0, loss=1.0, grad_norm=None)
    made.add_step(1, loss=2.0)
    made.close()
    with (tmp_path / "curves" / "curves.jsonl").open("a") as stream:
        stream.write('[]\n{"loss": 3}\n{"step": "1"}\n{"step": 1, "loss": "x"}\n{"step": 2, "lo')  # damage, then a kill
    made = curves.Curves(tmp_path)
    made.add_step(1, loss=0.5)
    made.add(2, validation_error=0.25, nothing=float("nan"))
    made.close()
    found = curves.read_curves(tmp_path)
    assert found["loss"] == [(0, 1.0), (1, 0.5)]
    assert found["validation_error"] == [(2, 0.25)]
    assert set(found) == {"loss", "seconds", "validation_error"}
    assert list((tmp_path / "curves").glob("events.out.tfevents.*"))
    assert curves.read_curves(tmp_path / "nothing") == {}


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=200), st.integers(1, 50))
def test_thinned_curves_keep_their_mean_and_end(values, count):
    points = list(enumerate(values))
    thin = curves.thinned(points, count)
    assert len(thin) == min(count, len(points))
    assert thin[-1][0] == points[-1][0]
    assert min(values) - 1e-9 <= min(v for _, v in thin)
    assert max(v for _, v in thin) <= max(values) + 1e-9


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_validation_pictures_lie_beside_the_events(tmp_path):
    clips = ([make_clip(0, 17)], [make_clip(2, 17)])
    trainer = make_trainer(
        tmp_path / "run", clips, steps=2, validate_every=1, frames=17, picture_steps=2, decode=decode
    )
    trainer.run()
    found = sorted((tmp_path / "run" / "curves" / "pictures").iterdir())
    assert [path.name for path in found] == ["step-000001.png", "step-000002.png"]
    first, second = (cv2.imread(str(path)) for path in found)
    assert first.shape == second.shape == (2 * pictures.WIDTH, 5 * pictures.WIDTH, 3)
    assert np.array_equal(first[: pictures.WIDTH], second[: pictures.WIDTH])  # the truth stays
    assert not np.array_equal(first[pictures.WIDTH :], second[pictures.WIDTH :])  # the model does not
    assert (first == np.array(pictures.OUTLINE[::-1])).all(axis=-1).any()


def test_pictures_change_nothing_of_a_training(tmp_path):
    with_pictures = make_trainer(tmp_path / "a" / "run", steps=3, validate_every=1, picture_steps=2, decode=decode)
    without = make_trainer(tmp_path / "b" / "run", steps=3, validate_every=1, picture_steps=0, decode=decode)
    assert with_pictures.run().losses == without.run().losses
    assert not (tmp_path / "b" / "run" / "curves" / "pictures").exists()


def test_a_card_too_full_for_pictures_goes_on_without(tmp_path):
    calls = []

    def full(latents: torch.Tensor) -> np.ndarray:
        calls.append(latents)
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = make_trainer(tmp_path / "run", steps=3, validate_every=1, picture_steps=1, decode=full)
    assert trainer.run().step == 3
    assert len(calls) == 1


def test_what_is_sampled_begins_with_the_given_frame_and_repeats():
    from tune_golden import batch, model

    from retake.worker.tune import Tuner

    tuner, given = Tuner(model(), TuneConfig()), batch(0)
    state = tuner.generator.get_state()
    made = pictures.sample(tuner, given, 2)
    assert torch.equal(made[:, :, :1], given.x0[:, :, :1])
    assert torch.equal(made, pictures.sample(tuner, given, 2))
    assert not torch.equal(made, pictures.sample(tuner, given, 2, seed=1))
    assert torch.equal(tuner.generator.get_state(), state)


@pytest.mark.parametrize(("count", "seen", "expected"), [
    (1, [], [0]), (2, [], [0, 1]), (5, [2], [0, 1, 2, 3, 4]), (21, [], [0, 1, 7, 13, 19, 20]),
    (21, [8, 9, 10, 11, 12, 13], [0, 8, 10, 11, 13, 20]), (21, [8], [0, 1, 7, 13, 19, 20]),
])  # fmt: skip
def test_the_fall_is_shown(count, seen, expected):
    falling = torch.zeros(1, count, 2, 2)
    falling[:, seen] = 1
    assert pictures.columns(count, falling) == expected


def test_validation_is_measured_without_dropout(tmp_path):
    """With dropout, what is validated would change with the draw."""
    plain = make_trainer(tmp_path / "a" / "run", steps=1).validate()
    step = TuneConfig(text_dropout=0.9, skeleton_dropout=0.9)
    assert make_trainer(tmp_path / "b" / "run", steps=1, step=step).validate() == plain


# -- who writes there, and stopping -----------------------------------------------------------------------------------


def test_two_trainings_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "run"
    code = f"""
from pathlib import Path
from retake.worker.tune.folder import only_writer
with only_writer(Path({str(folder)!r})):
    print("in", flush=True)
    input()
"""
    assert not is_running(folder)
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    assert is_running(folder)
    with pytest.raises(InputError, match="another process trains in"):
        make_trainer(folder).run()
    other.kill()
    other.communicate()
    assert not is_running(folder)
    assert make_trainer(folder).run().step == 4
    with only_writer(folder):
        assert (folder / "lock").exists()


def test_a_request_to_stop_is_heard_once(tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    assert cli.main(["stop", str(tmp_path)]) == 0
    assert "no process of this machine trains there" in capsys.readouterr().out
    check = cli._check(tmp_path)  # a training that begins: an old request is not meant for it
    check()
    ask_to_stop(tmp_path)
    with pytest.raises(Cancelled):
        check()
    assert not (tmp_path / STOP).exists()
    with pytest.raises(InputError, match="no training folder"):
        cli.main(["stop", str(tmp_path / "elsewhere")])


def test_what_goes_on_is_what_was_typed(tmp_path, monkeypatch):
    import argparse

    monkeypatch.chdir(tmp_path)
    words = argparse.Namespace(words=["run", "runs/a b", "--lora"])
    assert cli._command(words) == f"cd {tmp_path} && retake tune run 'runs/a b' --lora"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun --nproc-per-node 2 --module retake.core.cli tune run" in cli._command(words)
