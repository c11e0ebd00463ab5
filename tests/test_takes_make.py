# SPDX-License-Identifier: Apache-2.0
"""A take's folder and record, with a backend of three lines: what determines it, what it states, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_runs import make_run
from stored import take_json

from retake.core.episode import open_episode
from retake.core.errors import TakeError
from retake.core.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json
from retake.core.takes import TakeRequest, make_take, open_take
from retake.core.takes.make import kept_take, read_take, window
from retake.core.video import read_video


class Grey:
    """A backend that shows the number of the frame."""

    name, version, domain, licence = "grey", "1", "generated", "Apache-2.0"
    made = 0

    def generate(self, request, progress=lambda *a: None, check_cancel=lambda: None):
        self.made += 1
        for k in window(open_episode(request.episode), request):
            yield np.full((48, 64, 3), 20 * k, np.uint8)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An episode of six frames, a variant of it and a skeleton's hash."""
    root = tmp_path_factory.mktemp("takes")
    run = make_run(root / "run", frames=6, takes=1, fps=15)
    variant = next((run / "variants").rglob("variant.json"))
    write_bytes(variant.with_name("frame.png"), b"picture")
    write_json(variant, {**read_json(variant), "frame_sha256": sha256_bytes(b"picture")})
    write_json(root / "skeleton" / "skeleton.json", {"sha256": "5" * 64})
    return TakeRequest(run / "episode", "front", root / "skeleton", variant.parent, "a prompt", seed=7, frames=0)


def test_a_take_says_what_it_was_made_of_and_nothing_that_is_not_so(base, tmp_path):
    take = make_take(replace(base, start=2, frames=3), Grey(), tmp_path / "w-s7" / "front", extra={"note": 1})
    record = read_json(tmp_path / "w-s7" / "front" / "take.json")
    assert (take.id, take.frames, take.start, take.fps, take.size) == ("w-s7/front", 3, 2, 15.0, (64, 48))
    assert [round(float(frame.mean()), -1) for frame in read_video(take.video)] == [40, 60, 80]
    assert take.video_sha256 == record["video_sha256"] == sha256_file(take.video)
    assert record["video"] == "take.mp4"
    assert take.inputs == {
        "episode": open_episode(base.episode).content_sha256, "skeleton": "5" * 64, "first_frame": sha256_bytes(b"picture"),
    }  # fmt: skip
    assert not {"approximations", "object_control"} & set(record), "an exact take without drawn objects says neither"
    assert open_take(take.folder) == take


@pytest.mark.parametrize(
    ("said", "told"), [("drawn", "drawn"), ("none", ""), ("", "")]
)  # fmt: skip
def test_how_a_model_was_shown_the_objects_is_told_where_it_was(base, tmp_path, said, told):
    backend = Grey()
    backend.object_control, backend.approximations, backend.model = said, ("cached",), "m"  # type: ignore[attr-defined]
    take = make_take(base, backend, tmp_path / "t")
    record = read_json(tmp_path / "t" / "take.json")
    assert (take.object_control, record.get("object_control", "")) == (told, told)
    assert (take.approximations, record["approximations"], take.model) == (("cached",), ["cached"], "m")


def other(name, value):
    backend = Grey()
    setattr(backend, name, value)
    return backend


@pytest.mark.parametrize(
    ("changes", "backend", "same"),
    [({}, Grey(), True), ({"frames": 6}, Grey(), True), ({"seed": 8}, Grey(), False), ({"start": 1}, Grey(), False),
     ({"frames": 5}, Grey(), False), ({"prompt": "b"}, Grey(), False), ({"negative_prompt": "b"}, Grey(), False),
     ({"settings": {"steps": 4}}, Grey(), False), ({"camera": "wrist"}, Grey(), False),
     ({}, other("name", "g"), False), ({}, other("version", "2"), False), ({}, other("model", "m"), False),
     ({}, other("revision", "r"), False), ({}, other("arithmetic", "exact"), False), ({}, other("arithmetic", ""), True),
     ({}, other("domain", "composite"), False), ({}, other("licence", "MIT"), True),
     ({}, other("further_inputs", lambda request: {"mask": "1"}), False)],
)  # fmt: skip
def test_a_take_is_kept_while_all_that_determines_it_is_the_same(base, tmp_path, changes, backend, same):
    first = make_take(base, Grey(), tmp_path / "t")
    assert (kept_take(replace(base, **changes), backend, tmp_path / "t") == first) == same


def test_what_is_kept_is_not_made_again_and_takes_the_new_note(base, tmp_path):
    backend, steps = Grey(), []
    first = make_take(base, backend, tmp_path / "t", extra={"note": 1})
    again = make_take(base, backend, tmp_path / "t", progress=lambda *step: steps.append(step))
    assert backend.made == 1
    assert steps == [(6, 6, "unchanged")]
    assert (first.extra, again.extra) == ({"note": 1}, {})
    assert again == replace(first, extra={}) == open_take(tmp_path / "t")
    (tmp_path / "t" / "take.mp4").write_bytes(b"damaged")
    assert make_take(base, backend, tmp_path / "t") == again
    assert backend.made == 2


@pytest.mark.parametrize("count", [4, 5, 7])
def test_a_backend_makes_as_many_frames_as_were_asked_for(base, tmp_path, count):
    backend = Grey()
    backend.generate = lambda *a: (np.zeros((48, 64, 3), np.uint8) for _ in range(count))  # type: ignore[method-assign]
    if count == 5:
        assert make_take(replace(base, frames=5), backend, tmp_path / "t").frames == 5
    else:
        with pytest.raises(TakeError, match=f"backend 'grey' made {count} frames; 5 were asked for"):
            make_take(replace(base, frames=5), backend, tmp_path / "t")
        assert list((tmp_path / "t").iterdir()) == []


@pytest.mark.parametrize(
    ("start", "frames", "wanted"),
    [(0, 0, range(6)), (5, 0, range(5, 6)), (2, 4, range(2, 6)), (5, 1, range(5, 6)), (0, 6, range(6)),
     (6, 0, None), (2, 5, None), (0, 7, None), (-1, 2, None), (0, -1, None)],
)  # fmt: skip
def test_a_window_lies_within_its_episode(base, start, frames, wanted):
    episode, request = open_episode(base.episode), replace(base, start=start, frames=frames)
    if wanted is not None:
        assert window(episode, request) == wanted
    else:
        with pytest.raises(TakeError, match=rf"{frames or 'all'} frames from frame {start} leaves .* has 6 frames"):
            window(episode, request)


@pytest.mark.parametrize(
    ("change", "told"),
    [({}, ""), ({"frames": 0}, "says 0 frames"), ({"frames": 1}, ""), ({"start": -1}, "from frame -1"), ({"size": [1, 1]}, ""),
     ({"size": [0, 48]}, "0x48"), ({"size": [64, 0]}, "64x0"), ({"fps": 0.0}, "at 0 fps"), ({"fps": -15.0}, "at -15 fps"),
     ({"camera": "a/b"}, "camera is 'a/b'"), ({"variant": "w/front"}, ""), ({"variant": "../up"}, "variant is '../up'"),
     ({"variant": ""}, ""), ({"camera": ""}, ""), ({"variant": "a/b/c"}, "variant is 'a/b/c'"),
     ({"schema": "x"}, "has schema 'x'")],
)  # fmt: skip
def test_a_record_that_no_video_can_have_is_refused(tmp_path, change, told):
    write_json(tmp_path / "t" / "take.json", take_json(**change))
    if not told:
        assert read_take(tmp_path / "t").video == tmp_path / "t" / "take.mp4"
    else:
        with pytest.raises(TakeError, match=re.escape(told)):
            read_take(tmp_path / "t")


def test_a_copied_folder_is_the_take_that_its_place_says(tmp_path):
    write_json(tmp_path / "w-s1" / "front" / "take.json", take_json(id="elsewhere", video="/other.mp4"))
    take = read_take(tmp_path / "w-s1" / "front")
    assert (take.id, take.video, take.folder) == (
        "w-s1/front", tmp_path / "w-s1" / "front" / "take.mp4", tmp_path / "w-s1" / "front",
    )  # fmt: skip
    with pytest.raises(TakeError, match=r"take\.mp4 is missing \(No such file"):
        open_take(tmp_path / "w-s1" / "front")
    Path(take.video).write_bytes(b"x")
    with pytest.raises(TakeError, match=f"SHA-256 is {sha256_bytes(b'x')[:12]}…, take.json recorded {'0' * 12}…"):
        open_take(tmp_path / "w-s1" / "front")
