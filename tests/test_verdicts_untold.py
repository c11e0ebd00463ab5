# SPDX-License-Identifier: Apache-2.0
"""What a verdict could not tell: the property that does not exist in these frames is one thing, the one that these pictures or
recordings cannot show another; whoever requires a check gets no pass without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import verdict_scenes as scene
from export_runs import make_run
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import Episode
from retake.core.errors import InputError
from retake.core.files import read_json, sha256_file, write_json
from retake.core.run_reader import RunReader
from retake.core.run_store import create_run, open_run
from retake.core.verdicts import cli, control, recorded, stills, worlds
from retake.core.verdicts import run as runs
from retake.core.verdicts.assess import assess, check_of
from retake.core.verdicts.falls import falls, measure_fall
from retake.core.verdicts.fingers import measure_fingers
from retake.core.verdicts.following import _lags
from retake.core.verdicts.footage import make_footage
from retake.core.verdicts.form import rate_of
from retake.core.verdicts.gripper import measure_events, measure_gripper
from retake.core.verdicts.gripper_parts import find_fingers
from retake.core.verdicts.judge import examine
from retake.core.verdicts.novelty import measure_novelty
from retake.core.verdicts.records import Check, Measurement, Verdict, check_to_json
from retake.core.verdicts.settings import Calibration, OperatingPoint, Threshold, VerdictSettings, load_settings
from retake.core.verdicts.stability import _measure_frozen
from retake.core.verdicts.trackers import measure_tracked
from retake.core.verdicts.truth import Truth, read_truth
from retake.core.verdicts.views import PairFigures
from retake.core.verdicts.wrists import measure_wrist

# -- which is which ------------------------------------------------------------------------------------------------------

NOT_ASKED = {"fps", "first_frame", "control_leak", "tracked_points"}
"""Of frames in memory, without a first frame, of a model that was shown no objects."""
STANDING = {"temporal_geometry", "camera_motion"}
SCENERY = {"background_drift", "flicker", "colour_shift", "seams", "sharpness_loss"}
NO_EVENT = {"gripper_event", "fall_acceleration", "object_held", "object_released"}
FEW = {"gripper_openness", "wrist_turn", "flash", "intruders", "link_texture", "extra_finger", "still_colour"}
"""Things that nine frames are too few to tell."""
BLIND = {"wrist_turn", "object_posture"}
"""What depth is needed for."""


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Episode]:
    """The scene with a camera on the hand, with and without depth."""
    deep = make_scene_episode(
        tmp_path_factory.mktemp("hands") / "deep", frames=scene.FRAMES, size=scene.SIZE, wrist=True, shadows=False
    )
    cameras = tuple(replace(camera, channels=("rgb", "instances")) for camera in deep.header.cameras)
    return {"deep": deep, "blind": without(deep, cameras=cameras)}


@pytest.mark.parametrize(
    ("episode", "camera", "window", "absent", "untold"),
    [
        ("front", "front", slice(0, 33), STANDING, {"fall_acceleration"}),
        ("front", "front", slice(0, 9), STANDING | NO_EVENT | {"object_settled"}, FEW),
        ("front", "front", slice(24, 33), STANDING | NO_EVENT | {"object_before"}, FEW | {"lag", "local_lag", "frozen"}),
        ("blind", "front", slice(0, 33), STANDING, BLIND | {"fall_acceleration"}),
        ("deep", "wrist", slice(0, 33), set(),
         SCENERY | {"wrist_turn", "fall_acceleration", "extra_finger", "still_objects"}),
        ("blind", "wrist", slice(0, 33), set(),
         SCENERY | BLIND | {"fall_acceleration", "extra_finger", "still_objects", "intruders", "still_colour", "camera_motion"}),
    ],
)  # fmt: skip
def test_what_is_not_there_and_what_cannot_be_told_are_apart(
    hands: dict[str, Episode], episode: str, camera: str, window: slice, absent: set[str], untold: set[str]
) -> None:
    known = scene.scene_episode() if episode == "front" else hands[episode]
    maps = scene.load_maps(hands["deep"], "wrist", 0, scene.FRAMES) if camera == "wrist" else None
    film = (scene.clean_video() if maps is None else scene.paint(maps, "clutter", 4))[window]
    verdict = examine(film, known, camera, start=window.start, frames=len(film)).verdict
    skipped = {c.name for c in verdict.checks if c.status == "skipped"}
    assert {c.name for c in verdict.checks if c.absent} == absent | NOT_ASKED
    assert {text.partition(":")[0] for text in verdict.untold} == untold
    assert skipped == absent | NOT_ASKED | untold
    assert all(len(text.partition(": ")[2]) > 9 for text in verdict.untold)


def front() -> Truth:
    return read_truth(scene.scene_episode(), "front", 0, scene.FRAMES)


def standing(truth: Truth, names: Iterable[str] | None = None) -> Truth:
    """As if parts kept the place of their first frame: all, or those of these names."""
    poses, wanted = truth.T_world_part.copy(), None if names is None else set(names)
    for index, part in enumerate(truth.parts):
        if wanted is None or part.name in wanted:
            poses[:] = np.where(np.arange(poses.shape[1])[:, None, None] == index, poses[:1], poses)
    return replace(truth, T_world_part=poses)


def without(episode: Episode, **changes: Any) -> Episode:
    return replace(episode, header=replace(episode.header, **changes))


def robots_without_gripper(episode: Episode) -> Episode:
    return without(episode, robots=tuple(replace(robot, grippers=()) for robot in episode.header.robots))


def of_robot(stands: bool) -> dict[str, Measurement]:
    """A robot whose picture hardly moves: because it stands, or because it moves too little to be seen."""
    still = replace(front(), centroid=np.repeat(front().centroid[:1], scene.FRAMES, 0))
    truth = standing(still) if stands else still
    grey = [np.zeros((240, 320), np.uint8)] * scene.FRAMES
    none: Any = None
    settings = load_settings()
    found = [*_lags(none, truth, settings.following), _measure_frozen(grey, truth, np.zeros(99), settings.stability)]
    return {m.name: m for m in found}


def of_hand(episode: Episode, truth: Truth, openness: float | None = None) -> dict[str, Measurement]:
    none: Any = None
    settings, found = load_settings(), find_fingers(episode, truth)
    if openness is not None:
        found = [replace(one, openness=np.full(len(truth), openness)) for one in found]
    moving = replace(truth, static_camera=False)
    film = make_footage(scene.clean_video(), truth)
    return {m.name: m for m in (
        measure_gripper(none, none, truth, found, settings.following),
        measure_events(film, none, truth, found, settings.following),
        measure_fingers(film, moving, found),
        measure_wrist(none, none, moving, episode, "front", settings.following),
    )}  # fmt: skip


def test_without_a_gripper_there_is_nothing_to_tell_of_its_fingers() -> None:
    episode = scene.scene_episode()
    none = of_hand(robots_without_gripper(episode), front())
    assert {name for name, m in none.items() if m.absent} == set(none)
    # The fingers are there, and the recording has no ids of them.
    truth = front()
    fingers = {part for gripper in find_fingers(episode, truth) for part in gripper.parts}
    unnamed = replace(
        truth, parts=tuple(replace(p, robot="?") if i in fingers else p for i, p in enumerate(truth.parts))
    )
    hidden = of_hand(episode, unnamed)
    assert not any(m.absent or m.applies or m.value is not None for m in hidden.values())
    held = of_hand(episode, unnamed, openness=0.4)
    assert [name for name, m in held.items() if m.absent] == ["gripper_event"]


@pytest.mark.parametrize("stands", [True, False])
def test_a_robot_that_stands_has_no_lag_and_one_that_hardly_shows_it_does(stands: bool) -> None:
    assert {name: m.absent for name, m in of_robot(stands).items()} == dict.fromkeys(
        ("lag", "local_lag", "frozen"), stands
    )
    assert all(m.value is None and not m.applies for m in of_robot(stands).values())


def test_what_falls_for_a_moment_exists_and_what_is_put_down_does_not_fall() -> None:
    count, part = 20, 0

    def said(height: np.ndarray, phases: list[str]) -> bool:
        poses = np.tile(np.eye(4), (count, 1, 1, 1))
        poses[:, 0, 2, 3] = height
        truth: Any = SimpleNamespace(T_world_part=poses, fps=15.0)
        assert measure_fall(None, truth, part, phases).absent == (not falls(truth, part, phases))
        return falls(truth, part, phases)

    frames = np.arange(count)
    held, let_go = ["held"] * count, ["held"] * 10 + ["released"] * 3 + ["settled"] * 7
    assert not said(np.zeros(count), held)
    assert not said(np.zeros(count), let_go)
    assert said(np.where(frames < 11, 0.06, 0.0), let_go)
    assert not said(np.where(frames < 11, 0.006, 0.0), let_go)
    freely = 1 - 0.5 * 9.81 * (np.clip(frames, 5, 9) - 5) ** 2 / 15**2
    assert said(freely, held)
    # A hand that moves up and slows down as fast as a thing falls: three frames of it.
    assert not said(np.interp(frames, [0, 8, 9, 19], [0, 0.8, 0.86, 0.86]), held)


@pytest.mark.parametrize("source", ["recorded", "simulated"])
def test_of_a_recording_it_is_known_that_it_is_one(source: str) -> None:
    film = make_footage(scene.clean_video(), front())
    pictures = without(scene.scene_episode(), motion_source=source)
    header = SimpleNamespace(motion_source=source, camera=lambda name: SimpleNamespace(channels=("instances",)))
    none: Any = SimpleNamespace(header=header)
    one, two = (measure_novelty(film, front(), episode, "front")[0] for episode in (pictures, none))
    assert (one.value is None, one.absent) == ((True, True) if source == "recorded" else (False, False))
    assert (two.value, two.applies, two.absent) == (None, False, source == "recorded")


def test_nothing_of_the_kind_in_the_episode() -> None:
    truth, none, settings = front(), None, load_settings()
    nothing: Any = none
    everything_moves = replace(truth, stills=(), T_world_part=truth.T_world_part.copy())
    everything_moves.T_world_part[:, :, 0, 3] += np.linspace(0, 1, len(truth))[:, None]
    for camera_moves in (False, True):
        moves = replace(everything_moves, static_camera=not camera_moves)
        assert stills.measure_stills(nothing, moves, settings.stability).absent
        seen = replace(truth, static_camera=not camera_moves, still_labels=0 * truth.still_labels, area=0 * truth.area)
        assert not stills.measure_stills(nothing, seen, settings.stability).absent
    assert control.NOT_SHOWN.absent
    assert measure_tracked(nothing, truth, nothing, "front", settings.tracker).absent
    assert rate_of(None, 15.0, nothing, False).absent
    assert not rate_of(20.0, 15.0, None, False).absent
    deep = replace(settings.tracker, name="lucas_kanade")
    cameras = tuple(replace(c, channels=("rgb",)) for c in scene.scene_episode().header.cameras)
    assert not measure_tracked(nothing, truth, without(scene.scene_episode(), cameras=cameras), "front", deep).absent


# -- laws ----------------------------------------------------------------------------------------------------------------

LIMITS = {
    "a": Threshold(2.0, "px", unsure=1.5), "b": Threshold(1.3, worse="below", unsure=1.6, base=1.0), "c": Threshold(0.5),
}  # fmt: skip
RANK = {"pass": 0, "skipped": 0, "unsure": 1, "fail": 2}


def settings_of(*required: str) -> VerdictSettings:
    points = {"balanced": OperatingPoint(1.0), "strict": OperatingPoint(0.7)}
    known = VerdictSettings(thresholds=LIMITS, calibration=Calibration("bench", 4.0, 0.0), operating_points=points)
    return known.requiring(required)


def measurement(name: str) -> st.SearchStrategy[Measurement]:
    kinds = [(True, False), (False, False), (False, True)]
    value = st.none() | st.floats(-1, 4) | st.just(float("nan"))
    return st.builds(
        lambda v, kind: Measurement(name, v, "why", applies=kind[0] or v is not None, absent=kind[1] and v is None),
        value, st.sampled_from(kinds),
    )  # fmt: skip


MEASURED = st.tuples(*map(measurement, LIMITS))
NAMES = st.sets(st.sampled_from(sorted(LIMITS)))


def verdict_of(measured: Iterable[Measurement], settings: VerdictSettings) -> Verdict:
    return Verdict(
        **assess(measured, settings), camera="front", start=0, frames=9, fps=15.0, size=(4, 4), episode_sha256=""
    )


@given(MEASURED)
def test_where_nothing_is_required_a_check_is_what_it_was(measured: tuple[Measurement, ...]) -> None:
    verdict = verdict_of(measured, settings_of())
    for m, check in zip(measured, verdict.checks, strict=True):
        limit = LIMITS[m.name]
        if m.value is None or np.isnan(m.value):
            assert check.status == ("unsure" if m.applies else "skipped")
        else:
            assert check.status == ("fail" if limit.fails(m.value) else "unsure" if limit.doubtful(m.value) else "pass")
        assert check.absent == (check.status == "skipped" and m.absent)
        assert check_to_json(check)["absent"] == check.absent
    assert verdict == verdict_of(measured, replace(settings_of(), operating_point="strict"))
    untold = [f"{c.name}: why" for c in verdict.checks if c.status == "skipped" and not c.absent]
    assert list(verdict.untold) == verdict.to_json()["untold"] == untold


@given(MEASURED)
def test_where_all_is_required_a_pass_has_told_everything(measured: tuple[Measurement, ...]) -> None:
    verdict = verdict_of(measured, settings_of(*LIMITS))
    assert not verdict.untold
    if any(m.value is None and not m.absent for m in measured):
        assert verdict.overall != "pass"
        assert verdict.probability <= 0.5
    assert [c.status for c in verdict.checks if c.absent] == ["skipped"] * sum(m.absent for m in measured)


@given(MEASURED, NAMES, NAMES)
def test_what_is_required_further_never_makes_a_verdict_better(
    measured: tuple[Measurement, ...], some: set[str], more: set[str]
) -> None:
    one, two = (verdict_of(measured, settings_of(*names)) for names in (some, some | more))
    assert RANK[two.overall] >= RANK[one.overall]
    assert two.probability <= one.probability
    assert all(RANK[b.status] >= RANK[a.status] for a, b in zip(one.checks, two.checks, strict=True))
    assert [c.value for c in one.checks] == [c.value for c in two.checks]
    changed = {b.name for a, b in zip(one.checks, two.checks, strict=True) if a.status != b.status}
    assert changed <= more - some


# -- settings and command line -------------------------------------------------------------------------------------------


def test_required_checks_are_known_ones(tmp_path: Path) -> None:
    known = load_settings()
    assert known.required == ()
    every = {**known.thresholds, **known.recording_thresholds}
    assert set(known.requiring(every).required) == set(every)
    with pytest.raises(
        InputError, match=r"unknown required check 'gripper'; valid: arm_offset, .*gripper_event.*recording_lag"
    ):
        known.requiring(["lag", "gripper"])
    own = tmp_path / "own.yaml"
    own.write_text("required: [wrist_turn, lag]\n")
    asked = load_settings(own, "strict", ["gripper_event, wrist_turn", " ,recording_lag"])
    assert asked.required == ("gripper_event", "lag", "recording_lag", "wrist_turn")
    assert asked == load_settings(own, "strict", ["recording_lag", "wrist_turn,gripper_event"])
    assert asked.at("balanced").of("composite").required == asked.of_domain("composite").required == asked.required
    own.write_text("required: [lagg]\n")
    with pytest.raises(InputError, match=r"own\.yaml: unknown required check 'lagg'; valid: .*lag"):
        load_settings(own)
    with pytest.raises(InputError, match="unknown required check 'x'"):
        load_settings(require=["x"])


def small(verdict: Callable[[VerdictSettings], Verdict], asked: list[VerdictSettings]) -> Callable[..., Verdict]:
    def verify(*args: Any, config: VerdictSettings, **more: Any) -> Verdict:
        asked.append(config)
        return replace(verdict(config), video_sha256=sha256_file(args[0]))

    return verify


def hardly_told(settings: VerdictSettings) -> Verdict:
    return verdict_of(
        [Measurement("lag", 0.0), Measurement("gripper_event", None, "fingers too small", applies=False),
         Measurement("fall_acceleration", None, "nothing falls", applies=False, absent=True)], settings,
    )  # fmt: skip


def test_a_kept_verdict_is_judged_anew_when_other_checks_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(create_run(tmp_path / "r", {}).path, takes=1, frames=4)
    asked: list[VerdictSettings] = []
    monkeypatch.setattr(runs, "verify_video", small(hardly_told, asked))
    monkeypatch.setattr(runs, "shown_by", lambda run, take, episode: episode)
    assert cli.main([str(run)]) == cli.main([str(run)]) == 0
    assert len(asked) == 1
    assert capsys.readouterr().out.count("1 of 1 accepted takes: gripper_event not told (fingers too small)\n") == 2
    (row,) = runs.verify_run(run)
    assert (row["overall"], row["untold"]) == ("pass", ["gripper_event: fingers too small"])
    assert {c["name"]: c["absent"] for c in row["checks"] if c["status"] == "skipped"} == {
        "gripper_event": False, "fall_acceleration": True,
    }  # fmt: skip
    assert cli.main([str(run), "--require", "fall_acceleration,gripper_event", "--require", "lag"]) == 4
    told = capsys.readouterr().out
    assert "unsure  p=0.500  gripper_event: fingers too small" in told
    assert "not told" not in told
    (take,) = open_run(run).takes()
    assert open_run(run).standing(take).status == "unsure"
    assert len(asked) == 2
    assert cli.main([str(run), "--require", "lag,gripper_event,fall_acceleration"]) == 4
    assert len(asked) == 2, "the same, said in another order"
    assert cli.main([str(run), "--require", "fall_acceleration"]) == 0
    assert len(asked) == 3


def test_a_verdict_from_before_is_read_and_judged_anew_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(create_run(tmp_path / "r", {}).path, takes=1, frames=4)
    (take,) = RunReader(run).takes()
    record = RunReader(run).verdict_folder(take.id) / "verdict.json"
    assert "untold" not in read_json(record)
    assert RunReader(run).standing(take).status == "pass"
    monkeypatch.setattr(runs, "verify_video", small(hardly_told, []))
    monkeypatch.setattr(runs, "shown_by", lambda run, take, episode: episode)
    runs.verify_run(run)
    data = read_json(record)
    write_json(record, {**data, "checks": [{k: v for k, v in c.items() if k != "absent"} for c in data["checks"]],
                        "untold": None})  # fmt: skip
    data.pop("untold")
    assert RunReader(run).standing(take).status == "pass"
    assert cli.untold_of([data]) == []


def test_reasons_are_counted_over_the_accepted_takes() -> None:
    def row(overall: str, *untold: str) -> dict[str, Any]:
        return {"overall": overall, "untold": list(untold)}

    rows = [row("pass", "b: few: frames", "a: small"), row("pass", "a: hidden"), row("pass", "a: small"), row("pass"),
            row("fail", "a: hidden"), row("unsure", "c: dark")]  # fmt: skip
    assert cli.untold_of(rows) == [
        "3 of 4 accepted takes: a not told (small)", "1 of 4 accepted takes: b not told (few: frames)",
    ]  # fmt: skip
    assert cli.untold_of([]) == []


def test_a_video_is_asked_for_what_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = tmp_path / "take.mp4"
    film.write_bytes(b"")
    asked: list[VerdictSettings] = []
    monkeypatch.setattr(cli, "verify_video", small(hardly_told, asked))
    arguments = [str(film), "--episode", str(scene.scene_episode().path), "--json", str(tmp_path / "v.json")]
    assert cli.main(arguments) == 0
    assert cli.main([*arguments, "--require", "gripper_event", "--family", "composite"]) == 4
    assert [one.required for one in asked] == [(), ("gripper_event",)]
    assert json.loads((tmp_path / "v.json").read_text())["status"] == "unsure"
    with pytest.raises(InputError, match="unknown required check"):
        cli.main([*arguments, "--require", "griper_event"])


# -- recordings, several objects, several cameras ------------------------------------------------------------------------


def test_of_a_masked_recording_both_kinds_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the recording itself cannot tell exists all the same; what neither has is nothing to tell."""
    untold: dict[str, Any] = {"applies": False}
    absent = {**untold, "absent": True}
    take = [Measurement("lag", 0.2), Measurement("seams", None, "few", **untold), Measurement("flicker", 0.0),
            Measurement("fall_acceleration", None, "rests", **absent), Measurement("first_frame", None, "none", **absent),
            Measurement("fps", None, "odd", **untold)]  # fmt: skip
    own = [Measurement("lag", 0.1), Measurement("seams", 0.0), Measurement("flicker", None, "dark", **untold),
           Measurement("fall_acceleration", None, "rests", **absent), *take[-2:]]  # fmt: skip
    episode: Any = SimpleNamespace(
        header=SimpleNamespace(motion_source="recorded", camera=lambda name: SimpleNamespace(channels=("rgb",))),
        image=lambda *_: np.zeros((4, 4, 3), np.uint8),
        content_sha256="x",
    )
    film: Any = type("Film", (SimpleNamespace,), {"__len__": lambda self: 2})(frames=None)

    def judged(required: tuple[str, ...]) -> dict[str, Check]:
        settings = load_settings().requiring(required)
        monkeypatch.setattr(recorded, "examine", lambda *_, **__: SimpleNamespace(verdict=verdict_of(own, settings)))
        monkeypatch.setattr(recorded, "measure_recorded", lambda *_: [])
        found: Any = SimpleNamespace(
            verdict=verdict_of(take, settings), truth=SimpleNamespace(size=(4, 4)), footage=film
        )
        return {check.name: check for check in recorded.as_change(found, episode, settings).checks}

    before, after = judged(()), judged(tuple(m.name for m in take))
    nothing = {"fall_acceleration", "first_frame"}
    assert {name: c.status for name, c in before.items()} == {
        name: "pass" if name == "lag" else "skipped" for name in before
    }
    assert (
        {name for name, c in before.items() if c.absent} == {name for name, c in after.items() if c.absent} == nothing
    )
    assert {name for name, c in after.items() if c.status == "unsure"} == {"seams", "flicker", "fps"}
    assert {name for name, c in after.items() if c.status == "skipped"} == nothing


def test_cameras_of_which_a_required_check_was_not_told_are_unsure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunReader(make_run(tmp_path / "r", takes=1, frames=4, cameras=("front", "wrist", "side")))
    takes, settings = run.takes(), load_settings()

    def pair(first: str, second: str, **more: Any) -> PairFigures:
        return PairFigures(
            first, second, (Measurement("view_colour", 0.1), Measurement("view_lag", None, "few", **more)), 1.0
        )

    figures = [pair("front", "side", applies=False, absent=True), pair("front", "wrist", applies=False)]
    monkeypatch.setattr(worlds, "compare_views", lambda *_, **__: figures)
    monkeypatch.setattr(worlds, "_film", lambda *_: [])
    monkeypatch.setattr(worlds, "shown_by", lambda run, take, episode: episode)
    for required, status, unsure in (
        ((), "pass", []),
        (("view_lag",), "unsure", ["front", "wrist"]),
        (("lag",), "pass", []),
    ):
        (data,) = worlds.compare_worlds(run, config=settings.requiring(required))
        assert (data["status"], data["unsure"]) == (status, unsure)
        assert data["reasons"] == (["view_lag: few"] if unsure else [])
        said = {take.camera: run.standing(take).status for take in takes}
        assert said == {camera: "unsure" if camera in unsure else "pass" for camera in said}
    monkeypatch.setattr(cli, "verify_whole", lambda *_, **__: (
        [{"take": "a", "overall": "pass", "probability": 0.9, "reasons": [], "checks": []}], []
    ))  # fmt: skip
    assert cli.main([str(run.path), "--require", "view_lag"]) == 4
    assert "view_lag: few" in capsys.readouterr().out
    assert cli.main([str(run.path)]) == 0


def test_a_check_that_is_told_by_value_is_not_asked_twice() -> None:
    known = settings_of(*LIMITS)
    assert check_of(Measurement("a", 0.1), known).status == "pass"
    assert check_of(Measurement("a", 1.7), known).status == "unsure"
    assert check_of(Measurement("a", None, absent=True), known).status == "skipped"
