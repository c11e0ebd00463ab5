# SPDX-License-Identifier: Apache-2.0
"""`export(runs, out, format=…)`: accepted takes become a dataset. Resumable, appendable, one episode in memory at a time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retake.core.errors import Cancelled, ExportError, InputError, unknown_name
from retake.core.export import canvas, card, encode, tables
from retake.core.export.collect import IMAGE, Item, Plan, Selection, plan
from retake.core.export.isaaclab import IsaacLabWriter
from retake.core.export.isaaclab_env import LabTarget, require_environment
from retake.core.export.lerobot_v3 import LeRobotV3Writer, Limits
from retake.core.export.lerobot_v21 import LeRobotV21Writer
from retake.core.export.oscar import OBJECT_CONTROL, OscarWriter, drawn_objects
from retake.core.export.reader import dataset_json
from retake.core.export.records import (
    FORMATS,
    SUBTASK,
    DatasetEpisode,
    ExportReport,
    Rejected,
    Schema,
    Vector,
    VideoOptions,
)
from retake.core.export.sources import EpisodeCache, dataset_episode
from retake.core.export.split import Split, assign
from retake.core.export.staging import Staging, recover, staged
from retake.core.export.writer import DATASET_SCHEMA, PROVENANCE, REJECTED, DatasetWriter
from retake.core.files import sha256_file, sha256_json, write_json
from retake.core.licences import commercial_obstacle
from retake.core.progress import CheckCancel, Progress, never, silent

CONTROL_FORMATS = (OscarWriter.format, canvas.FORMAT)
"""Formats whose samples hold a control video."""


@dataclass(frozen=True)
class ExportOptions:
    """How a dataset is written."""

    format: str = "lerobot-v3"
    video: VideoOptions | None = None
    """None: AV1 for v3.0, H.264 for v2.1, whose readers (decord, OpenCV) decode no AV1."""
    limits: Limits = field(default_factory=Limits)
    split: Split = field(default_factory=Split)
    append: bool = False
    restart: bool = False
    """Discard the work of an interrupted export of something else to the same folder."""
    isaaclab: LabTarget = field(default_factory=LabTarget)
    """Which Isaac Lab and environment an HDF5 is for."""
    object_control: bool = False
    """Objects are drawn into the control video (skeleton.objects), for formats that have one."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(unknown_name("dataset format", self.format, FORMATS))
        if self.object_control and self.format not in CONTROL_FORMATS:
            raise InputError(
                f"--object-control draws objects into the control video, and {self.format} has none; it is for --format "
                + " and ".join(CONTROL_FORMATS)
            )

    @property
    def encoding(self) -> VideoOptions:
        """How videos are encoded: as asked, or the format's own way."""
        return self.video or VideoOptions.of("h264" if self.format == "lerobot-v2.1" else "av1")


def export(
    runs: Sequence[Path | str],
    out: Path | str,
    options: ExportOptions | None = None,
    selection: Selection | None = None,
    *,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> tuple[ExportReport, ...]:
    """Write the accepted takes of run folders as a dataset at `out`; with a split, as `out`/train and `out`/val.

    Interrupted (Ctrl-C, kill, full disk), the same call continues and gives the same bytes. Raises InputError,
    EpisodeError, ExportError (nothing is half-written: `out` appears or changes only as a whole) or Cancelled.
    """
    options, selection, out = options or ExportOptions(), selection or Selection(), _real(Path(out))
    if not options.format.startswith("lerobot"):
        selection = replace(selection, truth=False)
        if selection.layout != "full":
            raise InputError(
                f"--layout {selection.layout} is for LeRobot's formats; {options.format} has its own vectors"
            )
    made = plan(runs, selection)
    if options.format == canvas.FORMAT:
        canvas.arrange(*canvas.schema_sizes(made.schema))
    if options.object_control:
        _require_objects(made)
    if selection.language and options.format == "lerobot-v3":
        made = replace(made, schema=replace(made.schema, language=True))
    if selection.language and options.format == "lerobot-v2.1":
        vectors = {**made.schema.vectors, SUBTASK: Vector("int64")}
        made = replace(made, schema=replace(made.schema, vectors=vectors))
    if selection.only_commercial and options.append:
        for part in (out / "train", out / "val") if options.split.active else (out,):
            _require_commercial(part)
    if not options.split.active:
        return (_export_plan(made, out, options, selection, "train", progress, check_cancel),)
    known = {item.run.name for item in made.items}
    if unknown := set(options.split.val_runs) - known:
        raise InputError(unknown_name("run in --split", sorted(unknown)[0], known))
    where = assign(((i.trajectory, i.run.name) for i in made.items), options.split)
    parts = {n: tuple(i for i in made.items if where[i.trajectory] == n) for n in ("train", "val")}
    for name, items in parts.items():
        if items or (options.append and (out / name).is_dir()):
            continue
        if len(where) < 2:
            raise InputError(
                "--split needs two trajectories at least, one to train on and one to hold out; all that was given shows one "
                "and the same motion. Export without --split, or give more runs"
            )
        hint = f"of {len(where)} trajectories none fell to {name!r}; take another --seed or name runs: --split val=@RUN"
        raise ExportError(f"the split leaves {name} empty: {hint}")
    reports = []
    for name, items in parts.items():
        if not items:
            continue  # appended to the other part alone
        marked = tuple(replace(i, provenance={**i.provenance, "split": name}) for i in items)
        part = replace(made, items=marked, rejected=made.rejected if name == "train" else ())
        reports.append(_export_plan(part, out / name, options, selection, name, progress, check_cancel))
    return tuple(reports)


def _real(out: Path) -> Path:
    """The folder itself where `out` is a link to it, or a name (`.`, `..`) that cannot be renamed to."""
    return out.resolve() if out.is_symlink() or out.name in ("", "..") else out


def _require_commercial(base: Path) -> None:
    """Raises ExportError when a dataset to append to holds episodes whose terms do not allow commercial use."""
    if dataset_json(base) and not (base / PROVENANCE).is_file():
        raise ExportError(
            f"--only-commercial: {base / PROVENANCE} is missing, so nothing states the terms of what is there"
        )
    for row in tables.read_jsonl(base / PROVENANCE):
        terms = ["licence_source"] + (
            [] if row.get("domain") in ("sim", "recorded") else ["licence_model", "licence_first_frame"]
        )
        for key in terms:
            if reason := commercial_obstacle(row.get(key)):
                raise ExportError(
                    f"--only-commercial: {base} already holds {row.get('run')}/{row.get('take_id') or 'sim'}, whose {key} "
                    f"does not allow it ({reason}); export to a new folder"
                )


def _require_objects(made: Plan) -> None:
    """Raises ExportError, before anything is written, where an episode has nothing to draw into a control video."""
    opened = EpisodeCache()
    for run, path in dict.fromkeys((item.run, item.episode) for item in made.items):
        if not any(one.movable for one in opened(path).header.objects):
            raise ExportError(
                f"--object-control: the episode of {run.name} has no movable object to draw; leave that run out, or export "
                "without --object-control"
            )


def _export_plan(
    made: Plan,
    out: Path,
    options: ExportOptions,
    selection: Selection,
    split: str,
    progress: Progress,
    check_cancel: CheckCancel,
) -> ExportReport:
    opened = EpisodeCache()
    if options.format == "hdf5-isaaclab":  # refused before anything is written
        for path in dict.fromkeys(item.episode for item in made.items):
            require_environment(opened(path), options.isaaclab)

    def episode(item: Item) -> DatasetEpisode:
        return dataset_episode(item, made.schema, selection, opened)

    report = write_dataset(
        [(item.uid, lambda item=item: episode(item)) for item in made.items],
        made.schema,
        out,
        options,
        split=split,
        rejected=made.rejected,
        progress=progress,
        check_cancel=check_cancel,
    )
    return replace(report, warnings=(*made.warnings, *report.warnings))


def write_dataset(
    episodes: Sequence[tuple[str, Callable[[], DatasetEpisode]]],
    schema: Schema,
    out: Path,
    options: ExportOptions,
    *,
    split: str = "train",
    rejected: Iterable[Rejected] = (),
    also: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> ExportReport:
    """Write (uid, how to get it) episodes in order. The engine below `export`, `mix` and the tests.

    `also`: further JSON files, path in the dataset → content, which appear with it.
    """
    encode.require("pyarrow") if options.format.startswith("lerobot") else None
    if options.format.startswith("lerobot"):
        for size in schema.cameras.values():
            encode.check_size(size, options.encoding)
    started, rejected = time.monotonic(), tuple(rejected)
    recover(out)
    base = _base(out, schema, options)
    there = set(_uids(base)) if base else set()
    new = [(uid, make) for uid, make in episodes if uid not in there]
    skipped = len(episodes) - len(new)
    if not new and base:
        return _report(out, options, 0, skipped, rejected, started)
    identity = {
        "schema": DATASET_SCHEMA,
        "format": options.format,
        "dataset": sha256_json(schema.to_json()),
        "video": vars(options.encoding),
        "limits": vars(options.limits),
        "episodes": sha256_json([uid for uid, _ in new]),
        "base": sha256_json(sorted(there)) if base else None,
        "split": split,
        **drawn_objects(options.object_control),
        **(_lab_identity(options.isaaclab) if options.format == "hdf5-isaaclab" else {}),
    }
    with staged(out, identity, base, restart=options.restart) as staging:
        writer = make_writer(staging, schema, options, split)
        try:
            pictures = card.Pictures(staging, schema)
            for entry in staging.entries():
                writer.advance(entry)
                pictures.note(entry)
            total = sum(1 for _ in new)
            for index in range(staging.count, total):
                check_cancel()
                progress(index, total, new[index][0][:8])
                episode = _cancellable(new[index][1](), check_cancel)
                entry = pictures.added(writer.write(index, episode), episode)
                staging.commit_entry(entry)
                writer.advance(entry)
                pictures.note(entry)
            check_cancel()
            progress(total, total, "writing metadata")
            writer.finish()
            _write_rejected(staging, rejected)
            for name, content in (also or {}).items():
                write_json(staging.dataset / name, content)
            card.write_card(staging, schema, options.format, options.encoding, split)
            staging.finish(writer.replaced)
        except KeyboardInterrupt as error:
            raise Cancelled(f"stopped; the same command continues the export to {out}") from error
    return _report(out, options, len(new), skipped, rejected, started)


def _lab_identity(target: LabTarget) -> dict[str, Any]:
    """What of a LabTarget changes the file."""
    stated = sha256_file(target.environment) if target.environment and target.environment.is_file() else ""
    return {"isaaclab": [target.version, target.env_name, stated]}


def _cancellable(episode: DatasetEpisode, check_cancel: CheckCancel) -> DatasetEpisode:
    """The episode, asking between its frames whether to stop: one episode may be an hour of video."""

    def frames(key: str) -> Iterator[Any]:
        for frame in episode.frames(key):
            check_cancel()
            yield frame

    return replace(episode, frames=frames)


def make_writer(staging: Staging, schema: Schema, options: ExportOptions, split: str) -> DatasetWriter:
    """The writer of a format."""
    if options.format == "lerobot-v3":
        return LeRobotV3Writer(staging, schema, options.encoding, split, options.limits)
    if options.format == "lerobot-v2.1":
        return LeRobotV21Writer(staging, schema, options.encoding, split)
    if options.format == "oscar":
        return OscarWriter(staging, schema, options.object_control)
    if options.format == canvas.FORMAT:
        return canvas.OscarCanvasWriter(staging, schema, options.object_control)
    return IsaacLabWriter(staging, schema, split, options.isaaclab)


def _base(out: Path, schema: Schema, options: ExportOptions) -> Path | None:
    """The dataset to append to, or None for a new one. Raises ExportError when `out` holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir():
        raise ExportError(f"{out} is a file; --out names a folder")
    marker = dataset_json(out)
    if not marker:
        raise ExportError(f"{out} is not empty and no dataset of Retake's; choose another --out (nothing was changed)")
    if marker.get("schema") != DATASET_SCHEMA:
        raise ExportError(
            f"{out} has schema {marker.get('schema')!r}; this version of Retake writes {DATASET_SCHEMA!r}"
        )
    problems = []
    if marker.get("format") != options.format:
        problems.append(f"format: it is {marker.get('format')}, asked is {options.format}")
    problems += Schema.from_json(marker.get("dataset"), f"{out}: dataset").differences(
        schema, "the dataset", "the new episodes"
    )
    video = marker.get("video")
    if video and video != vars(options.encoding):
        mine = vars(options.encoding)
        problems += [
            f"video {k}: it has {video.get(k)!r}, asked is {mine[k]!r}" for k in mine if video.get(k) != mine[k]
        ]
    there, asked = marker.get(OBJECT_CONTROL), drawn_objects(options.object_control).get(OBJECT_CONTROL)
    if there != asked:
        problems.append(
            f"objects in the control video: it has {there or 'none'}, asked is {asked or 'none'} (--object-control)"
        )
    if problems:
        raise ExportError(f"{out} holds a dataset these episodes do not fit: " + "; ".join(problems))
    if not options.append:
        raise ExportError(f"{out} holds a dataset already; --append adds to it (episodes it has are not added twice)")
    return out


def _uids(base: Path) -> Iterator[str]:
    for row in tables.read_jsonl(base / PROVENANCE):
        if row.get("uid"):
            yield str(row["uid"])


def _write_rejected(staging: Staging, rejected: Sequence[Rejected]) -> None:
    """meta/retake_rejected.jsonl: what was not exported. A take accepted since then leaves the list."""
    accepted = {(e["provenance"].get("run"), e["provenance"].get("take_id")) for e in staging.entries()}
    old = list(tables.read_jsonl(staging.base / REJECTED)) if staging.base else []
    rows = {(row["run"], row["take"]): row for row in (*old, *(vars(r) for r in rejected))}
    tables.write_jsonl(staging.dataset / REJECTED, (row for key, row in rows.items() if key not in accepted))


def _report(
    out: Path, options: ExportOptions, added: int, skipped: int, rejected: tuple[Rejected, ...], started: float
) -> ExportReport:
    domains: Counter[str] = Counter()
    frames = 0
    for row in tables.read_jsonl(out / PROVENANCE):
        domains[str(row.get("domain") or "other")] += 1
        frames += int(row.get("window_length") or 0)
    seconds = time.monotonic() - started
    return ExportReport(
        out, options.format, sum(domains.values()), frames, added, skipped, rejected, dict(domains), (), seconds
    )


__all__ = ["IMAGE", "Any", "ExportOptions", "export", "make_writer", "write_dataset"]
