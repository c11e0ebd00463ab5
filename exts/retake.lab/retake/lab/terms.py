# SPDX-License-Identifier: Apache-2.0
"""A recorder term for manager-based environments: it works wherever Isaac Lab's own recorders do (record_demos, Mimic,
replays, training)."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from isaaclab.managers import DatasetExportMode, RecorderManagerBaseCfg, RecorderTerm, RecorderTermCfg
from isaaclab.utils import configclass

from retake.core.episode import CHANNELS
from retake.core.errors import InputError
from retake.lab import host
from retake.lab.recorder import LabRecorder
from retake.lab.request import RecordRequest


class RetakeRecorder(RecorderTerm):
    """Hands the manager's calls to a LabRecorder. It adds nothing to Isaac Lab's own HDF5."""

    def __init__(self, cfg: RetakeRecorderCfg, env: Any) -> None:
        """Raises as LabRecorder, and InputError for a configuration without a folder."""
        super().__init__(cfg, env)
        self.recorder = LabRecorder(env, request_of(cfg))
        self._watched = False

    def record_pre_step(self) -> tuple[None, None]:
        """The action manager has the action; physics has not begun."""
        self._watch()
        self.recorder.before_step(self._env.action_manager.action)
        return None, None

    def record_post_step(self) -> tuple[None, None]:
        """The control step is done; clones that ended are not reset yet."""
        self.recorder.after_step()
        return None, None

    def record_pre_reset(self, env_ids: Sequence[int] | None) -> tuple[None, None]:
        """The last state of clones that are about to be reset."""
        self._watch()
        self.recorder.before_reset(host.clones_of(env_ids, self._env.num_envs))
        return None, None

    def record_post_reset(self, env_ids: Sequence[int] | None) -> tuple[None, None]:
        """Clones were reset."""
        self.recorder.after_reset(host.clones_of(env_ids, self._env.num_envs))
        return None, None

    def close(self, file_path: str = "") -> None:
        """The environment is being closed."""
        self.recorder.close()

    def _watch(self) -> None:
        """Hear what the manager is told about success: record_demos and Mimic say so after the episode's end."""
        manager = getattr(self._env, "recorder_manager", None)
        if self._watched or manager is None:
            return
        self._watched = True
        # Weak on both sides: the manager closes its terms when the environment lets go of it.
        here, there, said = weakref.ref(self), weakref.ref(manager), type(manager).set_success_to_episodes

        def set_success_to_episodes(env_ids: Any, success_values: Any) -> None:
            said(there(), env_ids, success_values)
            term = here()
            if term is not None:
                term.recorder.set_success(host.clones_of(env_ids, term._env.num_envs), success_values)

        manager.set_success_to_episodes = set_success_to_episodes


def request_of(cfg: RetakeRecorderCfg) -> RecordRequest:
    """The request that a term's configuration is. Raises InputError."""
    if not str(cfg.out or "").strip():
        raise InputError("RetakeRecorderCfg.out is empty; expected the folder that episodes go to")
    return RecordRequest(
        out=Path(str(cfg.out)),
        env_ids=None if cfg.env_ids is None else tuple(cfg.env_ids),
        cameras=tuple(map(str, cfg.cameras)),
        robots=tuple(map(str, cfg.robots)),
        scenery=tuple(map(str, cfg.scenery)),
        channels=tuple(map(str, cfg.channels)),  # type: ignore[arg-type]
        task=str(cfg.task),
        episodes=cfg.episodes,
        success_only=cfg.success_only,
        physics_rate=bool(cfg.physics_rate),
        queue_frames=cfg.queue_frames,
        seed=cfg.seed,
        settings=dict(cfg.settings),
    )


@configclass
class RetakeRecorderCfg(RecorderTermCfg):
    """Add it to an environment's recorders: `cfg.recorders.retake = RetakeRecorderCfg(out="runs/lab")`.

    The fields are those of `RecordRequest`, which says what they mean.
    """

    class_type: type = RetakeRecorder
    out: str = ""
    env_ids: Any = (0,)
    cameras: tuple = ()
    robots: tuple = ()
    scenery: tuple = ()
    channels: tuple = CHANNELS
    task: str = ""
    episodes: int = 0
    success_only: bool = False
    physics_rate: bool = False
    queue_frames: int = 8
    seed: int = 0
    settings: dict = {}  # noqa: RUF012  # Isaac Lab's configclass makes a copy per instance


@configclass
class RetakeRecorderManagerCfg(RecorderManagerBaseCfg):
    """Recorders of an environment that has none of its own: Episodes, and no HDF5."""

    dataset_export_mode: DatasetExportMode = DatasetExportMode.EXPORT_NONE
    retake: Any = MISSING
    """A RetakeRecorderCfg."""
