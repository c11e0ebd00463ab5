# SPDX-License-Identifier: Apache-2.0
"""What one take's verdict is put together from: the worst object's figures, its events, and how far the arm is off."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.verdicts import load_settings
from retake.core.verdicts.falls import _flight, _height
from retake.core.verdicts.judge import OBJECT_NAMES
from retake.core.verdicts.objects import in_doubt
from retake.core.verdicts.records import Measurement

judge = importlib.import_module("retake.core.verdicts.judge")
"""The module; the package has a function of that name."""


@pytest.mark.parametrize(("frame", "told"), [(None, None), (4, None), (5, 0), (9, 4), (14, 9), (15, None), (0, None)])
def test_events_are_counted_in_the_take_where_it_shows_them(frame: int | None, told: int | None) -> None:
    event: Any = SimpleNamespace(grasp=frame, release=7, settled=99)
    other: Any = SimpleNamespace(grasp=6, release=6, settled=6)
    assert judge._events([event, other], 5, 10) == {"grasp": told, "release": 2, "settled": None}
    assert judge._events([], 5, 10) == {}


def test_an_arm_is_off_by_the_median_and_by_that_share_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    series = np.array([1.0, np.nan, 3.0, 8.0])
    measured = [Measurement("lag", 9.0, series=series), Measurement("arm_offset", 2.0, series=series)]
    truth: Any = SimpleNamespace(px=2.0)
    monkeypatch.setattr(judge, "arm_size", lambda _: 30.0)
    assert judge._reprojection(measured, truth) == {
        "reprojection_median_px": 3.0, "reprojection_median_share": pytest.approx(0.05),
    }  # fmt: skip
    monkeypatch.setattr(judge, "arm_size", lambda _: 0.0)
    assert judge._reprojection(measured, truth)["reprojection_median_share"] is None
    for none in (
        [],
        measured[:1],
        [Measurement("arm_offset", None)],
        [Measurement("arm_offset", 1.0, series=series * np.nan)],
    ):
        assert judge._reprojection(none, truth) == {}


class Scene:
    """Objects with figures of their own; which are asked in which frames is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **figures: tuple[float | None, bool]) -> None:
        self.names = list(figures)
        parts = [
            SimpleNamespace(name="packet", robot="arm"),
            *(SimpleNamespace(name=name, robot="") for name in figures),
        ]
        area = np.ones((9, len(parts)))
        self.truth: Any = type("Truth", (SimpleNamespace,), {"__len__": lambda self: 9})(
            parts=parts,
            area=area,
            start=2,
            fps=15.0,
            T_world_part=np.tile(np.eye(4), (9, len(parts), 1, 1)),
            is_still=lambda part: parts[part].name == "bystander",
        )
        self.asked: dict[str, list[int]] = {}

        def measured(body: str) -> list[Measurement]:
            value, applies = figures[body]
            return [Measurement(name, value, body, applies=applies) for name in OBJECT_NAMES[:-2]]

        def looked(footage: Any, truth: Any, part: int, times: list[int]) -> str:
            assert (footage, truth) == ("film", self.truth)
            self.asked[parts[part].name] = times
            return parts[part].name

        monkeypatch.setattr(judge, "bodies", looked)

        def tracked(footage: Any, truth: Any, part: int, scene: Any, seen: Any) -> int | None:
            assert (footage, truth, scene, seen) == ("film", self.truth, None, "seen in the film")
            return None if parts[part].name == "hidden" else part

        self.looks = 0

        def seen_in(footage: Any, truth: Any) -> str:
            self.looks += 1
            return f"seen in the {footage}"

        monkeypatch.setattr(judge, "track", tracked)
        monkeypatch.setattr(judge, "seen_in", seen_in)
        monkeypatch.setattr(judge, "measure_object", lambda found, body, *_: measured(body))
        monkeypatch.setattr(judge, "measure_posture", lambda *_: Measurement(OBJECT_NAMES[-2], 0.5))
        monkeypatch.setattr(judge, "measure_fall", lambda *_: Measurement(OBJECT_NAMES[-1], None, applies=False))
        monkeypatch.setattr(judge, "pisa", lambda found, truth, phases: {"l2": float(found)})

    def told(self, *unnamed: str, phase: str = "held") -> Any:
        events = [
            SimpleNamespace(object=name, phase=lambda t: "released" if t in (5, 6, 7) and phase == "held" else phase)
            for name in self.names
        ]
        none: Any = None
        film: Any = "film"
        objects = tuple(SimpleNamespace(name=name, movable=True) for name in (*self.names, *unnamed))
        episode: Any = SimpleNamespace(header=SimpleNamespace(objects=objects))
        return judge._objects(episode, "front", film, none, self.truth, None, events, load_settings())  # type: ignore[arg-type]


def test_one_object_s_figures_are_the_take_s_and_every_frame_of_its_fall_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, packet=(3.0, True))
    tracks, found, metrics = scene.told()
    assert tracks == {"packet": 1}
    assert [m.name for m in found] == list(OBJECT_NAMES)
    assert [m.value for m in found] == [3.0] * (len(OBJECT_NAMES) - 2) + [0.5, None]
    assert metrics == {"l2": 1.0}
    assert scene.asked == {
        "packet": [0, 2, 3, 4, 5, 6, 8]
    }  # frames 5, 6 and 7 of the episode, which the take begins at 2


def test_of_several_objects_the_worst_figure_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, packet=(3.0, True), tin=(5.0, True), box=(None, True))
    tracks, found, metrics = scene.told()
    assert {m.note for m in found[:-2]} == {"tin"}
    assert tracks == {"packet": 1, "tin": 2, "box": 3}
    assert scene.looks == 1, "the film is prepared once for all of them"
    assert metrics == {"packet.l2": 1.0, "tin.l2": 2.0, "box.l2": 3.0}
    untold = Scene(monkeypatch, packet=(None, False), tin=(None, True))
    assert {(m.note, m.applies) for m in untold.told()[1][:-2]} == {("tin", True)}
    nothing = Scene(monkeypatch, packet=(None, True), tin=(0.0, True))
    assert {m.value for m in nothing.told()[1][:-2]} == {0.0}


@pytest.mark.parametrize(("packet", "doubted"), [(3.0, True), (5.0, True), (5.1, False)])
def test_a_doubt_about_an_object_that_no_robot_holds_is_answered_by_no_other_that_passes(
    packet: float, doubted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`object_before` fails from 5 px on."""
    scene = Scene(monkeypatch, packet=(packet, True), tin=(40.0, True))
    monkeypatch.setattr(judge, "in_doubt", lambda check, found, _: check.name == "object_before" and found == 2)
    told = {m.name: m for m in scene.told(phase="before")[1]}
    assert (told["object_before"].value is None) == doubted
    assert ("'tin'" in told["object_before"].note) == doubted
    assert told["object_held"].value == 40.0
    held = {m.name: m for m in scene.told()[1]}
    assert held["object_before"].value == 40.0


@pytest.mark.parametrize(
    ("name", "value", "reference", "doubted"),
    [
        ("object_before", 5.1, 0.74, True), ("object_before", 4.9, 0.3, False), ("object_before", 9.0, 0.76, False),
        ("object_unique", 0.56, 0.3, True), ("object_unique", 0.54, 0.3, False), ("object_held", 30.0, 0.3, False),
        ("object_posture", 0.71, 0.74, True), ("object_posture", 0.69, 0.3, False), ("object_posture", 0.9, 0.76, False),
    ],
)  # fmt: skip
def test_a_finding_by_faint_colours_is_a_doubt(name: str, value: float, reference: float, doubted: bool) -> None:
    track: Any = SimpleNamespace(reference=reference)
    assert in_doubt(Measurement(name, value), track, load_settings()) == doubted
    assert not in_doubt(Measurement(name, None), track, load_settings())


def test_what_cannot_be_told_of_one_object_is_not_hidden_by_another_that_has_nothing_to_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for order in (("rests", "falls"), ("falls", "rests")):
        scene = Scene(monkeypatch, **{name: (3.0, True) for name in order})

        def fall(found: Any, truth: Any, part: int, phases: Any) -> Measurement:
            name = truth.parts[part].name
            return Measurement(OBJECT_NAMES[-1], None, name, applies=False, absent=name == "rests")

        monkeypatch.setattr(judge, "measure_fall", fall)
        assert (scene.told()[1][-1].note, scene.told()[1][-1].absent) == ("falls", False)


def test_an_object_beside_others_that_never_moves_is_a_bystander(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, bystander=(9.0, True), packet=(3.0, True))
    assert {m.value for m in scene.told()[1][:-2]} == {3.0}
    alone = Scene(monkeypatch, bystander=(9.0, True))
    assert {m.value for m in alone.told()[1][:-2]} == {9.0}
    names = Scene(monkeypatch, bystander=(9.0, True), packet=(3.0, True))
    names.truth.is_still = lambda part: True
    tracks, found, metrics = names.told()
    assert (tracks, metrics) == ({}, {})
    assert {(m.value, m.applies, m.note) for m in found} == {(None, False, "no object moves in these frames")}
    assert all(m.absent for m in found)


def test_what_is_never_seen_or_not_there_does_not_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, packet=(3.0, True), tin=(5.0, True))
    scene.truth.area[:, 2] = 0
    tracks, found, _ = scene.told()
    assert tracks == {"packet": 1}
    assert {m.value for m in found[:-2]} == {3.0}
    scene.truth.area[:] = 0
    unseen = "object 'packet' is never visible to this camera"
    assert {(m.value, m.applies, m.note) for m in scene.told()[1]} == {(None, False, unseen)}
    assert {m.name for m in scene.told()[1] if m.absent} == {"object_before", "object_settled", "fall_acceleration"}
    none = Scene(monkeypatch)
    assert all(m.absent for m in none.told()[1])
    assert not any(m.absent or m.applies for m in none.told("without ids")[1])
    assert {(m.value, m.applies, m.note) for m in none.told()[1]} == {(None, False, "no object in the task")}
    covered = Scene(monkeypatch, hidden=(4.0, True))
    tracks, found, metrics = covered.told()
    assert (tracks, metrics, found[0].value) == ({}, {}, 4.0)


def fallen(begin: int, end: int, frames: int = 20, fps: float = 10.0) -> np.ndarray:
    """Heights of what rests, falls from frame `begin` to `end`, and rests."""
    t = np.clip(np.arange(frames), begin, end) - begin
    return 5 - 0.5 * 9.81 * (t / fps) ** 2


def test_a_flight_begins_where_it_is_let_go_and_ends_where_it_lands() -> None:
    assert _flight(fallen(5, 12), 10.0).tolist() == list(range(5, 13))
    assert _flight(fallen(0, 6), 10.0).tolist() == list(range(7))
    assert _flight(fallen(15, 30), 10.0).tolist() == list(range(15, 20))
    both = fallen(2, 6) + fallen(10, 17)
    assert _flight(both, 10.0).tolist() == list(range(10, 18))
    assert _flight(both[::-1], 10.0).tolist() == list(range(2, 10))  # a throw upwards is as free
    assert _flight(fallen(5, 12), 5.0).tolist() == []
    assert _flight(fallen(5, 12) * 0, 10.0).tolist() == []
    assert _flight(fallen(0, 6)[:2], 10.0).tolist() == []
    # Of one that falls too fast the frame of its release looks free, for half of it is rest.
    for share, free in ((1.34, True), (1.36, False), (0.66, True), (0.64, False)):
        assert (len(_flight(5 - share * (5 - fallen(5, 12)), 10.0)) >= 8) == free


def test_a_pixel_upwards_is_so_many_metres_at_the_object_s_depth() -> None:
    """At 2 m with 200 px of focal length a metre is a hundred pixels; what is sideways says nothing of a height."""
    look = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    poses = np.tile(np.eye(4), (3, 1, 1, 1))
    poses[:, 0, :3, 3] = (0.0, 2.0, 0.4)
    K = np.array([[200.0, 0, 60], [0, 200, 45], [0, 0, 1]])
    expected = np.tile([60.0, 5.0], (3, 1))
    track: Any = SimpleNamespace(part=0, expected=expected, found=expected + np.array([[0, 0], [7, -10], [np.nan, 0]]))
    truth: Any = SimpleNamespace(T_camera_world=np.tile(look, (3, 1, 1)), K=np.tile(K, (3, 1, 1)), T_world_part=poses)
    assert [_height(track, truth, t) for t in range(3)] == pytest.approx([0.4, 0.5, np.nan], nan_ok=True)
    truth.T_camera_world[0] = np.diag([1.0, -1, -1, 1])  # above it, looking down along its way
    truth.T_camera_world[0][2, 3] = 4.0
    truth.T_world_part[0, 0, :3, 3] = (0.05, 0, 0)
    assert np.isnan(_height(track, truth, 0))
    poses[1, 0, 1, 3] = 0.019
    assert np.isnan(_height(track, truth, 1))
    poses[1, 0, 1, 3], track.expected[2], track.found[2] = 2.0, np.nan, 0.0
    assert np.isnan(_height(track, truth, 2))
