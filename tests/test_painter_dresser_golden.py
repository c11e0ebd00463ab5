# SPDX-License-Identifier: Apache-2.0
"""What the dresser knows of a scene step by step (light, shadow, exposure), against what it knew: in a whole picture a share of a
shadow is a level of 255, here it is a number of its own.

`python tests/test_painter_dresser_golden.py` writes the numbers anew where a step was changed on purpose.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from overhead import plain_header
from scenes import Solid, look_at, ray_cast, translation
from strategies import random_poses

from retake.core.camera import Camera
from retake.core.episode import CameraSpec, Instance, ObjectSpec
from retake.core.painter.dresser import Dresser
from retake.core.variants import load_catalogue
from retake.core.variants.base import SourceFrame
from retake.core.variants.scene import LeadView, Scene
from retake.core.variants.worlds import recipe_of

GOLDEN = Path(__file__).parent / "golden" / "painter" / "dresser.json"
SHARE = 4e-3
"""Of a number: another processor rounds differently, nothing more."""
FLOOR, TABLE, TRAY, STAND, PACKET, TIN, LINK = 1, 2, 3, 4, 7, 8, 10
INSTANCES = (
    Instance(FLOOR, "/World/Floor", "floor"), Instance(TABLE, "/World/Table", "table"), Instance(TRAY, "/World/Tray", "tray"),
    Instance(STAND, "/World/Stand", "stand"), Instance(PACKET, "/World/Obj0", "packet", "object:obj0"),
    Instance(TIN, "/World/Obj1", "tin", "object:obj1"), Instance(LINK, "/World/arm0/link1", "link", "robot:arm0"),
)  # fmt: skip
OBJECTS = (
    ObjectSpec("obj0", "/World/Obj0", "packet", (0.12, 0.05, 0.14), (0.0, 0.0, 0.0)),
    ObjectSpec("obj1", "/World/Obj1", "tin", (0.08, 0.08, 0.1), (0.0, 0.0, 0.0)),
)


@dataclass(frozen=True, eq=False)
class Placed(SourceFrame):
    """A frame of a scene that other cameras see as well."""

    around: Scene | None = None

    @property
    def scene(self) -> Scene | None:
        return self.around


def frame(
    size: tuple[int, int], moved: float = 0.0, *, static: bool = True, eye: tuple[float, float, float] = (1.1, -0.5, 0.75),
    links: bool = False,
) -> Placed:  # fmt: skip
    """A table with a tray, a stand, two things and a link of a robot above them. `moved`: how far what moves has come, m."""
    camera = Camera(
        np.array([[0.9 * size[0], 0, size[0] / 2], [0, 0.92 * size[0], size[1] / 2], [0, 0, 1]]),
        look_at(eye, (0.1, 0.0, 0.05)), size,
    )  # fmt: skip
    things = [translation(0.15 + moved, -0.1, 0.07), translation(0.0, 0.2 - moved, 0.05)]
    lean = translation(0.05, -0.05 + moved, 0.32)
    lean[:3, :3] = [[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]
    solids = (
        Solid("box", (4, 4, 0.1), translation(0, 0, -0.8), FLOOR, (0.5, 0.5, 0.5)),
        Solid("box", (0.9, 1.1, 0.06), translation(0.05, 0, -0.03), TABLE, (0.6, 0.5, 0.4)),
        Solid("box", (0.3, 0.25, 0.05), translation(0.25, 0.25, 0.025), TRAY, (0.2, 0.4, 0.6)),
        Solid("box", (0.1, 0.1, 0.2), translation(-0.25, -0.3, 0.1), STAND, (0.4, 0.4, 0.4)),
        Solid("box", OBJECTS[0].size_m, things[0], PACKET, (0.8, 0.3, 0.2)),
        Solid("box", OBJECTS[1].size_m, things[1], TIN, (0.3, 0.7, 0.2)),
        Solid("capsule", (0.05, 0.12, 0), lean, LINK, (0.9, 0.9, 0.92)),
    )
    seen = ray_cast(camera, solids)
    own = plain_header()
    spec = CameraSpec("front", "/World/front", size, static)
    header = replace(own, cameras=(spec,), instances=INSTANCES, objects=OBJECTS, settings={})
    poses = random_poses(np.random.default_rng(3), len(own.robots[0].links))
    poses[:, :3, 3] = 0.3 * np.tanh(poses[:, :3, 3]) + [0.1, moved, 0.4]
    assert seen.depth_m is not None
    assert seen.normals is not None
    assert seen.instance_ids is not None
    return Placed(
        header, "front", 0, camera, seen.rgb, seen.depth_m, seen.normals, seen.instance_ids, np.stack(things),
        (poses,) if links else (),
    )  # fmt: skip


def with_lead(source: Placed, lead: Placed) -> Placed:
    """As one of two cameras, of which the other one leads."""
    grid = [f.camera.unproject(f.camera.pixel_grid(), f.depth_m.astype(float)).reshape(-1, 3) for f in (lead, source)]
    hit = [f.depth_m.reshape(-1) > 0 for f in (lead, source)]
    points = np.concatenate([g[h] for g, h in zip(grid, hit, strict=True)]).astype(np.float32)
    ids = np.concatenate([f.instance_ids.reshape(-1)[h] for f, h in zip((lead, source), hit, strict=True)])
    eyes = np.stack([np.linalg.inv(f.camera.T_camera_world)[:3, 3] for f in (lead, source)])
    view = LeadView("front", lead.camera, lead.rgb, lead.depth_m, lead.normals, lead.instance_ids)
    return replace(source, around=Scene(ids, points, eyes, view))


def tiles(plane: np.ndarray) -> dict[str, np.ndarray]:
    """Of pictures, (…, H, W): sums of their parts know more than one of the whole."""
    h, w = plane.shape[-2] // 3, plane.shape[-1] // 3
    return {f"{y} {x}": plane[..., y * h : y * h + h, x * w : x * w + w] for y in range(3) for x in range(3)}


def known(made: Dresser, shown: np.ndarray) -> dict[str, Any]:
    width, height = made.size
    planes = {"ambient": made.ambient, "sunlit": made.sunlit, "still": made.still8}
    own = {name: tiles(p.reshape(3, height, width)) for name, p in planes.items()}
    return own | {
        "frame": tiles(np.moveaxis(shown, -1, 0)), "depth": made.known_depth, "id": made.known_id, "receiver": made.receiver_m,
        "level": float(made._robot_level), "gain": made.look.gain, "pose": made._pose, "eye": made._eye,
    }  # fmt: skip


def built(made: Dresser) -> dict[str, Any]:
    fields = (made.sun_still, made.sky_still, made.sun_near, made.sky_near)
    return {
        "heights": [tiles(np.where(f.height > -100, f.height, -1)) for f in fields], "metered": made._metered,
        "table": [made.surface.low, made.surface.high], "subjects": {i: s.front.levels[-1] for i, s in made.subjects.items()},
        "container": made.container.levels[2], "fixture": made.fixture.levels[2], "sun": made.light.to_sun,
        "set": [(b.low, b.high) for b in made.set.boxes], "grain": made.look.grain,
    }  # fmt: skip


def dressed(preset: str, seed: int, *frames: Placed, **changes: Any) -> dict[str, Any]:
    recipe = {**recipe_of(load_catalogue().preset(preset)), **changes}
    made = Dresser(frames[0], recipe, seed)
    out = {"built": built(made)}
    for number, source in enumerate(frames):
        shown = made.render(source)
        out[str(number)] = known(made, shown) | {
            "moving": [tiles(m) for step in (1, 2) for m in made.moving_shadows(source, step)]
        }
    return out


SMALL, WIDE = (96, 72), (322, 48)
LOW_SUN = {"azimuth_deg": -120, "elevation_deg": 24, "jitter_deg": 3, "sun": {"strength": 1.6}, "softness": 0.15}
CASES = {
    "standing": lambda: dressed("kitchen", 3, frame(SMALL), frame(SMALL, 0.06)),
    "low sun": lambda: dressed("conveyor_blue", 4, frame(SMALL, links=True), frame(SMALL, 0.06, links=True), lighting=LOW_SUN),
    "moving": lambda: dressed(
        "kitchen", 5, frame(SMALL, static=False), frame(SMALL, 0.03, static=False, eye=(0.8, 0.5, 0.7)), lighting=LOW_SUN
    ),
    "led": lambda: dressed(
        "kitchen", 6, with_lead(frame((64, 48), static=False, eye=(0.5, 0.6, 0.6)), frame(SMALL)), look={"exposure": 1.4},
    ),
    "wide": lambda: dressed("kitchen", 3, frame(WIDE, 0.05), look={"background_blur": 3.0}, lighting=LOW_SUN),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_scene_is_dressed_step_by_step_as_it_was(case: str) -> None:
    assert not compare(summed_up(CASES[case]()), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {case: summed_up(made()) for case, made in CASES.items()})
    sys.exit(0)
