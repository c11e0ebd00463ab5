# SPDX-License-Identifier: Apache-2.0
"""Cameras of one world: which takes are compared, what is shown to whom, and when a record is believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.errors import Cancelled, VerdictError
from retake.core.files import sha256_file
from retake.core.verdicts import worlds
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.views import PairFigures
from retake.core.video import write_video

SIZES = {"front": (64, 48), "side": (32, 24), "wrist": (48, 32)}
WIDTH = 40
"""Working width of these tests, px: front and wrist are shrunk to it, side is narrower."""
SETTINGS = replace(load_settings(), working_width=WIDTH)


class House:
    """A run of takes without pictures to speak of, and who is asked what about them."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.episode = place, place / "episode"
        self._takes: list[Any] = []
        self.said: dict[str, str] = {}
        header = SimpleNamespace(camera=lambda name: SimpleNamespace(size=SIZES[name]))
        self.opened: Any = SimpleNamespace(header=header, content_sha256="e1")
        self.asked: list[dict[str, Any]] = []
        self.mapped: list[list[str]] = []
        self.found: list[PairFigures] = [PairFigures("front", "side", (), 1.23456)]
        monkeypatch.setattr(worlds, "open_episode", lambda path: self.opened if path == self.episode else None)
        monkeypatch.setattr(worlds, "shown_by", lambda run, take, episode: (run, take.id, episode))
        monkeypatch.setattr(worlds, "compare_views", self.compare)
        monkeypatch.setattr(worlds, "map_in_processes", self.map)
        monkeypatch.setattr(worlds, "RunReader", lambda path: self if path == self.path else None)

    def compare(self, episode: Any, films: Any, start: int, **more: Any) -> list[PairFigures]:
        self.asked.append({"episode": episode, "films": films, "start": start, **more})
        return self.found

    def map(self, work: Any, jobs: Any, weights: Any, **more: Any) -> None:
        assert more["failure"] is VerdictError
        assert weights == [1] * len(jobs)
        for job in jobs:
            work(*job, more["progress"])
            self.mapped.append(job[1])

    def add(self, name: str, camera: str, *, frames: int = 3, start: int = 0, shown: int | None = None) -> Any:
        video = self.path / f"{name.replace('/', '-')}-{start}.mp4"
        width, height = SIZES.get(camera, (32, 32))
        level = 30 + 5 * len(self._takes)
        write_video(video, np.full((frames if shown is None else shown, height, width, 3), level, np.uint8), 15.0)
        take = SimpleNamespace(
            id=name, camera=camera, start=start, frames=frames, video=video, video_sha256=sha256_file(video)
        )
        self._takes.append(take)
        return take

    def standing(self, take: Any) -> Any:
        return SimpleNamespace(status=self.said.get(take.id, "pass"))

    def takes(self) -> tuple[Any, ...]:
        return tuple(self._takes)

    def take(self, name: str) -> Any:
        return next(take for take in self._takes if take.id == name)

    def views_record(self, take: str) -> Path:
        return self.path / "verdicts" / take.rpartition("/")[0] / "views.json"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(tmp_path, monkeypatch)


def told(house: House, **more: Any) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    said: list[tuple[Any, ...]] = []
    return worlds.compare_worlds(house, lambda *how: said.append(how), config=SETTINGS, **more), said  # type: ignore[arg-type]


def test_takes_of_one_world_and_window_are_compared_once(house: House) -> None:
    front = house.add("kitchen-s1/front", "front")
    house.add("kitchen-s1/side", "side")
    house.add("kitchen-s1/late", "side", start=2)  # another window
    house.add("kitchen-s1/long", "side", frames=4)
    house.add("beach-s1/front", "front")  # one camera alone
    house.add("beach-s1/again", "front")
    house.add("single", "side")  # takes of no world
    house.add("kitchen-s1/none", "")
    [record], said = told(house)
    assert said == [(0, 1, ""), (1, 1, "kitchen-s1")]
    [asked] = house.asked
    assert asked["episode"] == (house, "kitchen-s1/front", house.opened)
    assert (asked["start"], asked["working_width"]) == (0, WIDTH)
    shapes = {name: [frame.shape for frame in film] for name, film in asked["films"].items()}
    assert shapes == {"front": [(30, 40, 3)] * 3, "side": [(24, 32, 3)] * 3}
    assert abs(float(asked["films"]["front"][0].mean()) - 30) < 3
    assert record == json.loads(house.views_record(front.id).read_text())
    assert (record["world"], record["start"], record["frames"]) == ("kitchen-s1", 0, 3)
    assert record["videos"] == {name: house.take(f"kitchen-s1/{name}").video_sha256 for name in ("front", "side")}
    assert (record["status"], record["failed"], record["reasons"]) == ("pass", [], [])
    assert record["pairs"] == [{"first": "front", "second": "side", "gain": 1.2346, "status": "pass", "checks": []}]


def test_a_camera_that_does_not_belong_is_named_with_the_reason(house: House) -> None:
    for camera in SIZES:
        house.add(f"w-s1/{camera}", camera, start=4)
    limit = SETTINGS.threshold("view_colour")
    worse, fine = limit.limit * 3 + 1, Measurement("view_colour", 0.0)
    house.found = [
        PairFigures("front", "side", (Measurement("view_colour", worse, "lamp"), fine), 1),
        PairFigures("front", "wrist", (fine,), 1),
        PairFigures("side", "wrist", (Measurement("view_colour", worse), Measurement("view_lag", None, "dark")), 1),
    ]  # fmt: skip
    [record], _ = told(house)
    assert house.asked[0]["start"] == 4
    assert record["start"] == 4
    assert (record["status"], record["failed"]) == ("fail", ["side"])
    assert [pair["status"] for pair in record["pairs"]] == ["fail", "pass", "fail"]
    assert [reason.partition(":")[0] for reason in record["reasons"]] == ["view_colour"] * 2
    assert "lamp" in record["reasons"][0]


def test_a_record_holds_while_all_that_it_follows_from_stays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    front, side = house.add("w-s1/front", "front"), house.add("w-s1/side", "side")
    [first], _ = told(house)
    again, said = told(house)
    assert again == [first]
    assert house.mapped == [], "one alone needs no process of its own"
    assert len(house.asked) == 1
    assert said == [(1, 1, ""), (1, 1, "w-s1")]

    def changed(count: int) -> None:
        told(house)
        assert len(house.asked) == count
        told(house)
        assert len(house.asked) == count

    write_video(side.video, np.full((3, 24, 32, 3), 200, np.uint8), 15.0)
    changed(2)
    house.opened.content_sha256 = "e2"
    changed(3)
    record = house.views_record(front.id)
    whole = json.loads(record.read_text())
    for damaged in ("", "[]", json.dumps({**whole, "schema": "other"}), json.dumps({"schema": whole["schema"]})):
        record.write_text(damaged)
        changed(len(house.asked) + 1)
    for name in ("VERSION", "VIEWS_VERSION"):
        monkeypatch.setattr(worlds, name, "next")
        changed(len(house.asked) + 1)
    other = replace(SETTINGS, working_width=WIDTH + 1)
    worlds.compare_worlds(house, config=other)  # type: ignore[arg-type]
    assert house.asked[-1]["working_width"] == WIDTH + 1


def test_several_worlds_are_compared_beside_each_other(house: House) -> None:
    for world in ("a-s1", "b-s1", "c-s1"):
        for camera in ("front", "side"):
            house.add(f"{world}/{camera}", camera)
    records, said = told(house)
    assert [record["world"] for record in records] == ["a-s1", "b-s1", "c-s1"]
    assert len(house.asked) == 3, "each once"
    assert house.mapped == [[f"{world}/front", f"{world}/side"] for world in ("a-s1", "b-s1", "c-s1")]
    assert said == [(0, 3, ""), (1, 3, "a-s1"), (2, 3, "b-s1"), (3, 3, "c-s1")]


def test_nothing_to_compare_opens_no_episode(house: House) -> None:
    house.add("w-s1/front", "front")
    house.episode = house.path / "elsewhere"
    assert told(house) == ([], [(0, 0, "")])
    house.add("w-s1/side", "side")
    house.said["w-s1/side"] = "damaged"
    assert told(house) == ([], [(0, 0, "")]), "a damaged take shows no world"


def test_a_film_that_ends_early_is_refused_and_a_longer_one_is_cut(house: House) -> None:
    house.add("w-s1/front", "front", shown=5)
    short = house.add("w-s1/side", "side", shown=2)
    with pytest.raises(VerdictError, match=r"ends after 2 frames; take\.json promises 3"):
        told(house)
    write_video(short.video, np.full((3, 24, 32, 3), 90, np.uint8), 15.0)
    told(house)
    assert [len(film) for film in house.asked[0]["films"].values()] == [3, 3]


def test_a_comparison_can_be_cancelled(house: House) -> None:
    house.add("w-s1/front", "front")
    house.add("w-s1/side", "side")

    def stop() -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        told(house, check_cancel=stop)
    assert house.asked == []
    assert not house.views_record("w-s1/front").exists()
