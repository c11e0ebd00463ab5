# SPDX-License-Identifier: Apache-2.0
"""One request to a run folder: who may write, what was asked, and that a request which fails leaves nothing behind.

The command line and the Python API (`stages`) hold a run in the same way.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from retake.core.codec import merged
from retake.core.config import RunConfig, whole_paths
from retake.core.episode.layout import COMPLETE
from retake.core.errors import Cancelled, RunError
from retake.core.run_reader import MANIFEST
from retake.core.run_store import (
    LOCK,
    RunDirectory,
    claim_folder,
    create_run,
    locate,
    missing_folders,
    open_run,
    remove_traces,
    tidy,
)

Configure = Callable[[RunConfig], RunConfig]
"""From the run's own settings (or the defaults) to those of this request."""


def settings_of(path: Path) -> RunConfig:
    """What a run was last asked; the defaults where there is none. Raises InputError, RunError for a damaged run.json."""
    if not (path / MANIFEST).exists():
        return RunConfig()
    return merged(RunConfig(), open_run(path).manifest().get("config", {}), str(path / MANIFEST))


@contextlib.contextmanager
def hold(
    where: Path | str, configure: Configure, *, create: bool = False, remember: bool = False, force: bool = False
) -> Iterator[tuple[RunDirectory, RunConfig]]:
    """The run folder meant by `where` and its configuration, for this process alone.

    Nothing in it changes before the lock is held, so a second process neither writes nor alters what the first was
    asked. With `remember` the configuration becomes the run's. A request that fails, for whatever reason, is forgotten
    again, and a folder that holds nothing else than what it needed for that is removed; one that was cancelled is kept,
    so that the same call goes on. `force` is never remembered: it is meant for the episode at hand.
    """
    path, episode = locate(where)
    configure(settings_of(path))  # a wrong setting is refused before a folder appears
    new = missing_folders(path)
    run = claim_folder(path) if create or episode is not None else open_run(path)
    try:
        with run.locked():
            tidy(run)
            before = run.manifest() if (run.path / MANIFEST).exists() else None
            config = whole_paths(configure(settings_of(path)))
            asked = json.loads(json.dumps(config.to_json()))
            try:
                create_run(path, asked, episode)
                if remember and run.manifest().get("config") != asked:
                    run.update(config=asked)
                yield run, merged(config, {"check": {"force": True}}, "--force") if force else config
                tidy(run)  # also what the orphans of a killed run left while this one was already at work
            except (Cancelled, KeyboardInterrupt):
                raise
            except BaseException:
                _forget(run, before)
                raise
    except BaseException:
        remove_traces(run.path, new)
        raise


def _forget(run: RunDirectory, before: dict[str, Any] | None) -> None:
    """What was asked before is what the run remembers; of a request that made an episode, how that was made stays."""

    def finished(manifest: dict[str, Any]) -> dict[str, Any]:
        return {name: stage for name, stage in manifest.get("stages", {}).items() if "inputs" in stage}

    with contextlib.suppress(OSError, RunError):
        if not (run.path / MANIFEST).exists():
            return
        now, old = run.manifest(), before or {"config": RunConfig().to_json()}
        if before is None and not finished(now) and (not (run.episode / COMPLETE).exists() or _is_bare(run.path)):
            if not run.episode_is_elsewhere:
                shutil.rmtree(run.episode, ignore_errors=True)
            (run.path / MANIFEST).unlink()
            return
        config = dict(old.get("config", {}))
        if finished(now) != finished(old):
            config.update(
                {name: now["config"][name] for name in ("cameras", "capture", "check") if name in now["config"]}
            )
        if now.get("config") != config:
            run.update(config=config)


def _is_bare(path: Path) -> bool:
    return {entry.name for entry in path.iterdir()} <= {LOCK, MANIFEST}
