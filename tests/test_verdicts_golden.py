# SPDX-License-Identifier: Apache-2.0
"""Every number that judging measures on some takes of the analytic scene, against what was measured before: a measurement that
changes by accident is seen.

`python tests/test_verdicts_golden.py` writes the numbers anew where a measurement was changed on purpose.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_verdicts_recorded as recorded
import verdict_scenes as scene
from golden_values import compare, load, store, summed_up
from scenes import make_motion, make_scene_episode

from retake.core.episode import Episode
from retake.core.geometry import axis_angle
from retake.core.verdicts import examine, load_settings
from retake.core.verdicts.motion import measure_recorded

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "numbers.json"
SHARE = 0.02
"""Of a number: another processor rounds differently (without AVX2 `sharpness_loss` moves by 0.7 %), nothing more."""


def turned_packet() -> np.ndarray:
    """The packet turns in the hand by up to 40 degrees."""
    poses = make_motion(scene.FRAMES, 15.0, 0).T_world_packet.copy()
    for t in range(scene.FRAMES):
        poses[t, :3, :3] = poses[t, :3, :3] @ axis_angle(np.array([0.0, 0.0, 1.0]), np.float64(0.7 * t / scene.FRAMES))
    return scene.paint(scene.posed_maps(poses), "clutter", 2)


def slow_fall() -> np.ndarray:
    """The packet, let go, sinks half as fast."""
    motion = make_motion(scene.FRAMES, 15.0, 0)
    poses = motion.T_world_packet.copy()
    for t in range(motion.release_frame, scene.FRAMES):
        poses[t] = motion.T_world_packet[motion.release_frame + (t - motion.release_frame) // 2]
    return scene.paint(scene.posed_maps(poses), "wood", 5)


def pasted(frames: np.ndarray) -> np.ndarray:
    """A second packet beside the first: a patch of each frame copied 60 px to the left."""
    out = frames.copy()
    out[:, 90:150, 60:120] = frames[:, 90:150, 140:200]
    return out


FRONT = {
    "clean": scene.clean_video,
    "clutter": lambda: scene.paint(scene.scene_maps(), "clutter", 3),
    "packet frozen": scene.faulty_video,
    "packet turned": turned_packet,
    "slow fall": slow_fall,
    "moved": lambda: recorded.shifted(scene.clean_video(), 0.013, 0.008),
    "late": lambda: recorded.late(scene.clean_video(), 2),
    "frozen": lambda: recorded.frozen(scene.clean_video(), 10, 7),
    "pasted": lambda: pasted(scene.clean_video()),
    "drifting": lambda: scene.paint(scene.scene_maps(), "wood", 2, "background_drift", 1.0),
    "flicker": lambda: scene.paint(scene.scene_maps(), "wood", 2, "flicker", 0.2),
    "colours": lambda: scene.paint(scene.scene_maps(), "wood", 2, "colour_shift", 0.5),
}


def numbers(video: np.ndarray, episode: Episode, camera: str, of_episode: bool = False) -> dict[str, Any]:
    """What judging measures, and what it reads of the episode if asked for."""
    judged = examine(video, episode, camera)
    said = judged.verdict.to_json()
    parts = {
        **{name: said[name] for name in ("overall", "probability", "series", "events", "metrics")},
        "checks": {c.name: (c.status, c.value, c.worst_frame) for c in judged.verdict.checks},
        "measured": {m.name: (m.value, m.applies) for m in judged.measurements},
        "alignment": judged.alignment, "tracks": judged.tracks, "footage": judged.footage,
    }  # fmt: skip
    found = summed_up(parts | ({"truth": judged.truth} if of_episode else {}))
    # Where the second best place is, of many that are equally poor, is decided by how a processor rounds.
    return {name: value for name, value in found.items() if ".second_at[" not in name}


@lru_cache(maxsize=1)
def known() -> dict[str, dict[str, Any]]:
    return load(GOLDEN)


def of_front(case: str) -> dict[str, Any]:
    return numbers(FRONT[case](), scene.scene_episode(), "front", of_episode=case == "clean")


@pytest.mark.parametrize("case", FRONT)
def test_a_take_measures_as_it_did(case: str) -> None:
    assert not compare(of_front(case), known()[case], SHARE)


def on_the_hand(folder: Path) -> dict[str, Any]:
    episode = make_scene_episode(folder / "wrist", frames=scene.FRAMES, size=scene.SIZE, wrist=True, shadows=False)
    maps = scene.load_maps(episode, "wrist", 0, scene.FRAMES)
    shaken = replace(maps, T_camera_world=maps.T_camera_world[::-1])
    return {
        "wrist clean": numbers(scene.paint(maps, "clutter", 4), episode, "wrist", of_episode=True),
        "wrist shaken": numbers(scene.paint(shaken, "clutter", 4), episode, "wrist"),
    }


def test_a_take_of_the_hands_camera_measures_as_it_did(tmp_path: Path) -> None:
    for case, found in on_the_hand(tmp_path).items():
        assert not compare(found, known()[case], SHARE), case


RECORDED = {
    "recorded warped": recorded.LOOKS["warped"],
    "recorded late": lambda f: recorded.late(f, 3),
    "recorded moved": lambda f: recorded.shifted(f, 0.02, 0.01),
    "recorded frozen": lambda f: recorded.frozen(f, 25, 9),
}


def of_recording(case: str) -> dict[str, Any]:
    frames = recorded.recording()
    return summed_up({m.name: m for m in measure_recorded(RECORDED[case](frames), frames, load_settings().recorded)})


@pytest.mark.parametrize("case", RECORDED)
def test_a_take_of_a_recording_measures_as_it_did(case: str) -> None:
    assert not compare(of_recording(case), known()[case], SHARE)


def settings() -> dict[str, Any]:
    """Numbers alone: why they are what they are may be said in other words."""
    return {k: v for k, v in summed_up(load_settings()).items() if not isinstance(v, str)}


def test_the_settings_are_those_that_were_measured_with() -> None:
    assert not compare(settings(), known()["settings"], 0.0)


def test_no_number_is_of_a_take_that_is_gone() -> None:
    assert set(known()) == {*FRONT, "settings", "wrist clean", "wrist shaken", *RECORDED}


if __name__ == "__main__":
    import tempfile

    values = {case: of_front(case) for case in FRONT} | {"settings": settings()}
    with tempfile.TemporaryDirectory() as folder:
        values |= on_the_hand(Path(folder))
    store(GOLDEN, values | {case: of_recording(case) for case in RECORDED})
    sys.exit(0)
