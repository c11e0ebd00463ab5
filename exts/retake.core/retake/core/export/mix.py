# SPDX-License-Identifier: Apache-2.0
"""Mixing datasets for co-training: LeRobot's loaders have no weights, so the ratio is made here, by whole episodes.

Sources must agree in fps, cameras, vector names and units; every disagreement is listed. The result is a LeRobot v3.0
dataset plus meta/retake_mix.json with per-episode sampling weights, for loaders that take weights. Videos of the asked
codec are copied without decoding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.errors import ExportError, InputError
from retake.core.export.api import ExportOptions, write_dataset
from retake.core.export.provenance import KINDS, VERDICT, record
from retake.core.export.reader import Dataset, Row
from retake.core.export.records import (
    IMAGE,
    SOURCE_FRAME,
    SOURCE_TIME,
    SOURCE_UID,
    STATE,
    Columns,
    DatasetEpisode,
    LanguageRows,
    Schema,
    Segment,
    Vector,
)
from retake.core.export.sources import resized
from retake.core.files import sha256_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent

SCHEMA = "retake.mix/1"
MIX_FILE = "retake_mix.json"
_OPTIONAL = (SOURCE_TIME, SOURCE_FRAME, SOURCE_UID)
"""Features that only Retake writes: left out of a mixture unless every source has them."""
_LARGEST_RAD = 2 * math.pi + 0.5


@dataclass(frozen=True)
class MixSource:
    """A dataset and its share of the mixture's episodes."""

    name: str
    path: Path
    weight: float


@dataclass(frozen=True)
class Mixed:
    """What became of a source."""

    name: str
    weight: float
    available: int
    taken: int
    share: float


@dataclass(frozen=True)
class MixReport:
    """What a mixture holds."""

    out: Path
    episodes: int
    sources: tuple[Mixed, ...]
    notes: tuple[str, ...] = field(default=())


def parse_source(text: str) -> MixSource:
    """`NAME=DIR:WEIGHT`. Raises InputError."""
    name, _, rest = text.partition("=")
    path, _, weight = rest.rpartition(":")
    try:
        value = float(weight)
    except ValueError:
        value = -1.0
    if not name or not path or not 0 < value <= 1:
        raise InputError(
            f"{text!r}: expected NAME=DIR:WEIGHT with 0 < WEIGHT <= 1, for example real=datasets/droid:0.9"
        )
    return MixSource(name, Path(path), value)


def mix(
    sources: Sequence[MixSource],
    out: Path | str,
    *,
    episodes: int | None = None,
    seed: int = 0,
    weights_only: bool = False,
    trust_units: bool = False,
    options: ExportOptions | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> MixReport:
    """Write the mixture to `out`. `episodes` None takes the most that needs no episode twice.

    Raises InputError (weights, names), ExportError (sources that do not fit together, with every reason).
    """
    out, options = Path(out), options or ExportOptions()
    if len({s.name for s in sources}) < len(sources):
        raise InputError("two sources have one name; names must differ")
    if not sources or abs(sum(s.weight for s in sources) - 1) > 1e-6:
        raise InputError(
            f"weights sum to {sum(s.weight for s in sources):g}; they are shares of one mixture and must sum to 1"
        )
    opened = {s.name: Dataset(s.path) for s in sources}
    schema, notes = align(opened, trust_units=trust_units)
    available = [len(opened[s.name]) for s in sources]
    counts = shares([s.weight for s in sources], available, episodes)
    rng = np.random.default_rng(seed)
    drawn: list[tuple[str, int, int]] = []
    for source, n, count in zip(sources, available, counts, strict=True):
        order = (
            np.concatenate([rng.permutation(n) for _ in range(-(-count // n))])[:count] if count else np.zeros(0, int)
        )
        drawn += [(source.name, int(k), i // n) for i, k in enumerate(order)]
        if count > n:
            notes.append(f"{source.name}: {count - n} of {count} episodes are repetitions (it has {n})")
    drawn = [drawn[i] for i in rng.permutation(len(drawn))]
    total = len(drawn)
    mixed = tuple(Mixed(s.name, s.weight, n, c, c / total) for s, n, c in zip(sources, available, counts, strict=True))
    content = _content(sources, mixed, drawn, opened, seed, weights_only)
    if weights_only:
        if (out / MIX_FILE).exists():
            raise ExportError(f"{out / MIX_FILE} exists; choose another --out (nothing was changed)")
        write_json(out / MIX_FILE, content)
        return MixReport(out, total, mixed, tuple(notes))
    rows = {s.name: list(opened[s.name].episodes()) for s in sources}
    jobs: list[tuple[str, Callable[[], DatasetEpisode]]] = []
    for name, index, repeat in drawn:
        row = rows[name][index]
        uid = _uid(name, opened[name], row, repeat)
        jobs.append((uid, lambda d=opened[name], r=row, u=uid, n=name: as_episode(d, r, schema, u, n)))
    also = {f"meta/{MIX_FILE}": content}
    write_dataset(jobs, schema, out, options, also=also, progress=progress, check_cancel=check_cancel)
    return MixReport(out, total, mixed, tuple(notes))


def shares(weights: Sequence[float], available: Sequence[int], episodes: int | None) -> list[int]:
    """Episodes per source: proportional to the weights, whole numbers by largest remainder.

    Without a number the total is the largest for which no source runs out. Raises ExportError when a source is empty or
    would get no episode, InputError for a number below one.
    """
    if 0 in available:
        raise ExportError("a source has no episodes")
    if episodes is not None and episodes < 1:
        raise InputError(f"--episodes {episodes}: expected a positive number")
    total = (
        episodes
        if episodes is not None
        else max(math.floor(min(n / w for n, w in zip(available, weights, strict=True)) + 1e-9), 1)
    )
    exact = [w * total for w in weights]
    counts = [math.floor(x + 1e-9) for x in exact]
    for i in sorted(range(len(weights)), key=lambda i: (counts[i] - exact[i], i))[: total - sum(counts)]:
        counts[i] += 1
    if episodes is None:
        counts = [min(c, n) for c, n in zip(counts, available, strict=True)]
    if 0 in counts:
        need = math.ceil(1 / min(weights))
        raise ExportError(
            f"{total} episodes are too few for weights {list(weights)}: a source would get none; take at least {need}"
        )
    return counts


def align(opened: dict[str, Dataset], *, trust_units: bool = False) -> tuple[Schema, list[str]]:
    """The one schema of all sources, and notes. Raises ExportError with every reason why they do not fit together."""
    notes: list[str] = []
    common = set.intersection(*(set(d.schema.vectors) for d in opened.values()))
    schemas = {}
    language = all(data.schema.language for data in opened.values())
    if not language and (having := [name for name, data in opened.items() if data.schema.language]):
        notes.append(f"language columns of {', '.join(having)} left out, other sources have none")
    for name, data in opened.items():
        dropped = [
            k
            for k in data.schema.vectors
            if k.startswith("annotation.")  # indices into its own tasks
            or (k not in common and (k in _OPTIONAL or k.startswith(("privileged.", "truth."))))
        ]
        if dropped:
            notes.append(f"{name}: {', '.join(dropped)} left out, other sources do not have it")
        vectors = {k: v for k, v in data.schema.vectors.items() if k not in dropped}
        vectors[SOURCE_UID] = Vector("int64")  # of the mixture's own records
        schemas[name] = replace(data.schema, vectors=vectors, language=language)
    (first, schema), *others = schemas.items()
    problems = [p for name, other in others for p in schema.differences(other, first, name)]
    for name, data in opened.items():
        if not data.units_stated and not trust_units:
            problems += _unit_doubts(name, data)
            notes.append(f"{name} states no units; radians, metres and openness 0..1 are assumed")
        if schemas[name].robot_type != schema.robot_type:
            notes.append(f"robot_type differs: {first} {schema.robot_type!r}, {name} {schemas[name].robot_type!r}")
    if problems:
        steps = suggestions(opened)
        ways = "; commands that would help:\n  " + "\n  ".join(steps) if steps else ""
        raise ExportError("the sources cannot be mixed as they are: " + "; ".join(problems) + ways)
    slices = next((s.slices for s in schemas.values() if s.slices), ())
    own = next((s.own_action_slices for s in schemas.values() if s.slices), ())
    return replace(schema, slices=slices, own_action_slices=own), notes


def suggestions(opened: dict[str, Dataset]) -> list[str]:
    """`retake convert-dataset` commands that bring the sources together: to the rate, names and sizes of the first one that
    states its units, and to the entries that all have."""
    goal_name = next((n for n, d in opened.items() if d.units_stated), next(iter(opened)))
    goal = opened[goal_name].schema
    shared = None
    if all(STATE in d.schema.vectors for d in opened.values()):
        every = [set(d.schema.vectors[STATE].names) for d in opened.values()]
        shared = [name for name in goal.vectors[STATE].names if all(name in names for names in every)]
    out = []
    for data in opened.values():
        schema, words = data.schema, list[str]()
        if schema.fps != goal.fps:
            words.append(f"--fps {goal.fps}")
        theirs, ours = list(schema.cameras), list(goal.cameras)
        renames = []
        if set(theirs) != set(ours) and len(theirs) == len(ours):
            rest = [key for key in ours if key not in theirs]
            renames = [f"{old}={new}" for old, new in zip([k for k in theirs if k not in ours], rest, strict=True)]
        if renames:
            words.append("--rename " + " ".join(renames))
        sizes = set(goal.cameras.values())
        if len(sizes) == 1 and set(schema.cameras.values()) != sizes:
            words.append("--size {}x{}".format(*sizes.pop()))
        if shared and list(schema.vectors[STATE].names) != shared:
            words.append("--select " + " ".join(shared))
        if not data.units_stated:
            words.append("--units all=UNIT ENTRY=UNIT")
        if words:
            out.append(f"retake convert-dataset {data.root} --out {data.root}_for_mix {' '.join(words)}")
    return out


def _unit_doubts(name: str, data: Dataset) -> list[str]:
    """Numbers that cannot be radians: the usual sign of degrees or of a 0..100 gripper."""
    rows = data.full_rows() if data.version == "v3.0" else iter(())
    largest: dict[str, float] = {}
    for row in rows:
        for key in ("observation.state", "action"):
            if key in row["stats"]:
                values = np.abs([*row["stats"][key]["min"], *row["stats"][key]["max"]])
                largest[key] = max(largest.get(key, 0.0), float(values.max()))
    return [
        f"{name}: {key} reaches {value:.1f} and states no unit; that is not radians, metres or openness 0..1 "
        "(degrees?): convert it, or accept it with --trust-units"
        for key, value in largest.items()
        if value > _LARGEST_RAD
    ]


def _uid(name: str, data: Dataset, row: Row, repeat: int) -> str:
    own = row.provenance.get("uid")
    return sha256_json(
        {"mix": name, "source": own or [data.info["total_frames"], row.index, row.length], "repeat": repeat}
    )


def as_episode(data: Dataset, row: Row, schema: Schema, uid: str, name: str) -> DatasetEpisode:
    """An episode of another dataset as every writer takes it."""

    def columns() -> Columns:
        found = data.columns(row)
        return {key: found[key].astype(v.dtype) for key, v in schema.vectors.items() if key != SOURCE_UID}

    def frames(key: str) -> Iterator[Any]:
        return (resized(frame, schema.cameras[key]) for frame in data.frames(row, key))

    def segment(key: str) -> Segment | None:
        return row.videos.get(key)

    checks = {k.removeprefix(VERDICT): v for k, v in row.provenance.items() if k.startswith(VERDICT)}
    kept = {k: v for k, v in row.provenance.items() if k in KINDS and v is not None}
    defaults = {
        "run": name,
        "domain": name,
        "source_episode_id": f"{name}/{row.index}",
        "trajectory_id": f"{name}/{row.index}",
        "camera_names": camera_names(schema),
    }
    provenance = record({**defaults, **kept, "uid": uid, "window_length": row.length}, checks)

    def language() -> LanguageRows:
        return data.language(row)

    said = language if schema.language else None
    return DatasetEpisode(uid, row.task, row.length, columns, frames, segment, provenance, said)


def camera_names(schema: Schema) -> str:
    """Its cameras as provenance names them: without the usual prefix, whole where they have another."""
    return ",".join(key.removeprefix(IMAGE) for key in schema.cameras)


def _content(
    sources: Sequence[MixSource],
    mixed: Sequence[Mixed],
    drawn: Sequence[tuple[str, int, int]],
    opened: dict[str, Dataset],
    seed: int,
    weights_only: bool,
) -> dict[str, Any]:
    """retake_mix.json. `weight` of an episode: draw episodes with this probability to meet the asked shares exactly."""
    taken = {m.name: m.taken for m in mixed}
    weight = {s.name: s.weight for s in sources}
    return {
        "schema": SCHEMA,
        "seed": seed,
        "sources": [
            {**vars(m), "folder": s.path.name, "version": opened[s.name].version}
            for m, s in zip(mixed, sources, strict=True)
        ],
        "episodes": [
            {"source": name, "source_episode": index, "weight": weight[name] / taken[name]} for name, index, _ in drawn
        ],
        # The form openpi's RLDS loader takes: one entry per data set, weights summing to 1.
        "rlds": [{"name": s.name, "version": "1.0.0", "weight": s.weight, "filter_dict_path": None} for s in sources],
        "materialised": not weights_only,
    }
