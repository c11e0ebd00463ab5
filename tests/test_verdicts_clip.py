# SPDX-License-Identifier: Apache-2.0
"""Presentation times decide which frame is compared with which: other rates, dropped frames, turned files, pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given
from hypothesis import strategies as st
from verdict_scenes import FRAMES

from retake.core.errors import InputError
from retake.core.verdicts import judge
from retake.core.verdicts.cli import main
from retake.core.verdicts.clip import Clip, open_clip
from retake.core.verdicts.records import Verdict

av = pytest.importorskip("av")


def write(path: Path, frames: np.ndarray, stamps: list[int], base: int, rotate: bool = False) -> Path:
    """A file whose frame k is presented at stamps[k] / base seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=base, options={"crf": "16", "preset": "veryfast", "bf": "0"})
        stream.time_base = stream.codec_context.time_base = Fraction(1, base)
        height, width = frames.shape[1:3]
        stream.width, stream.height, stream.pix_fmt = (
            (height, width, "yuv420p") if rotate else (width, height, "yuv420p")
        )
        for frame, stamp in zip(frames, stamps, strict=True):
            image = np.ascontiguousarray(np.rot90(frame)) if rotate else frame
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = stamp, Fraction(1, base)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def verdict_of(path: Path) -> Verdict:
    return judge(path, scene.scene_episode(), "front")


@pytest.mark.parametrize("rate", [24, 30])
def test_a_file_of_another_rate_is_compared_by_its_times(tmp_path: Path, rate: int) -> None:
    count = round(FRAMES * rate / 15)
    index = np.minimum(np.round(np.arange(count) * 15 / rate), FRAMES - 1).astype(int)
    path = write(tmp_path / "other.mp4", scene.clean_video()[index], list(range(count)), rate)
    verdict = verdict_of(path)
    assert verdict.overall == "pass", verdict.reasons
    assert "presentation times" in verdict.check("fps").note
    bad = write(tmp_path / "bad.mp4", scene.faulty_video()[index], list(range(count)), rate)
    assert verdict_of(bad).overall == "fail"


def test_dropped_frames_do_not_move_the_others(tmp_path: Path) -> None:
    kept = [t for t in range(FRAMES) if t not in (5, 12, 21, 27)]
    path = write(tmp_path / "vfr.mkv", scene.clean_video()[kept], [t * 1000 // 15 for t in kept], 1000)
    verdict = verdict_of(path)
    assert verdict.check("lag").value == pytest.approx(0, abs=0.3)
    assert verdict.overall == "pass", verdict.reasons
    # The same pictures without their times run ahead.
    assert judge(scene.clean_video()[kept], scene.scene_episode(), "front").overall == "fail"


def test_what_plays_too_fast_or_too_slowly_fails(tmp_path: Path) -> None:
    frames = scene.clean_video()
    for rate in (12, 20):
        verdict = verdict_of(write(tmp_path / f"{rate}.mp4", frames, list(range(FRAMES)), rate))
        assert verdict.overall == "fail"
    coarse = verdict_of(write(tmp_path / "coarse.mp4", frames[::3], list(range(FRAMES // 3)), 5))
    assert coarse.overall != "pass"
    assert "too far apart" in coarse.check("fps").note


def test_a_turned_file_is_judged_as_players_show_it(tmp_path: Path) -> None:
    upright = write(tmp_path / "turned.mp4", scene.clean_video(), list(range(FRAMES)), 15, rotate=True)
    data = bytearray(upright.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of header
    unit = [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30]
    assert bytes(data[at : at + 36]) == b"".join(v.to_bytes(4, "big") for v in unit)
    turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join((v & 0xFFFFFFFF).to_bytes(4, "big") for v in turn)
    upright.write_bytes(bytes(data))
    verdict = verdict_of(upright)
    assert verdict.size == (scene.SIZE[0], scene.SIZE[1])
    assert verdict.overall == "pass", verdict.reasons


def test_a_folder_of_pictures_is_a_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for t, frame in enumerate(scene.clean_video()):
        cv2.imwrite(str(tmp_path / f"frame_{t}.png"), frame[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    episode = scene.scene_episode()
    assert judge(tmp_path, episode, "front").overall == "pass"
    assert main([str(tmp_path), "--episode", str(episode.path), "--camera", "front"]) == 0
    assert "PASS" in capsys.readouterr().out
    (tmp_path / "frame_7.png").unlink()
    with pytest.raises(InputError, match="lacks picture 7"):
        judge(tmp_path, episode, "front")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="numbered"):
        judge(empty, episode, "front")


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_animated_pictures_are_takes(tmp_path: Path, suffix: str) -> None:
    if not hasattr(cv2, "imreadanimation"):
        pytest.skip(f"OpenCV {cv2.__version__} reads no animated pictures")
    animation = cv2.Animation()
    animation.frames = [np.ascontiguousarray(f[..., ::-1]) for f in scene.clean_video()]
    durations = np.diff(np.round(np.arange(FRAMES + 1) * 100 / 15)).astype(np.int32) * 10
    animation.durations = durations
    path = tmp_path / f"take.{suffix}"
    assert cv2.imwriteanimation(str(path), animation)
    verdict = judge(path, scene.scene_episode(), "front")
    assert verdict.frames == FRAMES
    for check in ("length", "lag", "arm_offset"):
        assert verdict.check(check).status == "pass", verdict.reasons
    bad = path.with_name(f"bad.{suffix}")
    bad.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="not a readable animated picture"):
        judge(bad, scene.scene_episode(), "front")


@given(
    rate=st.sampled_from([10, 12.5, 24, 25, 29.97, 30, 50, 60]), count=st.integers(4, 200), drop=st.floats(0, 0.3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_every_moment_gets_the_picture_that_is_nearest_in_time(rate: float, count: int, drop: float, seed: int) -> None:
    keep = np.random.default_rng(seed).random(count) >= drop
    keep[0] = keep[-1] = True
    times = np.flatnonzero(keep) / rate
    shown = Clip(Path("x"), rate, True, "", tuple(times)).shown(15.0)
    assert shown == sorted(shown)
    wanted = np.arange(len(shown)) / 15
    assert np.allclose(np.abs(times[shown] - wanted), np.abs(times[None] - wanted[:, None]).min(1))
    assert abs(len(shown) / 15 - count / rate) <= 1 / 15 + 2 * drop * count / rate


def test_a_file_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_clip(tmp_path / "none", 15)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="not a readable video"):
        open_clip(tmp_path / "text.mp4", 15)
