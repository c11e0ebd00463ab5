# SPDX-License-Identifier: Apache-2.0
"""Environments by task id, and policies by name: what the command line makes of its arguments."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retake.core.errors import InputError, MissingDependencyError, StageError

Policy = Callable[[Any, Any], Any]
"""(environment, observations) → actions (N, A)."""


def load_module(name: str) -> Any:
    """A module by dotted name or by file. Raises InputError where there is none."""
    if name.endswith(".py"):
        path = Path(name).resolve()
        if not path.is_file():
            raise InputError(f"{name} does not exist; expected a Python file")
        known = sys.modules.get(path.stem)
        if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == path:
            return known
        if str(path.parent) not in sys.path:  # its entry points name it as a module
            sys.path.insert(0, str(path.parent))
        name = path.stem
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name} cannot be imported: {error}") from error


def environment_cfg(task: str, num_envs: int, device: str) -> Any:
    """The configuration of a task. Raises InputError naming tasks that are registered."""
    try:
        import gymnasium
    except ImportError as error:
        raise MissingDependencyError(
            "Isaac Lab is not installed in this environment; run it with the Python that has isaaclab (`make lab-env`)"
        ) from error
    try:
        spec = gymnasium.spec(task)
    except gymnasium.error.Error as error:
        known = sorted(i for i, s in gymnasium.registry.items() if "env_cfg_entry_point" in s.kwargs)
        raise InputError(
            f"unknown task {task!r}; registered: {', '.join(known[:12]) or 'none'}"
            + (f" and {len(known) - 12} more" if len(known) > 12 else "")
            + "; --import MODULE registers more (Isaac Lab's own: --import isaaclab_tasks)"
        ) from error
    entry = spec.kwargs.get("env_cfg_entry_point")
    if entry is None:
        raise InputError(f"task {task!r} is no environment of Isaac Lab: it states no env_cfg_entry_point")
    if isinstance(entry, str):
        module, _, attribute = entry.partition(":")
        entry = getattr(load_module(module), attribute)
    cfg = entry() if callable(entry) else entry
    if not hasattr(cfg, "scene"):  # presets of Isaac Lab's own tasks
        from isaaclab_tasks.utils import parse_env_cfg

        cfg = parse_env_cfg(task, device=device, num_envs=num_envs)
    cfg.scene.num_envs = num_envs
    if device:
        cfg.sim.device = device
    return cfg


def make_environment(task: str, cfg: Any) -> Any:
    """The environment of a task. Raises StageError with what Isaac Lab says where it cannot be made."""
    import gymnasium

    try:
        return gymnasium.make(task, cfg=cfg)
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StageError(f"Isaac Lab could not make {task}: {first.strip()}") from error


class KitApp:
    """Isaac Sim's application, started without a window and with cameras."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def close(self, code: int) -> None:
        """End it, with an exit code where this version takes one."""
        try:
            self.app.close(exit_code=code)
        except TypeError:  # 2.3
            self.app.close()


def start_kit() -> KitApp:
    """Start Isaac Sim. Raises MissingDependencyError where it is not installed."""
    try:
        from isaaclab.app import AppLauncher

        return KitApp(AppLauncher(headless=True, enable_cameras=True).app)
    except (ImportError, SystemExit) as error:
        raise MissingDependencyError(
            "--kit starts Isaac Sim, and that is not installed in this environment; without --kit an environment runs with "
            "the physics and the renderer of its configuration (Newton's need no Kit)"
        ) from error


def make_policy(name: str, env: Any) -> Policy:
    """`zero`, `random`, a TorchScript file (.pt, .jit), or MODULE:FUNCTION. Raises InputError for anything else."""
    import torch

    width = int(env.action_space.shape[-1])
    shape = (env.num_envs, width)
    if name == "zero":
        return lambda env, obs: torch.zeros(shape, device=env.device)
    if name == "random":
        return lambda env, obs: 2 * torch.rand(shape, device=env.device) - 1
    if name.endswith((".pt", ".jit", ".pth")):
        if not Path(name).is_file():
            raise InputError(f"policy {name} does not exist; expected a TorchScript file")
        try:
            model = torch.jit.load(name, map_location=env.device).eval()
        except RuntimeError as error:
            raise InputError(
                f"policy {name} is no TorchScript file ({str(error).splitlines()[0]}); export one (Isaac Lab's play.py writes "
                "exported/policy.pt), or give MODULE:FUNCTION"
            ) from error

        def act(env: Any, obs: Any) -> Any:
            seen = obs["policy"] if isinstance(obs, dict) and "policy" in obs else obs
            with torch.inference_mode():
                return model(seen).clone()

        return act
    module, colon, function = name.rpartition(":")
    if not colon:
        raise InputError(f"policy {name!r}: expected zero, random, FILE.pt, DEMOS.hdf5 or MODULE:FUNCTION")
    found = getattr(load_module(module), function, None)
    if found is None:
        raise InputError(f"policy {name!r}: {module} has no {function}")
    return found(env)
