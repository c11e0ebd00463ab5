# SPDX-License-Identifier: Apache-2.0
"""One robot of the zoo, measured: what is read of it against an independent library, and a small sine motion simulated.

usage: measure.py ROBOT_FOLDER OUT_FOLDER [read|sine …]      writes OUT_FOLDER/result.json and picture.png

A refusal is a result, with its sentence; a traceback is one, too, and a defect.
"""

from __future__ import annotations

import csv
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.ends import declare, load_declarations
from retake.core.episode import Episode
from retake.core.errors import InputError, RetakeError
from retake.core.geometry import inverse
from retake.core.robot import GripperSpec
from retake.core.skeleton import skeleton_frames
from retake.newton.describe import scene_around
from retake.newton.run import capture
from retake.usd.articulation import Articulation, find_articulations
from retake.usd.stage import open_stage

sys.path.insert(0, str(Path(__file__).parent))
import make as zoo

FRAMES, FPS = 16, 15
SIZE = (320, 240)


def original_name(stage: Any, path: str) -> str:
    """The name that a prim had in its source: its display name where the converter had to change it."""
    prim = stage.GetPrimAtPath(path)
    return prim.GetDisplayName() or prim.GetName()


def reference(stage: Any, path: str) -> float:
    """By how much MuJoCo's value of a joint is larger than the stage's, which counts from the authored pose (rad or m)."""
    attribute = stage.GetPrimAtPath(path).GetAttribute("mjc:ref")
    return float(attribute.Get() or 0.0) if attribute else 0.0


def declared(stage: Any, robots: tuple[Articulation, ...], rows: list[dict[str, str]], out: Path) -> dict[str, Any]:
    """The ends as they are when ends.csv is written down as a declaration, and how many lines that takes."""
    ends, lines = [], 0
    for robot in robots:
        names = {original_name(stage, link.prim_path): link.name for link in robot.spec.links}
        mine = [(row, next((n for n in row["links"].split("|") if n in names), None)) for row in rows]
        text = ["ends:"]
        for row, link in ((row, link) for row, link in mine if link is not None):
            text.append(f"  - link: {json.dumps(names[link])}")
            # Axes are those of the first link.
            axes = ("approach", "opening") if link == row["links"].split("|")[0] else ()
            text += [f"    {key}: [{', '.join(row[key].split())}]" for key in axes if row[key]]
        file = out / "declared.robot.yaml"
        file.write_text("\n".join(text if len(text) > 1 else ["ends: []"]) + "\n", encoding="utf-8")
        lines += len(text)
        (spec,) = declare([robot.spec], load_declarations(file))
        ends += [(robot, end) for end in spec.grippers]
    return {"lines": lines, "ends": ends_of(stage, ends)}


def ends_of(stage: Any, ends: list[tuple[Articulation, GripperSpec]]) -> list[dict[str, Any]]:
    """End effectors as JSON, by the names of their source."""
    return [
        {"link": original_name(stage, link_path(r, g.ee_link)), "kind": g.kind, "T": g.T_link_ee.tolist(),
         "fingers": len(g.finger_joints)} for r, g in ends
    ]  # fmt: skip


def read(folder: Path, out: Path) -> dict[str, Any]:
    """Links, degrees of freedom, kinematics and limits against truth.npz; end effectors as found."""
    name = json.loads((folder / "converted.json").read_text("utf-8"))["stage"]
    stage = open_stage(folder / "stage" / name)
    found = find_articulations(stage)
    robots = found.robots
    truth = np.load(folder / "truth.npz")
    joints, links, q = [str(x) for x in truth["joints"]], [str(x) for x in truth["links"]], truth["q"]
    result: dict[str, Any] = {
        "robots": len(robots), "links": sum(len(r.spec.links) for r in robots), "refused": found.refused,
        "dofs": sum(len(r.spec.dof_names) for r in robots), "truth_dofs": len(joints),
        "ends": ends_of(stage, [(r, g) for r in robots for g in r.spec.grippers]),
    }  # fmt: skip
    fk, limits, compared, moved = 0.0, 0.0, 0, 0
    for robot in robots:
        columns = []
        for dof, joint in enumerate(robot.spec.dof_joints):
            source = original_name(stage, robot.dof_paths[dof])
            columns.append(joints.index(source) if source in joints else -1)
            if columns[-1] >= 0:
                moved += 1
                for mine, theirs in ((joint.lower, truth["lower"]), (joint.upper, truth["upper"])):
                    other = float(theirs[columns[-1]])
                    if np.isfinite(mine) and np.isfinite(other):
                        limits = max(limits, abs(mine - other))
        mine = np.where(np.array(columns) >= 0, q[:, np.maximum(columns, 0)], 0.0) if columns else np.zeros((len(q), 0))
        mine = mine - np.array([reference(stage, path) for path in robot.dof_paths])
        poses = robot.spec.forward_kinematics(mine, np.eye(4))
        root = original_name(stage, robot.spec.links[robot.spec.root].prim_path)
        if root not in links:
            continue
        base = truth["T_base_link"][:, links.index(root)]
        for number, link in enumerate(robot.spec.links):
            source = original_name(stage, link.prim_path)
            if source in links:
                relative = inverse(base) @ truth["T_base_link"][:, links.index(source)]
                fk = max(fk, float(np.abs(relative[:, :3, 3] - poses[:, number, :3, 3]).max()))
                compared += 1
    result["declared"] = declared(stage, robots, zoo.truth_of_ends().get(folder.name, []), out)
    result |= {"fk_m": fk, "limits": limits, "links_compared": compared, "dofs_matched": moved}
    return result


def link_path(robot: Articulation, name: str) -> str:
    """Prim path of a link by its display name."""
    return robot.spec.links[robot.spec.link_index(name)].prim_path


def sine(folder: Path, out: Path) -> dict[str, Any]:
    """A small sine on every leading joint, through the capture that users run."""
    name = json.loads((folder / "converted.json").read_text("utf-8"))["stage"]
    scene = scene_around(folder / "stage" / name, out / "scene.usda", model=folder.name)
    robots = find_articulations(open_stage(scene)).robots
    episode, how = None, "auto"
    for drives in ("auto", "fill"):
        write_sine(robots, out / "motion.csv")
        try:
            episode = capture(
                out / f"episode_{drives}",
                stage=scene,
                overrides={
                    "motion_file": str(out / "motion.csv"), "fps": FPS, "drives": drives,
                    "cameras": [{"name": "front", "size": list(SIZE)}],
                },
            )  # fmt: skip
            how = drives
            break
        except InputError as error:
            if drives == "fill" or "drives=fill" not in str(error):
                raise
    assert episode is not None
    worst, lag = 0.0, 0.0
    for robot in episode.header.robots:
        q, poses = episode.joint(robot.name, "position"), episode.link_poses(robot.name)
        expected = robot.forward_kinematics(q, poses[:, robot.root])
        worst = max(worst, float(np.abs(expected[..., :3, 3] - poses[..., :3, 3]).max()))
        target = episode.joint(robot.name, "target")
        if q.shape[1]:
            lag = max(lag, float(np.abs(q[1:] - target[:-1]).max()))
    cv2.imwrite(str(out / "picture.png"), picture(episode)[..., ::-1])
    driven = sum(sum(robot.driven) for robot in episode.header.robots)
    notes = episode.header.settings.get("notes", [])
    return {"fk_simulator_m": worst, "lag": lag, "drives": how, "driven": driven, "notes": notes}


def write_sine(robots: tuple[Articulation, ...], file: Path) -> None:
    """0.1 rad or 1 cm, at most a fifth of the joint's range, about its start, one period a second."""
    header, amplitude, middle = ["time_s"], [], []
    for robot in robots:
        for dof in robot.spec.leading_dofs:
            joint = robot.spec.dof_joints[dof]
            span = joint.upper - joint.lower
            size = min(0.1 if joint.kind == "revolute" else 0.01, span / 5 if np.isfinite(span) else np.inf)
            low = joint.lower + size if np.isfinite(joint.lower) else -np.inf
            high = joint.upper - size if np.isfinite(joint.upper) else np.inf
            header.append(robot.dof_paths[dof])
            amplitude.append(size)
            middle.append(float(np.clip(robot.initial_position[dof], low, high)))
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(header)
        for k in range(FRAMES):
            s = 0.5 - 0.5 * np.cos(2 * np.pi * k / FPS)
            rows.writerow([k / FPS, *(m + a * (2 * s - 1) for m, a in zip(middle, amplitude, strict=True))])


def picture(episode: Episode) -> np.ndarray:
    """The last frame with its skeleton drawn over it; without one where there is none to draw."""
    rgb = episode.image("front", "rgb", len(episode) - 1)
    try:
        *_, drawn = skeleton_frames(episode, "front")
    except RetakeError:
        return rgb
    drawn = cv2.resize(drawn, SIZE, interpolation=cv2.INTER_AREA)
    lit = drawn.max(-1, keepdims=True) > 40
    return np.where(lit, drawn, (rgb * 0.75).astype(np.uint8))


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    parts, kept = sys.argv[3:] or ["read", "sine"], out / "result.json"
    result: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    for part in (read, sine):
        if part.__name__ not in parts:
            continue
        try:
            result[part.__name__] = part(folder, out)
        except RetakeError as error:
            result[part.__name__] = {"said": str(error)}
        except Exception:
            result[part.__name__] = {"traceback": traceback.format_exc()[-1500:]}
    kept.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
