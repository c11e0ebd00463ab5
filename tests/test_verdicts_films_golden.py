# SPDX-License-Identifier: Apache-2.0
"""What trackers, silhouettes, surfaces, hands and scenery give on films of the analytic scene, with all they are made of, against
what they gave before.

`python tests/test_verdicts_films_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_verdicts_postures_golden as scene
from golden_values import compare, load, store, summed_up
from scenes import make_scene_episode
from test_views_golden import grained

from retake.core.verdicts import additions, control, fingers, geometry, intruders, novelty, stability, stills, wrists
from retake.core.verdicts.alignment import align
from retake.core.verdicts.bodies import bodies
from retake.core.verdicts.following import measure_following, motion_px
from retake.core.verdicts.footage import make_footage
from retake.core.verdicts.gripper_parts import find_fingers
from retake.core.verdicts.scene import open_scene
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.tracking import track
from retake.core.verdicts.truth import read_truth

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "films.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
SETTINGS = load_settings()
ASKED = replace(
    SETTINGS.stability, still_step=2, work_pixels=60, texture_area=60.0, texture_points=12, texture_frames=2, pairs=1,
    pair_frames=2,
)  # fmt: skip
"""What such small pictures show."""


def pasted() -> np.ndarray:
    """A second packet, and a thing that nobody put there, from a third of the take on."""
    out, truth = scene.film(0).copy(), scene.truth()
    y, x = np.argwhere(truth.labels[0] == scene.part() + 1).mean(0).astype(int)
    out[7:, y - 12 : y + 12, x - 40 : x - 16] = out[0, y - 12 : y + 12, x - 12 : x + 12]
    out[7:, 120:134, 150:164] = (30, 200, 60)
    return out


def marked() -> np.ndarray:
    """Stripes on the robot that go away, and light that flickers."""
    out, truth = scene.film(0).copy(), scene.truth()
    stripes = (np.indices(out.shape[1:3]).sum(0) // 3 % 2 == 0)[None] & np.isin(
        truth.labels, np.array(truth.robot_parts) + 1
    )
    out[:11][stripes[:11]] = (220, 220, 30)
    out[5] = np.clip(out[5] * 1.3, 0, 255)
    return out


FILMS = {
    "faithful": lambda: scene.film(0), "turned": lambda: scene.film(50), "pasted": pasted, "marked": marked,
    "creeping": lambda: np.stack([np.roll(f, t // 3, 1) for t, f in enumerate(scene.film(0))]),
}  # fmt: skip


def measured(case: str) -> dict[str, Any]:
    pictures, episode, truth, part = FILMS[case](), scene.episode(), scene.truth(), scene.part()
    footage, asked = scene.footage(pictures), SETTINGS.following
    found = align(footage, truth, asked.radius, asked.max_lag, asked.step)
    times = [t for t in range(scene.FRAMES) if t % 2 == 0]
    hands = find_fingers(episode, truth)
    blind = replace(episode, header=replace(episode.header, cameras=tuple(
        replace(c, channels=("rgb", "instances")) for c in episode.header.cameras
    )))  # fmt: skip
    return summed_up({
        "alignment": found, "track": track(footage, truth, part), "body": bodies(footage, truth, part, times),
        "wrist": wrists.measure_wrist(footage, found, truth, episode, "front", asked),
        "surfaces": [additions.measure_additions(footage, truth, ASKED, e, "front") for e in (episode, blind, None)],
        "fingers": fingers.measure_fingers(footage, truth, hands),
        "stills": stills.measure_stills(footage, truth, ASKED),
        "novelty": novelty.measure_novelty(footage, truth, episode, "front"),
        "leak": control.measure_leak(footage, truth, episode, "front"),
        "scenery": stability.measure_stability(footage, truth, motion_px(truth), ASKED),
        "work": intruders.workspace(truth, (128, 96)), "footage": footage,
    })  # fmt: skip


def on_the_hand() -> dict[str, Any]:
    """Films of the hand's camera: the scenery as it moves, late, backwards, and standing in the picture."""
    made = tempfile.TemporaryDirectory(prefix="retake-films-")
    scene.KEPT.append(made)
    episode = make_scene_episode(Path(made.name) / "e", frames=14, size=(160, 120), wrist=True, shadows=False)
    truth, out = read_truth(episode, "wrist", 0, 14), {}
    part = next(k for k in truth.object_parts if truth.parts[k].name == "packet")
    plain = np.stack([scene.coloured(grained(episode.camera_frame("wrist", t)), t) for t in range(14)])
    still = plain.copy()
    still[:] = np.where(truth.labels[..., None] == 0, plain[:1], plain)
    for name, film in {
        "moves": plain,
        "late": plain[[0, 0, *range(12)]],
        "back": plain[::-1].copy(),
        "stands": still,
    }.items():
        footage, behind = make_footage(film, truth), open_scene(episode, "wrist", truth)
        asked = SETTINGS.following
        found = align(footage, truth, asked.radius, 3, asked.step)
        out[name] = {
            "geometry": geometry.measure_geometry(footage, truth, episode, "wrist", ASKED),
            "track": track(footage, truth, part, behind), "body": bodies(footage, truth, part, list(range(14))),
            "scenery": stability.measure_stability(footage, truth, motion_px(truth), ASKED),
            "following": measure_following(found, truth, asked, footage), "motion": motion_px(truth),
        }  # fmt: skip
    return summed_up(out)


CASES = {**{case: lambda case=case: measured(case) for case in FILMS}, "on the hand": on_the_hand}


@pytest.mark.parametrize("case", CASES)
def test_a_film_measures_as_it_did(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
