# SPDX-License-Identifier: Apache-2.0
"""HDF5 demonstrations of Isaac Lab, replayed in their environment: what was recorded without depth and instances becomes a
full Episode. Reset to the initial state, then the actions again (or every recorded state, `--states`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.errors import InputError
from retake.core.importers.isaaclab import choose_demo, env_args, quaternion_order, success_in
from retake.core.importers.recorded import open_hdf5
from retake.lab import host

TOLERANCE = 0.01
"""Of Isaac Lab's own `replay_demos --validate_states`: every number of every state."""


def read_demos(path: Path, names: list[str], *, failed: bool) -> tuple[list[dict[str, Any]], list[str], str]:
    """(demonstrations, those left out, environment's name); states with quaternions x y z w. Raises EpisodeError."""
    with open_hdf5(path) as file:
        order = quaternion_order(file)
        every = sorted(file.get("data") or (), key=lambda n: (len(n), n))
        out, left = [], []
        for name in names or every or [""]:
            if not names and not failed and name and success_in(file["data"][name]) is False:
                left.append(name)
                continue
            demo = choose_demo(file, name, path, failed=failed)
            if "initial_state" not in demo or "actions" not in demo:
                raise InputError(
                    f"{path}: {name} has no initial_state or no actions; a replay begins with the one and needs both"
                )
            out.append({
                "name": name, "success": success_in(demo), "actions": np.asarray(demo["actions"], np.float32),
                "initial": _tree(demo["initial_state"], order),
                "states": _tree(demo["states"], order) if "states" in demo else None,
                "targets": _tree(demo["joint_targets"], order) if "joint_targets" in demo else None,
            })  # fmt: skip
        if not out:
            choose_demo(file, "", path)  # says which failed
        return out, left, str(env_args(file, path).get("env_name", ""))


def _tree(group: Any, order: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in group.items():
        if hasattr(value, "items"):
            out[key] = _tree(value, order)
        else:
            rows = np.asarray(value, np.float32)
            if key == "root_pose" and order == host.WXYZ:
                rows = np.concatenate([rows[..., :3], rows[..., 4:7], rows[..., 3:4]], -1)
            out[key] = rows
    return out


def state_at(tree: dict[str, Any], index: int, device: Any, order: str = host.XYZW) -> dict[str, Any]:
    """Row `index` of every array as tensors (1, …), quaternions in the environment's own order."""
    import torch

    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out[key] = state_at(value, index, device, order)
        else:
            row = value[index : index + 1]
            if key == "root_pose" and order == host.WXYZ:
                row = np.concatenate([row[..., :3], row[..., 6:7], row[..., 3:6]], -1)
            out[key] = torch.as_tensor(row.copy(), device=device)
    return out


def worst_difference(recorded: dict[str, Any], now: dict[str, Any], index: int, env_id: int) -> tuple[float, str]:
    """Largest difference of any number of a recorded state from the scene's, and where. Both x y z w."""
    worst, where = 0.0, ""
    for kind in ("articulation", "rigid_object"):
        for name, parts in recorded.get(kind, {}).items():
            for part, rows in parts.items():
                mine = host.array(now[kind][name][part])[env_id]
                row = rows[index]
                if part == "root_pose" and float(np.dot(row[3:7], mine[3:7])) < 0:
                    row = np.concatenate([row[:3], -row[3:7]])  # the same turn
                off = float(np.abs(row - mine).max(initial=0.0))
                if off > worst:
                    worst, where = off, f"{kind}/{name}/{part}"
    return worst, where


def replay_file(options: Any, clone: int, environment: Callable[..., Any], report: Callable[[Any], None]) -> int:
    """The command, in one clone. Raises RetakeError."""
    import torch

    from retake.core.progress import Bar, silent
    from retake.lab.recorder import LabRecorder, require_complete

    demos, left, name = read_demos(options.demos, options.demo, failed=options.failed)
    options.task = options.task or name
    env, request = environment(options, options.num_envs, (clone,), 0)
    inner = env.unwrapped
    try:
        recorder = LabRecorder(inner, request)
    except BaseException:
        env.close()
        raise
    recorder.left_out += [f"{demo}: failed (success = False); --failed replays it" for demo in left]
    ids = torch.tensor([clone], device=inner.device, dtype=torch.int32)
    bar = silent if options.quiet else Bar("Replay")
    results = {}
    try:
        env.reset(seed=options.seed)
        order = host.quaternion_order(inner.scene)
        for demo in demos:
            require_fit(demo, inner, options.demos, states=options.states)
        for number, demo in enumerate(demos):
            bar(number, len(demos), demo["name"])
            inner.reset_to(state_at(demo["initial"], 0, inner.device, order), ids, is_relative=True)
            recorder.after_reset([clone])
            worst = (0.0, "", -1)
            states = demo["states"]
            for k, action in enumerate(demo["actions"]):
                actions = torch.as_tensor(action, device=inner.device)[None].repeat(inner.num_envs, 1)
                recorder.before_step(actions)
                if options.states and states is not None:  # require_fit has made sure of it
                    inner.scene.reset_to(state_at(states, k, inner.device, order), ids, is_relative=True)
                    inner.sim.forward()
                    inner._sim_step_counter += inner.cfg.decimation
                    inner.scene.update(dt=inner.step_dt)
                else:
                    step_without_reset(inner, actions)
                recorder.after_step()
                if states is not None:
                    now = _xyzw(inner.scene.get_state(is_relative=True), order)
                    worst = max(worst, (*worst_difference(states, now, k, clone), k))
            recorder.before_reset([clone], reason=f"replayed {demo['name']}")
            recorder.set_success([clone], [bool(demo["success"])])
            recorder.after_reset([clone])
            results[demo["name"]] = {"largest_difference": worst[0], "where": worst[1], "step": worst[2],
                                     "within_tolerance": worst[0] <= TOLERANCE}  # fmt: skip
    finally:
        recorder.close()
        env.close()
    require_complete(recorder)
    (request.out / "replay.json").write_text(json.dumps(results, indent=1), "utf-8")
    for demo, result in results.items():
        good = "as recorded" if result["within_tolerance"] else "NOT as recorded"
        print(
            f"{demo}: {good}; largest difference {result['largest_difference']:.2e} ({result['where']}, step {result['step']})"
        )
    report(recorder)
    return 0


def require_fit(demo: dict[str, Any], env: Any, path: Path, *, states: bool = False) -> None:
    """Raise InputError where a demonstration is not of this environment: another kind, other assets, other actions."""
    name = f"{path}: {demo['name']}"
    manager = getattr(env, "action_manager", None)
    if manager is None or not hasattr(env, "reset_to"):
        raise InputError(f"{name} cannot be replayed in {type(env).__name__}; expected a manager-based environment")
    width = int(manager.total_action_dim)
    if demo["actions"].ndim != 2 or demo["actions"].shape[1] != width:
        raise InputError(f"{name} has actions of shape {demo['actions'].shape}; the environment takes {width} numbers")
    if states and demo["states"] is None:
        raise InputError(f"{name} has no states for --states to set; without --states its actions are repeated")
    for kind, assets in env.scene.get_state(is_relative=True).items():
        for asset, parts in assets.items():
            held = demo["initial"].get(kind, {}).get(asset)
            if held is None:
                known = ", ".join(f"{k}/{a}" for k, found in demo["initial"].items() for a in found) or "nothing"
                raise InputError(f"{name} has no {kind}/{asset}, which the environment has; it has {known}")
            for part, value in parts.items() if hasattr(parts, "items") else ():
                if part not in held or held[part].shape[-1] != value.shape[-1]:
                    found = "nothing" if part not in held else f"{held[part].shape[-1]} numbers"
                    raise InputError(
                        f"{name}: {kind}/{asset}/{part} has {found}; the environment has {value.shape[-1]}"
                    )


def step_without_reset(env: Any, actions: Any) -> None:
    """A control step without terminations, as every manager-based environment makes it."""
    env.action_manager.process_action(actions)
    advance(env, env.action_manager.apply_action)


def advance(env: Any, apply: Callable[[], None]) -> None:
    """The physics of one control step; `apply` commands the joints before each call of physics, which makes one physics
    step, or all of the control step's where physics owns the decimation (`handles_decimation`, Isaac Lab 3)."""
    at_once = env.cfg.decimation if getattr(env, "_physics_handles_decimation", False) else 1
    for _ in range(env.cfg.decimation // at_once):
        env._sim_step_counter += at_once
        apply()
        env.scene.write_data_to_sim()
        env.sim.step(render=False)
        if env._sim_step_counter % env.cfg.sim.render_interval == 0 and getattr(env.sim, "is_rendering", False):
            env.sim.render()
        env.scene.update(dt=env.physics_dt * at_once)


def _xyzw(state: dict[str, Any], order: str) -> dict[str, Any]:
    if order == host.XYZW:
        return state
    for kind in ("articulation", "rigid_object"):
        for parts in state.get(kind, {}).values():
            rows = host.array(parts["root_pose"])
            parts["root_pose"] = np.concatenate([rows[..., :3], rows[..., 4:7], rows[..., 3:4]], -1)
    return state
