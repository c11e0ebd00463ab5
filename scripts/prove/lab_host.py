# SPDX-License-Identifier: Apache-2.0
"""Parts of the proof of retake.lab that run in the real Isaac Lab (`.lab-env`): one part per process, one JSON each.

.lab-env/bin/python scripts/prove/lab_host.py PART OUT.json
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/lab"), str(ROOT / "tests")]

import lab_support as lab  # noqa: E402
import torch  # noqa: E402

from retake.core.episode import open_episode  # noqa: E402
from retake.core.files import write_json  # noqa: E402
from retake.core.geometry import inverse  # noqa: E402
from retake.lab.request import RecordRequest  # noqa: E402
from retake.lab.terms import RetakeRecorderCfg, RetakeRecorderManagerCfg  # noqa: E402
from retake.lab.wrapper import RetakeWrapper  # noqa: E402


def geometry(folder: Path, quick: bool) -> dict[str, Any]:
    """A whole pick-and-drop of two clones: kinematics, cameras, masks, depth, over every n-th frame."""
    import scripted

    cfg = lab.config(2, size=(320, 240))
    cfg.recorders = RetakeRecorderManagerCfg(
        retake=RetakeRecorderCfg(out=str(folder), env_ids=None, scenery=("Tray",), episodes=2)
    )
    env = lab.ManagerBasedRLEnv(cfg)
    triangles = link_triangles(env)
    policy = scripted.policy(env)
    obs, _ = env.reset()
    recorder = env.recorder_manager._terms["retake"].recorder
    began, steps = time.monotonic(), 0
    while not recorder.done and steps < (40 if quick else 160):
        obs, *_ = env.step(policy(env, obs))
        steps += 1
    seconds = time.monotonic() - began
    env.close()
    recorder.close()
    out: dict[str, Any] = {"control steps": steps, "seconds": round(seconds, 1), **recorder.summary()}
    worst = {"link m": 0.0, "wrist pose": 0.0, "object mask beyond 1 px": 0, "robot mask beyond 1 px": 0, "depth m": 0.0,
             "robot outline not in mask, px": 0}  # fmt: skip
    frames = 0
    for run in recorder.kept:
        episode = open_episode(run.episode)
        robot = episode.header.robots[0]
        links = episode.link_poses(robot.name)
        expected = robot.forward_kinematics(episode.joint(robot.name, "position"), links[:, robot.root])
        worst["link m"] = max(worst["link m"], float(np.abs(links - expected)[..., :3, 3].max()))
        T = episode.camera_matrices("wrist")[1]
        carried = inverse(T @ links[:, robot.link_index("panda_hand")])
        worst["wrist pose"] = max(worst["wrist pose"], float(np.abs(carried - carried[0]).max()))
        for k in range(0, len(episode), 8):
            frames += 1
            arm = lab.mask_of(episode, f"robot:{robot.name}", "front", k)
            outline = lab.robot_silhouette(episode, triangles, "front", k)
            worst["robot mask beyond 1 px"] = max(worst["robot mask beyond 1 px"], lab.beyond(arm, outline))
            other = lab.mask_of(episode, "object:packet", "front", k) | lab.mask_of(episode, "object:Tray", "front", k)
            table = next(i.id for i in episode.header.instances if i.prim_path.endswith("/Table"))
            ids = episode.image("front", "instances", k)
            hidden = lab.beyond(outline & ~other & (ids != table), arm)
            worst["robot outline not in mask, px"] = max(worst["robot outline not in mask, px"], hidden)
            packet = lab.mask_of(episode, "object:packet", "front", k)
            box = lab.box_silhouette(episode, "packet", "front", k)
            worst["object mask beyond 1 px"] = max(worst["object mask beyond 1 px"], lab.beyond(packet, box))
            top = (ids == table) & (episode.image("front", "normals", k)[..., 2] > 32000)
            if top.any():
                off = np.abs(episode.image("front", "depth", k) - lab.plane_depth(episode, "front", k, 0.0))[top]
                worst["depth m"] = max(worst["depth m"], float(off.max()))
    return {**out, "episodes kept": len(recorder.kept), "frames looked at": frames, **worst}


def link_triangles(env: Any) -> dict[str, np.ndarray]:
    """Link name → (F, 3, 3) triangles of its visible meshes, m, link frame."""
    from pxr import Usd, UsdGeom

    from retake.usd.articulation import read_articulations
    from retake.usd.units import StageUnits, world_pose

    stage = env.sim.stage
    (robot,) = read_articulations(stage, ["/World/envs/env_0/Robot"])
    units, cache, out = StageUnits.of(stage), UsdGeom.XformCache(), {}
    for link in robot.spec.links:
        body = stage.GetPrimAtPath(link.prim_path)
        T = inverse(world_pose(body, units))
        parts = []
        for prim in Usd.PrimRange(body, Usd.TraverseInstanceProxies()):
            if not prim.IsA(UsdGeom.Mesh) or UsdGeom.Imageable(prim).ComputePurpose() == "guide":
                continue
            mesh = UsdGeom.Mesh(prim)
            M = np.array(cache.GetLocalToWorldTransform(prim))
            points = np.asarray(mesh.GetPointsAttr().Get(), np.float64) @ M[:3, :3] + M[3, :3]
            points = points @ T[:3, :3].T + T[:3, 3]
            counts, indices = (
                np.asarray(mesh.GetFaceVertexCountsAttr().Get()),
                np.asarray(mesh.GetFaceVertexIndicesAttr().Get()),
            )
            start = np.concatenate([[0], np.cumsum(counts)[:-1]])
            for first, count in zip(start, counts, strict=True):
                corner = indices[first : first + count]
                parts += [points[[corner[0], corner[i], corner[i + 1]]] for i in range(1, count - 1)]
        if parts:
            out[link.name] = np.stack(parts)
    return out


def pairing(folder: Path, quick: bool, clones: int = 2, part: int = 0) -> dict[str, Any]:
    """Random schedules with a marker that says its step."""

    env = lab.make(clones, size=(96, 72))
    rng, count = np.random.default_rng([clones, part]), 3 if quick else 25
    totals = np.zeros(3, int)
    for i in range(count):
        totals += np.array(lab.run_schedule(env, rng, folder / str(i)))
    env.close()
    return {"schedules": count, "clones": clones, "pictures": int(totals[0]), "mispaired": int(totals[1]),
            "resets": int(totals[2])}  # fmt: skip


def round_trip(folder: Path, quick: bool, clones: int = 1) -> dict[str, Any]:
    """Record with Isaac Lab's own recorder beside ours; export; compare the two files; read ours by HDF5DatasetFileHandler,
    reset_to each state; repeat actions and joint targets, of Isaac Lab's own file as well: what it cannot repeat, nobody's
    file can."""
    import scripted
    from isaaclab.envs.mdp.recorders.recorders_cfg import ActionStateRecorderManagerCfg

    from retake.core.export import ExportOptions, Selection, export
    from retake.core.export.isaaclab_env import LabTarget

    cfg = lab.config(clones, size=(64, 48))
    cfg.recorders = ActionStateRecorderManagerCfg()
    cfg.recorders.dataset_export_dir_path, cfg.recorders.dataset_filename = str(folder), "own"
    cfg.recorders.retake = RetakeRecorderCfg(out=str(folder / "runs"), env_ids=None, episodes=clones)
    env = lab.ManagerBasedRLEnv(cfg)
    policy = scripted.policy(env)
    obs, _ = env.reset()
    recorder = env.recorder_manager._terms["retake"].recorder
    steps = 0
    while not recorder.done and steps < (12 if quick else 150):
        obs, *_ = env.step(policy(env, obs))
        steps += 1
    env.recorder_manager.record_pre_reset(None)
    recorder.close()
    del env.recorder_manager._terms["retake"]
    ended = [int(run.path.name[3:6]) for run in recorder.kept]
    out: dict[str, Any] = {"clones": clones, "control steps": steps}
    for version in (3, 2):
        options = ExportOptions("hdf5-isaaclab", isaaclab=LabTarget(version))
        runs = [run.path for run in recorder.kept]
        export(runs, folder / str(version), options, Selection(include_sim=True, unverified=True))
        path = folder / str(version) / "dataset.hdf5"
        for i, clone in enumerate(ended):
            if version == 3:
                out[f"clone {clone}: file against Isaac Lab's own file"] = lab.files_differ(
                    path, folder / "own.hdf5", f"demo_{i}"
                )
            key = f"clone {clone}, for Isaac Lab {version}"
            out[f"{key}: reset_to each state"] = lab.set_states(env, path, f"demo_{i}", clone)
            out[f"{key}: actions repeated"] = asdict(lab.replayed(env, path, f"demo_{i}", clone))
    for i, clone in enumerate(ended):
        path = folder / "3/dataset.hdf5"
        out[f"clone {clone}: joint targets repeated"] = asdict(
            lab.replayed(env, path, f"demo_{i}", clone, targets=True)
        )
        own = lab.replayed(env, folder / "own.hdf5", f"demo_{i}", clone)
        out[f"clone {clone}: Isaac Lab's own file, actions repeated"] = asdict(own)
        if clones > 1:
            other = lab.replayed(env, folder / "own.hdf5", f"demo_{i}", (clone + 1) % clones)
            out[f"clone {clone}: Isaac Lab's own file, actions repeated in another clone"] = asdict(other)
    env.close()
    return out


def planted(folder: Path, quick: bool) -> dict[str, Any]:
    """Faults planted in the recorder, in the real host: each must be seen by the marker, the mask or the recorder itself."""
    import pytest

    from retake.core.errors import EpisodeError

    env = lab.make(2, size=(96, 72))
    found: dict[str, str] = {}
    for name, plant in (("none", lambda patch: None), *lab.PLANTED.items()):
        rng, frames, wrong = np.random.default_rng(1), 0, 0
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            try:
                for i in range(3):
                    some, bad, _ = lab.run_schedule(env, rng, folder / f"{name.replace(' ', '_')}_{i}")
                    frames, wrong = frames + some, wrong + bad
                found[name] = f"{wrong} of {frames} pictures mispaired" if wrong else ""
            except EpisodeError as error:
                found[name] = str(error)
    env.close()
    alarms = [found.pop("none")]
    missed = [name for name, how in found.items() if not how]
    return {"caught": found, "missed": missed, "without a fault": alarms[0] or "nothing"}


def cost(folder: Path, quick: bool) -> dict[str, Any]:
    """Sixteen clones, one recorded: blocks of control steps with and without the recorder, in turn, drawing in both."""
    env = lab.ManagerBasedRLEnv(lab.standing(16))
    env.reset()
    action = torch.tensor([list(lab.pick_place_env.HOME.values())] * 16)

    def bare() -> None:
        _ = env.scene["front"].data
        env.step(action)

    def timed(step: Any, steps: int = 12) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.thread_time()
        for _ in range(steps):
            step()
        return (time.perf_counter() - wall) / steps, (time.thread_time() - cpu) / steps

    for _ in range(15):
        bare()
    rows = []
    for block in range(4 if quick else 24):
        without = timed(bare)
        wrapped = RetakeWrapper(env, RecordRequest(folder / str(block), env_ids=(5,)))
        for _ in range(3):
            wrapped.step(action)
        before = wrapped.recorder.cost_s
        within = timed(lambda wrapped=wrapped: wrapped.step(action))
        rows.append([(wrapped.recorder.cost_s - before) / 12 / within[0], within[1] / without[1] - 1, 1000 * within[0]])
        wrapped.finish()
    env.close()
    middle = np.median(np.array(rows), axis=0)
    return {
        "blocks": len(rows),
        "steps per block": 12,
        "recorder, share of a control step": round(float(middle[0]), 5),
        "CPU time of the stepping thread, increase": round(float(middle[1]), 5),
        "control step ms": round(float(middle[2]), 2),
    }


def memory(folder: Path, quick: bool, minutes: int = 30) -> dict[str, Any]:
    """Sixteen clones, one recorded, a thousand control steps (fewer where the minutes run out, and it says so): resident
    memory, and what recording costs."""
    env = lab.ManagerBasedRLEnv(lab.standing(16))
    wrapped = RetakeWrapper(env, RecordRequest(folder, env_ids=(5,)))
    wrapped.reset()
    action = torch.tensor([list(lab.pick_place_env.HOME.values())] * 16)
    steps, used, began, k = 60 if quick else 1000, {}, time.monotonic(), 0
    for k in range(steps + 1):
        wrapped.step(action)
        if k % (steps // 10) == 0:
            used[k] = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20
        if time.monotonic() - began > 60 * minutes:
            break
    summary = wrapped.recorder.summary()
    wrapped.close()
    return {"clones": 16, "steps": k, "resident MiB": used, **summary}


def main() -> int:
    """Run one part: geometry, round_trip:CLONES, pairing:CLONES:PART, planted, cost, memory."""
    name, out, quick = sys.argv[1], Path(sys.argv[2]), len(sys.argv) > 3
    with tempfile.TemporaryDirectory() as folder:
        kind, *more = name.split(":")
        parts = {"geometry": geometry, "memory": memory, "pairing": pairing, "round_trip": round_trip,
                 "planted": planted, "cost": cost}  # fmt: skip
        result = parts[kind](Path(folder), quick, *map(int, more))
    write_json(out, result)
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
