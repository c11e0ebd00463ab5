# SPDX-License-Identifier: Apache-2.0
"""What the view-model needs from outside, as protocols: Kit, processes and the worker arrive through its constructor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from retake.isaac.request import CaptureRequest, CaptureStatus
from retake.ui.state import Choice, ExportRow, TakeRow, WorkerRow


@dataclass(frozen=True)
class SceneContent:
    """What of the open stage could be recorded, with defaults chosen; `problem` says why nothing can."""

    robots: tuple[Choice, ...] = ()
    cameras: tuple[Choice, ...] = ()
    objects: tuple[Choice, ...] = ()
    problem: str = ""
    demo: bool = False
    """The demo stage: its robot is driven, its recording plays and ends by itself."""
    task: str = ""
    """Task text that belongs to the stage; empty = the user's."""


class Scene(Protocol):
    """The open stage."""

    def look(self, again: bool = False) -> SceneContent:
        """Its robots, cameras and objects; remembered while the stage does not change, unless `again` is asked for."""
        ...

    def selected(self) -> tuple[str, ...]:
        """Prim paths that are selected on the stage."""
        ...

    def declare(self, robots: Sequence[str], elsewhere: Path) -> tuple[Path, bool]:
        """(declaration of some robots' end effectors, whether it was written now: an existing one is left as it is).

        It lies beside the stage, or in the folder `elsewhere` where the stage has no file. Raises RetakeError.
        """
        ...

    def open_demo(self) -> None:
        """Begin opening the demo stage (returns at once)."""
        ...

    def self_test(self, out: Path, on_line: Callable[[str], None]) -> None:
        """Begin the self-test on the open stage (returns at once); `on_line` hears each line, the files go to `out`."""
        ...


class Recording(Protocol):
    """A recording under way."""

    @property
    def status(self) -> CaptureStatus:
        """Where it stands."""
        ...

    @property
    def paused(self) -> bool:
        """Whether the simulation stands still, by whomever, while this recording waits for more of it."""
        ...

    def pause(self) -> None:
        """Let the simulation stand still; the episode goes on where it was. Raises RetakeError where it cannot."""
        ...

    def resume(self) -> None:
        """Let it move on."""
        ...

    def stop(self, reason: str) -> None:
        """End it."""
        ...


class Generation(Protocol):
    """The arrow after the Episode, or an export, under way in a process of its own."""

    def advance(self) -> tuple[str, int, int, str]:
        """(stage, done, total, note)."""
        ...

    def exit_code(self) -> int | None:
        """None while it runs."""
        ...

    def last_words(self) -> str:
        """What it said last."""
        ...

    def cancel(self) -> None:
        """Stop it."""
        ...


class Starter(Protocol):
    """Begins recordings and generations."""

    def record(self, request: CaptureRequest) -> Recording:
        """Raises RetakeError when it cannot begin."""
        ...

    def generate(self, run: Path, settings: Sequence[str]) -> Generation:
        """The arrow over every camera that was recorded. Raises RetakeError when it cannot begin."""
        ...

    def export(self, run: Path, out: Path, wanted: ExportRow) -> Generation:
        """Raises RetakeError when it cannot begin."""
        ...

    def takes(self, run: Path) -> tuple[TakeRow, ...]:
        """The takes of a run as they are now."""
        ...

    def open_path(self, path: Path) -> None:
        """Show a file or folder to the user."""
        ...

    def pick_folder(self, start: Path, picked: Callable[[str], None]) -> None:
        """Let the user choose a folder; `picked` is called with it, later, or never. Raises RetakeError."""
        ...


class Worker(Protocol):
    """The GPU worker; every call returns at once."""

    def row(self) -> WorkerRow:
        """The newest that is known."""
        ...

    def start(self) -> None:
        """Begin starting it. Raises RetakeError when that is impossible."""
        ...

    def stop(self) -> None:
        """Begin stopping it."""
        ...

    def free(self) -> None:
        """Ask it to give its VRAM back."""
        ...


class Picture(Protocol):
    """Newest live picture."""

    @property
    def newest(self) -> Any:
        """An object with index, rgba and misfit_px, or None."""
        ...
