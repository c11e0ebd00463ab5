# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes: the take's change against the recording. Planted lags, shifts, freezes, other segments and mirrors
fail; another look of the same motion does not; nothing passes without masks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.episode import CameraFrame, CameraSpec, Episode, EpisodeHeader, EpisodeWriter, Frame
from retake.core.verdicts import judge, load_settings
from retake.core.verdicts.cli import main
from retake.core.verdicts.motion import measure_recorded
from retake.core.verdicts.records import worst_of
from retake.core.video import read_video, write_video

DROID = Path(__file__).resolve().parents[1] / ".." / "shared" / "golden" / "droid" / "rgb.mp4"
COUNT = 60
SIZE = (160, 120)


@lru_cache(maxsize=1)
def recording() -> np.ndarray:
    """An arm of two bars over a textured room, moving now faster, now slower (COUNT, 120, 160, 3)."""
    rng = np.random.default_rng(2)
    room = (
        cv2.resize(rng.uniform(60, 200, (12, 16, 3)), SIZE, interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    )
    frames = []
    for t in range(COUNT):
        angle = 0.5 + 0.9 * np.sin(t / 9) + 0.15 * np.sin(t / 2.7)
        elbow = np.array([50 + 40 * np.cos(angle), 110 - 45 * np.sin(angle + 0.6)])
        hand = elbow + 30 * np.array([np.cos(2 * angle), -np.sin(2 * angle)])
        image = room.copy()
        for a, b, colour in (((40, 115), elbow, (230, 230, 235)), (elbow, hand, (40, 40, 50))):
            cv2.line(image, tuple(map(round, map(float, a))), tuple(map(round, map(float, b))), colour, 9, cv2.LINE_AA)
        frames.append(np.clip(image + rng.normal(0, 1.5, image.shape), 0, 255).astype(np.uint8))
    return np.stack(frames)


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    """The recording as an imported episode has it: pictures and nothing else."""
    header = EpisodeHeader(
        task="t", fps=15.0, physics_dt_s=1 / 15, robots=(), cameras=(CameraSpec("cam", "", SIZE, True, ("rgb",)),),
        simulator="recorded", motion_source="recorded",
    )  # fmt: skip
    K = np.array([[150.0, 0, 80], [0, 150.0, 60], [0, 0, 1]])
    with EpisodeWriter(tmp_path_factory.mktemp("recorded") / "episode", header) as writer:
        for t, image in enumerate(recording()):
            writer.append(Frame(t / 15, (), np.zeros((0, 4, 4)), (CameraFrame(K, np.eye(4), image),)))
        return writer.finish()


def shifted(frames: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Every frame moved by a fraction of the width."""
    height, width = frames.shape[1:3]
    M = np.array([[1, 0, dx * width], [0, 1, dy * width]], np.float32)
    return np.stack([cv2.warpAffine(f, M, (width, height), borderMode=cv2.BORDER_REPLICATE) for f in frames])


def frozen(frames: np.ndarray, begin: int, count: int) -> np.ndarray:
    """`count` frames repeat the one at `begin`."""
    out = frames.copy()
    out[begin : begin + count] = frames[begin]
    return out


def late(frames: np.ndarray, lag: int) -> np.ndarray:
    """Frame t shows t - lag."""
    return frames[np.clip(np.arange(len(frames)) - lag, 0, len(frames) - 1)]


def warped(frames: np.ndarray, pixels: float) -> np.ndarray:
    """A smooth displacement that moves, up to `pixels`."""
    height, width = frames.shape[1:3]
    rng = np.random.default_rng(1)
    fields = [
        cv2.resize(rng.normal(size=(4, 5, 2)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in "ab"
    ]
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    out = []
    for t, frame in enumerate(frames):
        mix = np.float32(0.5 + 0.5 * np.sin(t / 8))
        d = fields[0] * mix + fields[1] * (1 - mix)
        d *= np.float32(pixels / np.linalg.norm(d, axis=-1).max())
        out.append(cv2.remap(frame, u + d[..., 0], v + d[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return np.stack(out)


LOOKS = {
    "as it is": lambda f: f,
    "dark": lambda f: (f * 0.5).astype(np.uint8),
    "other hues": lambda f: np.ascontiguousarray(f[..., [1, 2, 0]]),
    "negative": lambda f: 255 - f,
    "smooth": lambda f: np.stack([cv2.bilateralFilter(one, 7, 60, 5) for one in f]),
    "warped": lambda f: warped(f, 1.5 * f.shape[2] / 320),
}
FAULTS = {
    "late by two": lambda f: late(f, 2),
    "early by three": lambda f: late(f[::-1], 3)[::-1],
    "moved by 2 % of the width": lambda f: shifted(f, 0.02, 0),
    "moved down": lambda f: shifted(f, 0, 0.025),
    "frozen for half a second": lambda f: frozen(f, 25, 9),
    "frozen": lambda f: frozen(f, 0, len(f)),
    "another segment": lambda f: np.roll(f, len(f) // 3, 0),
    "mirrored": lambda f: np.ascontiguousarray(f[:, :, ::-1]),
    "mirrored and recoloured": lambda f: np.ascontiguousarray(f[:, :, ::-1][..., [2, 0, 1]]),
    "backwards": lambda f: f[::-1],
}


@pytest.mark.parametrize("look", LOOKS)
def test_another_look_of_the_recording_never_fails(episode: Episode, look: str) -> None:
    verdict = judge(LOOKS[look](recording()), episode, "cam")
    assert verdict.overall == "unsure", verdict.reasons
    assert {c.name for c in verdict.checks if c.status == "unsure"} == {"masks"}
    assert "meshes" in verdict.check("masks").note
    assert verdict.exit_code == 4
    assert verdict.probability <= 0.5


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("look", ["as it is", "other hues"])
def test_planted_faults_fail(episode: Episode, fault: str, look: str) -> None:
    verdict = judge(FAULTS[fault](LOOKS[look](recording())), episode, "cam")
    assert verdict.overall == "fail", verdict
    assert verdict.probability < 0.1


def test_lag_and_shift_are_told_in_figures(episode: Episode) -> None:
    assert judge(late(recording(), 4), episode, "cam").check("recording_lag").value == pytest.approx(4, abs=0.3)
    moved = judge(shifted(recording(), 0.05, 0), episode, "cam")
    assert moved.check("recording_shift").value == pytest.approx(32, abs=3)
    assert moved.check("recording_lag").value == pytest.approx(0, abs=0.3)


@given(st.lists(st.sampled_from(["pass", "unsure", "fail"])))
def test_the_worst_of_several_verdicts_counts(found: list[str]) -> None:
    order = ["pass", "unsure", "fail"]
    assert worst_of(found) == max(found, key=order.index, default="unsure")


def test_a_recording_in_which_nothing_moves_says_so(episode: Episode) -> None:
    still = np.repeat(recording()[:1], 30, 0)
    found = {m.name: m for m in measure_recorded(still, still, load_settings().recorded)}
    assert all(m.value is None for m in found.values())
    assert "are needed to compare motion" in found["recording_lag"].note


def test_the_command_line_gives_pictures_and_exit_codes(
    episode: Episode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, frames, code in (("true", recording(), 4), ("late", late(recording(), 3), 3)):
        write_video(tmp_path / f"{name}.mp4", iter(frames), 15.0)
        arguments = [str(tmp_path / f"{name}.mp4"), "--episode", str(episode.path), "--pictures", str(tmp_path / name)]
        assert main(arguments) == code
    assert "recording_lag" in capsys.readouterr().out
    assert (tmp_path / "late" / "worst_recording_motion.png").is_file()


@pytest.mark.skipif(not DROID.is_file(), reason="the third-party DROID sample is not here (shared/golden/droid)")
def test_a_real_recording() -> None:
    real = np.stack([cv2.resize(f, (320, 180), interpolation=cv2.INTER_AREA) for f in read_video(DROID)])
    settings = load_settings()

    def failed(frames: np.ndarray) -> set[str]:
        found = measure_recorded(np.ascontiguousarray(frames), real, settings.recorded)
        return {m.name for m in found if m.value is not None and settings.threshold(m.name).fails(m.value)}

    for name, look in LOOKS.items():
        assert not failed(look(real)), name
    for name, fault in FAULTS.items():
        assert failed(fault(real)), name
