# SPDX-License-Identifier: Apache-2.0
"""Policies by one interface: a Python callable, a LeRobot policy folder, an openpi server, a GR00T server.

A policy gets one `Observation` and returns actions (H, A) float64: the targets for the next H frames, in the entries of
the dataset's `action` vector. Nobody can tell a local policy from a remote one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.errors import InputError
from retake.core.robustness.policy import KeyMap, Observation, Policy, as_actions


@dataclass
class CallablePolicy:
    """A function `observation -> actions`."""

    function: Callable[[Observation], Any]
    name: str = "callable"

    def infer(self, observation: Observation) -> np.ndarray:
        """Call the function."""
        return as_actions(self.function(observation), self.name)

    def reset(self) -> None:
        """Call the function's own `reset` where it has one."""
        # A policy object without a name, or without `reset`, arrives here as its bound `infer`.
        owner = getattr(self.function, "__self__", self.function)
        if callable(reset := getattr(owner, "reset", None)):
            reset()


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
    try:
        made = found() if isinstance(found, type) else found
    except Exception as error:
        raise InputError(
            f"policy {spec!r} fails when it is made without arguments: {type(error).__name__}: {error}"
        ) from error
    if isinstance(made, Policy) and isinstance(made.name, str):
        return made
    function = getattr(made, "infer", made)
    if not callable(function):
        raise InputError(f"policy {spec!r} is {type(made).__name__}; expected something callable, or with `infer`")
    return CallablePolicy(function, spec)


def named_object(spec: str, what: str, otherwise: str = "") -> Any:
    """What `module:name` or `file.py:name` names. Raises InputError, with the other forms there are."""
    place, colon, attribute = spec.rpartition(":")
    if not colon or not attribute.isidentifier():
        more = f", {otherwise}" if otherwise else ""
        raise InputError(f"{what} {spec!r}: expected module:function, file.py:function{more}")
    found = getattr(_module(place), attribute, None)
    if found is None:
        raise InputError(f"{what} {spec!r}: {place} has no {attribute!r}")
    return found


def _module(place: str) -> Any:
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise InputError(f"file {path} does not exist")
        spec = importlib.util.spec_from_file_location(f"retake_policy_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise InputError(f"{path} fails when it is loaded: {type(error).__name__}: {error}") from error
        return module
    try:
        return importlib.import_module(place)
    except ImportError as error:
        raise InputError(f"module {place!r} cannot be imported: {error}") from error
