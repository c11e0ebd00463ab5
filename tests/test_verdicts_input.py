# SPDX-License-Identifier: Apache-2.0
"""Verdicts at the rim: takes that do not fit, episodes that lack something, files, the command line, a run folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from stored import write_take_json
from verdict_scenes import FRAMES

from retake.core.episode import Episode, EpisodeHeader, EpisodeWriter, Frame
from retake.core.errors import EpisodeError, InputError, VerdictError
from retake.core.files import read_json, write_json
from retake.core.run_store import create_run
from retake.core.verdicts import examine, judge, load_settings, verify_run
from retake.core.verdicts.cli import main
from retake.core.video import write_video


def rewritten(path: Path, header: Callable[[EpisodeHeader], EpisodeHeader], frame: Callable[[Frame], Frame]) -> Episode:
    """A copy of the scene's episode with something changed."""
    source = scene.scene_episode()
    with EpisodeWriter(path, header(source.header)) as writer:
        for one in source.frames():
            writer.append(frame(one))
        return writer.finish()


def with_ids(frame: Frame, change: Callable[[np.ndarray], np.ndarray]) -> Frame:
    camera = frame.cameras[0]
    assert camera.instance_ids is not None
    return replace(frame, cameras=(replace(camera, instance_ids=change(camera.instance_ids)),))


def test_a_take_of_another_length_is_named() -> None:
    video = scene.clean_video()
    longer = judge(np.concatenate([video, video[-1:], video[-1:]]), scene.scene_episode(), "front")
    assert longer.check("length").status == "fail"
    assert "35 frames; the episode offers 33" in longer.check("length").note
    short = judge(video[:5], scene.scene_episode(), "front", frames=5)
    assert short.check("length").status == "unsure"
    assert "at least" in short.check("length").note


@pytest.mark.parametrize("kept", [5, 8, 20, 30])
def test_a_take_that_ends_early_fails_unless_that_was_asked_for(kept: int) -> None:
    video = scene.clean_video()[:kept]
    cut = judge(video, scene.scene_episode(), "front")
    assert cut.check("length").status == "fail"
    assert cut.probability < 0.05
    asked = judge(video, scene.scene_episode(), "front", frames=kept)
    assert asked.check("length").status != "fail"
    assert asked.overall != "fail", asked.reasons
    assert asked.overall == "pass" or asked.probability <= 0.5
    with pytest.raises(VerdictError, match="at least one"):
        judge(video, scene.scene_episode(), "front", frames=0)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_pictures_of_nothing_fail_without_a_stumble(level: int) -> None:
    verdict = judge(np.full_like(scene.clean_video(), level), scene.scene_episode(), "front")
    assert verdict.overall == "fail"
    assert verdict.check("support").status == "fail"


def test_a_later_start_is_understood() -> None:
    verdict = judge(scene.clean_video()[6:], scene.scene_episode(), "front", start=6)
    assert verdict.overall == "pass", verdict.reasons
    assert judge(scene.clean_video()[6:], scene.scene_episode(), "front").overall == "fail"


def test_a_take_of_another_size_or_rate_is_named() -> None:
    video = scene.clean_video()
    large = np.stack([cv2.resize(f, (480, 360)) for f in video])
    assert judge(large, scene.scene_episode(), "front").overall == "pass"
    square = np.stack([cv2.resize(f, (240, 240)) for f in video])
    verdict = judge(square, scene.scene_episode(), "front")
    assert verdict.check("size").status == "fail"
    assert "240x240, camera 320x240" in verdict.check("size").note
    fast = judge(video, scene.scene_episode(), "front", fps=30.0)
    assert fast.check("fps").status == "fail"
    assert "30 per second, episode 15" in fast.check("fps").note


def test_what_cannot_be_compared_is_refused_in_words(tmp_path: Path) -> None:
    episode, video = scene.scene_episode(), scene.clean_video()
    with pytest.raises(VerdictError, match="no frames"):
        judge(iter([]), episode, "front")
    with pytest.raises(VerdictError, match=r"start frame 99 .* frames 0\.\.32"):
        judge(video, episode, "front", start=99)
    with pytest.raises(EpisodeError, match="it has: front"):
        judge(video, episode, "rear")
    with pytest.raises(VerdictError, match="uint8 RGB"):
        judge(video.astype(np.float32), episode, "front")
    with pytest.raises(InputError, match="does not exist"):
        judge(tmp_path / "none.mp4", episode, "front")
    blind = rewritten(
        tmp_path / "blind",
        lambda h: replace(h, cameras=(replace(h.cameras[0], channels=("rgb",)),)),
        lambda f: replace(f, cameras=(replace(f.cameras[0], depth_m=None, normals=None, instance_ids=None),)),
    )
    with pytest.raises(VerdictError, match="recorded no instance ids"):
        examine(video, blind, "front")
    verdict = judge(video, blind, "front")
    assert verdict.overall != "pass"
    assert "recorded no instance ids" in verdict.check("masks").note


def test_a_robot_that_is_never_visible_is_unsure_not_passed(tmp_path: Path) -> None:
    robot = [i.id for i in scene.scene_episode().header.instances if i.owner.startswith("robot:")]
    hidden = rewritten(
        tmp_path / "hidden",
        lambda h: h,
        lambda f: with_ids(f, lambda ids: np.where(np.isin(ids, robot), 0, ids).astype(np.uint16)),
    )
    verdict = judge(scene.clean_video(), hidden, "front")
    assert verdict.overall != "pass"
    for name in ("arm_offset", "lag", "support"):
        assert verdict.check(name).status == "unsure"
        assert verdict.check(name).note == "robot never visible"


def test_an_object_whose_mask_is_always_empty_is_skipped_in_words(tmp_path: Path) -> None:
    packet = [i.id for i in scene.scene_episode().header.instances if i.owner == "object:packet"]
    hidden = rewritten(
        tmp_path / "hidden",
        lambda h: h,
        lambda f: with_ids(f, lambda ids: np.where(np.isin(ids, packet), 0, ids).astype(np.uint16)),
    )
    verdict = judge(scene.clean_video(), hidden, "front")
    for name in ("object_before", "object_held", "object_settled", "object_unique"):
        assert verdict.check(name).status == "skipped"
        assert verdict.check(name).note == "object 'packet' is never visible to this camera"


def test_a_camera_that_sees_neither_robot_nor_object_never_passes(tmp_path: Path) -> None:
    empty = rewritten(tmp_path / "empty", lambda h: h, lambda f: with_ids(f, np.zeros_like))
    verdict = judge(scene.clean_video(), empty, "front")
    assert verdict.overall != "pass"
    assert verdict.exit_code in (3, 4)
    assert any("robot never visible" in reason for reason in verdict.reasons)


def test_a_task_without_an_object_is_judged_on_the_rest(tmp_path: Path) -> None:
    bare = rewritten(
        tmp_path / "bare",
        lambda h: replace(h, objects=(), instances=tuple(i for i in h.instances if "object" not in i.owner)),
        lambda f: replace(f, T_world_object=np.zeros((0, 4, 4)), physics=None, contacts=()),
    )
    verdict = judge(scene.clean_video(), bare, "front")
    assert verdict.overall == "pass", verdict.reasons
    assert verdict.check("object_settled").status == "skipped"
    assert verdict.check("object_settled").note == "no object in the task"


def test_an_object_that_is_hidden_at_first_is_judged_by_its_contours(tmp_path: Path) -> None:
    packet = [i.id for i in scene.scene_episode().header.instances if i.owner == "object:packet"]
    seen: list[int] = []

    def change(ids: np.ndarray) -> np.ndarray:
        seen.append(1)
        return np.where(np.isin(ids, packet), 0, ids).astype(np.uint16) if len(seen) == 1 else ids

    late = rewritten(tmp_path / "late", lambda h: h, lambda f: with_ids(f, change))
    verdict = judge(scene.clean_video(), late, "front")
    assert "not visible in the take's first frame" in verdict.check("object_settled").note
    assert verdict.check("object_settled").note.startswith("by contours")
    assert verdict.check("object_present").status == "skipped"
    wrong = judge(scene.faulty_video(), late, "front")
    assert wrong.check("object_settled").status != "pass"


def test_settings_of_ones_own_replace_single_values(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("thresholds: {lag: {limit: 3.0}}\nfollowing: {max_lag: 5}\n")
    settings = load_settings(own)
    assert settings.threshold("lag").limit == 3.0
    assert settings.threshold("lag").unit == load_settings().threshold("lag").unit
    assert settings.following.max_lag == 5
    own.write_text("thresholds: {leg: {unit: px}}\n")
    with pytest.raises(InputError, match="leg"):
        load_settings(own)
    own.write_text("folowing: {}\n")
    with pytest.raises(InputError, match="folowing"):
        load_settings(own)


def test_the_command_line_judges_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episode = scene.scene_episode()
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    write_video(good, scene.clean_video(), 15)
    write_video(bad, scene.faulty_video(), 15)
    cv2.imwrite(str(tmp_path / "first.png"), scene.clean_video()[0][..., ::-1])
    arguments = ["--episode", str(episode.path), "--camera", "front"]
    out = tmp_path / "good.json"
    assert main([str(good), *arguments, "--first-frame", str(tmp_path / "first.png"), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["status"] == "pass"
    assert main([str(bad), *arguments, "--json", str(tmp_path / "bad.json"), "--pictures", str(tmp_path / "p")]) == 3
    data = json.loads((tmp_path / "bad.json").read_text())
    settled = next(c for c in data["checks"] if c["name"] == "object_settled")
    assert settled["status"] == "fail"
    assert cv2.imread(str(tmp_path / "p" / settled["picture"])) is not None
    assert cv2.imread(str(tmp_path / "p" / "timeline.png")) is not None
    assert "FAIL" in capsys.readouterr().out
    with pytest.raises(InputError, match="--episode"):
        main([str(good)])
    with pytest.raises(InputError, match="does not exist"):
        main([str(tmp_path / "no.mp4"), *arguments])


def test_a_run_is_judged_once_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = create_run(tmp_path / "run", {}, scene.scene_episode().path)
    for name, video in (("a-s1/front", scene.clean_video()), ("b-s1/front", scene.faulty_video())):
        folder = run.take_folder(name)
        folder.mkdir(parents=True)
        write_video(folder / "take.mp4", video, 15)
        write_take_json(folder, variant=f"{name[0]}/front", frames=len(video))
    rows = verify_run(run.path)
    assert [row["overall"] for row in rows] == ["pass", "fail"]
    record = run.verdict_folder("b-s1/front") / "verdict.json"
    before = record.stat().st_mtime_ns
    assert verify_run(run.path) == rows
    assert record.stat().st_mtime_ns == before
    summary = json.loads((run.verdicts_folder / "summary.json").read_text())
    assert (summary["takes"], summary["pass"], summary["fail"], summary["yield"]) == (2, 1, 1, 0.5)
    assert "object_settled" in summary["rejected_for"]
    assert len(json.loads(record.read_text())["series"]["arm_offset"]) == FRAMES

    # What is damaged keeps nobody else from being judged, and is told when all are.
    record.unlink()
    gone = run.take_folder("a-s1/front") / "take.mp4"
    gone.unlink()
    elsewhere = run.take_folder("c-s1/front")
    shutil.copytree(run.take_folder("b-s1/front"), elsewhere)
    write_json(elsewhere / "take.json", {**read_json(elsewhere / "take.json"), "camera": "elsewhere"})
    with pytest.raises(
        VerdictError,
        match=r"'a-s1/front' cannot be judged: .*is missing .*; make it again, .* \(and 1 more: c-s1/front\)$",
    ):
        verify_run(run.path)
    assert read_json(record)["overall"] == "fail"
    assert read_json(run.verdicts_folder / "summary.json")["takes"] == 1
    gone.write_bytes((run.take_folder("b-s1/front") / "take.mp4").read_bytes()[:-1])
    with pytest.raises(VerdictError, match=r"'a-s1/front' cannot be judged: .*changed after it was made"):
        main([str(run.path)])
    assert "b-s1/front" in capsys.readouterr().out
    shutil.rmtree(gone.parent)
    with pytest.raises(
        VerdictError, match=r"'c-s1/front' .*names camera 'elsewhere'; its episode has: front; make it again, or"
    ):
        verify_run(run.path)


def enlarged(path: Path, factor: int) -> Episode:
    """The scene's episode recorded `factor` times as wide and high (every pixel repeated)."""

    def grown(frame: Frame) -> Frame:
        seen = frame.cameras[0]
        assert seen.instance_ids is not None
        ids, rgb = (np.repeat(np.repeat(a, factor, 0), factor, 1) for a in (seen.instance_ids, seen.rgb))
        K = np.diag([factor, factor, 1.0]) @ seen.K
        return replace(frame, cameras=(replace(seen, K=K, rgb=rgb, instance_ids=ids, depth_m=None, normals=None),))

    size = (scene.SIZE[0] * factor, scene.SIZE[1] * factor)
    return rewritten(
        path, lambda h: replace(h, cameras=(replace(h.cameras[0], size=size, channels=("rgb", "instances")),)), grown
    )  # fmt: skip


def test_the_same_picture_in_more_pixels_gets_the_same_figures(tmp_path: Path) -> None:
    video = scene.faulty_video()
    rows = []
    for factor in (2, 4):
        size = (scene.SIZE[0] * factor, scene.SIZE[1] * factor)
        large = (cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in video)
        rows.append(judge(large, enlarged(tmp_path / str(factor), factor), "front"))
    assert [c.status for c in rows[0].checks] == [c.status for c in rows[1].checks]
    for a, b in zip(rows[0].checks, rows[1].checks, strict=True):
        if a.unit == "px" and a.value is not None and b.value is not None:
            assert b.value == pytest.approx(a.value, abs=0.5), a.name
