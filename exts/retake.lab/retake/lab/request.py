# SPDX-License-Identifier: Apache-2.0
"""What shall be recorded of an environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retake.core.episode import CHANNELS
from retake.core.episode.records import Channel
from retake.core.errors import InputError
from retake.core.files import user_path


@dataclass(frozen=True)
class RecordRequest:
    """One session of recording: environments, cameras, how many episodes, and where they go."""

    out: Path
    """Folder of run folders: each episode becomes `<out>/env000_0000/` with the Episode in it."""
    env_ids: tuple[int, ...] | None = (0,)
    """Which clones; None = all."""
    cameras: tuple[str, ...] = ()
    """Names of the scene's cameras; empty = all of them."""
    robots: tuple[str, ...] = ()
    """Names of the scene's articulations; empty = all that can be read."""
    scenery: tuple[str, ...] = ()
    """Static assets of the scene that the task names (a tray): recorded as objects that never move."""
    channels: tuple[Channel, ...] = CHANNELS
    """Images to record; a camera must deliver each of them (`retake.lab.prepare` asks for them)."""
    task: str = ""
    """What is being done, as one would tell a person; empty = the environment's name."""
    episodes: int = 0
    """Stop after so many episodes were kept; 0 = no limit."""
    success_only: bool = False
    """Keep an episode only where the environment says that the task was done."""
    physics_rate: bool = False
    """Record object poses after every physics step as well, not only at frames."""
    queue_frames: int = 8
    """Frames per episode that may wait for the disk before a step has to."""
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    """JSON added to the Episode's settings, e.g. `goal` (docs/episode.md), in the clone's own coordinates."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", user_path(self.out))
        if self.env_ids is not None and (
            not self.env_ids or len(set(self.env_ids)) < len(self.env_ids) or min(self.env_ids) < 0
        ):
            raise InputError(
                f"env_ids are {self.env_ids}; expected numbers of clones from 0, each once, or None for all"
            )
        if self.episodes < 0 or self.queue_frames < 1:
            raise InputError(
                f"episodes is {self.episodes} and queue_frames {self.queue_frames}; expected 0 or more, and 1 or more"
            )
        if "rgb" not in self.channels or set(self.channels) - set(CHANNELS):
            raise InputError(f"channels are {self.channels}; expected some of {', '.join(CHANNELS)}, rgb among them")

    def chosen(self, num_envs: int) -> tuple[int, ...]:
        """The clones to record. Raises InputError for one that the environment does not have."""
        if self.env_ids is None:
            return tuple(range(num_envs))
        if max(self.env_ids) >= num_envs:
            raise InputError(
                f"env_ids name clone {max(self.env_ids)}; the environment has {num_envs} (0 … {num_envs - 1})"
            )
        return self.env_ids
