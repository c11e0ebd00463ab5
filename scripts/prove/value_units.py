# SPDX-License-Identifier: Apache-2.0
"""What each training of the value experiment did, one small file each, kept with the proof: an experiment of many hours goes on
in another clone or another week without its episodes and weights. A file counts only for the very training that it states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from retake.core.codec import decode, encode
from retake.core.errors import InputError
from retake.core.files import read_json, sha256_json, write_json
from retake.loop.rollout import Rollout
from retake.loop.study import Asked

SCHEMA = "retake.value_unit/1"
NO_TRAINING: dict[str, Any] = {"parameters": 0, "seconds": 0.0, "curve": []}
"""Of what learns nothing."""


class Played(Protocol):
    """Rollouts of one policy; a study has them too."""

    @property
    def rollouts(self) -> Sequence[Rollout]:
        """Of every look and seed that was asked for."""
        ...


@dataclass(frozen=True)
class Recorded:
    """Rollouts read back."""

    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True)
class Unit:
    """One training of one arm, and what its policy did."""

    file: Path
    arm: str
    seed: int
    stated: dict[str, Any]
    """Everything that decides its rollouts but the looks, JSON."""

    def _found(self) -> dict[str, Any]:
        """The file's content where it is of this very training; else nothing."""
        if not self.file.exists():
            return {}
        found = read_json(self.file)
        if found.get("schema") != SCHEMA:
            raise InputError(
                f"{self.file} says {found.get('schema')!r}; expected {SCHEMA!r}: move it away to begin anew"
            )
        return found if found["stated"] == self.stated else {}

    def _kept(self, asked: Asked) -> dict[tuple[str, int], Rollout]:
        """(look, seed) → rollout, of looks that are still drawn as they were, played as they would be now."""
        found = self._found()
        if not found or found["played"] != _how(asked):
            return {}
        same = {look.name for look in asked.looks if found["looks"].get(look.name) == sha256_json(asdict(look))}
        rows = [decode(Rollout, row, str(self.file)) for row in found["rollouts"]]
        return {(row.look, row.seed): row for row in rows if row.look in same}

    def missing(self, asked: Asked) -> list[tuple[str, int]]:
        """(look, seed) that no rollout is kept of."""
        kept = self._kept(asked)
        return [(look.name, seed) for seed in asked.seeds for look in asked.looks if (look.name, seed) not in kept]

    def played(self, asked: Asked) -> Recorded:
        """What was asked for, as recorded. Raises InputError while something is missing."""
        kept, missing = self._kept(asked), self.missing(asked)
        if missing:
            raise InputError(f"{self.file} lacks {len(missing)} rollouts, the first {missing[0]}; play them first")
        return Recorded(tuple(kept[look.name, seed] for seed in asked.seeds for look in asked.looks))

    def record(self, rollouts: Sequence[Rollout], asked: Asked, training: dict[str, Any], commit: str) -> None:
        """Keep rollouts beside those that are there. `training`: the policy folder's config.json."""
        found = self._found() if self._kept(asked) else {}
        rows = {**self._kept(asked), **{(row.look, row.seed): row for row in rollouts}}
        content = {
            "schema": SCHEMA,
            "commits": sorted({*found.get("commits", []), commit}),
            "stated": self.stated,
            "played": _how(asked),
            "looks": {**found.get("looks", {}), **{look.name: sha256_json(asdict(look)) for look in asked.looks}},
            "parameters": training["parameters"],
            "training_s": training["seconds"],
            "curve": training["curve"],
            **({"open_loop": found["open_loop"]} if "open_loop" in found else {}),
            "rollouts": [encode(rows[key]) for key in sorted(rows)],
        }
        write_json(self.file, content)

    def record_open_loop(self, score: float, how: dict[str, Any]) -> None:
        """Keep the score of `retake robustness` beside the rollouts. `how`: what it was made of, JSON."""
        write_json(self.file, {**self._found(), "open_loop": {"score": score, "how": how}})

    def open_loop(self, how: dict[str, Any]) -> float | None:
        """The open-loop score that is kept, if it was made like this."""
        kept = self._found().get("open_loop")
        return float(kept["score"]) if kept and kept["how"] == how else None

    def training(self) -> dict[str, Any]:
        """Parameters, seconds and curve ((step, loss) points) of the training; empty where none is kept."""
        found = self._found()
        return {key: found[key] for key in ("parameters", "training_s", "curve")} if found else {}


def _how(asked: Asked) -> dict[str, Any]:
    """How rollouts are played, JSON."""
    return {"frames": asked.frames, "execute": asked.execute, "ensemble": asked.ensemble}


@dataclass(frozen=True)
class Units:
    """All that is kept in a folder."""

    folder: Path

    def of(self, arm: str, seed: int, stated: dict[str, Any]) -> Unit:
        """The unit of an arm and a training seed, whether or not it has been played."""
        return Unit(self.folder / f"{arm.replace(' ', '-')}-{seed}.json", arm, seed, stated)


__all__ = ["NO_TRAINING", "Played", "Recorded", "Unit", "Units"]
