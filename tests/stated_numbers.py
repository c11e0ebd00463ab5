# SPDX-License-Identifier: Apache-2.0
"""Every number and switch that a package states outside its functions: constants, defaults of arguments, fields of records."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import importlib
import inspect
import json
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 60
"""Characters of a value that is written out; of longer ones a digest is kept."""


def modules_of(package: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """Names of all modules of `retake.PACKAGE`, those below the left-out ones excepted."""
    folder = ROOT / f"exts/retake.{package}"
    paths = sorted((folder / "retake" / package).rglob("*.py"))
    names = [".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    left_out = tuple(f"retake.{package}.{name}" for name in without)
    return [
        n for n in names if not any(n == out or n.startswith(f"{out}.") for out in left_out) and "__main__" not in n
    ]


def stated(name: str) -> dict[str, str] | None:
    """Place -> number, of a module's own; None where it cannot be imported here."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    out: dict[str, Any] = {}
    for key, value in vars(module).items():
        if key.startswith("__"):
            continue
        if inspect.isclass(value) or isinstance(value, FunctionType):
            if value.__module__ == name:
                out |= _of_class(value, module) if inspect.isclass(value) else _of_function(value, key)
        elif key.isupper() or key.lstrip("_").isupper():
            out[key] = _numbers(value)
    return {place: _short(value) for place, value in sorted(out.items()) if value not in (None, [], {})}


def _of_class(kind: type, module: ModuleType) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in vars(kind).items():
        function = getattr(value, "__func__", value)
        if isinstance(function, FunctionType) and function.__module__ == module.__name__:
            # What a record's own machinery made states its fields, which follow.
            if not (dataclasses.is_dataclass(kind) and key == "__init__"):
                out |= _of_function(function, f"{kind.__qualname__}.{key}")
        elif not key.startswith("__") and not isinstance(value, property | MethodType):
            out[f"{kind.__qualname__}.{key}"] = _numbers(value)
    if dataclasses.is_dataclass(kind):
        for item in dataclasses.fields(kind):
            made = item.default_factory is not dataclasses.MISSING
            value = item.default_factory() if made else item.default  # type: ignore[misc]
            out[f"{kind.__qualname__}.{item.name}"] = _numbers(value)
    return out


def _of_function(function: FunctionType, name: str) -> dict[str, Any]:
    out = {}
    for item in inspect.signature(function).parameters.values():
        if item.default is not inspect.Parameter.empty and (value := _numbers(item.default)) is not None:
            out[f"{name}({item.name})"] = value
    return out


def _numbers(value: Any) -> Any:
    """What of a value is numbers and switches, with the names under which they stand; None where nothing is."""
    if isinstance(value, enum.Enum):
        return None
    if isinstance(value, bool | int | np.bool_ | np.integer):
        return bool(value) if isinstance(value, bool | np.bool_) else int(value)
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.9g}") if np.isfinite(value) else str(value)
    if isinstance(value, np.ndarray):
        return _numbers(value.tolist()) if value.dtype.kind in "biuf" else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        found = {str(key): part for key, one in value.items() if (part := _numbers(one)) is not None}
        keys = sorted(key for key in value if isinstance(key, int) and not isinstance(key, bool))
        return ({**found, "": keys} if keys else found) or None
    if isinstance(value, set | frozenset):
        return sorted(part for one in value if isinstance(part := _numbers(one), int | float)) or None
    if isinstance(value, list | tuple):
        parts = [_numbers(one) for one in value]
        return parts if any(part is not None for part in parts) else None
    return None


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= LONGEST else hashlib.sha256(text.encode()).hexdigest()[:12]
