# SPDX-License-Identifier: Apache-2.0
"""The trainings of `retake tune` that lie in the roots: how far they are, their curves and pictures, and a way to stop one.

A training is a process of its own that somebody started in a terminal or on a cluster; the worker reads its folder and
writes nothing there but the request to stop. A client names a training by a key, never by a path. No torch here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.core.errors import RetakeError, WorkerError
from retake.core.files import read_json, sha256_bytes
from retake.worker.roots import Roots
from retake.worker.tune import curves
from retake.worker.tune.folder import COMMAND, MODEL, STATE, STOP, ask_to_stop, is_running

POINTS = 300
"""Of one curve that are handed out."""
LISTED = 50


@dataclass(frozen=True)
class Tuning:
    """One training folder, read once. `step` is the newest in its curves, which may be ahead of the last checkpoint."""

    key: str
    folder: Path
    changed_s: float
    state: str
    """running, stopped or finished."""
    model: Mapping[str, Any]
    checkpoint: int
    values: Mapping[str, list[tuple[int, float]]]

    @property
    def steps(self) -> int:
        """Steps in all."""
        return int(self.model["settings"]["steps"])

    @property
    def step(self) -> int:
        """Steps done."""
        losses = self.values.get("loss", [])
        return self.checkpoint if not losses else max(self.checkpoint, losses[-1][0] + 1)

    def to_json(self) -> dict[str, Any]:
        """For the API."""
        seconds = curves.seconds_per_step(dict(self.values))
        left = max(0, self.steps - self.step)
        return {
            "key": self.key, "name": self.folder.name, "folder": str(self.folder), "state": self.state, "step": self.step,
            "steps": self.steps, "checkpoint": self.checkpoint, "changed_s": self.changed_s, "what": describe(self.model),
            "seconds_per_step": seconds,
            "eta_s": seconds * left if seconds is not None and self.state == "running" else None,
            "latest": {name: points[-1][1] for name, points in self.values.items() if name != "seconds"},
            "pictures": [path.name for path in pictures(self.folder)],
            "command": _command(self.folder),
        }  # fmt: skip

    def curves(self) -> dict[str, list[list[float]]]:
        """Name -> [[step, value], …], thinned to `POINTS`."""
        return {
            name: [[float(step), value] for step, value in curves.thinned(points, POINTS)]
            for name, points in sorted(self.values.items())
        }


class Tunings:
    """All trainings of the roots."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots

    def all(self) -> list[Tuning]:
        """Running ones first, then the newest; at most `LISTED`. What cannot be read is left out."""
        found = [tuning for folder in self._folders() if (tuning := self._read(folder)) is not None]
        return sorted(found, key=lambda t: (t.state != "running", -t.changed_s, str(t.folder)))[:LISTED]

    def find(self, key: str) -> Tuning | None:
        """The training of a key."""
        for folder in self._folders():
            if _key(folder) == key:
                return self._read(folder)
        return None

    def picture(self, tuning: Tuning, name: str) -> Path | None:
        """One of its pictures."""
        chosen = next((path for path in pictures(tuning.folder) if path.name == name), None)
        return None if chosen is None else self._roots.inside(chosen, "picture")

    def stop(self, tuning: Tuning) -> None:
        """Ask it to write a checkpoint and stop. Raises WorkerError where it does not run or cannot be asked."""
        if tuning.state != "running":
            raise WorkerError(f"{tuning.folder.name} is {tuning.state}; only a running training can be stopped")
        self._roots.inside(tuning.folder / STOP, "training")
        try:
            ask_to_stop(tuning.folder)
        except OSError as error:
            raise WorkerError(f"{tuning.folder} cannot be asked to stop: {error.strerror}") from error

    def _folders(self) -> list[Path]:
        return self._roots.holding(is_training)

    def _read(self, folder: Path) -> Tuning | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RetakeError):
            lines = self._roots.inside(folder / curves.FOLDER / curves.LINES, "curves")
            model = read_json(self._roots.inside(folder / MODEL, "training"))
            total = int(model["settings"]["steps"])
            state = read_json(folder / STATE) if (folder / STATE).is_file() else {}
            checkpoint = int(state.get("step", 0))
            standing = "running" if is_running(folder) else "finished" if checkpoint >= total else "stopped"
            return Tuning(
                _key(folder), folder, lines.stat().st_mtime, standing, model, checkpoint, curves.read_curves(folder)
            )
        return None


def is_training(folder: Path) -> bool:
    """Whether a folder is the --out of a training that has begun to learn."""
    return (folder / MODEL).is_file() and (folder / curves.FOLDER / curves.LINES).is_file()


def pictures(folder: Path) -> list[Path]:
    """Validation pictures, oldest first."""
    return sorted((folder / curves.FOLDER / curves.PICTURES).glob("step-*.png"))


def describe(model: Mapping[str, Any]) -> str:
    """What is trained, in a few words."""
    settings = model["settings"]
    step = settings.get("step", {})
    lora, objects = step.get("lora"), step.get("objects") or {}
    student = settings.get("student")
    words = [
        f"student of {student['steps']} steps (experimental)" if student
        else f"LoRA rank {lora['rank']}" if lora else "all weights",
        f"lr {step['lr']:g}" if "lr" in step else "",
        f"objects x{1 + objects['weight']:g}" if objects.get("weight") else "",
        f"object control {objects['control']}" if objects.get("control", "none") != "none" else "",
    ]  # fmt: skip
    return ", ".join(word for word in words if word)


def _command(folder: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / COMMAND).read_text("utf-8"))["command"])
    return ""


def _key(folder: Path) -> str:
    return sha256_bytes(os.fsencode(folder))[:20]
