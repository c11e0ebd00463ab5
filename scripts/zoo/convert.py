# SPDX-License-Identifier: Apache-2.0
"""Runs inside the zoo's own environment: one robot description becomes a USD stage and a file of ground truth.

usage: convert.py KIND FILE OUT_DIR

`stage/` holds what the converter wrote, `truth.npz` what another library says about the same description:

    joints (J,) names, kinds (J,) revolute|prismatic, lower and upper (J,) rad or m (infinite where none),
    q (K, J) random positions within the limits, rad or m, seed 0,
    links (L,) names, T_base_link (K, L, 4, 4) m, relative to the first link of the tree.

URDF is read by yourdfpy with mimic tags taken out (every movable joint is free), MJCF by MuJoCo itself.
"""

from __future__ import annotations

import argparse
import io
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "exts/retake.newton/retake/newton"))
import converter_host

CONFIGURATIONS = 20
FREE_RANGE = {"revolute": np.pi, "prismatic": 0.2}
"""Half the range that a joint without limits is moved in."""


def draw(kinds: list[str], lower: list[float], upper: list[float]) -> np.ndarray:
    """(K, J) positions within the limits; the first is 0 clipped to them."""
    rng = np.random.default_rng(0)
    low = [lo if np.isfinite(lo) else -FREE_RANGE[k] for k, lo in zip(kinds, lower, strict=True)]
    high = [hi if np.isfinite(hi) else FREE_RANGE[k] for k, hi in zip(kinds, upper, strict=True)]
    q = rng.uniform(low, high, (CONFIGURATIONS, len(kinds)))
    q[0] = np.clip(0.0, low, high)
    return q


def urdf_truth(file: Path) -> dict[str, Any]:
    import yourdfpy

    tree = ET.parse(file)
    for joint in tree.getroot().iter("joint"):
        for mimic in joint.findall("mimic"):
            joint.remove(mimic)
    text = io.BytesIO(ET.tostring(tree.getroot()))
    model = yourdfpy.URDF.load(text, load_meshes=False, build_scene_graph=True, load_collision_meshes=False)
    joints = [model.joint_map[name] for name in model.actuated_joint_names]
    kinds = ["prismatic" if j.type == "prismatic" else "revolute" for j in joints]
    bounded = [j.limit is not None and j.type != "continuous" for j in joints]
    lower = [float(j.limit.lower or 0) if b else -np.inf for j, b in zip(joints, bounded, strict=True)]
    upper = [float(j.limit.upper or 0) if b else np.inf for j, b in zip(joints, bounded, strict=True)]
    velocity = [float(j.limit.velocity or 0) if j.limit is not None else np.inf for j in joints]
    q = draw(kinds, lower, upper)
    links, poses = list(model.link_map), []
    for row in q:
        model.update_cfg(row)
        poses.append([model.get_transform(link, model.base_link) for link in links])
    return {
        "joints": model.actuated_joint_names, "kinds": kinds, "lower": lower, "upper": upper, "q": q, "links": links,
        "T_base_link": np.array(poses), "base": model.base_link, "velocity": velocity,
    }  # fmt: skip


def mjcf_truth(file: Path) -> dict[str, Any]:
    import mujoco

    model = mujoco.MjModel.from_xml_path(str(file))
    data = mujoco.MjData(model)
    types = {int(mujoco.mjtJoint.mjJNT_HINGE): "revolute", int(mujoco.mjtJoint.mjJNT_SLIDE): "prismatic"}
    ids = [j for j in range(model.njnt) if int(model.jnt_type[j]) in types]
    kinds = [types[int(model.jnt_type[j])] for j in ids]
    lower = [float(model.jnt_range[j, 0]) if model.jnt_limited[j] else -np.inf for j in ids]
    upper = [float(model.jnt_range[j, 1]) if model.jnt_limited[j] else np.inf for j in ids]
    q = draw(kinds, lower, upper)
    bodies = range(1, model.nbody)
    poses = np.tile(np.eye(4), (len(q), len(bodies), 1, 1))
    for k, row in enumerate(q):
        mujoco.mj_resetData(model, data)
        data.qpos[model.jnt_qposadr[ids]] = row
        mujoco.mj_kinematics(model, data)
        world = np.tile(np.eye(4), (len(bodies), 1, 1))
        world[:, :3, :3], world[:, :3, 3] = data.xmat[1:].reshape(-1, 3, 3), data.xpos[1:]
        poses[k] = np.linalg.inv(world[0]) @ world
    names = [model.body(b).name or f"Body_{b}" for b in bodies]
    return {
        "joints": [model.joint(j).name for j in ids], "kinds": kinds, "lower": lower, "upper": upper, "q": q,
        "links": names, "T_base_link": poses, "base": names[0], "velocity": [np.inf] * len(ids),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("urdf", "mjcf"))
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.file if options.kind == "urdf" else converter_host.mended_mjcf(options.file)[0]
    np.savez_compressed(options.out / "truth.npz", **(urdf_truth if options.kind == "urdf" else mjcf_truth)(file))
    converter_host.convert(options.kind, options.file, options.out)


if __name__ == "__main__":
    main()
