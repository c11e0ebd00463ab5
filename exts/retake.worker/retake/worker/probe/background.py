# SPDX-License-Identifier: Apache-2.0
"""What of a data set's pictures is background, from the runs that they were exported from: the simulator's own ids."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retake.core.array_types import Bool
from retake.core.episode import Episode, open_episode
from retake.core.episode.layout import COMPLETE
from retake.core.errors import InputError
from retake.core.export.reader import Row
from retake.core.run_store import episode_at
from retake.core.variants.base import source_frame
from retake.core.variants.roles import BACKGROUND, FIXTURE, SURFACE, find_roles
from retake.worker.probe.data import Masks

BEHIND = (BACKGROUND, SURFACE, FIXTURE)
"""Everything but robot, objects and containers."""


def backgrounds(runs: Sequence[Path]) -> Masks:
    """For `pack`: masks (T, H, W) of background at capture size, of data sets exported from these runs.

    Raises InputError for what is no run; the masks raise it for an episode that none of the runs has, and for a camera that
    recorded no ids.
    """
    places: dict[str, Path] = {}
    for run in runs:
        place = episode_at(run)
        if not (place / COMPLETE).exists():
            raise InputError(f"{run} is no run with an episode, nor an episode; expected the runs that were exported")
        places[open_episode(place).content_sha256] = place

    @functools.lru_cache(1)
    def opened(source: str) -> Episode:
        return open_episode(places[source])

    def masks(row: Row, camera: str) -> Bool[np.ndarray, "T H W"]:
        source = row.provenance.get("source_episode_id")
        if source not in places:
            name = row.provenance.get("run")
            told = f"it comes from the run {name!r}" if name else "it says of no run that it comes from it"
            raise InputError(
                f"what is background in episode {row.index} is not known: {told}, and none of the {len(runs)} runs given has "
                "its episode; name the runs that the data set was exported from"
            )
        episode, start = opened(source), int(row.provenance.get("window_start") or 0)
        if "instances" not in episode.header.camera(camera).channels:
            raise InputError(
                f"what is background is not known: camera {camera!r} of {episode.path} recorded no instances"
            )
        # Without depth all scenery counts as surface, which is background here as well.
        behind = np.isin(find_roles(source_frame(episode, camera, start, maps=False)).role, BEHIND)
        return np.stack([behind[episode.image(camera, "instances", start + t)] for t in range(row.length)])

    return masks


__all__ = ["BEHIND", "backgrounds"]
