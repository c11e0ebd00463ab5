# SPDX-License-Identifier: Apache-2.0
"""The contract of a video backend: first frame + skeleton + prompt + seed in, frames out.

The real model (`retake.worker`, OSCAR-2B) and the CPU baseline (`composite`) implement the same protocol; the
composite backend also needs the episode, which every request names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from retake.core.array_types import UInt8
from retake.core.progress import CheckCancel, Progress, never, silent


@dataclass(frozen=True)
class TakeRequest:
    """Everything that determines a take. Pixels travel as paths; hashes are computed from the content."""

    episode: Path
    """Episode folder."""
    camera: str
    skeleton: Path
    """skeleton/<camera> folder (frames/%06d.png and skeleton.json)."""
    variant: Path
    """variants/<id> folder (frame.png, variant.json)."""
    prompt: str
    negative_prompt: str = ""
    seed: int = 42
    frames: int = 81
    """Number of frames of the take; 0 = all of the episode."""
    start: int = 0
    """Episode frame that take frame 0 shows."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Backend settings (steps, guidance, …), JSON."""


@dataclass(frozen=True)
class Take:
    """One generated video on disk: takes/<id>/{take.mp4, take.json}."""

    id: str
    video: Path
    video_sha256: str
    variant: str
    backend: str
    backend_version: str
    domain: str
    """`generated` (video model) or `composite` (simulated motion pixels over another world)."""
    seed: int
    prompt: str
    frames: int
    fps: float
    size: tuple[int, int]
    inputs: dict[str, str]
    """Hashes: episode, skeleton, first_frame."""
    model: str = ""
    revision: str = ""
    licence: str = ""
    camera: str = ""
    start: int = 0
    """Episode frame that take frame 0 shows."""
    negative_prompt: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    """The backend's settings, as asked."""
    motion_source: str = ""
    """`simulated` or `recorded`: the episode's."""
    inputs_sha256: str = ""
    """Of everything that determines the take."""
    approximations: tuple[str, ...] = ()
    """Approximate modes that the backend ran with; empty for an exact take."""
    object_control: str = ""
    """How its model was shown the simulated objects (`drawn` on the control video, `embed`); empty where it was not."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What its maker notes beside it; determines nothing."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.video.parent


@runtime_checkable
class VideoBackend(Protocol):
    """A maker of takes. Deterministic for a seed."""

    name: str
    version: str
    domain: str
    licence: str

    def generate(
        self, request: TakeRequest, progress: Progress = silent, check_cancel: CheckCancel = never
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """RGB frames in order, at the episode's fps. Raises TakeError; raises Cancelled when asked to stop."""
        ...


@runtime_checkable
class WithFurtherInputs(Protocol):
    """A backend whose pixels follow from more than episode, skeleton and first frame."""

    def further_inputs(self, request: TakeRequest) -> dict[str, str]:
        """Name → hash of each. Raises TakeError when one is missing."""
        ...
