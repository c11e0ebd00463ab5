# SPDX-License-Identifier: Apache-2.0
"""`retake verify` in words and exit codes: a video as a table, a run as lines, and what a pass will cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.errors import InputError
from retake.core.run_store import create_run
from retake.core.verdicts import cli, load_settings
from retake.core.verdicts.records import Check, Verdict, row_text

FRAMES, SIZE = 6, (96, 72)


def verdict(*checks: Check) -> Verdict:
    return Verdict("unsure", 0.25, "bench 3", checks, "front", 0, FRAMES, 15.0, SIZE, "0" * 64)


def test_a_verdict_is_a_table_of_its_checks() -> None:
    lines = cli.as_text(
        verdict(
            Check("lag", "fail", 2.34567, 0.5, "frames", "measured", "late", 4),
            Check("seams", "skipped", None, 0.1, "share", "measured", "the camera moves"),
            Check("masks", "unsure", None, None, "", "", "none recorded", 0),
        )
    ).splitlines()
    assert lines == [
        "UNSURE  probability faultless 0.250 (bench 3)",
        "  fail    lag                   2.35  limit 0.5 frames             frame 4   late",
        "  skipped seams                    -                                         the camera moves",
        "  unsure  masks                    -                               frame 0   none recorded",
    ]


@given(st.integers(0, 60), st.integers(1, 60))
def test_the_cost_of_a_pass_follows_from_what_the_bench_measured(passed: int, further: int) -> None:
    settings, takes = load_settings(), passed + further
    point = settings.operating_points[settings.operating_point]
    said = cli.expected_cost(settings, {"takes": takes, "pass": passed})
    if not passed:
        assert said.startswith(f"nothing passed at the operating point {settings.operating_point}")
        return
    clean, slip = float(point.clean_passed or 0), float(point.faulty_passed or 0)
    faulty = min(max((clean - passed / takes) / (clean - slip), 0), 1)
    accepted = (1 - faulty) * clean + faulty * slip
    assert f"{1 / accepted:.1f} attempts per accepted take" in said
    assert f"about {100 * faulty:.0f} % of the takes" in said
    assert said.endswith(f"and {100 * faulty * slip / accepted:.0f} % of the accepted ones")


@pytest.mark.parametrize("missing", ["clean_passed", "faulty_passed"])
def test_without_measured_rates_or_takes_nothing_is_said_of_costs(missing: str) -> None:
    settings = load_settings()
    name = settings.operating_point
    unmeasured = replace(settings.operating_points[name], **{missing: None})
    bare = replace(settings, operating_points={name: unmeasured})
    assert cli.expected_cost(bare, {"takes": 4, "pass": 2}) == ""
    assert cli.expected_cost(replace(settings, operating_points={}), {"takes": 4, "pass": 2}) == ""
    assert cli.expected_cost(settings, {"takes": 0, "pass": 0}) == ""
    assert cli.expected_cost(settings, {"takes": 4, "pass": 2})
    assert cli.expected_cost(settings.requiring(["lag"]), {"takes": 4, "pass": 2}) == ""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of one camera and of two, and the simulator's own pictures as a folder."""
    root = tmp_path_factory.mktemp("verify")
    episode = make_scene_episode(root / "one", frames=FRAMES, size=SIZE, shadows=False)
    make_scene_episode(root / "two", frames=2, size=SIZE, shadows=False, wrist=True)
    (root / "film").mkdir()
    for t in range(2, FRAMES):
        cv2.imwrite(str(root / "film" / f"{t}.png"), episode.image("front", "rgb", t)[..., ::-1])
    return root


def test_a_folder_of_pictures_is_judged_from_the_stated_frame(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "out" / "verdict.json"
    arguments = ["--episode", str(place / "one"), "--start", "2", "--json", str(out), "--pictures", str(place / "p")]
    code = cli.main([str(place / "film"), *arguments, "--first-frame", str(place / "film" / "2.png")])
    data = json.loads(out.read_text())
    assert (data["take"], data["start"], data["frames"], data["camera"]) == ("film", 2, FRAMES - 2, "front")
    assert code == {"pass": 0, "fail": 3, "unsure": 4}[data["status"]]
    checks = {c["name"]: c for c in data["checks"]}
    assert checks["first_frame"]["value"] == pytest.approx(0, abs=1e-6)
    assert "6 frames" not in checks["length"]["detail"]
    assert capsys.readouterr().out.startswith(data["status"].upper())
    assert (place / "p" / "timeline.png").is_file()


def test_the_camera_is_asked_for_where_there_are_several(place: Path) -> None:
    with pytest.raises(InputError, match="has cameras front, wrist; say which one"):
        cli.main([str(place / "film"), "--episode", str(place / "two")])


@pytest.mark.parametrize(("torn", "code"), [("pass", 0), ("fail", 3), ("unsure", 0)])
def test_cameras_that_do_not_fit_fail_a_run_of_good_takes(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    torn: str,
    code: int,
) -> None:
    run = create_run(tmp_path / "run", {}, place / "one")
    takes: list[dict[str, Any]] = [
        {"take": f"{n}/front", "overall": "pass", "probability": 0.9, "reasons": [], "checks": []} for n in "ab"
    ]
    worlds = [{"world": "a-s1", "status": torn, "videos": {"front": "", "wrist": ""}, "reasons": ["apart"]}]
    monkeypatch.setattr(cli, "verify_whole", lambda *args, **more: (takes, []))
    monkeypatch.setattr(cli, "compare_worlds", lambda *args, **more: worlds)
    assert cli.main([str(run.path), "--json", str(tmp_path / "all.json")]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == row_text("a-s1", torn, "front, wrist", ["apart"])
    assert lines[3] == "2 of 2 takes passed, 0 failed, 0 unsure"
    assert [row["take"] for row in json.loads((tmp_path / "all.json").read_text())["verdicts"]] == [
        "a/front",
        "b/front",
    ]
    takes[1]["overall"] = "unsure"
    assert cli.main([str(run.path)]) == (3 if torn == "fail" else 4)


def test_a_run_without_takes_is_unsure(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(create_run(tmp_path / "run", {}, place / "one").path)]) == 4
    told = capsys.readouterr()
    assert told.out.splitlines() == ["0 of 0 takes passed, 0 failed, 0 unsure"]
    assert "has no takes yet" in told.err
