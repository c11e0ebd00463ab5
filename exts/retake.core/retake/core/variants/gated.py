# SPDX-License-Identifier: Apache-2.0
"""Gated making: every delivered frame passed the gate; a world of which a frame fails is made again with another seed,
and what stays out is reported as missing instead of being delivered.

Beside the worlds lie `gate.json` (every check, what is missing and why, diversity of the set), `gate.md` (the same as
a table) and `contact_sheet.png` (a row or more per world, a column per camera); for another first frame their names end
as `run_layout.frame_suffix` says.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from retake.core.episode import Episode, open_episode
from retake.core.errors import VariantError
from retake.core.files import read_json, sha256_json, write_bytes, write_json
from retake.core.processes import map_in_processes
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import VARIANT_FRAME, VARIANT_RECORD, frame_suffix, name_of, variant_id, world_of
from retake.core.variants.attempts import (
    Attempt,
    Attempts,
    Rules,
    attempts_from_json,
    attempts_to_json,
    why_missing,
)
from retake.core.variants.base import ImageBackend, Variant, World, require_seed, source_for
from retake.core.variants.gate import GateLimits, duplicate_of, thumbnail
from retake.core.variants.make import licensed_backend, read_frame, require_reader, require_worlds
from retake.core.variants.sheet import diversity, gate_table, write_sheet
from retake.core.variants.whole import WorldAttempts, WorldTried
from retake.core.variants.worlds import Catalogue, load_catalogue

SCHEMA = "retake.gate/2"
WORTH_PROCESSES_PX = 3 * 640 * 480
"""Pixels to make from which starting processes (half a second) pays: a frame of 640x480 takes about a second."""
SHEET, TABLE, RECORD = "contact_sheet.png", "gate.md", "gate.json"


@dataclass(frozen=True)
class Gated:
    """What a gated run delivered."""

    variants: tuple[Variant, ...]
    """World by world, camera by camera."""
    missing: dict[str, tuple[str, ...]]
    """`<world>/<camera>` → why its last attempt failed."""


def make_gated_variants(
    episode: Episode,
    cameras: str | Sequence[str],
    out_dir: Path | str,
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
    blind: str = "deliver",
    only_commercial: bool = False,
    catalogue: Catalogue | None = None,
    workers: int = 1,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Gated:
    """Worlds that passed the gate, each as every camera sees it, with contact sheet and tables beside them (see the module).

    Same seeds, same result; what is unchanged is neither made nor measured again. `settings` are those of a backend
    given by name; `workers` processes (0: one per core) share its worlds if it is `parallel`. With `gate=False` nothing
    is measured and nothing is missing; nor is a camera that shows no robot beside one that does, unless `blind` is
    `refuse`. Raises VariantError as `make_variants` does, and for a frame without a robot to
    measure; a world whose every attempt failed is in `missing`, not an error.
    """
    require_worlds(worlds)
    require_seed(seed)
    views = (cameras,) if isinstance(cameras, str) else tuple(dict.fromkeys(cameras))
    if not views:
        raise VariantError("no camera was named; a world is made as one camera or more see it")
    rules = Rules(gate, rerolls, limits or GateLimits(), depth, blind)
    maker = licensed_backend(backend, only_commercial, settings, catalogue)
    require_reader(maker, worlds)
    out_dir, view = Path(out_dir), frame_suffix(index)
    folders = {w.name: {c: out_dir / variant_id(w.name, c, index) for c in views} for w in worlds}
    attempts = _world_attempts(episode, views, index, maker, seed, rules, catalogue, only_commercial)
    before = _earlier_record(_beside(out_dir, RECORD, view), rules)
    results: dict[str, WorldTried] = {}
    for world in worlds:
        check_cancel()
        here = folders[world.name]
        found = attempts.done(world, here) or _known_missing(before, attempts, world, here)
        if found is not None:
            results[world.name] = found
    left = [world for world in worlds if world.name not in results]
    kept = len(worlds) - len(left)
    apart = workers != 1 and isinstance(backend, str) and getattr(maker, "parallel", False)
    files = None if catalogue is None else (catalogue.files, catalogue.keep_shapes)
    # A catalogue made in Python, not of files, is known to this process alone.
    apart = apart and (
        catalogue is None or catalogue is load_catalogue(catalogue.files, keep_shapes=catalogue.keep_shapes)
    )
    if apart and len(left) > 1 and len(left) * attempts.pixels >= WORTH_PROCESSES_PX:
        shared = (
            episode.path, views, index, backend, json.dumps(dict(settings or {})), only_commercial, seed, rules, files,
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
        return _collect(worlds, results, folders, progress)
    for world in worlds:
        attempts.drop(folders[world.name], results[world.name].variants)
    gated = _collect(worlds, results, folders, progress)
    _write(attempts, worlds, results, gated, out_dir, view, catalogue)
    return gated


def _world_attempts(
    episode: Episode, cameras: Sequence[str], index: int, maker: ImageBackend, seed: int, rules: Rules,
    catalogue: Catalogue | None, only_commercial: bool,
) -> WorldAttempts:  # fmt: skip
    def of(camera: str, rules: Rules) -> Attempts:
        return Attempts(
            source_for(maker, episode, camera, index), maker, seed, rules,
            episode_sha256=episode.content_sha256, catalogue=catalogue, only_commercial=only_commercial,
        )  # fmt: skip

    found: dict[str, Attempts] = {}
    blind: dict[str, VariantError] = {}
    for camera in cameras:
        try:
            found[camera] = of(camera, rules)
        except VariantError as error:
            blind[camera] = error
    if blind and (not found or rules.blind == "refuse"):
        raise next(iter(blind.values()))
    # Beside a camera that is measured, one that shows no robot is delivered as it is.
    found.update({camera: of(camera, replace(rules, gate=False)) for camera in blind})
    return WorldAttempts({camera: found[camera] for camera in cameras})


def make_checked_variant(attempts: Attempts, world: World, folder: Path, check_cancel: CheckCancel = never) -> Variant:
    """One camera's frame of a world that passed the gate. Raises VariantError saying why none of its attempts did."""
    tried = attempts.done(world, folder) or attempts.run(world, folder, check_cancel=check_cancel)
    if tried.variant is None:
        raise VariantError(why_missing(world, tried.failed))
    return tried.variant


def _beside(out_dir: Path, name: str, view: str) -> Path:
    """`gate.json`, or `gate-f40.json` for another first frame."""
    stem, _, suffix = name.rpartition(".")
    return out_dir / f"{stem}{view}.{suffix}"


def read_missing(out_dir: Path) -> dict[str, tuple[str, ...]]:
    """Variant id → why its last attempt failed, of the last gated run of every first frame into a folder."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(Path(out_dir).glob("gate*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            for entry in read_json(path)["missing"].values():
                found.update({name: tuple(map(str, reasons)) for name, reasons in entry["cameras"].items()})
    return found


def _settle(
    attempts: WorldAttempts, worlds: Sequence[World], results: dict[str, WorldTried],
    folders: Mapping[str, Mapping[str, Path]], check_cancel: CheckCancel,
) -> dict[str, WorldTried]:  # fmt: skip
    """Near-duplicates: of two worlds that look alike to the first camera the later one is tried again."""
    if not attempts.rules.gate:
        return results
    settled: dict[str, WorldTried] = {}
    marks: dict[str, Any] = {}
    for world in worlds:
        check_cancel()
        tried, here = results[world.name], folders[world.name]
        if any(a.twin and a.twin not in marks for a in tried.failed):
            # It stood back for a world that is not there any more.
            tried = attempts.run(world, here, check_cancel=check_cancel)
        while attempts.first in tried.variants:
            frame = read_frame(here[attempts.first] / VARIANT_FRAME)
            twin = duplicate_of(frame, marks, attempts.rules.limits.duplicate)
            if not twin:
                marks[world.name] = thumbnail(frame)
                break
            twins = Attempt(tried.variants[attempts.first].seed, (f"looks like {twin}",), twin)
            if not tried.whole:  # all attempts are spent
                tried = WorldTried({}, (*tried.failed, twins), whole=False)
                break
            tried = attempts.run(world, here, (*tried.failed, twins), check_cancel)
        settled[world.name] = tried
    return settled


def _write(
    attempts: WorldAttempts, worlds: Sequence[World], results: dict[str, WorldTried], gated: Gated, out_dir: Path,
    view: str, catalogue: Catalogue | None,
) -> None:  # fmt: skip
    failed = {world.name: world for world in worlds if not results[world.name].whole}
    of = {variant.id: results[variant.world.name].failed for variant in gated.variants}
    first = [v for world in worlds if (v := results[world.name].variants.get(attempts.first)) is not None]
    record = {
        "schema": SCHEMA,
        "gate": attempts.rules.gate,
        "identity": attempts.rules.identity,
        "limits": asdict(attempts.rules.limits),
        "rerolls": attempts.rules.rerolls,
        "delivered": {v.id: _entry(out_dir / v.id, v, of[v.id]) for v in gated.variants},
        "missing": {
            name: {
                "inputs": attempts.inputs(world), "failed": attempts_to_json(results[name].failed),
                "cameras": {
                    key: list(reasons) for key, reasons in gated.missing.items() if world_of(key) == f"{name}{view}"
                },
            }
            for name, world in failed.items()
        },
        "diversity": diversity(first, out_dir, catalogue) if first else None,
        "state": _state(results, worlds),
    }  # fmt: skip
    if gated.variants:
        write_sheet(gated.variants, out_dir, _beside(out_dir, SHEET, view), group=len(attempts.of))
    else:
        _beside(out_dir, SHEET, view).unlink(missing_ok=True)
    write_bytes(_beside(out_dir, TABLE, view), gate_table(record).encode())
    write_json(_beside(out_dir, RECORD, view), record)


def _entry(folder: Path, variant: Variant, failed: tuple[Attempt, ...]) -> dict[str, Any]:
    checks = read_json(folder / VARIANT_RECORD).get("gate", {}).get("checks", [])
    return {"seed": variant.seed, "failed": attempts_to_json(failed), "checks": checks}


def _state(results: dict[str, WorldTried], worlds: Sequence[World]) -> str:
    """Hash of what was delivered and what was not: the same state needs no new comparison, sheet or table."""
    rows = []
    for world in worlds:
        tried = results[world.name]
        frames = {camera: variant.frame_sha256 for camera, variant in tried.variants.items()}
        rows.append([world.name, frames, attempts_to_json(tried.failed)])
    return sha256_json(rows)


def _earlier_record(path: Path, rules: Rules) -> dict[str, Any]:
    """gate.json of an earlier run by the same rules; empty otherwise."""
    try:
        record = read_json(path)
        same = record["schema"] == SCHEMA and record["identity"] == rules.identity
        return record if same and record["rerolls"] == rules.rerolls else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _known_missing(
    before: dict[str, Any], attempts: WorldAttempts, world: World, folders: Mapping[str, Path]
) -> WorldTried | None:
    """A world of which every attempt is known to fail."""
    try:
        entry = before.get("missing", {})[world.name]
        failed = attempts_from_json(entry["failed"])
        return attempts.kept(world, folders, failed) if entry["inputs"] == attempts.inputs(world) else None
    except (KeyError, TypeError, ValueError):
        return None


def _collect(
    worlds: Sequence[World],
    results: dict[str, WorldTried],
    folders: Mapping[str, Mapping[str, Path]],
    progress: Progress,
) -> Gated:
    made = tuple(v for world in worlds for v in results[world.name].variants.values())
    missing = {
        name_of(folder): results[world.name].reasons(camera)
        for world in worlds
        for camera, folder in folders[world.name].items()
        if camera not in results[world.name].variants
    }
    progress(len(worlds), len(worlds), f"{len(missing)} missing" if missing else "")
    return Gated(made, missing)


def _apart(shared: tuple[Any, ...], world: World, folders: Mapping[str, Path], progress: Progress) -> WorldTried:
    """In a process of its own."""
    return _attempts(*shared).run(world, folders)


@lru_cache(maxsize=1)
def _attempts(
    path: Path, cameras: tuple[str, ...], index: int, backend: str, settings: str, only_commercial: bool, seed: int,
    rules: Rules, files: tuple[tuple[Path, ...], bool] | None,
) -> WorldAttempts:  # fmt: skip
    """files: the catalogue's, and whether it keeps shapes."""
    episode, catalogue = open_episode(path), None if files is None else load_catalogue(files[0], keep_shapes=files[1])
    maker = licensed_backend(backend, only_commercial, json.loads(settings), catalogue)
    return _world_attempts(episode, cameras, index, maker, seed, rules, catalogue, only_commercial)
