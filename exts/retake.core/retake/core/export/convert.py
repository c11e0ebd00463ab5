# SPDX-License-Identifier: Apache-2.0
"""`retake convert-dataset IN --out OUT …`: a LeRobot dataset with another rate, other names, entries, units or picture size.

So that real data and takes can be mixed. States are interpolated, pictures are those of the nearest source frame, and
provenance, tasks and language go along; what is not asked for stays as it is, and videos that need no change are copied.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Int
from retake.core.errors import ExportError, InputError, unknown_name
from retake.core.export.api import ExportOptions, write_dataset
from retake.core.export.cli import parse_size, print_report
from retake.core.export.mix import as_episode, camera_names
from retake.core.export.reader import Dataset, Row
from retake.core.export.records import (
    ACTION,
    CODEC_NAMES,
    SOURCE_UID,
    STATE,
    Columns,
    DatasetEpisode,
    ExportReport,
    LanguageRows,
    Schema,
    Segment,
    Slice,
    Vector,
    VideoOptions,
)
from retake.core.export.sources import resized
from retake.core.files import sha256_json
from retake.core.progress import Bar, CheckCancel, Progress, Stop, never, silent

UNITS: dict[str, tuple[float, float]] = {
    "rad": (1.0, 0.0), "m": (1.0, 0.0), "deg": (float(np.pi / 180), 0.0), "mm": (1e-3, 0.0), "0..1": (1.0, 0.0),
    "0..100": (0.01, 0.0), "100..0": (-0.01, 1.0), "1..0": (-1.0, 1.0),
}  # fmt: skip
"""Unit of an entry → (scale, shift) to rad, m, or openness 0..1. `-100..100` needs the robot's limits: `retake import`."""
STATED = "rad, m, openness 0..1"


@dataclass(frozen=True)
class ConvertOptions:
    """What is to be another."""

    fps: int | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    """Feature or entry → its new name."""
    select: tuple[str, ...] = ()
    """Entries (new names) of state and action that stay, in this order; empty = all."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Entry (new name), or `all` → the unit it is recorded in; the result is in rad, m and openness 0..1."""
    size: tuple[int, int] | None = None
    cameras: tuple[str, ...] = ()
    """Picture features (new names) that stay; empty = all."""
    drop: tuple[str, ...] = ()
    """Numeric features that go."""

    def __post_init__(self) -> None:
        if self.fps is not None and self.fps < 1:
            raise InputError(f"--fps {self.fps}: expected a positive number of frames per second")
        for unit in self.units.values():
            if unit not in UNITS:
                hint = (
                    " (a share of a joint's travel needs its limits: `retake import lerobot` takes them from the robot)"
                )
                raise InputError(unknown_name("unit", unit, UNITS) + (hint if unit == "-100..100" else ""))


@dataclass(frozen=True)
class _Plan:
    """Where everything of the new dataset comes from."""

    schema: Schema
    features: Mapping[str, str]
    """New vector feature → source feature."""
    columns: Mapping[str, tuple[Int[np.ndarray, "N"], np.ndarray, np.ndarray]]
    """New vector feature with entries → their places in the source, scale and shift."""
    pictures: Mapping[str, str]
    """New picture feature → source feature."""


def convert(
    source: Path | str,
    out: Path | str,
    convert_options: ConvertOptions,
    options: ExportOptions | None = None,
    *,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> ExportReport:
    """Write the converted dataset to `out`. Interrupted, the same call continues.

    Raises InputError for unknown names and units, ExportError for an unreadable source.
    """
    data, options = Dataset(source), options or ExportOptions()
    plan = _plan(data, convert_options)
    schema = plan.schema
    if options.format != "lerobot-v3":
        schema = replace(schema, language=False)
    plan = replace(plan, schema=schema)
    jobs: list[tuple[str, Callable[[], DatasetEpisode]]] = []
    for row in data.episodes():
        own = row.provenance.get("uid") or [data.root.name, row.index, row.length]
        uid = sha256_json({"convert": _identity(convert_options), "source": own})
        jobs.append((uid, lambda r=row, u=uid: _converted(data, r, u, plan)))
    return write_dataset(jobs, schema, Path(out), options, progress=progress, check_cancel=check_cancel)


def _identity(options: ConvertOptions) -> dict[str, Any]:
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in vars(options).items()}


def _plan(data: Dataset, options: ConvertOptions) -> _Plan:
    source, rename = data.schema, options.rename
    entries = {name for vector in source.vectors.values() for name in vector.names}
    for old in rename:
        if old not in entries and old not in source.vectors and old not in source.cameras:
            raise InputError(
                unknown_name("feature or entry of --rename", old, (*source.cameras, *source.vectors, *sorted(entries)))
            )
    for key in options.drop:
        if key not in source.vectors or key in (STATE,):
            raise InputError(unknown_name("feature of --drop", key, [k for k in source.vectors if k != STATE]))
    pictures = {rename.get(key, key): key for key in source.cameras}
    if unknown := [key for key in options.cameras if key not in pictures]:
        raise InputError(unknown_name("picture feature", unknown[0], pictures))
    pictures = {new: old for new, old in pictures.items() if not options.cameras or new in options.cameras}
    features = {
        rename.get(key, key): key
        for key in source.vectors
        if key not in options.drop and key != SOURCE_UID and not key.startswith("annotation.")
    }
    named = {new: [rename.get(n, n) for n in source.vectors[old].names] for new, old in features.items()}
    every = {name for names in named.values() for name in names}
    for what, names in (
        ("entry of --select", options.select),
        ("entry of --units", [n for n in options.units if n != "all"]),
    ):
        if unknown := [name for name in names if name not in every]:
            raise InputError(unknown_name(what, unknown[0], sorted(every)))
    for new, names in named.items():
        if len(set(names)) != len(names):
            raise InputError(f"--rename gives two entries of {new} one name: {', '.join(names)}")
    vectors: dict[str, Vector] = {}
    columns = {}
    for new, old in features.items():
        names, vector = named[new], source.vectors[old]
        if new in (STATE, ACTION) and options.select:
            kept = [name for name in options.select if name in names]
            if not kept:
                raise InputError(f"--select leaves nothing of {new} ({', '.join(names)})")
        else:
            kept = names
        if names:
            units = (
                [options.units.get(name, options.units.get("all", "rad")) for name in kept]
                if new in (STATE, ACTION)
                else ["rad"] * len(kept)
            )
            scale, shift = np.array([UNITS[unit] for unit in units]).T
            columns[new] = (np.array([names.index(name) for name in kept]), scale, shift)
        vectors[new] = Vector(vector.dtype, tuple(kept) if vector.names else ())
    vectors[SOURCE_UID] = Vector("int64")
    if not pictures and source.cameras:
        raise InputError("no picture feature stays; name those of --camera")
    size = options.size
    cameras = {new: size or source.cameras[old] for new, old in pictures.items()}
    units = {k: v for k, v in source.units.items() if k in vectors}
    states = set(vectors[STATE].names) if STATE in vectors else set()
    if options.units and ("all" in options.units or states <= set(options.units)):
        units |= {key: STATED for key in (STATE, ACTION) if key in vectors}
    schema = replace(
        source, fps=options.fps or source.fps, vectors=vectors, cameras=cameras, units=units,
        slices=_slices(source.slices, source.vectors.get(STATE), vectors.get(STATE), rename),
        own_action_slices=_slices(source.action_slices, source.vectors.get(ACTION), vectors.get(ACTION), rename),
    )  # fmt: skip
    return _Plan(schema, features, columns, pictures)


def _slices(
    slices: Sequence[Slice], old: Vector | None, new: Vector | None, rename: Mapping[str, str]
) -> tuple[Slice, ...]:
    """The slices of the entries that stayed, in their new order."""
    if old is None or new is None or not slices:
        return ()
    kind = {rename.get(old.names[i], old.names[i]): s for s in slices for i in range(s.start, s.end)}
    out: list[Slice] = []
    for i, name in enumerate(new.names):
        of = kind.get(name)
        if of is None:
            return ()
        if out and out[-1].name.rstrip("0123456789_") == of.name.rstrip("0123456789_") and out[-1].kind == of.kind:
            out[-1] = replace(out[-1], end=i + 1)
        else:
            again = sum(s.kind == of.kind and s.robot == of.robot for s in out)
            out.append(replace(of, name=of.name if not again else f"{of.name}_{again + 1}", start=i, end=i + 1))
    return tuple(out)


def _converted(data: Dataset, row: Row, uid: str, plan: _Plan) -> DatasetEpisode:
    schema, fps = plan.schema, data.schema.fps
    same = schema.fps == fps
    length = row.length if same else int(np.floor((row.length - 1) * schema.fps / fps + 1e-6)) + 1
    place = np.arange(length) * (fps / schema.fps)
    nearest = np.minimum(np.floor(place + 0.5).astype(int), row.length - 1)

    def columns() -> Columns:
        found, out = data.columns(row), {}
        for new, old in plan.features.items():
            values = found[old]
            if values.dtype.kind == "f" and not same:
                flat = values.reshape(len(values), -1)
                moved = np.stack([np.interp(place, np.arange(len(flat)), c) for c in flat.T.astype(np.float64)], -1)
                values = moved.reshape(length, *values.shape[1:])
            elif not same:
                values = values[nearest]
            if new in plan.columns:
                places, scale, shift = plan.columns[new]
                values = values[:, places]
                if values.dtype.kind == "f" and not (np.all(scale == 1) and np.all(shift == 0)):
                    values = values.astype(np.float64) * scale + shift
            out[new] = values.astype(schema.vectors[new].dtype)
        return out

    def frames(key: str) -> Iterator[Any]:
        size, at = schema.cameras[key], 0
        for k, frame in enumerate(data.frames(row, plan.pictures[key])):
            while at < length and nearest[at] == k:
                yield resized(frame, size)
                at += 1

    def segment(key: str) -> Segment | None:
        return row.videos.get(plan.pictures[key]) if same else None

    def language() -> LanguageRows:
        return _retimed(data.language(row), fps, schema.fps, length)

    base = as_episode(data, row, schema, uid, data.root.name)
    provenance = {**base.provenance, "window_length": length, "camera_names": camera_names(schema)}
    return DatasetEpisode(
        uid, row.task, length, columns, frames, segment, provenance, language if schema.language else None
    )


def _retimed(rows: LanguageRows, old: int, new: int, length: int) -> LanguageRows:
    """Words at the frames that are nearest in time; two events that fall on one frame are said there both."""
    if old == new:
        return rows

    def at(frame: float) -> int:
        return min(int(np.floor(frame * new / old + 0.5)), length - 1)

    persistent = tuple(
        {**r, "timestamp": float(np.float32(at(float(r["timestamp"]) * old) / new))} for r in rows.persistent
    )
    events: dict[int, tuple[Any, ...]] = {}
    for frame, said in rows.events.items():
        events[at(frame)] = (*events.get(at(frame), ()), *said)
    return LanguageRows(persistent, events)


def parser() -> argparse.ArgumentParser:
    """Arguments of `retake convert-dataset`."""
    out = argparse.ArgumentParser(
        prog="retake convert-dataset",
        description="A LeRobot dataset with another frame rate, other names, entries, units or picture size, for `retake mix`.",
        epilog="example:\n  retake convert-dataset datasets/so101 --out datasets/so101_15 --fps 15 --size 640x480 "
        "--rename observation.images.top=observation.images.front --units all=deg gripper.pos=0..100",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = out.add_argument
    add("source", type=Path)
    add("--out", type=Path, required=True)
    add("--fps", type=int, help="states interpolated, pictures of the nearest source frame")
    add("--rename", nargs="+", default=(), metavar="OLD=NEW", help="features or entries")
    add("--select", nargs="+", default=(), metavar="ENTRY", help="entries of state and action that stay, in this order")
    add(
        "--units", nargs="+", default=(), metavar="ENTRY=UNIT", help=f"what an entry, or all, is in: {', '.join(UNITS)}"
    )
    add("--size", metavar="WxH")
    add("--camera", nargs="+", default=(), metavar="FEATURE", help="picture features that stay")
    add("--drop", nargs="+", default=(), metavar="FEATURE", help="numeric features that go")
    add("--format", choices=("lerobot-v3", "lerobot-v2.1"), default="lerobot-v3")
    add("--codec", choices=sorted(CODEC_NAMES), help="default: av1 for lerobot-v3, h264 for lerobot-v2.1")
    add("--restart", action="store_true", help="discard the work of another, interrupted conversion to the same folder")
    add("--quiet", action="store_true")
    return out


def main(argv: list[str]) -> int:
    """`retake convert-dataset IN --out OUT …`; returns the exit code. Raises RetakeError."""
    args = parser().parse_args(argv)

    def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
        parts = [text.partition("=") for text in texts]
        if bad := [text for text, (a, _, b) in zip(texts, parts, strict=True) if not (a and b)]:
            raise InputError(f"{option} {bad[0]!r}: expected NAME=VALUE")
        return {a: b for a, _, b in parts}

    size = parse_size(args.size)
    if isinstance(size, str):
        raise InputError(f"--size {size!r}: expected WIDTHxHEIGHT")
    if args.out.resolve() == args.source.resolve():
        raise ExportError(f"--out {args.out} is the source itself; name another folder")
    wanted = ConvertOptions(
        args.fps, pairs(args.rename, "--rename"), tuple(args.select), pairs(args.units, "--units"), size,
        tuple(args.camera), tuple(args.drop),
    )  # fmt: skip
    video = VideoOptions.of(args.codec) if args.codec else None
    options = ExportOptions(args.format, video, restart=args.restart)
    bar = silent if args.quiet else Bar("Convert")
    print_report(convert(args.source, args.out, wanted, options, progress=bar, check_cancel=Stop().check))
    return 0
