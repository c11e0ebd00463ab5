# SPDX-License-Identifier: Apache-2.0
"""Attempts at a world, seed by seed and camera by camera, with verdicts written down beforehand instead of measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flat_stills import BOX, ROBOT, TABLE, still

from retake.core.episode import Episode
from retake.core.errors import VariantError
from retake.core.files import read_json, write_json
from retake.core.variants import attempts as module
from retake.core.variants import gated
from retake.core.variants.attempts import (
    SEED_STEP,
    Attempt,
    Attempts,
    Rules,
    Tried,
    attempts_from_json,
    attempts_to_json,
    why_missing,
)
from retake.core.variants.base import Variant, World
from retake.core.variants.gate import GateCheck, GateLimits, GateReport, gate_identity
from retake.core.variants.whole import WorldAttempts, WorldTried

IDS = np.full((24, 32), TABLE)
IDS[:, :6], IDS[8:14, 12:20] = ROBOT, BOX
WORLD = World("w", "", "", "", "soft_daylight", prompt="a plain wall")


class Painter:
    """Paints every seed in a grey of its own."""

    name, version, licence, parallel = "grey", "1", "MIT", False

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def render(self, source, world, seed, check_cancel=None):
        self.seeds.append(seed)
        return np.full_like(source.rgb, 100 + seed // SEED_STEP)


class Judge:
    """Lets the frames of the given attempts pass."""

    def __init__(self, *good: int) -> None:
        self.good, self.asked = good, 0

    def check(self, frame):
        self.asked += 1
        number = int(frame[0, 0, 0]) - 100
        return GateReport((GateCheck("grey", 0.1234567, "<= 1", number in self.good, f"attempt {number}"),))


def made(judge: Judge | None, rerolls: int = 2, seed: int = 5, painter: Painter | None = None) -> Attempts:
    rules = Rules(judge is not None, rerolls)
    out = Attempts(still(IDS), painter or Painter(), seed, rules, episode_sha256="e")
    out._gates = {"": judge}
    return out


def test_attempts_go_on_with_the_next_seed_until_a_frame_passes(tmp_path):
    folder = tmp_path / "w" / "front"
    own, judge = Painter(), Judge(2)
    tried = made(judge, painter=own).run(WORLD, folder)
    assert own.seeds == [5, 5 + SEED_STEP, 5 + 2 * SEED_STEP]
    assert tried.variant.seed == 5 + 2 * SEED_STEP
    assert tried.failed == tuple(Attempt(5 + k * SEED_STEP, (f"grey 0.123 (limit <= 1): attempt {k}",)) for k in (0, 1))
    record = read_json(folder / "variant.json")["gate"]
    assert record["checks"] == [
        {"name": "grey", "value": 0.123457, "limit": "<= 1", "passed": True, "detail": "attempt 2"}
    ]  # fmt: skip
    assert attempts_from_json(record["failed"]) == tried.failed
    # Again: it lies there, and nothing is painted.
    assert made(judge, painter=own).done(WORLD, folder) == tried
    assert len(own.seeds) == 3
    assert made(judge).lies(WORLD, folder, 2) == tried.variant
    assert made(judge).lies(WORLD, folder, 1) is None
    assert made(judge, rerolls=1).done(WORLD, folder) is None, "so many attempts are not allowed now"
    assert made(judge, seed=6).done(WORLD, folder) is None
    stricter = made(judge)
    stricter.rules = replace(stricter.rules, limits=GateLimits(luma=(15.0, 215.0)))
    assert stricter.done(WORLD, folder) is None
    assert stricter.lies(WORLD, folder, 2) is None


def test_a_world_of_which_no_frame_passes_has_no_folder(tmp_path):
    own = Painter()
    tried = made(Judge(7), rerolls=1, painter=own).run(WORLD, tmp_path / "w")
    assert tried.variant is None
    assert [a.seed for a in tried.failed] == own.seeds == [5, 5 + SEED_STEP]
    assert not (tmp_path / "w").exists()
    assert made(Judge(7), rerolls=1).run(WORLD, tmp_path / "w", tried.failed) == tried, "nothing is left to be tried"
    assert why_missing(WORLD, tried.failed) == (
        "w: none of 2 attempts passed the gate; the last: grey 0.123 (limit <= 1): attempt 1"
    )  # fmt: skip
    assert why_missing(WORLD, ()) == "w: none of 0 attempts passed the gate; the last: nothing was tried"
    with pytest.raises(VariantError, match="the last: grey"):
        gated.make_checked_variant(made(Judge(7), rerolls=1), WORLD, tmp_path / "w")
    assert gated.make_checked_variant(made(Judge(0)), WORLD, tmp_path / "w").seed == 5


def test_a_frame_that_lies_there_is_measured_again_by_another_gate(tmp_path):
    folder, own = tmp_path / "w", Painter()
    free = made(None, painter=own).run(WORLD, folder)
    assert "gate" not in read_json(folder / "variant.json")
    judge = Judge(0)
    assert made(judge, painter=own).done(WORLD, folder) is None
    assert made(judge, painter=own).run(WORLD, folder) == Tried(free.variant, ())
    assert (len(own.seeds), judge.asked) == (1, 1)
    assert read_json(folder / "variant.json")["gate"]["identity"] == Rules().identity
    before = read_json(folder / "variant.json")
    assert made(Judge(1), painter=own).attempt(WORLD, folder, 0, ()) == Attempt(
        5, ("grey 0.123 (limit <= 1): attempt 0",)
    )
    assert read_json(folder / "variant.json") == before


def test_records_of_attempts_come_back_and_damaged_ones_are_none():
    some = (Attempt(3, ("a", "b"), "twin", ("front",)), Attempt(4, ("c",)))
    rows = attempts_to_json(some)
    assert attempts_from_json(rows) == some
    assert rows[1] == {"seed": 4, "reasons": ["c"], "twin": ""}
    for gate in ({"failed": [{"seed": "x"}]}, {"failed": 3}, [], {"failed": [{"reasons": []}]}):
        assert module._failed_attempts({"gate": gate}) == ()
    assert module._failed_attempts({}) == ()
    assert module._record(Path("nowhere")) is None
    with pytest.raises(VariantError, match="rerolls is -1"):
        Rules(rerolls=-1)
    assert Rules(rerolls=0).identity == gate_identity(GateLimits())
    assert Rules(gate=False).identity == ""


def variant(name: str) -> Variant:
    return Variant(name, WORLD, 5, "", "", "", "b", "1", "MIT", {})


class Scripted(Attempts):
    """Attempts of a camera whose outcome is written down: `+` for a frame that passes, `-` for one that fails."""

    def __init__(self, camera: str, passes: str, log: list[str], painter: Painter, ids=IDS) -> None:
        super().__init__(still(ids), painter, 5, Rules(rerolls=len(passes) - 1))
        self.camera, self.passes, self.log = camera, passes, log

    def attempt(self, world, folder, number, failed, check_cancel=None):
        self.log.append(f"{self.camera}{number}")
        passed = self.passes[number] == "+"
        return variant(f"{self.camera}{number}") if passed else Attempt(self.seed_of(number), (f"bad {number}",))

    def lies(self, world, folder, number):
        return variant(f"{self.camera}{number}") if self.passes[number] == "+" else None

    def done(self, world, folder):
        return Tried(variant(self.camera), self.passes) if isinstance(self.passes, tuple) else None


def run(cameras: dict[str, str], painter: Painter | None = None, **ids):
    """(variants, cameras that failed per attempt, whether all passed, order in which they were asked)."""
    log: list[str] = []
    own = painter or Painter()
    world = WorldAttempts({c: Scripted(c, p, log, own, ids.get(c, IDS)) for c, p in cameras.items()})
    found = world.run(WORLD, {c: Path("nowhere") / c for c in cameras})
    names = {camera: made.id for camera, made in found.variants.items()}
    return [*names.items()], [a.cameras for a in found.failed], found.whole, " ".join(log)


def test_every_camera_is_asked_once_and_the_one_that_failed_first_the_next_time():
    assert run({"f": "+++", "h": "+++"}) == ([("f", "f0"), ("h", "h0")], [], True, "f0 h0")
    assert run({"f": "-++", "h": "+-+"}) == ([("f", "f2"), ("h", "h2")], [("f",), ("h",)], True, "f0 h0 f1 h1 h2 f2")
    # After the first attempt a frame that fails ends the attempt.
    assert run({"f": "--+", "h": "---"}) == ([("f", "f2")], [("f", "h"), ("f",), ("h",)], False, "f0 h0 f1 f2 h2")
    assert run({"f": "+-+", "h": "-+-"}) == ([("f", "f0")], [("h",), ("f",), ("h",)], False, "f0 h0 h1 f1 f2 h2")
    assert run({"f": "-"}) == ([], [()], False, "f0")
    assert run({"a": "+-", "b": "-+", "c": "-+"})[0] == [("b", "b1"), ("c", "c1")], "the attempt of most cameras stays"


class Completing(Painter):
    def complete(self, source, world, seed, known, missing, check_cancel=None):
        return known


def test_what_is_carried_waits_for_the_camera_it_is_carried_from():
    """The second camera sees more of the table: it is painted first, and without it nothing is worth painting."""
    blocked = IDS.copy()
    blocked[:, 6:28] = ROBOT
    how = {"painter": Completing(), "h": blocked}
    assert run({"h": "++", "f": "-+"}, **how) == ([("h", "h1"), ("f", "f1")], [("f",)], True, "f0 f1 h1")
    assert run({"h": "-+-", "f": "+-+"}, **how)[0] == [("f", "f0")], "what the hand sees alone is no world"
    assert run({"h": "--", "f": "++"}, **how) == ([("f", "f0")], [("h",), ("h",)], False, "f0 h0 f1 h1")


def test_a_world_is_done_where_all_its_cameras_tell_the_same_story():
    once = (Attempt(5, ("x",)),)

    def told(*stories) -> WorldTried | None:
        log: list[str] = []
        cameras = {f"c{k}": Scripted(f"c{k}", "+", log, Painter()) for k in range(len(stories))}
        for camera, story in zip(cameras.values(), stories, strict=True):
            camera.passes = story
        return WorldAttempts(cameras).done(WORLD, {c: Path(c) for c in cameras})

    assert told(once, once) == WorldTried({"c0": variant("c0"), "c1": variant("c1")}, once)
    assert told(once, ()) is None
    assert told(once, "+") is None


def test_folders_of_cameras_without_a_frame_are_removed_with_what_they_leave_empty(tmp_path):
    world = WorldAttempts({"f": Scripted("f", "+", [], Painter())})
    folders = {c: tmp_path / w / c for w, c in (("w", "f"), ("w", "h"), ("v", "s"), ("u", "foreign"))}
    for camera, folder in folders.items():
        folder.mkdir(parents=True)
        if camera != "foreign":
            (folder / "variant.json").write_text("{}")
    world.drop(folders, {"f": variant("f")})
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_dir()) == [
        "u",
        "u/foreign",
        "w",
        "w/f",
    ]
    assert world.pixels == 24 * 32
    two = WorldAttempts({"f": Scripted("f", "+", [], Painter()), "h": Scripted("h", "+", [], Painter(), IDS[:, :16])})
    assert two.pixels == 24 * 48
    assert (world.anchor, two.anchor) == ("", "")


def test_a_camera_is_missing_for_its_own_last_frame_or_for_another_camera_s():
    assert WorldTried({}, ()).reasons("front") == (
        "the world's frame of camera  failed, and one seed makes all of them",
    )
    failed = (
        Attempt(1, ("front: dark", "hand: blurred", "front: moved"), cameras=("front", "hand")),
        Attempt(2, ("hand: flat",), cameras=("hand",)),
    )
    tried = WorldTried({}, failed, whole=False)
    assert tried.reasons("front") == ("front: dark", "front: moved")
    assert tried.reasons("hand") == ("hand: flat",)
    assert tried.reasons("side") == ("the world's frame of camera front, hand failed, and one seed makes all of them",)
    assert WorldTried({}, (Attempt(1, ("flat",)), Attempt(2, ("dark",)))).reasons("any") == ("dark",)
    other = WorldTried({}, (Attempt(1, ("too alike",), cameras=("front", "hand")),))
    assert other.reasons("front") == ("too alike",)


class Stop(Exception):
    """The work that a test does not want to be done."""


@pytest.mark.parametrize(
    ("workers", "change", "shared"),
    [(2, {}, True), (0, {}, True), (1, {}, False), (2, {"parallel": False}, False), (2, {"worlds": 1}, False),
     (2, {"worth": 10**9}, False), (2, {"worth": 2 * IDS.size}, True), (2, {"worth": 2 * IDS.size + 1}, False)],
)  # fmt: skip
def test_worlds_are_shared_by_processes_where_there_are_several_and_it_pays(
    monkeypatch, tmp_path, workers, change, shared
):
    asked = []

    def processes(function, jobs, units, **how):
        asked.append((len(jobs), units, how["workers"]))
        raise Stop

    def alone(self, world, folders, failed=(), check_cancel=None):
        asked.append(world.name)
        raise Stop

    maker, log = Painter(), []
    maker.parallel = change.get("parallel", True)
    monkeypatch.setattr(gated, "WORTH_PROCESSES_PX", change.get("worth", 1))
    monkeypatch.setattr(gated, "licensed_backend", lambda *given: maker)
    monkeypatch.setattr(gated, "map_in_processes", processes)
    monkeypatch.setattr(WorldAttempts, "run", alone)
    attempts = WorldAttempts({"f": Scripted("f", "+", log, maker)})
    monkeypatch.setattr(gated, "_world_attempts", lambda *given: attempts)
    worlds = [replace(WORLD, name=f"w{k}") for k in range(change.get("worlds", 2))]
    nothing = np.zeros(0)
    of = Episode(tmp_path, still(IDS).header, True, "", (), nothing, nothing, ())
    with pytest.raises(Stop):
        gated.make_gated_variants(of, "f", tmp_path / "v", worlds=worlds, workers=workers)
    assert asked == ([(2, [1, 1], workers)] if shared else ["w0"])


def test_reasons_of_missing_worlds_are_read_from_every_first_frame(tmp_path):
    write_json(tmp_path / "gate.json", {"missing": {"a": {"cameras": {"a/front": ["dark", 3]}}}})
    write_json(tmp_path / "gate-f40.json", {"missing": {"b": {"cameras": {"b/front": []}}}})
    for name, data in (("gate-f1.json", []), ("gate-f2.json", {"missing": 3}), ("gate-f3.json", {})):
        write_json(tmp_path / name, data)
    assert gated.read_missing(tmp_path) == {"a/front": ("dark", "3"), "b/front": ()}
    assert gated._beside(tmp_path, "gate.json", "-f40") == tmp_path / "gate-f40.json"
    rules = Rules()
    known = {"schema": gated.SCHEMA, "identity": rules.identity, "rerolls": 2}
    for change, told in (({}, True), ({"schema": "x"}, False), ({"identity": ""}, False), ({"rerolls": 1}, False)):
        write_json(tmp_path / "gate.json", {**known, **change})
        assert gated._earlier_record(tmp_path / "gate.json", rules) == ({**known, **change} if told else {})
    assert gated._earlier_record(tmp_path / "none.json", rules) == {}


def test_another_frame_or_another_failure_is_another_state():
    stories = [
        WorldTried({}), WorldTried({}, (Attempt(1, ("dark",)),)), WorldTried({"f": variant("a")}),
        WorldTried({"h": variant("a")}),
        WorldTried({"f": replace(variant("a"), frame_sha256="other")}),
    ]  # fmt: skip
    states = [gated._state({"w": one}, [WORLD]) for one in stories]
    assert len(set(states)) == len(states)
    assert gated._state({"w": stories[2]}, [WORLD]) == states[2]
    assert gated._state({"w": stories[0], "v": stories[0]}, [WORLD, replace(WORLD, name="v")]) not in states
