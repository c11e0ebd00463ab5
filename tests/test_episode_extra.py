# SPDX-License-Identifier: Apache-2.0
"""Numbers beside an Episode: what is written per frame comes back by its names, and a file that does not fit is no reading."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from strategies import random_frame, random_header

from retake.core.episode import EpisodeWriter, open_episode
from retake.core.episode.extra import ACTION, ExtraWriter, extra_of, success_of, write_extra
from retake.core.errors import EpisodeError
from retake.core.files import read_json, write_json

ROWS = 3
GROUPS = {
    ACTION: (("a", "b"), np.arange(6, dtype=np.float32).reshape(3, 2)),
    "root_velocity/r": (("vx",), np.ones((3, 1))),
}


@pytest.fixture
def episode(tmp_path, rng):
    header = random_header(rng)
    with EpisodeWriter(tmp_path / "e", header) as writer:
        for k in range(ROWS):
            writer.append(random_frame(rng, header, k))
        return writer.finish()


def test_what_is_written_frame_by_frame_comes_back_by_its_names(episode):
    assert extra_of(episode) == {}
    write_extra(episode.path, GROUPS)
    found = extra_of(episode)
    assert {name: columns for name, (columns, _) in found.items()} == {ACTION: ("a", "b"), "root_velocity/r": ("vx",)}
    for name, (_, values) in GROUPS.items():
        assert np.array_equal(found[name][1], values)
        assert found[name][1].dtype == np.float32
    assert open_episode(episode.path).content_sha256 == episode.content_sha256, "it is no part of the Episode"
    episode.verify()
    assert (episode.path / "extra.bin").read_bytes() == np.array([[0, 1, 1], [2, 3, 1], [4, 5, 1]], "<f4").tobytes()
    assert read_json(episode.path / "extra.json")["rows"] == 3


def test_no_groups_are_no_numbers(episode):
    writer = ExtraWriter(episode.path, {})
    for _ in range(ROWS):
        writer.append({})
    writer.finish()
    assert extra_of(episode) == {}


def test_a_row_of_another_width_is_refused(episode):
    writer = ExtraWriter(episode.path, {ACTION: ("a", "b"), "v": ("x",)})
    for values in ({ACTION: [1.0], "v": [2.0]}, {ACTION: [1.0, 2.0, 3.0], "v": [2.0]}):
        with pytest.raises(EpisodeError, match=f"action has {len(values[ACTION])} numbers; expected 2"):
            writer.append(values)
    writer.append({ACTION: [[1.0], [2.0]], "v": 3.0})
    writer.abandon()
    assert writer._stream.closed
    assert extra_of(episode) == {}, "without its index it is none"


@pytest.mark.parametrize(
    "change",
    [lambda e: (e / "extra.bin").write_bytes(b"\1" + (e / "extra.bin").read_bytes()[1:]),
     lambda e: (e / "extra.bin").write_bytes((e / "extra.bin").read_bytes() + b"\0\0\0\0"),
     lambda e: write_json(e / "extra.json", {**read_json(e / "extra.json"), "rows": 2}),
     lambda e: write_json(e / "extra.json", {**read_json(e / "extra.json"), "groups": [[ACTION, ["a"]]]})],
)  # fmt: skip
def test_numbers_that_were_changed_are_noticed(episode, change):
    write_extra(episode.path, GROUPS)
    change(episode.path)
    with pytest.raises(EpisodeError, match=r"does not match extra\.json and the Episode's 3 frames: it was changed"):
        extra_of(episode)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"groups": 3, "rows": 3, "sha256": ""}', '{"groups": [], "rows": "x", "sha256": ""}']
)
def test_a_damaged_index_says_that_the_episode_is_valid_without_it(episode, text):
    write_extra(episode.path, GROUPS)
    (episode.path / "extra.json").write_text(text)
    with pytest.raises(EpisodeError, match=r"is damaged: .*; removing it leaves the Episode valid"):
        extra_of(episode)


def test_numbers_of_another_length_are_not_those_of_the_episode(episode):
    write_extra(episode.path, {name: (columns, values[:2]) for name, (columns, values) in GROUPS.items()})
    with pytest.raises(EpisodeError, match="3 frames"):
        extra_of(episode)
    with pytest.raises(ValueError, match="shorter"):
        write_extra(episode.path, {**GROUPS, "v": (("x",), np.ones((2, 1)))})


@pytest.mark.parametrize(
    ("imported", "captured", "success"),
    [(None, None, None), ({"success": True}, None, True), ({"success": False}, None, False), ({"success": "yes"}, None, None),
     ("text", None, None), ({"success": True}, {"success": False}, False), ({"success": True}, {}, True),
     (None, {"success": True}, True), ({"success": True}, [], True), (None, {"success": 1}, None)],
)  # fmt: skip
def test_success_is_what_the_capture_says_else_the_recording(tmp_path, rng, imported, captured, success):
    header = random_header(rng)
    header = replace(header, settings={} if imported is None else {"imported": imported})
    with EpisodeWriter(tmp_path / "e", header) as writer:
        writer.append(random_frame(rng, header, 0))
        episode = writer.finish()
    if captured is not None:
        (episode.path / "capture.json").write_text(json.dumps(captured))
    assert success_of(episode) is success
    (episode.path / "capture.json").write_text("{")
    assert success_of(episode) is (imported["success"] if isinstance(imported, dict) and success is not None else None)
