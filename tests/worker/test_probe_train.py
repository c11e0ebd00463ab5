# SPDX-License-Identifier: Apache-2.0
"""How a probe learns, step by step: its rate, its batches, its loss, the mean of its weights, and what is kept meanwhile.

Of retake.worker.probe.train, retake.worker.probe.model and retake.worker.probe.augment.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_worker_probe import NAMES, SMALL, make_pack
from torch.nn import functional

from retake.core.errors import Cancelled, InputError
from retake.worker.probe import train as training
from retake.worker.probe.augment import SHIFT, augment
from retake.worker.probe.data import Pack
from retake.worker.probe.model import CHANNELS, Probe, Shape, encoder, pixels
from retake.worker.probe.settings import Settings
from retake.worker.probe.train import admit, draw, open_probe, train

torch.set_num_threads(1)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return make_pack(tmp_path / "pack")


class Watched:
    """Everything that a training hands from one part to the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rates: list[float] = []
        self.weights: list[torch.Tensor] = []
        self.norms: list[float] = []
        self.images: list[torch.Tensor] = []
        self.states: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []
        self.wanted: list[torch.Tensor] = []
        self.said: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self.kept: list[int] = []
        step, forward, normal, saved = torch.optim.Adam.step, Probe.forward, Probe.normal, training._save

        def watched_step(optimiser: Any, *given: Any) -> Any:
            (group,) = optimiser.param_groups
            if not self.weights:
                self.weights.append(group["params"][-1].detach().clone())
            self.rates.append(group["lr"])
            self.norms.append(float(torch.stack([p.grad.norm() for p in group["params"]]).norm()))
            found = step(optimiser, *given)
            self.weights.append(group["params"][-1].detach().clone())
            return found

        def watched_forward(model: Probe, images: list[torch.Tensor], state: torch.Tensor) -> Any:
            self.images.append(images[0])
            self.states.append(state)
            self.said.append(forward(model, images, state))
            return self.said[-1]

        def watched_normal(model: Probe, targets: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            self.targets.append(targets)
            self.wanted.append(normal(model, targets, state))
            return self.wanted[-1]

        def watched_save(*given: Any) -> None:
            self.kept.append(given[5])
            saved(*given)

        monkeypatch.setattr(torch.optim.Adam, "step", watched_step)
        monkeypatch.setattr(Probe, "forward", watched_forward)
        monkeypatch.setattr(Probe, "normal", watched_normal)
        monkeypatch.setattr(training, "_save", watched_save)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_the_rate_rises_over_a_fiftieth_and_falls_by_half_a_cosine_to_a_hundredth(pack, tmp_path, watched):
    train([pack], tmp_path / "out", Settings(steps=150, batch=2, rate=0.001))
    rates = np.array(watched.rates) / 0.001
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[3] == pytest.approx(1)
    assert all(a > b for a, b in pairwise(rates[3:]))
    # half a cosine is the same before and after its middle
    assert rates[4:] + rates[:3:-1] == pytest.approx(1.01)
    assert 0.01 < rates[-1] < 0.011
    watched.rates.clear()
    train([pack], tmp_path / "short", Settings(steps=3, batch=2, rate=0.5))
    assert watched.rates[:2] == pytest.approx([0.5, 0.5])


def test_what_acts_is_a_mean_of_the_weights_that_is_short_at_first(pack, tmp_path, watched):
    made = train([pack], tmp_path / "out", replace(SMALL, steps=4))
    mean = watched.weights[0]
    for k, now in enumerate(watched.weights[1:]):
        keep = (1 + k) / (10 + k)
        mean = keep * mean + (1 - keep) * now
    acting = list(open_probe(made.folder).parameters())[-1]
    assert torch.allclose(acting, mean, atol=1e-7)
    assert not torch.allclose(acting, watched.weights[-1], atol=1e-5)
    assert max(watched.norms) <= 1 + 1e-5, "no step is taken on a steeper slope"


def test_a_step_sees_pictures_states_and_targets_of_the_same_frames(pack, tmp_path, watched):
    train([pack], tmp_path / "out", replace(SMALL, steps=2))
    for images, state, targets in zip(watched.images, watched.states, watched.targets, strict=True):
        rows = [int(np.flatnonzero((pack.state == one.numpy()).all(1))[0]) for one in state]
        assert rows == sorted(rows)
        assert torch.equal(images, pixels(np.asarray(pack.images["front"][rows])))
        assert np.array_equal(targets.numpy(), pack.action[pack.chunk_rows(np.array(rows), 8)])
    assert len({tuple(state.flatten().tolist()) for state in watched.states}) == 2, "each step draws anew"


def test_shuffled_actions_are_those_of_other_frames(pack, tmp_path, watched):
    train([pack], tmp_path / "out", replace(SMALL, steps=1, batch=20, shuffle_actions=True))
    rows = np.array([np.flatnonzero((pack.state == one.numpy()).all(1))[0] for one in watched.states[0]])
    right = pack.action[pack.chunk_rows(rows, 8)]
    same = (watched.targets[0].numpy() == right).all((1, 2))
    assert same.mean() < 0.5
    known = pack.action[pack.chunk_rows(np.arange(20), 8)]
    assert all((known == one.numpy()).all((1, 2)).any() for one in watched.targets[0])


@pytest.mark.parametrize("phases", [5, 0])
def test_the_loss_is_the_distance_to_the_targets_and_a_little_of_the_phase(tmp_path, watched, phases):
    pack = make_pack(tmp_path / "p", phases=phases)
    made = train([pack], tmp_path / "out", replace(SMALL, steps=1))
    (said, phase), wanted = watched.said[0], watched.wanted[0]
    expected = functional.smooth_l1_loss(said, wanted, beta=0.1)
    if phases:
        rows = [int(np.flatnonzero((pack.state == one.numpy()).all(1))[0]) for one in watched.states[0]]
        expected = expected + training.PHASE_WEIGHT * functional.cross_entropy(
            phase, torch.from_numpy(pack.phase[rows])
        )
    assert made.loss == pytest.approx(float(expected.detach()), rel=1e-6)
    assert (phase is None) == (phases == 0)


def test_units_are_those_of_the_first_data_set(tmp_path):
    packs = [make_pack(tmp_path / name, seed) for seed, name in enumerate("ab")]
    state = packs[0].state.copy()
    state[:, 1] = 0.25
    packs[0] = replace(packs[0], state=state)
    made = train(packs, tmp_path / "out", replace(SMALL, steps=1))
    model = open_probe(made.folder)
    assert model.state_mean.numpy() == pytest.approx(state.mean(0), abs=1e-6)
    assert model.state_std.numpy() == pytest.approx(np.maximum(state.std(0), 1e-3), abs=1e-6)
    relative = packs[0].action[packs[0].chunk_rows(np.arange(20), 8)] - state[:, None]
    assert model.target_mean.numpy() == pytest.approx(relative.mean(0), abs=1e-6)
    assert model.target_std.numpy() == pytest.approx(np.maximum(relative.std(0), 1e-3), abs=1e-6)


def test_batches_are_drawn_by_frames_unless_shares_are_stated(tmp_path):
    packs = [make_pack(tmp_path / name, seed) for seed, name in enumerate("ab")]
    long = replace(packs[1], state=np.repeat(packs[1].state, 3, 0))
    for settings, share in ((Settings(batch=4000), 0.75), (Settings(batch=4000, shares=(1.0, 1.0)), 0.5)):
        drawn, _ = draw([packs[0], long], settings, 0)
        counts = {index: len(rows) for index, rows in drawn}
        assert sum(counts.values()) == 4000
        assert counts[1] / 4000 == pytest.approx(share, abs=0.04)
        for index, rows in drawn:
            assert set(rows) == set(range(len((packs[0], long)[index]))), "every frame, and none beyond"
    alone, _ = draw(packs, Settings(batch=50, shares=(0.0, 2.0)), 0)
    assert [index for index, _ in alone] == [1]
    first, again, later, other = (
        draw(packs, Settings(seed=seed), step)[0][0][1].tolist() for seed, step in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert first == again
    assert len({tuple(one) for one in (first, later, other)}) == 3


def test_the_curve_has_a_mean_of_every_stretch_and_of_what_is_left(pack, tmp_path, monkeypatch):
    def curve(name: str, every: int, steps: int) -> tuple[list[list[float]], float, list[Any]]:
        told: list[Any] = []
        monkeypatch.setattr(training, "CHECK_EVERY", every)
        made = train([pack], tmp_path / name, replace(SMALL, steps=steps), progress=lambda *at: told.append(at))
        config = json.loads((made.folder / "config.json").read_text())
        assert config["loss"] == made.loss
        return config["curve"], made.loss, told

    each, loss, _ = curve("each", 1, 10)
    losses = [value for _, value in each]
    assert [step for step, _ in each] == list(range(1, 11))
    assert loss == pytest.approx(np.mean(losses[-5:]))
    found, _, told = curve("four", 4, 10)
    assert [step for step, _ in found] == [4, 8, 10]
    assert [value for _, value in found] == pytest.approx(
        [np.mean(losses[:4]), np.mean(losses[4:8]), np.mean(losses[8:])]
    )
    assert told == [(int(step), 10, f"loss {value:.4f}") for step, value in found]


@pytest.mark.parametrize(("tick", "kept"), [(0.0, []), (20.0, [8]), (40.0, [4, 8, 10])])
def test_what_was_learnt_is_kept_from_time_to_time(pack, tmp_path, watched, monkeypatch, tick, kept):
    clock = [1000.0]
    monkeypatch.setattr(training, "CHECK_EVERY", 4)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def progress(*at: Any) -> None:
        clock[0] += tick

    made = train([pack], tmp_path / "out", replace(SMALL, steps=10), progress=progress)
    assert watched.kept == kept
    assert made.seconds == 3 * tick
    assert sorted(p.name for p in made.folder.iterdir()) == ["config.json", "model.safetensors"]
    again = train([pack], tmp_path / "out", replace(SMALL, steps=10))
    assert again == made, "finished, it is left as it is"


def test_what_lies_in_the_folder_is_looked_at_before_anything_is_learnt(pack, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint.pt").write_bytes(b"noise")
    with pytest.raises(InputError, match=r"checkpoint\.pt is unreadable"):
        train([pack], out, SMALL)
    torch.save({"training_sha256": "another"}, out / "checkpoint.pt")
    with pytest.raises(InputError, match="holds another training"):
        train([pack], out, SMALL)
    (out / "config.json").write_text('{"type": "diffusion"}')
    with pytest.raises(InputError, match="holds a 'diffusion' policy"):
        open_probe(out)
    with pytest.raises(InputError, match="nothing to train on"):
        train([], tmp_path / "none", SMALL)
    with pytest.raises(InputError, match="came apart"):
        train([pack], tmp_path / "wild", replace(SMALL, rate=1e30, steps=3))
    assert not (tmp_path / "wild").exists()


def test_a_training_that_comes_apart_ends_there_and_leaves_nothing(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 4)
    monkeypatch.setattr(training, "_step", lambda *given: 0.5 if given[-1] < 6 else float("nan"))
    out, asked = tmp_path / "wild", []

    def stop():
        asked.append(len(asked))
        if len(asked) == 5:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        train([pack], out, replace(SMALL, steps=50), check_cancel=stop)
    assert [p.name for p in out.iterdir()] == ["checkpoint.pt"]
    with pytest.raises(InputError, match=r"came apart \(loss nan by step 8\); take a smaller --rate"):
        train([pack], out, replace(SMALL, steps=50), check_cancel=stop)
    assert len(asked) == 5 + 4, "nothing more is learnt from nothing"
    assert not list(out.iterdir())


def test_a_training_is_stopped_at_any_step_and_goes_on_to_the_same_weights_and_curve(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 4)
    settings = replace(SMALL, steps=10)
    whole = train([pack], tmp_path / "whole", settings)
    for stops_at in (1, 3, 4, 6, 9):
        out, asked = tmp_path / f"stopped-{stops_at}", []

        def stop(asked=asked, stops_at=stops_at):
            asked.append(1)
            if len(asked) == stops_at + 1:
                raise Cancelled("stopped")

        with pytest.raises(Cancelled):
            train([pack], out, settings, check_cancel=stop)
        again = train([pack], out, settings, check_cancel=stop)
        assert len(asked) == stops_at + 1 + 10 - stops_at, "what was learnt is not learnt again"
        assert again.loss == whole.loss
        curves = [json.loads((folder / "config.json").read_text())["curve"] for folder in (whole.folder, out)]
        assert curves[0] == curves[1]
        assert (out / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_a_folder_with_other_files_is_refused_and_one_of_a_policy_is_read_with_care(pack, tmp_path):
    out = tmp_path / "out"
    (out / "packs").mkdir(parents=True)
    (out / ".checkpoint.abc.tmp.pt").write_bytes(b"killed")
    admit([pack.facts], out, SMALL)
    (out / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"other files than a probe's \(model\.safetensors\)"):
        train([pack], out, SMALL)
    assert (out / "model.safetensors").read_bytes() == b"mine"
    torch.save(["mine"], out / "checkpoint.pt")
    with pytest.raises(InputError, match="holds another training"):
        train([pack], out, SMALL)
    for text, words in (("[1]", "holds a list"), ("{", "unreadable"), ('{"type": "act"}', "another training")):
        (out / "config.json").write_text(text)
        with pytest.raises(InputError, match=words):
            train([pack], out, SMALL)
    made = train([pack], tmp_path / "done", SMALL).folder
    config = json.loads((made / "config.json").read_text())
    (made / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="does not hold the weights"):
        open_probe(made)
    (made / "model.safetensors").unlink()
    with pytest.raises(InputError, match="does not hold the weights"):
        open_probe(made)
    (made / "config.json").write_text(json.dumps({"type": config["type"]}))
    with pytest.raises(InputError, match=r"config\.json"):
        open_probe(made)


# -- the network --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(112, 84), (80, 60), (28, 21)])
def test_features_have_a_quarter_of_the_picture_s_size(size):
    layers = encoder()
    seen = layers[:-1](torch.zeros(1, 3, size[1], size[0]))
    assert seen.shape == (1, CHANNELS[-1], -(-size[1] // 4), -(-size[0] // 4))
    assert layers(torch.zeros(1, 3, size[1], size[0])).shape == (1, 2 * CHANNELS[-1])
    assert (seen < 0).any(), "what the last one says may be negative"


def test_an_answer_is_in_the_units_of_the_data_set(pack):
    torch.manual_seed(0)
    model = Probe(Shape({"front": (28, 21), "side": (28, 21)}, NAMES, (*NAMES[:2], "new"))).eval()
    for value in (model.state_mean, model.state_std, model.target_mean, model.target_std):
        value.copy_(torch.rand(value.shape) + 0.5)
    images, state = [np.asarray(pack.images["front"][k]) for k in (0, 1)], pack.state[0]
    said, phase = model([pixels(image[None]) for image in images], torch.from_numpy(state)[None])
    acted = model.act(images, state)
    assert acted.dtype == np.float32
    assert phase is None
    assert torch.allclose(model.normal(torch.from_numpy(acted)[None], torch.from_numpy(state)[None]), said, atol=1e-4)
    assert not np.allclose(acted, model.act(images[::-1], state), atol=1e-6), "each camera has its own eyes"
    # the same state in other units is the same state
    model.state_mean.mul_(2)
    model.state_std.mul_(2)
    again, _ = model([pixels(image[None]) for image in images], 2 * torch.from_numpy(state)[None])
    assert torch.allclose(again, said, atol=1e-5)


def test_pictures_go_from_minus_one_to_one():
    picture = np.zeros((1, 2, 3, 3), np.uint8)
    picture[0, 1, 2] = [255, 0, 51]
    found = pixels(picture)
    assert found.shape == (1, 3, 2, 3)
    assert found[0, :, 1, 2].tolist() == pytest.approx([1, -1, -0.6])
    assert float(found[0, :, 0].max()) == -1


# -- augmentations ------------------------------------------------------------------------------------------------------


def test_jitter_gives_every_picture_its_own_light_and_a_shift_that_repeats_the_edge():
    """A cross whose arms end at the edge: after any shift each row and each column still shows one step, and no border."""
    picture = np.full((80, 100, 3), 60, np.uint8)
    picture[:, 50:] = 120
    picture[40:] += 60
    found = augment(np.repeat(picture[None], 200, 0), None, "jitter", np.random.default_rng(0)).astype(int)
    steps_x, steps_y, means = [], [], []
    for one in found:
        grey = one.sum(-1)
        across, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
        if across.max(1).min() == 0 or down.max(0).min() == 0:  # a light that drowns a step
            continue
        x, y = across.argmax(1), down.argmax(0)
        assert len(set(x)) == 1
        assert len(set(y)) == 1
        assert ((across > 0).sum(1) == 1).all()
        assert ((down > 0).sum(0) == 1).all()
        steps_x.append(x[0] - 49)
        steps_y.append(y[0] - 39)
    most = round(SHIFT * 100)
    for steps in (steps_x, steps_y):
        assert set(steps) == set(range(-most, most + 1))
    assert steps_x != steps_y
    means = found.mean((1, 2))
    assert means.min() < 60
    assert means.max() > 180
    tints = means.max(1) / means.min(1).clip(1)
    assert 1.15 < np.median(tints) < 1.4, "each channel has its own gain"
    assert len({tuple(row) for row in means.round(2).tolist()}) > 190


def test_jitter_changes_saturation_and_contrast_around_grey():
    grey = np.full((300, 4, 4, 3), 128, np.uint8)
    colour = grey.copy()
    colour[..., 0] = 188
    colour[..., 2] = 68
    light = augment(grey, None, "jitter", np.random.default_rng(1))[:, 0, 0].astype(float)
    tinted = augment(colour, None, "jitter", np.random.default_rng(1))[:, 0, 0].astype(float)
    fine = (tinted.max(1) < 250) & (tinted.min(1) > 5) & (light.max(1) < 250)
    # by how much the difference of red and blue from grey was turned up, beside the light that both got
    gain = light[fine] / 128
    turned = (tinted[fine, 0] - light[fine, 0]) / 60 / gain[:, 0].clip(0.3)
    assert 0.25 < turned.min() < 0.6
    assert 1.4 < turned.max() < 2.3
    assert 0.8 < np.median(turned) < 1.2
    dark = augment(np.full((300, 4, 4, 3), 28, np.uint8), None, "jitter", np.random.default_rng(1)).mean((1, 2, 3))
    assert (dark == 0).mean() < 0.35, "less contrast lifts what is dark"
    assert dark.max() > 80


def test_textures_take_every_second_background():
    rng = np.random.default_rng(2)
    images = np.full((200, 24, 32, 3), 77, np.uint8)
    background = np.zeros((200, 24, 32), bool)
    background[:, :, 8:] = True
    found = augment(images, background, "textures", rng)
    assert (found[:, :, :8] == 77).all()
    changed = (found != images).any((1, 2, 3))
    assert 0.4 < changed.mean() < 0.6
    colours = [len(np.unique(one[:, 8:].reshape(-1, 3), axis=0)) for one in found[changed]]
    coarse = sum(count <= 17 * 17 for count in colours) / len(colours)
    assert 0.3 < coarse < 0.7, "as many with hard edges as with soft ones"
    assert len({one.tobytes() for one in found[changed]}) == changed.sum()
    assert augment(images, None, "none", rng) is images
