# SPDX-License-Identifier: Apache-2.0
"""Policies by one interface: a Python callable, a LeRobot policy folder, an openpi server, a GR00T server.

A policy gets one `Observation` and returns actions (H, A) float64: the targets for the next H frames, in the entries of
the dataset's `action` vector. Nobody can tell a local policy from a remote one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.errors import InputError
from retake.core.robustness.own_code import folder_of, importable, named_object
from retake.core.robustness.policy import KeyMap, Observation, Policy, as_actions


@dataclass
class CallablePolicy:
    """A function `observation -> actions`."""

    function: Callable[[Observation], Any]
    name: str = "callable"
    folder: Path | None = None
    """Where it may import from while it is called; None = no further folder."""
    owner: Any = None
    """What has `reset` and `close`, where it has them; None = the object whose method the function is, or the function."""

    def infer(self, observation: Observation) -> np.ndarray:
        """Call the function."""
        with importable(self.folder):
            return as_actions(self.function(observation), self.name)

    def reset(self) -> None:
        """Call the function's own `reset` where it has one."""
        self._tell("reset")

    def close(self) -> None:
        """Call the function's own `close` where it has one."""
        self._tell("close")

    def _tell(self, word: str) -> None:
        owner = getattr(self.function, "__self__", self.function) if self.owner is None else self.owner
        if callable(method := getattr(owner, word, None)):
            with importable(self.folder):
                method()


def open_policy(spec: str, *, python: str = "", mapping: KeyMap | None = None, timeout_s: float = 60.0) -> Policy:
    """The policy that `--policy` names.

    `module:function` or `file.py:function`: a callable (a class is instantiated; it may have `reset`).
    A folder: a LeRobot policy (`config.json`, weights), run by `python` (an interpreter that has lerobot).
    `openpi://host:port`, `gr00t://host:port` (N1.6), `gr00t-n1.5://host:port`: a policy server.
    Raises InputError naming these forms, MissingDependencyError naming the extra.
    """
    scheme, separator, rest = spec.partition("://")
    if separator:
        from retake.core.robustness import servers

        return servers.connect(scheme, rest, mapping or KeyMap(), timeout_s)
    if Path(spec).is_dir():
        from retake.core.robustness.lerobot_policy import LeRobotPolicy

        return LeRobotPolicy(Path(spec), python or sys.executable, timeout_s)
    found = named_object(spec, "policy", "a LeRobot policy folder, openpi://host:port or gr00t://host:port")
    folder = folder_of(spec.rpartition(":")[0])
    try:
        with importable(folder):
            made = found() if isinstance(found, type) else found
    except Exception as error:
        raise InputError(
            f"policy {spec!r} fails when it is made without arguments: {type(error).__name__}: {error}"
        ) from error
    function = getattr(made, "infer", made)
    if not callable(function):
        raise InputError(f"policy {spec!r} is {type(made).__name__}; expected something callable, or with `infer`")
    own = made.name if isinstance(made, Policy) and isinstance(made.name, str) else spec
    return CallablePolicy(function, own, folder, made)
