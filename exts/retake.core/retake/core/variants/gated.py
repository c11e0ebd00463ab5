# SPDX-License-Identifier: Apache-2.0
"""Gated making: every delivered frame passed the gate; a frame that fails is made again with another seed, and what
stays out is reported as missing instead of being delivered.

Beside the variants lie `gate.json` (every check, what is missing and why, diversity of the set), `gate.md` (the same as
a table) and `contact_sheet.png`; for another camera or first frame their names and the folders' end as
`run_layout.view_suffix` says.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from retake.core.episode import Episode, open_episode
from retake.core.errors import VariantError
from retake.core.files import read_json, sha256_json, write_bytes, write_json
from retake.core.processes import map_in_processes
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import VARIANT_FRAME, VARIANT_RECORD, variant_id
from retake.core.variants.attempts import (
    Attempt,
    Attempts,
    Rules,
    Tried,
    attempts_from_json,
    attempts_to_json,
    why_missing,
)
from retake.core.variants.base import ImageBackend, Variant, World, source_for, source_frame
from retake.core.variants.gate import GateLimits, duplicate_of, thumbnail
from retake.core.variants.make import licensed_backend, read_frame, require_reader, require_worlds, view_of
from retake.core.variants.sheet import diversity, gate_table, write_sheet
from retake.core.variants.worlds import Catalogue, load_catalogue

SCHEMA = "retake.gate/1"
WORTH_PROCESSES_PX = 3 * 640 * 480
"""Pixels to make from which starting processes (half a second) pays: a frame of 640x480 takes about a second."""
SHEET, TABLE, RECORD = "contact_sheet.png", "gate.md", "gate.json"


@dataclass(frozen=True)
class Gated:
    """What a gated run delivered."""

    variants: tuple[Variant, ...]
    missing: dict[str, tuple[str, ...]]
    """World name → why its last attempt failed."""


def make_gated_variants(
    episode: Episode,
    camera: str,
    out_dir: Path,
    *,
    worlds: Sequence[World],
    backend: str | ImageBackend = "procedural",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    index: int = 0,
    rerolls: int = 2,
    gate: bool = True,
    limits: GateLimits | None = None,
    depth: str = "",
    only_commercial: bool = False,
    catalogue: Catalogue | None = None,
    workers: int = 1,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Gated:
    """Variants that passed the gate, with contact sheet and tables beside them (see the module).

    Same seeds, same result; what is unchanged is neither made nor measured again. `settings` are those of a backend
    given by name; `workers` processes (0: one per core) share its worlds if it is `parallel`. With `gate=False` nothing
    is measured and nothing is missing. Raises VariantError as `make_variants` does, and for a frame without a robot to
    measure; a world whose every attempt failed is in `missing`, not an error.
    """
    require_worlds(worlds)
    rules = Rules(gate, rerolls, limits or GateLimits(), depth)
    maker = licensed_backend(backend, only_commercial, settings, catalogue)
    require_reader(maker, worlds)
    source, out_dir, view = (
        source_for(maker, episode, camera, index),
        Path(out_dir),
        view_of(episode, camera, index),
    )
    folders = {world.name: out_dir / variant_id(world.name, view) for world in worlds}
    attempts = Attempts(
        source, maker, seed, rules,
        episode_sha256=episode.content_sha256, catalogue=catalogue, only_commercial=only_commercial,
    )  # fmt: skip
    before = _earlier_record(_beside(out_dir, RECORD, view), rules)
    results: dict[str, Tried] = {}
    for world in worlds:
        check_cancel()
        found = attempts.done(world, folders[world.name]) or _known_missing(before, attempts, world)
        if found is not None:
            results[world.name] = found
    left = [world for world in worlds if world.name not in results]
    kept = len(worlds) - len(left)
    apart = workers != 1 and isinstance(backend, str) and getattr(maker, "parallel", False)
    files = None if catalogue is None else catalogue.files
    # A catalogue made in Python, not of files, is known to this process alone.
    apart = apart and (catalogue is None or catalogue is load_catalogue(catalogue.files))
    if apart and len(left) > 1 and len(left) * source.instance_ids.size >= WORTH_PROCESSES_PX:
        shared = (
            episode.path, camera, index, backend, json.dumps(dict(settings or {})), only_commercial, seed, rules, files,
        )  # fmt: skip
        made = map_in_processes(
            _apart, [(shared, world, folders[world.name]) for world in left], [1] * len(left),
            workers=workers, what="variants", failure=VariantError, check_cancel=check_cancel,
            progress=lambda done, total, note="": progress(kept + done, len(worlds), note),
        )  # fmt: skip
        results.update({world.name: tried for world, tried in zip(left, made, strict=True)})
    else:
        for done, world in enumerate(left):
            progress(kept + done, len(worlds), world.name)
            results[world.name] = attempts.run(world, folders[world.name], check_cancel=check_cancel)
    if before.get("state") != _state(results, worlds):
        results = _settle(attempts, worlds, results, folders, check_cancel)
    elif all(_beside(out_dir, name, view).is_file() for name in (SHEET, TABLE)):
        return _collect(worlds, results, progress)
    for world in worlds:
        if results[world.name].variant is None and (folders[world.name] / VARIANT_RECORD).exists():
            shutil.rmtree(folders[world.name])
    _write(attempts, worlds, results, out_dir, view, catalogue)
    return _collect(worlds, results, progress)


def make_checked_variant(attempts: Attempts, world: World, folder: Path, check_cancel: CheckCancel = never) -> Variant:
    """One world that passed the gate. Raises VariantError saying why none of its attempts did."""
    tried = attempts.done(world, folder) or attempts.run(world, folder, check_cancel=check_cancel)
    if tried.variant is None:
        raise VariantError(why_missing(world, tried.failed))
    return tried.variant


def _beside(out_dir: Path, name: str, view: str) -> Path:
    """`gate.json`, or `gate-wrist.json` for another view."""
    stem, _, suffix = name.rpartition(".")
    return out_dir / f"{stem}{view}.{suffix}"


def read_missing(out_dir: Path) -> dict[str, tuple[str, ...]]:
    """Variant id → why its last attempt failed, of the last gated run of every view into a folder."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(Path(out_dir).glob("gate*.json")):
        view = path.stem.removeprefix("gate")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            for name, entry in read_json(path)["missing"].items():
                found[variant_id(name, view)] = attempts_from_json(entry["failed"])[-1].reasons
    return found


def _settle(
    attempts: Attempts, worlds: Sequence[World], results: dict[str, Tried], folders: Mapping[str, Path],
    check_cancel: CheckCancel,
) -> dict[str, Tried]:  # fmt: skip
    """Near-duplicates: of two worlds that look alike the later one is tried again."""
    if not attempts.rules.gate:
        return results
    settled: dict[str, Tried] = {}
    marks: dict[str, Any] = {}
    for world in worlds:
        check_cancel()
        tried, folder = results[world.name], folders[world.name]
        if any(a.twin and a.twin not in marks for a in tried.failed):
            # It stood back for a world that is not there any more.
            tried = attempts.run(world, folder, check_cancel=check_cancel)
        while tried.variant is not None:
            frame = read_frame(folder / VARIANT_FRAME)
            twin = duplicate_of(frame, marks, attempts.rules.limits.duplicate)
            if not twin:
                marks[world.name] = thumbnail(frame)
                break
            twins = Attempt(tried.variant.seed, (f"looks like {twin}",), twin)
            tried = attempts.run(world, folder, (*tried.failed, twins), check_cancel)
        settled[world.name] = tried
    return settled


def _write(
    attempts: Attempts, worlds: Sequence[World], results: dict[str, Tried], out_dir: Path, view: str,
    catalogue: Catalogue | None,
) -> None:  # fmt: skip
    made = [v for world in worlds if (v := results[world.name].variant) is not None]
    missing = {w.name: results[w.name].failed for w in worlds if results[w.name].variant is None}
    by_name = {world.name: world for world in worlds}
    record = {
        "schema": SCHEMA,
        "gate": attempts.rules.gate,
        "identity": attempts.rules.identity,
        "limits": asdict(attempts.rules.limits),
        "rerolls": attempts.rules.rerolls,
        "delivered": {v.id: _entry(out_dir / v.id, v, results[v.world.name].failed) for v in made},
        "missing": {
            name: {"inputs": attempts.inputs(by_name[name], 0), "failed": attempts_to_json(failed)}
            for name, failed in missing.items()
        },
        "diversity": diversity(made, out_dir, catalogue) if made else None,
        "state": _state(results, worlds),
    }
    if made:
        write_sheet(made, out_dir, _beside(out_dir, SHEET, view))
    else:
        _beside(out_dir, SHEET, view).unlink(missing_ok=True)
    write_bytes(_beside(out_dir, TABLE, view), gate_table(record).encode())
    write_json(_beside(out_dir, RECORD, view), record)


def _entry(folder: Path, variant: Variant, failed: tuple[Attempt, ...]) -> dict[str, Any]:
    checks = read_json(folder / VARIANT_RECORD).get("gate", {}).get("checks", [])
    return {"seed": variant.seed, "failed": attempts_to_json(failed), "checks": checks}


def _state(results: dict[str, Tried], worlds: Sequence[World]) -> str:
    """Hash of what was delivered and what was not: the same state needs no new comparison, sheet or table."""
    rows = []
    for world in worlds:
        tried = results[world.name]
        frame = tried.variant.frame_sha256 if tried.variant is not None else ""
        rows.append([world.name, frame, attempts_to_json(tried.failed)])
    return sha256_json(rows)


def _earlier_record(path: Path, rules: Rules) -> dict[str, Any]:
    """gate.json of an earlier run by the same rules; empty otherwise."""
    try:
        record = read_json(path)
        same = record["schema"] == SCHEMA and record["identity"] == rules.identity
        return record if same and record["rerolls"] == rules.rerolls else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _known_missing(before: dict[str, Any], attempts: Attempts, world: World) -> Tried | None:
    """A world of which every attempt is known to fail."""
    try:
        entry = before.get("missing", {})[world.name]
        failed = attempts_from_json(entry["failed"])
        return Tried(None, failed) if entry["inputs"] == attempts.inputs(world, 0) else None
    except (KeyError, TypeError, ValueError):
        return None


def _collect(worlds: Sequence[World], results: dict[str, Tried], progress: Progress) -> Gated:
    made = tuple(v for world in worlds if (v := results[world.name].variant) is not None)
    missing = {
        w.name: results[w.name].failed[-1].reasons if results[w.name].failed else ()
        for w in worlds
        if results[w.name].variant is None
    }
    progress(len(worlds), len(worlds), f"{len(missing)} missing" if missing else "")
    return Gated(made, missing)


def _apart(shared: tuple[Any, ...], world: World, folder: Path, progress: Progress) -> Tried:
    """In a process of its own."""
    return _attempts(*shared).run(world, folder)


@lru_cache(maxsize=1)
def _attempts(
    path: Path, camera: str, index: int, backend: str, settings: str, only_commercial: bool, seed: int, rules: Rules,
    files: tuple[Path, ...] | None,
) -> Attempts:  # fmt: skip
    episode, catalogue = open_episode(path), None if files is None else load_catalogue(files)
    maker = licensed_backend(backend, only_commercial, json.loads(settings), catalogue)
    return Attempts(
        source_frame(episode, camera, index), maker, seed, rules,
        episode_sha256=episode.content_sha256, catalogue=catalogue, only_commercial=only_commercial,
    )  # fmt: skip
