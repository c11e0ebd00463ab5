# SPDX-License-Identifier: Apache-2.0
"""What pixels say of an object's posture, field by field, on the analytic scene in other colours: as simulated, turned, sunk
away, half hidden and before a moving camera, against what they said before.

`python tests/test_verdicts_postures_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from scenes import SceneMotion, make_motion, make_scene_episode, ray_cast, scene_camera, solids_at, translation

from retake.core.episode import Episode, open_episode
from retake.core.episode.events import object_events
from retake.core.geometry import axis_angle
from retake.core.verdicts import load_settings
from retake.core.verdicts.footage import Footage, make_footage
from retake.core.verdicts.posture_evidence import Evidence, colours_of, early_frames, split
from retake.core.verdicts.posture_shapes import POSTURES, body_hull, outline_of
from retake.core.verdicts.posture_views import phase_views, width_of
from retake.core.verdicts.postures import measure_posture
from retake.core.verdicts.truth import Truth, read_truth

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "postures.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
FRAMES, SIZE, FPS = 20, (256, 192), 10.0
KEPT: list[Any] = []


@lru_cache(maxsize=1)
def episode() -> Episode:
    made = tempfile.TemporaryDirectory(prefix="retake-postures-")
    KEPT.append(made)
    make_scene_episode(Path(made.name) / "e", frames=FRAMES, size=SIZE, fps=FPS, shadows=False)
    return open_episode(Path(made.name) / "e")


def truth() -> Truth:
    return read_truth(episode(), "front", 0, FRAMES)


def part() -> int:
    return next(k for k in truth().object_parts if truth().parts[k].name == "packet")


def phases() -> list[str]:
    events = next(e for e in object_events(episode()) if e.object == "packet")
    return [events.phase(t) for t in range(FRAMES)]


def coloured(frame: np.ndarray, t: int) -> np.ndarray:
    """Other colours, light that changes slowly, and grain."""
    grain = np.random.default_rng(t).normal(0, 3, frame.shape)
    light = (1 + 0.02 * np.sin(t)) * np.linspace(0.9, 1.1, frame.shape[1])[None, :, None]
    return np.clip(frame[..., [1, 2, 0]] * light + grain + 6, 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def film(degrees: float) -> np.ndarray:
    """The take with the packet turned by that about its vertical, from the grasp on."""
    if not degrees:
        return np.stack([coloured(episode().image("front", "rgb", t), t) for t in range(FRAMES)])
    motion: SceneMotion = make_motion(FRAMES, FPS, 0)
    turn = np.eye(4)
    turn[:3, :3] = axis_angle(np.array([0.0, 0.0, 1.0]), np.float64(np.radians(degrees)))
    moved = replace(motion, T_world_packet=motion.T_world_packet @ turn)
    place = motion.T_world_packet[-1, :3, 3]
    tray, out = translation(float(place[0]), float(place[1]), 0.0), film(0).copy()
    for t in range(motion.grasp_frame, FRAMES):
        view = ray_cast(scene_camera("front", SIZE, motion, t), solids_at(moved, t, tray), shadows=False)
        out[t] = coloured(view.rgb, t)
    return out


def footage(pictures: np.ndarray, seen: Truth | None = None) -> Footage:
    return make_footage(pictures, seen or truth())


def blended(share: float) -> np.ndarray:
    """Between the faithful take and the turned one: what many pixels of a smeared take are."""
    return cv2.addWeighted(film(0), 1 - share, film(50), share, 0)


def half_lit() -> np.ndarray:
    """The scenery left of where the packet comes to rest has its colours."""
    out, centre = film(0).copy(), truth().centroid[-1, part()]
    mask = truth().labels == 0
    mask[:, :, int(centre[0]) :] = False
    out[mask] = np.median(film(0)[0][truth().labels[0] == part() + 1], axis=0).astype(np.uint8)
    return out


def seen_by() -> dict[str, tuple[Footage, Truth]]:
    plain, moving = truth(), replace(truth(), static_camera=False)
    return {
        "faithful": (footage(film(0)), plain), "turned": (footage(film(50)), plain),
        "smeared": (footage(blended(0.5)), plain), "sharp": (footage(blended(0.3)), replace(plain, px=2.0)),
        "moving": (footage(film(50), moving), moving), "half alike": (footage(half_lit()), plain),
        "unknown": (replace(footage(film(50)), known=np.zeros(SIZE[::-1], bool)), plain),
    }  # fmt: skip


def views() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, (shown, seen) in seen_by().items():
        colours, hull = colours_of(shown, seen, part()), body_hull(seen, episode(), "front", part())
        assert colours is not None
        assert hull is not None
        evidence = Evidence(shown, seen, part(), colours)
        found = phase_views(evidence, phases(), hull)
        out[name] = {
            "colours": [colours.tone, colours.luma], "hull": hull, "width": width_of(found),
            "earlier": {phase: {str(t): sure for t, sure in evidence.earlier(phases(), phase).items()} for phase in found},
            "views": {
                phase: [
                    rows,
                    [[v.field, v.doubted, v.free, v.whole, v.told, [int(o.sum()) for o in v.others]] for v in some],
                ]
                for phase, (rows, some) in found.items()
            },
        }  # fmt: skip
    return out


def measures() -> dict[str, Any]:
    settings = load_settings().object
    out: dict[str, Any] = {
        name: measure_posture(shown, seen, episode(), "front", part(), phases(), settings)
        for name, (shown, seen) in seen_by().items()
    }
    short = replace(truth(), area=np.where(np.arange(FRAMES)[:, None] < 9, 0.0, truth().area))
    out["late"] = [early_frames(one, part()) for one in (truth(), short)]
    out["late one"] = measure_posture(footage(film(0)), short, episode(), "front", part(), phases(), settings)
    tiny = replace(truth(), area=truth().area * 0.02)
    out["tiny"] = measure_posture(footage(film(0)), tiny, episode(), "front", part(), phases(), settings)
    out["outlines"] = [
        outline_of(truth(), episode(), "front", part(), t, name)
        for t in (0, FRAMES - 1) for name in (POSTURES[0].name, "lying", "sunk by 3 cm", "wider")
    ]  # fmt: skip
    out["split"] = list(split(film(0)[3]))
    return out


CASES = {"views": views, "measures": measures}


@pytest.mark.parametrize("case", CASES)
def test_postures_are_told_as_they_were(case: str) -> None:
    assert not compare(summed_up(CASES[case]()), load(GOLDEN)[case], SHARE)


def test_the_numbers_tell_a_turned_object_from_a_faithful_one() -> None:
    found, unsure = load(GOLDEN)["measures"], load_settings().threshold("object_posture").unsure
    assert found["faithful.value"] < found["smeared.value"] < unsure
    # Its lid was under the hand in all earlier frames: it is named, and unsure.
    assert found["turned.value"] is None
    assert found["turned.applies"]
    assert found["turned.note"].startswith("turned by 45°, held: or ")
    assert found["moving.value"] > unsure
    assert (found["late one.value"], found["late one.applies"]) == (None, False)
    assert (found["tiny.value"], found["tiny.applies"]) == (None, False)


def test_a_posture_that_nobody_knows_has_no_outline() -> None:
    assert outline_of(truth(), episode(), "front", part(), 0, "upside down") is None


if __name__ == "__main__":
    store(GOLDEN, {case: summed_up(make()) for case, make in CASES.items()})
    sys.exit(0)
