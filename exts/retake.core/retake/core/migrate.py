# SPDX-License-Identifier: Apache-2.0
"""`retake migrate`: a run of the layout `retake.run/1` (a folder per variant and take, the camera in its name) becomes
one of `retake.run/2`, in which the cameras of a world stand beside each other.

Folders are renamed, never copied, and no pixel changes. A killed migration goes on with the same command.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.core.episode import open_episode
from retake.core.errors import RunError
from retake.core.files import read_json, write_json
from retake.core.run_layout import (
    TAKE_RECORD,
    VARIANT_RECORD,
    VERDICT_RECORD,
    camera_in,
    subfolders,
    take_id,
    variant_id,
)
from retake.core.run_reader import MANIFEST
from retake.core.run_store import OLDER, SCHEMA, RunDirectory

ASIDE = ".moving-"
"""Begins the name of a folder on its way: where a world's new folder has the name of an old variant."""
STALE = ("gate*.json", "gate*.md", "contact_sheet*.png")
"""Tables of the last call; the next `retake variants` writes them again."""


@dataclass(frozen=True)
class Migrated:
    """What was moved: (old name, new name) of each, and why a folder stayed where it was."""

    variants: tuple[tuple[str, str], ...] = ()
    takes: tuple[tuple[str, str], ...] = ()
    left: tuple[str, ...] = ()


def migrate(path: Path | str) -> Migrated:
    """Move a run's variants, takes and verdicts to today's layout; a run that has it already is left as it is.

    Raises RunError for a folder that is no run, one in use, or two folders that would get one name.
    """
    run = RunDirectory(Path(path))
    if not (run.path / MANIFEST).is_file():
        raise RunError(f"{run.path} is no run folder: {MANIFEST} is missing")
    with run.locked():
        try:
            manifest = read_json(run.path / MANIFEST)
        except (OSError, ValueError) as error:
            raise RunError(f"{run.path / MANIFEST} is not readable JSON: {error}") from error
        schema = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        if schema == SCHEMA:
            return Migrated()
        if schema != OLDER:
            raise RunError(f"{run.path / MANIFEST} has schema {schema!r}; `retake migrate` knows {OLDER!r}")
        moved = _move(run, manifest)
        config = dict(manifest.get("config") or {})
        if "camera" in config:
            config["cameras"] = [config.pop("camera")]
        write_json(run.path / MANIFEST, {**manifest, "schema": SCHEMA, "config": config})
    return moved


def _move(run: RunDirectory, manifest: dict[str, Any]) -> Migrated:
    cameras = [c.name for c in open_episode(run.episode).header.cameras] if run.episode.is_dir() else []
    default = str((manifest.get("config") or {}).get("camera") or (cameras[0] if cameras else "front"))
    left: list[str] = []
    variants, names = [], {}
    for folder, old in _older(run.variants_folder, VARIANT_RECORD, left):
        record = read_json(folder / VARIANT_RECORD)
        source, world = record.get("source") or {}, record.get("world") or {}
        camera = str(source.get("camera") or default)
        name = _free(
            variant_id(str(world.get("name") or old), camera, int(source.get("frame") or 0)), old, names.values()
        )
        names[old] = name
        variants.append((folder, old, name, {**record, "id": name}))
    takes = []
    for folder, old in _older(run.takes_folder, TAKE_RECORD, left):
        record = read_json(folder / TAKE_RECORD)
        variant, start = str(record.get("variant") or ""), int(record.get("start") or 0)
        camera = str(record.get("camera") or default)
        of = names.get(variant) or variant_id(_bare(variant, camera, start), camera, start)
        name = take_id(of, str(record.get("backend") or "composite"), record.get("seed", 0), start)
        name = _free(name, old, [row[2] for row in takes])
        takes.append((folder, old, name, {**record, "id": name, "variant": of}))
    for folder, old, name, record in variants:
        _rename(folder, run.variants_folder / name, VARIANT_RECORD, record, old)
    for folder, old, name, record in takes:
        for verdict in (run.verdicts_folder / f"{ASIDE}{old}", run.verdicts_folder / old):
            if (verdict / VERDICT_RECORD).is_file():
                judged = read_json(verdict / VERDICT_RECORD)
                judged = {**judged, "take": name} if "take" in judged else judged
                _rename(verdict, run.verdicts_folder / name, VERDICT_RECORD, judged, old)
        _rename(folder, run.takes_folder / name, TAKE_RECORD, record, old)
    for pattern in STALE:
        for path in run.variants_folder.glob(pattern):
            path.unlink()
    return Migrated(
        tuple((old, name) for _, old, name, _ in variants), tuple((old, name) for _, old, name, _ in takes), tuple(left)
    )


def _older(stage: Path, record: str, left: list[str]) -> list[tuple[Path, str]]:
    """(folder, its old name) of everything that lies flat in a stage, also of what a killed migration had in hand."""
    found = []
    for folder in (*sorted(stage.glob(f"{ASIDE}*")), *subfolders(stage)):
        old = folder.name.removeprefix(ASIDE)
        if not (folder / record).is_file():
            continue  # a world of today's layout, or what never was finished
        try:
            if not isinstance(read_json(folder / record), dict):
                raise ValueError("it holds no JSON object")
        except (OSError, ValueError) as error:
            left.append(f"{folder}: {record} cannot be read ({error})")
            continue
        found.append((folder, old))
    return found


def _rename(folder: Path, target: Path, record: str, content: dict[str, Any], old: str) -> None:
    """Move a folder to its new place, its record rewritten; through a hidden name, as the world's folder may be called
    what the folder was."""
    aside = folder.parent / f"{ASIDE}{old}"
    if folder != aside:
        folder.rename(aside)
    write_json(aside / record, content)
    if target.exists():
        raise RunError(f"{aside} cannot become {target}: that exists; move one of them away")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(target)


def _free(name: str, old: str, taken: Iterable[str]) -> str:
    """The name, or, for a copy under a name of its own, one that is made of that."""
    return f"{old}/{camera_in(name)}" if name in taken else name


def _bare(variant: str, camera: str, start: int) -> str:
    """The world in an old variant's name, where the variant itself is gone."""
    return re.sub(rf"(-{re.escape(camera)})?(-f{start})?$", "", variant) or variant


def main(argv: list[str]) -> int:
    """`retake migrate RUN …`"""
    parser = argparse.ArgumentParser(
        prog="retake migrate",
        description="Move runs of the layout before worlds had all their cameras to today's (docs/run_folder.md).",
    )
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help="run folders")
    for path in parser.parse_args(argv).run:
        done = migrate(path)
        for old, new in (*done.variants, *done.takes):
            print(f"{old} -> {new}")
        for text in done.left:
            print(f"left as it was: {text}")
        if not (done.variants or done.takes or done.left):
            print(f"{path} has nothing to move")
    return 0
