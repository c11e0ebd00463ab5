# SPDX-License-Identifier: Apache-2.0
"""What a policy is: an `Observation` in, actions (H, A) float64 out. Nobody can tell a local policy from a remote one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    """Names of the state's entries."""
    slices: tuple[Slice, ...] = ()
    action_slices: tuple[Slice, ...] = ()
    """Parts of the action, in order; empty = those of the state."""


def own_copy(observation: Observation) -> Observation:
    """The same, for a policy to do with as it likes: pictures and state that nobody else reads."""
    images = {name: image.copy() for name, image in observation.images.items()}
    return replace(observation, images=images, state=observation.state.copy())


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


def as_actions(value: Any, name: str) -> np.ndarray:
    """(H, A) float64 from whatever a policy returned. Raises InputError when that is no finite array of numbers."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            raise TypeError("an action has no imaginary part")
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"policy {name} returned {type(value).__name__}; expected actions (H, A) or (A,)") from error
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        found = "nothing" if value is None else f"an array {array.shape}"
        raise InputError(f"policy {name} returned {found}; expected finite actions (H, A) or (A,)")
    return array


@dataclass(frozen=True)
class KeyMap:
    """Names between the dataset and a policy server: camera and vector keys."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    """Dataset camera → key of the policy; a camera that is not named keeps its own."""
    state: str = ""
    """Key of the whole state vector; empty = the server's usual one."""
