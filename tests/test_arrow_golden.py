# SPDX-License-Identifier: Apache-2.0
"""Numbers of the stages between episode and dataset, against what was measured before: control maps, gate, lock, skeleton, takes,
episode checks, imports, end effectors, gap, robustness. One that changes by accident is seen.

`python tests/test_arrow_golden.py` writes them anew where they were changed on purpose.
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
import test_ends_laws as ends
import test_gap as gap
import test_import_recordings as recordings
import test_lens as lenses
import test_masks as masked
import test_takes as takes
from export_runs import make_header, make_run, write_episode
from golden_values import compare, load, store, summed_up
from scenes import make_scene_episode
from test_import_lerobot import CASES as LEROBOT
from test_import_lerobot import bring
from variant_faults import KINDS, plant

from retake.core.episode import Episode, open_episode
from retake.core.episode.check import CheckItem, check_episode
from retake.core.episode.events import object_events
from retake.core.episode.extra import extra_of
from retake.core.episode.motion import motion_px
from retake.core.export.physics import physics_arrays
from retake.core.files import write_json
from retake.core.gap.measure import gaps
from retake.core.gap.model import fit
from retake.core.geometry import axis_angle, transform
from retake.core.importers.episode_recorder import import_episode_recorder
from retake.core.importers.isaaclab import import_isaaclab
from retake.core.lens import straight_maps
from retake.core.masks import read_meshes
from retake.core.masks.fit import _Fit, foreground
from retake.core.masks.raster import paint
from retake.core.painter.composite import CompositeBackend
from retake.core.painter.procedural import ProceduralBackend
from retake.core.robustness.analysis import WorldResult, analyse
from retake.core.skeleton import skeleton_frames
from retake.core.skeleton.topology import arms_of
from retake.core.takes import TakeRequest
from retake.core.urdf import read_urdf
from retake.core.variants import load_catalogue, make_variants, source_frame
from retake.core.variants.carry import carry
from retake.core.variants.controls import control_maps
from retake.core.variants.gate import check_variant, thumbnail
from retake.core.variants.gate_skeleton import patches
from retake.core.variants.lock import lock_robot
from retake.core.variants.prompts import compose_prompts
from retake.core.variants.roles import find_roles
from retake.core.variants.sampler import coverage, sample_worlds
from retake.core.video import read_video

GOLDEN = Path(__file__).parent / "golden" / "arrow" / "numbers.json"
SHARE = 0.005
WORLDS = ("bun_warehouse", "kitchen_country", "beach")


@lru_cache(maxsize=1)
def folder() -> Path:
    made = tempfile.TemporaryDirectory(prefix="retake-arrow-")
    KEPT.append(made)
    return Path(made.name)


KEPT: list[Any] = []


@lru_cache(maxsize=1)
def scene() -> Episode:
    """Ten frames of the analytic scene seen by both cameras."""
    return make_scene_episode(folder() / "scene", frames=10, size=(240, 180), wrist=True)


def gate() -> dict[str, Any]:
    """Reports of three worlds' frames, of every planted fault in one of them, and what they are measured by."""
    source, painter, out = source_frame(scene(), "front", 0), ProceduralBackend(), {}
    for name in WORLDS:
        world = load_catalogue().preset(name)
        frame, seen = painter.render(source, world, 5), painter.shown(source, world)
        out[name] = {"report": _by_name(check_variant(frame, seen)), "thumbnail": thumbnail(frame)}
        if name == WORLDS[0]:
            out |= {kind: _by_name(check_variant(plant(kind, frame, seen), seen)) for kind in KINDS}
            out["locked"] = [lock_robot(frame, source), lock_robot(frame[..., ::-1].copy(), source, relight=False)]
    return out


def _by_name(report: Any) -> dict[str, Any]:
    return {c.name: [c.value, c.passed] for c in report.checks}


def maps() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for camera in ("front", "wrist"):
        source = source_frame(scene(), camera, 4)
        out[camera] = [
            control_maps(source), control_maps(source, keep_object=True), find_roles(source), patches(source),
            motion_px(scene(), camera, 4), motion_px(scene(), camera, 7, 2),
        ]  # fmt: skip
    return out


def carried() -> dict[str, Any]:
    first, other = source_frame(scene(), "front", 0), source_frame(scene(), "wrist", 0)
    painted = ProceduralBackend().render(first, load_catalogue().preset(WORLDS[0]), 1)
    found = carry(first, painted, other)
    return {"carried": found, "later": carry(first, painted, source_frame(scene(), "front", 6))}


def skeletons() -> dict[str, Any]:
    return {
        "arms": arms_of(scene()),
        **{camera: np.stack(list(skeleton_frames(scene(), camera))) for camera in ("front", "wrist")},
    }


def composite() -> dict[str, Any]:
    """Takes over the painter's own first frame and over a foreign one, of both cameras."""
    root, out = folder() / "takes", {}
    write_json(root / "skeleton" / "skeleton.json", {"sha256": "ab" * 32})
    for camera in ("front", "wrist"):
        make_variants(scene(), camera, root, worlds=[load_catalogue().preset("chips_conveyor")], seed=2)
        own = root / "chips_conveyor" / camera
        for name, variant in (("own", own), ("foreign", takes.make_foreign(own, root / f"foreign-{camera}"))):
            request = TakeRequest(scene().path, camera, root / "skeleton", variant, "p", frames=0)
            out[f"{camera} {name}"] = np.stack(list(CompositeBackend().generate(request)))
    return out


def worlds() -> dict[str, Any]:
    chosen = sample_worlds(9, seed=3)
    header = scene().header
    return {
        "sampled": {str(k): replace(w, parameters={}) for k, w in enumerate(chosen)}, "coverage": coverage(chosen),
        "prompts": {w.name: [len(text) for text in _texts(compose_prompts(header, w))] for w in chosen},
    }  # fmt: skip


def _texts(prompts: Any) -> list[str]:
    return [v for v in (getattr(prompts, name) for name in prompts.__dataclass_fields__) if isinstance(v, str)]


def checks() -> dict[str, Any]:
    random = write_episode(folder() / "random", make_header(3, cameras=("front", "wrist")), 7, 3)
    out: dict[str, Any] = {}
    for name, episode in (("scene", scene()), ("random", random)):
        found = check_episode(episode)
        out[name] = {
            "items": {f"{k} {item.name}": _placed(item) for k, item in enumerate(found.items)},
            "events": object_events(episode),
            "physics": physics_arrays(episode, episode.header.cameras[0].name, 1, 5),
        }  # fmt: skip
    return out


def _placed(item: CheckItem) -> CheckItem:
    """Where an error that is rounding alone is largest is another processor's other frame."""
    return replace(item, frame=None) if item.value is not None and abs(item.value) < 1e-9 else item


def of_episode(episode: Episode) -> dict[str, Any]:
    robot = episode.header.robots[0].name
    camera = episode.header.cameras[0].name if episode.header.cameras else ""
    return {
        "header": replace(episode.header, simulator_version=""), "position": episode.joint(robot, "position"),
        "links": episode.link_poses(robot), "objects": episode.object_poses, "extra": extra_of(episode),
        "camera": episode.camera_matrices(camera) if camera else None, "times": episode.time_s,
        "picture": episode.image(camera, "rgb", 1) if camera else None,
    }  # fmt: skip


def imports() -> dict[str, Any]:
    place = folder() / "imports"
    place.mkdir()
    urdf = place / "arm.urdf"
    urdf.write_text(recordings.URDF)
    out: dict[str, Any] = {}
    for name in ("lr_ok", "lr_nested_names", "lr_openpi_key"):
        cameras = {} if name == "lr_ok" else {"cameras": {"image": next(iter(lerobot_camera().values()))}}
        out[name] = of_episode(bring(LEROBOT / name, place / name, **(cameras if name == "lr_openpi_key" else {}))[0])
    lab = recordings.lab(
        place / "d.hdf5", urdf, env={"sim_args": {"dt": 0.01, "decimation": 2}}, xyzw=True, success=(True,)
    )
    out["isaaclab"] = of_episode(
        import_isaaclab(lab, place / "lab", urdf=urdf, arguments=["--joints", recordings.NAMES])
    )
    session = recordings.session(place / "s.hdf5", urdf)
    out["recorder"] = of_episode(
        import_episode_recorder(session, place / "session", urdf=urdf, arguments=["--task", "t"])
    )
    return out


def lerobot_camera() -> dict[str, Any]:
    from test_import_lerobot import CAMERA

    return CAMERA


def found_ends() -> dict[str, Any]:
    """Of robots of every kind, straight and turned, and of the URDFs that are here."""
    out: dict[str, Any] = {}
    rng = np.random.default_rng(4)
    for kind in ("slides", "hinges", "jaw", "hand", "flange"):
        for name, turns in (
            ("straight", [np.eye(3)] * 20),
            ("turned", [axis_angle(v / np.linalg.norm(v), np.float64(0.9)) for v in rng.normal(size=(20, 3))]),
        ):
            out[f"{kind} {name}"] = ends.found(kind, 1.1, turns, np.eye(4))[0]
    out["panda"] = read_urdf(LEROBOT / "panda.urdf")
    out["arm"] = gap_urdf()
    return out


def gap_urdf() -> Any:
    path = folder() / "gap.urdf"
    path.write_text(gap.URDF)
    return read_urdf(path)


def bent() -> dict[str, Any]:
    K = np.array([[300.0, 0, 330], [0, 310.0, 235], [0, 0, 1]])
    xy = np.stack(np.meshgrid(np.linspace(-0.6, 0.6, 9), np.linspace(-0.5, 0.5, 7)), -1)
    return {
        name: [
            lens.distort(xy),
            lens.undistort(xy),
            lens.bend(K, xy * 300 + 300),
            straight_maps(lens, K, (64, 48)),
        ]
        for name, lens in lenses.CALIBRATIONS.items()
    }


def actuators() -> dict[str, Any]:
    sim, real = gap.sim_log(), gap.real_log(0.002, 1)
    found, model = gaps(sim, real), fit(real)
    return {"gaps": {g.joint: g for g in found}, "model": model}


def robust() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    axes = [{"environment": e, "lighting": light} for e in "abc" for light in "xy" for _ in range(3)]
    results = [
        WorldResult(
            "r", f"w{k}", f"t{k}", own, rng.normal(size=(3, 2, 4)) * (2 if own["lighting"] == "y" else 1), 0.1 * k
        )
        for k, own in enumerate(axes)
    ]
    return {"analysis": analyse(results, 0.3, 0.05, 4)}


def straight_from_run() -> dict[str, Any]:
    run = make_run(folder() / "run", takes=1, cameras=("front", "wrist"))
    frames = list(read_video(run / "takes/v000/front/take.mp4"))
    state = of_episode(open_episode(run / "episode"))
    return {"frames": len(frames), "first": np.round(frames[0].astype(float).mean((0, 1)), 0), "state": state}


def masks() -> dict[str, Any]:
    """Meshes of every form, their pixels, what differs from the usual picture, and how well corrections fit."""
    place = folder() / "masks"
    (place / "meshes").mkdir(parents=True)
    (place / "arm.urdf").write_text(masked.URDF)
    (place / "meshes/fore.obj").write_text(masked.FORE_OBJ)
    robot, found = read_urdf(place / "arm.urdf", "tool"), read_meshes(place / "arm.urdf", place / "meshes")
    links = [i for i, link in enumerate(robot.links) if link.name in found.surfaces]
    surfaces, t = [found.surfaces[robot.links[i].name] for i in links], np.arange(8.0)
    frames, ids = masked.film(robot, surfaces, links, t)
    small = np.stack([cv2.resize(f, (160, 120), interpolation=cv2.INTER_AREA) for f in frames])
    poses = robot.forward_kinematics(masked.angles(t), np.broadcast_to(np.eye(4), (8, 4, 4)))
    rng = np.random.default_rng(0)
    clouds = [s.points(200, rng) for s in surfaces]
    points = np.stack(
        [np.concatenate([transform(pose[i], c) for i, c in zip(links, clouds, strict=True)]) for pose in poses]
    )
    fit = _Fit(foreground(small), points, np.diag([0.5, 0.5, 1]) @ masked.K, masked.TRUE)
    steps = [np.zeros(7), *(0.03 * np.eye(7)), np.array([0.01, -0.02, 0.03, 0.02, -0.01, 0.04, 0.6])]
    return {
        "surfaces": found.surfaces, "missing": found.missing, "ids": ids, "seen": fit.seen, "points": points,
        "depth": paint(surfaces, poses[3, links], range(1, len(links) + 1), masked.K, masked.TRUE, masked.SIZE)[1],
        "scores": np.array([fit.score(x, np.arange(8)) for x in steps]), "poses": np.stack([fit.pose(x) for x in steps]),
        "pixels": fit.pixels(steps[-1], np.arange(8)),
    }  # fmt: skip


CASES = {
    "gate": gate, "maps": maps, "carried": carried, "skeletons": skeletons, "composite": composite, "worlds": worlds,
    "checks": checks, "imports": imports, "ends": found_ends, "lenses": bent, "gap": actuators, "robustness": robust,
    "run": straight_from_run, "masks": masks,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_what_they_were(case: str) -> None:
    assert not compare(numbers(case), load(GOLDEN)[case], SHARE)


def numbers(case: str) -> dict[str, Any]:
    found = summed_up(CASES[case]())
    return {
        k: v for k, v in found.items() if not (isinstance(v, str) and (len(v) >= 40 or "/tmp" in v or "/work" in v))
    }


if __name__ == "__main__":
    store(GOLDEN, {case: numbers(case) for case in CASES})
    sys.exit(0)
