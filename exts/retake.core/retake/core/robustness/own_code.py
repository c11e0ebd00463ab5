# SPDX-License-Identifier: Apache-2.0
"""Code of the user's own, `file.py:name` or `module:name`: what it may import, and which files it is made of.

A file finds what lies beside it, a module what lies in the working directory, as with `python policy.py`; but after all that is
installed, so that nothing of the user's takes the place of a module that Retake or its dependencies import.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from retake.core.errors import InputError
from retake.core.files import sha256_bytes

_brought: dict[str, Path] = {}
"""Modules that imports of users' code brought in → the folder that was searched for them."""
_NAMED = "retake_policy_"
"""Begins the name of the module that a named file becomes."""


def folder_of(place: str) -> Path:
    """Where `file.py` or `module` finds what it imports: beside the file, or in the working directory."""
    return Path(place).resolve().parent if place.endswith(".py") else Path.cwd()


@contextlib.contextmanager
def importable(folder: Path | None) -> Iterator[None]:
    """Let modules of a folder be imported, after all others; None changes nothing. What it brings in is remembered."""
    if folder is None:
        yield
        return
    entry, before = str(folder), set(sys.modules)
    added = entry not in sys.path
    if added:
        sys.path.append(entry)
    try:
        yield
    finally:
        if added:
            last = next((k for k in reversed(range(len(sys.path))) if sys.path[k] == entry), None)
            if last is not None:  # the user's code may have changed the path itself
                del sys.path[last]
        # Of a file that was named, its own module is no helper that another folder's may replace.
        new = [n for n in set(sys.modules) - before if n.partition(".")[0] != "retake" and not n.startswith(_NAMED)]
        _brought.update(dict.fromkeys(new, folder))


def named_object(spec: str, what: str, otherwise: str = "") -> Any:
    """What `module:name` or `file.py:name` names. Raises InputError, with the other forms there are."""
    place, colon, attribute = spec.rpartition(":")
    if not colon or not attribute.isidentifier():
        more = f", {otherwise}" if otherwise else ""
        raise InputError(f"{what} {spec!r}: expected module:function, file.py:function{more}")
    found = getattr(_module(place), attribute, None)
    if found is None:
        raise InputError(f"{what} {spec!r}: {place} has no {attribute!r}")
    return found


def files_of(place: str) -> list[Path]:
    """The files that a place, once imported, is made of: its own first, then every module that such imports brought in and
    that lies beside it (for a module: beside its top package) or in the working directory. What is installed is left out."""
    own = Path(place).resolve() if place.endswith(".py") else _file(sys.modules.get(place))
    if own is None or not own.is_file():
        return []
    top = own.parent if place.endswith(".py") else own.parents[min(place.count("."), len(own.parents) - 1)]
    brought = (_file(sys.modules.get(name)) for name in _brought)
    found = {file for file in brought if _within(file, top) or _within(file, Path.cwd())}
    return [own, *sorted(file for file in found if file is not None and file != own)]


def _module(place: str) -> Any:
    folder = folder_of(place)
    # Two folders may each have a `helper`: what another one brought in is not what this one means.
    for name in [n for n, where in _brought.items() if where != folder and _within(_file(sys.modules.get(n)), where)]:
        sys.modules.pop(name)
        _brought.pop(name)
    with importable(folder):
        if place.endswith(".py"):
            return _from_file(Path(place))
        importlib.invalidate_caches()
        try:
            return importlib.import_module(place)
        except ImportError as error:
            raise InputError(
                f"module {place!r} cannot be imported, neither from what is installed nor from {folder}: {error}"
            ) from error
        except Exception as error:
            raise InputError(f"module {place!r} fails when it is loaded: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"file {path} does not exist")
    spec = importlib.util.spec_from_file_location(_file_name(path), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where data classes and pickles look for what a class refers to
    importlib.invalidate_caches()
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(spec.name, None)
        raise InputError(f"{path} fails when it is loaded: {type(error).__name__}: {error}") from error
    return module


def _file_name(path: Path) -> str:
    """One per path: a policy and a task may both be called mine.py."""
    return f"{_NAMED}{path.stem}_{sha256_bytes(str(path.resolve()).encode())[:8]}"


def _file(module: ModuleType | None) -> Path | None:
    name = getattr(module, "__file__", None)
    return Path(name).resolve() if isinstance(name, str) else None


def _within(file: Path | None, root: Path) -> bool:
    """Whether a file is a folder's own, and not of an environment that lies in it."""
    if file is None or not file.is_relative_to(root) or file.is_relative_to(sysconfig.get_path("stdlib")):
        return False
    return not {"site-packages", "dist-packages"}.intersection(file.relative_to(root).parts)
