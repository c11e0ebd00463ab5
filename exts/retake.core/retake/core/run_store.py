# SPDX-License-Identifier: Apache-2.0
"""RunDirectory: one run's folder, `runs/<name>/` (docs/run_folder.md): who may write to it, and what was asked of it.

run.json                     schema, configuration, stages with the hash of their inputs
superseded/<episode>/        what was made from an episode that a later capture replaced
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.core.episode.layout import HEADER
from retake.core.errors import RunError
from retake.core.files import is_abandoned, read_json, write_json
from retake.core.host import lock
from retake.core.run_reader import MANIFEST, RunReader

SCHEMA = "retake.run/2"
OLDER = "retake.run/1"
"""One folder per variant and take, the camera in its name; `retake migrate` moves them."""
LOCK = ".lock"


@dataclass(frozen=True)
class RunDirectory(RunReader):
    """A run folder that may be written to: manifest and lock; its contents as records come from `RunReader`."""

    @property
    def episode_is_elsewhere(self) -> bool:
        """Whether run.json points to an Episode outside the folder: a recording, which is never replaced."""
        return self.episode != self.captured_episode

    def manifest(self) -> dict[str, Any]:
        """run.json. Raises RunError when it is missing, unreadable or of another schema version."""
        try:
            data = read_json(self.path / MANIFEST)
        except FileNotFoundError as error:
            raise RunError(f"{self.path} is no run folder: {MANIFEST} is missing; `retake run` makes one") from error
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / MANIFEST} is not readable JSON: {error}") from error
        if isinstance(data, dict) and data.get("schema") == OLDER:
            raise RunError(
                f"{self.path} has the layout {OLDER!r}, of before a world had all its cameras; `retake migrate {self.path}` "
                f"moves its variants, takes and verdicts to that of {SCHEMA!r}"
            )
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise RunError(f"{self.path / MANIFEST} has schema {found!r}; this version of Retake reads {SCHEMA!r}")
        for key in ("config", "stages"):
            if not isinstance(data.get(key, {}), dict):
                raise RunError(f"{self.path / MANIFEST}: {key!r} is {data[key]!r}; expected a mapping")
        return data

    def update(self, **values: Any) -> None:
        """Replace top-level values of run.json, atomically."""
        write_json(self.path / MANIFEST, {**self.manifest(), **values})

    def stage(self, name: str) -> dict[str, Any]:
        """What run.json remembers of a stage; empty when it never finished."""
        found = self.manifest().get("stages", {}).get(name, {})
        return found if isinstance(found, dict) else {}

    def finish_stage(self, name: str, **values: Any) -> None:
        """Remember a finished stage."""
        stages = {**self.manifest().get("stages", {}), name: values}
        self.update(stages=stages)

    def set_aside(self, name: str) -> None:
        """Move variants, takes and verdicts to `superseded/<name>/`: their episode has been replaced."""
        folder, number = self.path / "superseded" / name, 1
        while folder.exists():
            number += 1
            folder = folder.with_name(f"{name}-{number}")
        for made in (self.variants_folder, self.takes_folder, self.verdicts_folder):
            if made.exists():
                folder.mkdir(parents=True, exist_ok=True)
                made.rename(folder / made.name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one writer. Raises RunError when another process holds it (a crash releases it)."""
        with held(self.path, "--run"):
            yield


@contextlib.contextmanager
def held(folder: Path, option: str) -> Iterator[None]:
    """Hold a folder for one writer; `option` is how its user chooses another. Raises RunError when another process holds it."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            lock(handle)
        except OSError as error:
            raise RunError(
                f"{folder} is being written by another process; wait for it, or choose another folder with {option}"
            ) from error
        if not _is_file(handle, folder / LOCK):  # its holder failed and removed the folder it had made
            raise RunError(f"{folder} was removed by a request that failed just now; the same call again makes it")
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def held_out(folder: Path, option: str = "--out") -> Iterator[None]:
    """Make a folder and hold it; a request that fails leaves none that holds nothing else. Raises RunError also for a file."""
    if file := next((place for place in (folder, *folder.parents) if place.is_file()), None):
        raise RunError(f"{folder} cannot be made: {file} is a file; choose another folder with {option}")
    new, lock_is_new = missing_folders(folder), not (folder / LOCK).exists()
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder, option):
        try:
            yield
        except BaseException:
            remove_traces(folder, new, lock_is_new)
            raise


def missing_folders(path: Path) -> list[Path]:
    """A folder and its parents that are not there yet, innermost first."""
    return [place for place in (path, *path.parents) if not place.exists()]


def remove_traces(path: Path, new: Sequence[Path], lock_is_new: bool = False) -> None:
    """What a request that failed leaves of a folder: none of those that were `new` (`missing_folders`) which holds only `.lock`,
    and no lock of its own in a folder of the user's; everything else as it is."""
    with contextlib.suppress(OSError):
        if lock_is_new or {entry.name for entry in path.iterdir()} <= {LOCK}:
            (path / LOCK).unlink(missing_ok=True)
        for folder in new:
            folder.rmdir()  # ends here where something is in it


def _is_file(handle: int, path: Path) -> bool:
    """Whether an open file is the one that lies at a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def open_run(path: Path | str) -> RunDirectory:
    """An existing run folder. Raises RunError when it is none."""
    run = RunDirectory(Path(path))
    run.manifest()
    return run


def claim_folder(path: Path | str) -> RunDirectory:
    """A folder that is a run's or may become one; made when missing. Raises RunError for a file and for a folder with
    other content: it is never touched."""
    run = RunDirectory(Path(path))
    if run.path.exists() and not run.path.is_dir():
        raise RunError(f"{run.path} is a file; a run is a folder: choose an empty or new one with --run")
    if run.path.is_symlink() and not run.path.exists():
        raise RunError(
            f"{run.path} is a link to {os.readlink(run.path)}, which does not exist; make that, or remove the link"
        )
    if file := next((parent for parent in run.path.parents if parent.is_file()), None):
        raise RunError(f"{run.path} cannot be made: {file} is a file; choose a folder outside it with --run")
    if (run.path / MANIFEST).exists():
        run.manifest()
    elif run.path.exists() and any(not _ours(entry.name) for entry in run.path.iterdir()):
        raise RunError(f"{run.path} holds files that are not a run's; choose an empty or new folder with --run")
    run.path.mkdir(parents=True, exist_ok=True)
    return run


def _ours(name: str) -> bool:
    """The lock, and a run.json that a killed process did not finish."""
    return name == LOCK or (name.startswith(".run.") and ".tmp" in name)


def create_run(path: Path | str, config: dict[str, Any], episode: Path | None = None) -> RunDirectory:
    """A new or an existing run folder, for an `episode` that lives elsewhere if one is given.

    Raises RunError for a folder with other content (it is never touched), and for a run of another episode.
    """
    run = claim_folder(path)
    if (run.path / MANIFEST).exists():
        if episode is not None and run.episode.resolve() != Path(episode).resolve():
            raise RunError(f"{run.path} is the run of {run.episode}, not of {episode}; move one of them away")
        return run
    link = {} if episode is None else {"episode_path": str(Path(episode).resolve())}
    manifest = {"schema": SCHEMA, "name": run.path.name, "config": config, "stages": {}, **link}
    write_json(run.path / MANIFEST, manifest)
    return run


def tidy(run: RunDirectory) -> None:
    """Clear what killed processes left anywhere in a run (called by the holder of the lock)."""
    folders = [run.path, run.report_folder]
    for stage in (run.skeletons_folder, run.variants_folder, run.takes_folder, run.verdicts_folder):
        worlds = [entry for entry in stage.iterdir() if entry.is_dir()] if stage.is_dir() else []
        folders += [stage, *worlds, *(view for world in worlds for view in world.iterdir() if view.is_dir())]
    for folder in folders:
        remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Delete the hidden temporaries (`.*.tmp`, `.*.tmp.*`) in a folder of ours whose writer is gone."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if is_abandoned(entry.name):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def episode_at(path: Path | str) -> Path:
    """The Episode folder meant by a path: itself, or the one of the run that lies there."""
    path = Path(path)
    return path if (path / HEADER).exists() else RunReader(path).episode


def locate(path: Path | str) -> tuple[Path, Path | None]:
    """The run folder meant by a path, and the episode if the path is one: then the run is around it, or beside it."""
    path = Path(os.path.expanduser(path))  # no shell expands `--run=~/x`, and a folder named ~ is a trap
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise RunError(
            f"{path!r} is no text: bytes of it are not {sys.getfilesystemencoding()}; rename it, or set PYTHONUTF8=1 where "
            "Python was told another encoding"
        ) from error
    if "\0" in str(path):
        raise RunError(f"{str(path)!r} holds a null character, which no path may")
    if not (path / HEADER).exists():
        return path, None
    episode = path.resolve()
    if (episode.parent / MANIFEST).exists() and RunDirectory(episode.parent).episode.resolve() == episode:
        return episode.parent, None
    return episode.parent / f"{episode.name}-run", episode
