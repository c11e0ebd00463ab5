# SPDX-License-Identifier: Apache-2.0
"""Every number of a result, summed up so that a file can hold it, and compared with what was measured before."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np


def summed_up(value: Any, name: str = "") -> dict[str, Any]:
    """Place -> number or word, of records, mappings, sequences and arrays; of an array its shape, how much of it is finite, its
    mean, spread and a sum that knows where each value stands. What is none of these (paths, functions) is left out."""
    if isinstance(value, np.ndarray):
        return _of_array(value, name) if value.dtype.kind in "biuf" else {}
    if isinstance(value, bool | str | int) or value is None:
        return {name: value}
    if isinstance(value, float | np.floating):
        return {name: _short(float(value))}
    if is_dataclass(value) and not isinstance(value, type):
        inner = {f.name: getattr(value, f.name) for f in fields(value)}
    elif isinstance(value, dict):
        inner = {str(k): v for k, v in value.items()}
    elif isinstance(value, list | tuple):
        if len(value) > 8 and all(isinstance(v, int | float) or v is None for v in value):
            return _of_array(np.array([np.nan if v is None else v for v in value], float), name)
        inner = {str(k): v for k, v in enumerate(value)}
    else:
        return {}
    out: dict[str, Any] = {}
    for key, one in inner.items():
        out |= summed_up(one, f"{name}.{key}" if name else key)
    return out


def _of_array(values: np.ndarray, name: str) -> dict[str, Any]:
    flat = values.astype(np.float64).ravel()
    finite = np.isfinite(flat)
    kept = np.where(finite, flat, 0.0)
    weights = np.cos(np.arange(len(flat)) * 0.7 + 0.3)
    place = float((kept * weights).sum() / max(len(flat), 1) ** 0.5)
    n = max(int(finite.sum()), 1)
    mean = float(kept.sum() / n)
    spread = float(np.sqrt((finite * (kept - mean) ** 2).sum() / n))
    return {f"{name}[{'x'.join(map(str, values.shape))}]": [int(finite.sum()), *map(_short, (mean, spread, place))]}


def _short(number: float) -> float | str:
    return float(f"{number:.6g}") if np.isfinite(number) else str(number)


def compare(found: dict[str, Any], known: dict[str, Any], share: float) -> list[str]:
    """What differs, in words: numbers by more than this share, an array's sums by more than this share of mean and spread."""
    out = [f"{name} is gone" for name in sorted(known.keys() - found.keys())]
    out += [f"{name} is new" for name in sorted(found.keys() - known.keys())]
    for name in sorted(known.keys() & found.keys()):
        a, b = found[name], known[name]
        if isinstance(a, list) and isinstance(b, list):
            scale = max(abs(x) for x in (*a[1:3], *b[1:3]))
            same = a[0] == b[0] and all(_near(x, y, share * scale) for x, y in zip(a[1:], b[1:], strict=True))
        elif _is_number(a) and _is_number(b):
            same = _near(a, b, share * max(abs(a), abs(b)))
        else:
            same = a == b
        if not same:
            out.append(f"{name}: {a}, was {b}")
    return out


def _near(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= max(tolerance, 1e-5)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def store(path: Path, values: dict[str, dict[str, Any]]) -> None:
    """One line per number, so that a change can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = []
    for case, own in values.items():
        lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in own.items())
        cases.append(f"{json.dumps(case)}: {{\n{lines}\n}}")
    path.write_text("{\n" + ",\n".join(cases) + "\n}\n", "utf-8")
