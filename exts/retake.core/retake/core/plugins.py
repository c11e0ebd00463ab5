# SPDX-License-Identifier: Apache-2.0
"""Heavy parts by name: "module:attribute" strings resolved on use, so that core imports neither simulators nor torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from retake.core.errors import InputError, MissingDependencyError, install_hint, unknown_name


def load(reference: str, *, extra: str = "") -> Any:
    """The object behind "module:attribute". Raises MissingDependencyError naming the extra that brings its imports."""
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        missing = getattr(error, "name", None) or module_name
        hint = install_hint(extra) if extra else f"make {missing} importable"
        raise MissingDependencyError(
            f"{reference} needs {missing!r}, which cannot be imported here ({error}); {hint}"
        ) from error
    return getattr(module, attribute)


def lazy_names(package: str, homes: Mapping[str, str], remedy: str) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562): names that are imported when they are asked for.

    homes: name -> submodule. remedy: what to install where a third-party module is missing (MissingDependencyError).
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("retake"):
                raise
            raise MissingDependencyError(f"{name} needs {error.name}; {remedy}") from error

    return get


def construct(made: Any, what: str, extra: str, **options: Any) -> Any:
    """`made(**options)`; a package that is missing only then is told as `load` tells it. Raises MissingDependencyError."""
    try:
        return made(**options)
    except ImportError as error:
        hint = install_hint(extra) if extra else f"make {error.name} importable"
        raise MissingDependencyError(f"{what} needs {error.name!r}, which cannot be imported here; {hint}") from error


def choices(group: str, builtin: Mapping[str, str]) -> dict[str, str]:
    """Built-in names and those that other packages add through the entry-point group; built-in names win."""
    return {**_entry_points(group, tuple(sys.path)), **builtin}


@lru_cache(maxsize=32)
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, str]:
    """Name -> "module:attribute" of what is installed along a path; every look opens the metadata of every package."""
    return {point.name: point.value for point in entry_points(group=group)}


def pick(what: str, name: str, group: str, builtin: Mapping[str, str], extras: Mapping[str, str]) -> Any:
    """The object registered under a name. Raises InputError listing the valid names."""
    table = choices(group, builtin)
    if name not in table:
        raise InputError(unknown_name(what, name, table))
    return load(table[name], extra=extras.get(name, ""))
