# SPDX-License-Identifier: Apache-2.0
"""Policies by one interface: a Python callable, a LeRobot policy folder, an openpi server, a GR00T server.

A policy gets one `Observation` and returns actions (H, A) float64: the targets for the next H frames, in the entries of
the dataset's `action` vector. Nobody can tell a local policy from a remote one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from retake.core.array_types import Float, UInt8
from retake.core.errors import InputError
from retake.core.export.records import Slice


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one frame."""

    images: Mapping[str, UInt8[np.ndarray, "H W 3"]]
    """Camera name → RGB."""
    state: Float[np.ndarray, N]
    """float32 `observation.state` (datasets.md): rad, m, openness."""
    task: str
    names: tuple[str, ...] = ()
    """Names of the state's (and the action's) entries."""
    slices: tuple[Slice, ...] = ()


@runtime_checkable
class Policy(Protocol):
    """Anything that acts. `reset` is called before every observation: frames are asked one by one, out of order."""

    name: str

    def infer(self, observation: Observation) -> np.ndarray:
        """Actions (H, A) or (A,), in the entries of the dataset's action vector. Raises RetakeError when it cannot."""
        ...

    def reset(self) -> None:
        """Forget earlier observations."""
        ...


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
        if callable(reset := getattr(self.function, "reset", None)):
            reset()


def as_actions(value: Any, name: str) -> np.ndarray:
    """(H, A) float64 from whatever a policy returned. Raises InputError when that is no finite array of numbers."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"policy {name} returned {type(value).__name__}; expected actions (H, A) or (A,)") from error
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        raise InputError(f"policy {name} returned an array {array.shape}; expected finite actions (H, A) or (A,)")
    return array


@dataclass(frozen=True)
class KeyMap:
    """Names between the dataset and a policy server: camera and vector keys."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    """Dataset camera → key of the policy; a camera that is not named keeps its own."""
    state: str = ""
    """Key of the whole state vector; empty = the server's usual one."""


def open_policy(spec: str, *, python: str = "", mapping: KeyMap | None = None, timeout_s: float = 60.0) -> Policy:
    """The policy that `--policy` names.

    `module:function` or `file.py:function`: a callable (a class is instantiated; it may have `reset`).
    A folder: a LeRobot policy (`config.json`, weights), run by `python` (an interpreter that has lerobot).
    `openpi://host:port`, `gr00t://host:port` (N1.6), `gr00t-n1.5://host:port`: a policy server.
    Raises InputError naming these forms, MissingDependencyError naming the extra.
    """
    scheme, separator, rest = spec.partition("://")
    if separator:
        from retake.core.export.robustness import servers

        return servers.connect(scheme, rest, mapping or KeyMap(), timeout_s)
    if Path(spec).is_dir():
        from retake.core.export.robustness.lerobot_policy import LeRobotPolicy

        return LeRobotPolicy(Path(spec), python or sys.executable, timeout_s)
    place, colon, attribute = spec.rpartition(":")
    if not colon or not attribute.isidentifier():
        raise InputError(
            f"policy {spec!r}: expected module:function, file.py:function, a LeRobot policy folder, openpi://host:port or "
            "gr00t://host:port"
        )
    found = getattr(_module(place), attribute, None)
    if found is None:
        raise InputError(f"policy {spec!r}: {place} has no {attribute!r}")
    made = found() if isinstance(found, type) else found
    if isinstance(made, Policy):
        return made
    if not callable(made):
        raise InputError(f"policy {spec!r}: {attribute!r} is {type(made).__name__}, not callable")
    return CallablePolicy(made, spec)


def _module(place: str) -> Any:
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise InputError(f"policy file {path} does not exist")
        spec = importlib.util.spec_from_file_location(f"retake_policy_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(place)
    except ImportError as error:
        raise InputError(f"policy module {place!r} cannot be imported: {error}") from error


__all__ = ["CallablePolicy", "KeyMap", "Observation", "Policy", "as_actions", "open_policy"]
