# SPDX-License-Identifier: Apache-2.0
"""The arrow and its stages from Python: a path and keywords in, records out; the same folders as the command line's.

    from retake.core import run
    result = run("runs/py", preset="short", variants=3)

Every function does only what is missing or changed. `settings` holds any other setting by its name in config/retake.yaml,
`{"takes.frames": 81}`. Raises RetakeError with a sentence that says what to do; what failed is not remembered by the run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.core import pipeline
from retake.core.codec import merged
from retake.core.config import RunConfig
from retake.core.episode import Episode, open_episode
from retake.core.episode.check import EpisodeCheck
from retake.core.errors import InputError
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_reader import Standing
from retake.core.run_store import RunDirectory
from retake.core.session import hold
from retake.core.skeleton import Skeleton
from retake.core.takes import Take
from retake.core.variants import Gated, Variant
from retake.core.variants.gated import read_missing

Where = str | os.PathLike[str]
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class RunResult:
    """What a run holds after the whole arrow."""

    path: Path
    episode: Episode
    variants: tuple[Variant, ...]
    missing: Mapping[str, tuple[str, ...]]
    """Worlds that did not pass the gate → why."""
    takes: tuple[Take, ...]
    standings: Mapping[str, Standing]
    """Take id → its verdict in one word, the reason, and the verdict itself."""
    report: Path

    def __repr__(self) -> str:
        """One line: an interactive session shows it after every call."""
        statuses = [self.standings[take.id].status for take in self.takes]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        return (
            f"<RunResult {self.path}: {len(self.episode)} frames, {len(self.variants)} variants, "
            f"{len(self.takes)} takes ({counts or 'none'}), {len(self.missing)} missing; {self.report}>"
        )

    @property
    def passed(self) -> tuple[Take, ...]:
        """The takes that are training data."""
        return tuple(take for take in self.takes if self.standings[take.id].status == "pass")


def run(
    path: Where,
    *,
    preset: str | None = None,
    stage: Where | None = None,
    seed: int | None = None,
    variants: int | Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    variant_backend: str | None = None,
    take_backend: str | None = None,
    seeds: Sequence[int] | None = None,
    cameras: Sequence[str] | None = None,
    settings: Settings | None = None,
    force: bool = False,
    progress: Callable[[str], Progress] = pipeline.quiet,
    check_cancel: CheckCancel = never,
) -> RunResult:
    """The whole arrow: simulate, draw, dress, generate, judge, report.

    `preset`, `stage`, `seed`: the scenario. `variants`: how many worlds, or their preset names; `prompts`: worlds in your own
    words. `cameras`: whose view of each world is made (all of the episode). `seeds`: takes per variant. `force` goes on with
    an episode that fails its check. `progress(stage name)` makes the display of a stage.
    """
    _require_functions(progress=progress, check_cancel=check_cancel)
    asked = {
        **_scenario(preset, stage, seed), **_worlds(variants, prompts), **_takes(seeds, take_backend), **_cameras(cameras),
        **({} if variant_backend is None else {"variants.backend": variant_backend}), **_settings(settings),
    }  # fmt: skip
    with _hold_run(path, asked, create=True, remember=True, force=force) as (folder, config):
        page = pipeline.run(folder, config, progress, check_cancel)
        return _result(folder, page)


def capture(
    path: Where, *, preset: str | None = None, stage: Where | None = None, seed: int | None = None,
    settings: Settings | None = None, progress: Progress = silent, check_cancel: CheckCancel = never,
) -> Episode:  # fmt: skip
    """Simulate one Episode into a run folder, new or existing."""
    _require_functions(progress=progress, check_cancel=check_cancel)
    asked = {**_scenario(preset, stage, seed), **_settings(settings)}
    with _hold_run(path, asked, create=True, remember=True) as (folder, config):
        return pipeline.capture(folder, config, progress, check_cancel)


def check(path: Where, *, settings: Settings | None = None) -> EpisodeCheck:
    """Check the Episode's motion; `passed` and `items` say the result, nothing is raised for a failure."""
    with _hold_run(path, _settings(settings)) as (folder, config):
        return pipeline.check(folder, config)


def skeleton(
    path: Where, *, cameras: Sequence[str] | None = None, settings: Settings | None = None, force: bool = False,
    progress: Progress = silent, check_cancel: CheckCancel = never,
) -> dict[str, Skeleton]:  # fmt: skip
    """Draw the control videos; camera → Skeleton."""
    _require_functions(progress=progress, check_cancel=check_cancel)
    with _hold_run(path, {**_cameras(cameras), **_settings(settings)}, force=force) as (folder, config):
        return pipeline.skeleton(folder, config, progress, check_cancel)


def variants(
    path: Where, count: int | Sequence[str] | None = None, *, prompts: Sequence[str] | None = None,
    backend: str | None = None, seed: int | None = None, cameras: Sequence[str] | None = None, settings: Settings | None = None,
    force: bool = False, progress: Progress = silent, check_cancel: CheckCancel = never,
) -> Gated:  # fmt: skip
    """Dress every camera's first frame into worlds: `count` many, or the presets it names; what did not pass is in `missing`."""
    _require_functions(progress=progress, check_cancel=check_cancel)
    named = {"variants.backend": backend, "variants.seed": seed}
    asked = {**_worlds(count, prompts), **_without_none(named), **_cameras(cameras), **_settings(settings)}
    with _hold_run(path, asked, remember=True, force=force) as (folder, config):
        return pipeline.variants(folder, config, progress, check_cancel)


def takes(
    path: Where, *, backend: str | None = None, seeds: Sequence[int] | None = None, cameras: Sequence[str] | None = None,
    settings: Settings | None = None, force: bool = False, progress: Progress = silent, check_cancel: CheckCancel = never,
) -> tuple[Take, ...]:  # fmt: skip
    """One Take per Variant and seed."""
    _require_functions(progress=progress, check_cancel=check_cancel)
    asked = {**_takes(seeds, backend), **_cameras(cameras), **_settings(settings)}
    with _hold_run(path, asked, remember=True, force=force) as (folder, config):
        return tuple(pipeline.takes(folder, config, progress, check_cancel))


def verify(
    path: Where, *, settings: Settings | None = None, progress: Progress = silent, check_cancel: CheckCancel = never
) -> dict[str, Standing]:
    """Judge every take; take id → what is to be said of it."""
    _require_functions(progress=progress, check_cancel=check_cancel)
    with _hold_run(path, _settings(settings)) as (folder, config):
        pipeline.verify(folder, config, progress, check_cancel)
        return _standings(folder)


def report(path: Where, *, progress: Progress = silent, check_cancel: CheckCancel = never) -> Path:
    """Write report.html; returns its path."""
    _require_functions(progress=progress, check_cancel=check_cancel)
    with _hold_run(path, {}) as (folder, _):
        return pipeline.report(folder, progress, check_cancel)


def export(runs: Where | Sequence[Where], out: Where, **options: Any) -> Any:
    """Accepted takes as a dataset: `retake.core.export.export`, with its keywords (extra `export`)."""
    from retake.core.export import export as write

    several = [runs] if isinstance(runs, str | os.PathLike) else _list("runs", runs, "run folders")
    return write([_path("runs", run) for run in several], _path("out", out), **options)


def _hold_run(
    path: Where, asked: Settings, *, create: bool = False, remember: bool = False, force: bool = False,
) -> contextlib.AbstractContextManager[tuple[RunDirectory, RunConfig]]:  # fmt: skip
    def configure(base: RunConfig) -> RunConfig:
        for key, value in asked.items():
            nested: Any = _plain(value)
            for part in reversed(key.split(".")):
                nested = {part: nested}
            base = merged(base, nested, "the call")
        return base

    # From the root: what is returned names files, also after the caller went to another folder.
    return hold(_path("path", path).absolute(), configure, create=create, remember=remember, force=force)


def _require_functions(**given: Any) -> None:
    """Raises InputError now for what the first stage that calls it would stumble over, minutes from now."""
    for name, value in given.items():
        if not callable(value):
            raise InputError(f"{name} is {value!r}; expected a function, or leave it out")


def _path(what: str, given: Any) -> Path:
    """A path as the user means it, `~` included. Raises InputError for what is none."""
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(text, str) or not text:
        raise InputError(f"{what} is {given!r}; expected a path: text, or a pathlib.Path")
    return Path(os.path.expanduser(text))


def _list(what: str, given: Any, of: str, hint: str = "") -> list[Any]:
    """Raises InputError for one thing in place of several: a text would be taken letter by letter."""
    given = _plain(given)
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"{what} is {given!r}; expected a list of {of}{hint}")
    return list(given)


def _settings(given: Settings | None) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise InputError(f"settings is {given!r}; expected a mapping of names to values: {{'takes.frames': 81}}")
    return dict(given)


def _plain(value: Any) -> Any:
    """A value as settings hold it: a seed that numpy drew is a whole number, a path the text that holds in every folder."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return str(_path("a path in settings", value).resolve())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _scenario(preset: str | None, stage: Where | None, seed: int | None) -> dict[str, Any]:
    file = None if stage is None else str(_path("stage", stage))
    return _without_none({"capture.preset": preset, "capture.stage": file, "capture.seed": seed})


def _worlds(wanted: int | Sequence[str] | None, prompts: Sequence[str] | None) -> dict[str, Any]:
    """A number is filled with the run's presets first, then with sampled worlds; names are presets."""
    number = _plain(wanted)
    if number is None:
        chosen: dict[str, Any] = {} if prompts is None else {"variants.presets": [], "variants.count": 0}
    elif type(number) is int and number > 0:
        fixed = RunConfig().variants.presets if prompts is None else ()
        chosen = {"variants.presets": fixed[:number], "variants.count": max(number - len(fixed), 0)}
    elif isinstance(number, Iterable) and not isinstance(number, str | bytes | Mapping):
        chosen = {"variants.presets": list(number), "variants.count": 0}
    else:
        raise InputError(f"variants is {wanted!r}; expected a number of worlds, 1 or more, or a list of preset names")
    described = {} if prompts is None else {"variants.prompts": _list("prompts", prompts, "texts, one per world")}
    return {**chosen, **described}


def _takes(seeds: Sequence[int] | None, backend: str | None) -> dict[str, Any]:
    return _without_none(
        {"takes.seeds": None if seeds is None else _list("seeds", seeds, "whole numbers"), "takes.backend": backend}
    )


def _cameras(names: Sequence[str] | None) -> dict[str, Any]:
    hint = ", [] for every camera of the episode"
    return _without_none({"cameras": None if names is None else _list("cameras", names, "camera names", hint)})


def _standings(folder: RunDirectory) -> dict[str, Standing]:
    return {take.id: folder.standing(take) for take in folder.takes()}


def _result(folder: RunDirectory, page: Path) -> RunResult:
    return RunResult(
        path=folder.path,
        episode=open_episode(folder.episode),
        variants=tuple(found.record for found in folder.variants()),
        missing=read_missing(folder.variants_folder),
        takes=folder.takes(),
        standings=_standings(folder),
        report=page,
    )
