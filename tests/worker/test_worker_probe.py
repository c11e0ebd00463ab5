# SPDX-License-Identifier: Apache-2.0
"""The probe: its size, that it learns, repeats, goes on where it was stopped, and answers as a policy folder."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retake.core.errors import Cancelled, InputError
from retake.core.files import write_json
from retake.core.robustness import Observation, open_policy
from retake.worker.probe import train as training
from retake.worker.probe.augment import augment
from retake.worker.probe.data import SCHEMA, Pack, PackFacts, open_pack
from retake.worker.probe.host import answer
from retake.worker.probe.model import Probe, Shape, SpatialSoftmax, parameters
from retake.worker.probe.settings import Settings
from retake.worker.probe.train import draw, open_probe, train

NAMES = ("a.pos", "b.pos", "hand.open")
SMALL = Settings(steps=12, batch=8, seed=3)


def make_pack(folder: Path, seed: int = 0, *, masked: bool = False, phases: int = 5) -> Pack:
    """A dot in the picture says where to go: two episodes of ten frames."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    count, size = 20, (28, 21)
    images = np.full((count, size[1], size[0], 3), 40, np.uint8)
    places = rng.integers(3, 17, (count, 2))
    for k, (x, y) in enumerate(places):
        images[k, y - 2 : y + 3, x - 2 : x + 3] = 230
    state = rng.normal(0, 0.1, (count, 3)).astype(np.float32)
    action = state + np.concatenate([places / 20, np.zeros((count, 1))], 1).astype(np.float32)
    np.save(folder / "front.npy", images)
    if masked:
        np.save(folder / "front.mask.npy", images[..., 0] < 100)
    np.savez(folder / "vectors.npz", state=state, action=action, phase=np.arange(count) % max(phases, 1))
    facts = PackFacts(SCHEMA, f"pack {seed}", {"front": size}, NAMES, NAMES, 15, phases, masked, (0, 10), (10, 10))
    write_json(folder / "pack.json", asdict(facts))
    return open_pack(folder)


@pytest.fixture
def pack(tmp_path):
    return make_pack(tmp_path / "pack")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(open_probe(folder).state_dict())


def test_the_probe_of_an_arm_with_two_cameras_is_small():
    """Seven joints, two fingers, openness."""
    names = tuple(f"j{i}" for i in range(10))
    shape = Shape({"front": (112, 84), "wrist": (80, 60)}, names, names, 5)
    assert 150_000 <= parameters(Probe(shape)) <= 250_000


def test_spatial_softmax_says_where_the_bright_place_is():
    features = torch.zeros(1, 2, 9, 5)
    features[0, 0, 8, 0] = features[0, 1, 4, 2] = 50.0
    np.testing.assert_allclose(SpatialSoftmax()(features)[0].numpy(), [-1, 0, 1, 0], atol=1e-5)


def test_targets_are_relative_where_the_state_has_the_entry(pack):
    model = Probe(Shape({"front": (28, 21)}, NAMES, ("b.pos", "new"), 0, chunk=2))
    base = model.base(torch.tensor([[1.0, 2.0, 3.0]]))
    assert base.tolist() == [[[2.0, 0.0]]]


def test_chunks_repeat_the_last_action_of_an_episode(pack):
    assert pack.chunk_rows(np.array([8, 9, 10]), 4).tolist() == [[8, 9, 9, 9], [9, 9, 9, 9], [10, 11, 12, 13]]


def test_it_learns_what_the_picture_says(pack, tmp_path):
    made = train([pack], tmp_path / "out", replace(SMALL, steps=150, batch=16))
    model = open_probe(made.folder)
    wrong, blind = [], []
    for k in range(0, 10):
        image = np.asarray(pack.images["front"][k])
        wrong.append(model.act([image], pack.state[k])[0] - pack.action[k])
        blind.append(model.act([np.full_like(image, 128)], pack.state[k])[0] - pack.action[k])
    assert np.square(wrong).mean() < 0.5 * np.square(blind).mean()


def test_one_seed_one_network_and_another_seed_another(pack, tmp_path):
    a, b, c = (train([pack], tmp_path / n, replace(SMALL, seed=s)).folder for n, s in (("a", 3), ("b", 3), ("c", 4)))
    first, second, other = weights(a), weights(b), weights(c)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_a_stopped_training_goes_on_to_the_same_weights(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 4)
    whole = train([pack], tmp_path / "whole", SMALL)
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        train([pack], tmp_path / "parts", SMALL, check_cancel=stop)
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == ["checkpoint.pt"]
    parts = train([pack], tmp_path / "parts", SMALL)
    a, b = weights(whole.folder), weights(parts.folder)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert whole.loss == parts.loss
    assert not (tmp_path / "parts/checkpoint.pt").exists()


def test_another_training_is_not_overwritten(pack, tmp_path):
    train([pack], tmp_path / "out", SMALL)
    with pytest.raises(InputError, match="holds another training"):
        train([pack], tmp_path / "out", replace(SMALL, seed=9))
    assert train([pack], tmp_path / "out", SMALL).steps == SMALL.steps


def test_batches_keep_the_shares(tmp_path):
    packs = [make_pack(tmp_path / "a", 0), make_pack(tmp_path / "b", 1)]
    asked = replace(SMALL, batch=400, shares=(0.25, 0.75))
    drawn, _ = draw(packs, asked, 0)
    sizes = {index: len(rows) for index, rows in drawn}
    assert 60 <= sizes[0] <= 140
    assert sum(sizes.values()) == 400
    again, _ = draw(packs, asked, 0)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(drawn, again, strict=True))


@pytest.mark.parametrize("kind", ["jitter", "textures"])
def test_augmentations_change_what_they_say(tmp_path, kind):
    pack = make_pack(tmp_path / "p", masked=True)
    images, masks = np.asarray(pack.images["front"]), np.asarray(pack.masks["front"])
    out = augment(images, masks, kind, np.random.default_rng(0))
    assert out.dtype == np.uint8
    assert out.shape == images.shape
    assert (out != images).any()
    if kind == "textures":
        assert np.array_equal(out[~masks], images[~masks])
    assert np.array_equal(out, augment(images, masks, kind, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"augment": "magic"}, "unknown augmentation 'magic'"),
        ({"steps": 0}, "steps is 0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"shares": (0.0,)}, "not all zero"),
        ({"shares": (1.0, 1.0)}, "1 data sets and 2 shares"),
        ({"augment": "textures"}, "what is background: name the runs"),
    ],
)
def test_bad_settings_in_a_sentence(pack, tmp_path, changes, text):
    with pytest.raises(InputError, match=text):
        train([pack], tmp_path / "out", replace(SMALL, **changes))
    assert not (tmp_path / "out").exists()


def test_data_sets_of_two_forms_are_refused(tmp_path):
    with pytest.raises(InputError, match="differ in phases: 5 and 0"):
        train([make_pack(tmp_path / "a"), make_pack(tmp_path / "b", phases=0)], tmp_path / "out", SMALL)


def test_a_finished_folder_answers_as_a_policy(pack, tmp_path):
    """Through core's own policy interface, in a process of its own: larger pictures are made small as in training."""
    folder = train([pack], tmp_path / "out", SMALL).folder
    image = np.repeat(np.repeat(np.asarray(pack.images["front"][3]), 2, 0), 2, 1)
    policy = open_policy(str(folder))
    try:
        said = policy.infer(Observation({"front": image}, pack.state[3], "go"))
        assert said.shape == (8, 3)
        expected = answer(open_probe(folder), {"observation.images.front": image, "observation.state": pack.state[3]})
        np.testing.assert_allclose(said, expected, atol=1e-5)
        with pytest.raises(Exception, match="trained with camera 'front'"):
            policy.infer(Observation({"side": image}, pack.state[3], "go"))
    finally:
        policy.close()


def test_no_probe_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="no finished probe"):
        open_probe(tmp_path)
    with pytest.raises(InputError, match="no pack of the probe's"):
        open_pack(tmp_path)
