# SPDX-License-Identifier: Apache-2.0
"""The one codec of Retake's records: frozen dataclass ↔ plain JSON or YAML values.

`decode` makes a record, `merged` changes single values of one, `encode` is the reverse of both. What a field may hold is
its annotation: str, int, float, bool, Path, Literal, X | None, tuple, list, dict, other records, arrays, Any (JSON), with
`Annotated[float, Within(0, 1)]` for a range, `Annotated[float, NullIs(inf)]` for a number that JSON writes as null, and
`Annotated[bool, OMITTED]` for a field that JSON leaves out where it holds its default.
Unknown names, missing fields, wrong types and numbers out of range are told in one sentence that names the place.
Why no library does this: docs/decisions/0002-record-codec.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from retake.core.errors import InputError, RetakeError, unknown_name

Record = TypeVar("Record")
_UNIONS = (typing.Union, types.UnionType)


@dataclass(frozen=True)
class Within:
    """Bounds of a number, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{self.low:g} or more"
        return f"{self.high:g} or less" if math.isinf(self.low) else f"within {self.low:g} … {self.high:g}"


@dataclass(frozen=True)
class NullIs:
    """What null stands for where JSON cannot hold the value itself (an infinite limit)."""

    value: float


OMITTED = "left out of the JSON where it holds its default"
"""Note of a field that came later: documents that do without it stay, byte for byte, what they were."""


@dataclass(frozen=True)
class _Reading:
    """How a document is read: where it is from, what its fields are called, and which error says what is wrong."""

    where: str
    error: type[RetakeError]
    noun: str
    ignore_unknown: bool

    def refuse(self, place: str, text: str) -> RetakeError:
        return self.error(f"{self.where}: {place} {text}" if place else f"{self.where}: {text}")


def decode(
    kind: type[Record],
    data: Any,
    where: str,
    *,
    error: type[RetakeError] = InputError,
    noun: str = "field",
    ignore_unknown: bool = False,
) -> Record:
    """A record from plain values. Raises `error` naming `where`, the field, what was found and what would be valid."""
    return _record(kind, data, "", _Reading(where, error, noun, ignore_unknown))


def merged(record: Record, data: Any, where: str, *, error: type[RetakeError] = InputError) -> Record:
    """A copy with the values of a nested mapping: records inside it are merged, everything else is replaced.

    Raises `error` as `decode` does; a setting that is left empty (null) keeps its value.
    """
    return _merge(record, data, "", _Reading(where, error, "setting", False))


def encode(value: Any) -> Any:
    """Plain JSON values of a record: tuples and arrays are lists, paths text, `NullIs` numbers null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        defaults = {item.name: item.default for item in dataclasses.fields(value)}
        return {
            name: _encoded(hint, item)
            for name, hint in fields_of(type(value)).items()
            for item in (getattr(value, name),)
            if not (OMITTED in _notes(hint) and item == defaults[name])
        }
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


def _encoded(hint: Any, value: Any) -> Any:
    """`encode` with the notes of an annotation, also of the places of a tuple."""
    if any(isinstance(note, NullIs) and value == note.value for note in _notes(hint)):
        return None
    places = typing.get_args(hint)
    if isinstance(value, tuple) and len(places) == len(value):
        return [_encoded(place, item) for place, item in zip(places, value, strict=True)]
    return encode(value)


@lru_cache(maxsize=256)
def fields_of(kind: type) -> dict[str, Any]:
    """Field name → annotation, resolved, in the order of the record."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind) if item.init}


def _notes(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _strip_annotation(hint: Any) -> Any:
    return typing.get_args(hint)[0] if _notes(hint) else hint


def _record(kind: type, data: Any, place: str, how: _Reading) -> Any:
    if not isinstance(data, Mapping):
        raise how.refuse(place, f"needs a mapping of {how.noun}s; found {_short_repr(data)}")
    hints = fields_of(kind)
    _require_known(data, hints, place, how)
    values = {name: _value(hints[name], data[name], _join(place, name), how) for name in hints if name in data}
    missing = [f.name for f in dataclasses.fields(kind) if f.init and f.name not in values and not _has_default(f)]
    if missing:
        raise how.refuse(_join(place, missing[0]), "is missing")
    return _build(kind, values, place, how)


def _merge(record: Any, data: Any, place: str, how: _Reading) -> Any:
    if not isinstance(data, Mapping):
        raise how.refuse(place, f"needs a mapping of {how.noun}s; found {_short_repr(data)}")
    hints, changes = fields_of(type(record)), {}
    _require_known(data, hints, place, how)
    for name, value in data.items():
        hint, current, inner = _strip_annotation(hints[name]), getattr(record, name), _join(place, name)
        item = typing.get_args(hint)[1:] if typing.get_origin(hint) is dict else ()
        if dataclasses.is_dataclass(current):
            changes[name] = current if value is None else _merge(current, value, inner, how)
        elif item and dataclasses.is_dataclass(item[0]):
            changes[name] = {**current, **_entries(item[0], current, {} if value is None else value, inner, how)}
        elif value is None and isinstance(current, str | dict):
            changes[name] = type(current)()
        else:
            changes[name] = _value(hints[name], value, inner, how)
    return _build(type(record), {name: getattr(record, name) for name in hints} | changes, place, how)


def _entries(kind: Any, current: Mapping[str, Any], data: Any, place: str, how: _Reading) -> dict[str, Any]:
    """Named records: known ones are merged, new ones must be whole."""
    if not isinstance(data, Mapping):
        raise how.refuse(place, f"needs a mapping of names; found {_short_repr(data)}")
    return {
        str(name): _merge(current[name], entry, _join(place, name), how)
        if name in current
        else _record(kind, entry, _join(place, name), how)
        for name, entry in data.items()
    }


def _build(kind: type, values: dict[str, Any], place: str, how: _Reading) -> Any:
    """The record; what its own check refuses is refused as a part of this document."""
    try:
        return kind(**values)
    except RetakeError as error:
        raise how.refuse(place, str(error)) from error


def _require_known(data: Mapping[Any, Any], hints: Mapping[str, Any], place: str, how: _Reading) -> None:
    unknown = [key for key in data if key not in hints]
    if unknown and not how.ignore_unknown:
        text = unknown_name(how.noun, str(unknown[0]), hints)
        raise how.refuse("", f"{place}: {text}" if place else text)


def _value(hint: Any, value: Any, place: str, how: _Reading) -> Any:
    for note in _notes(hint):
        if isinstance(note, NullIs) and value is None:
            return note.value
    found = _plain(_strip_annotation(hint), value, place, how)
    for note in _notes(hint):
        if isinstance(note, Within) and not note.low <= found <= note.high:
            raise how.refuse(place, f"needs a number {note}; found {_short_repr(value)}")
    return found


def _plain(hint: Any, value: Any, place: str, how: _Reading) -> Any:
    if hint in _SCALARS:
        accepts, make, words = _SCALARS[hint]
        if not accepts(value):
            raise how.refuse(place, f"needs {words}; found {_short_repr(value)}")
        return make(value)
    if hint is Any:
        return _json(value, place, how)
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return value if isinstance(value, hint) else _record(hint, value, place, how)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if not any(value == known and type(value) is type(known) for known in inner):
            raise how.refuse("", unknown_name(place, str(value), map(str, inner)))
        return value
    if origin in _UNIONS:
        return _either(inner, value, place, how)
    if origin in (tuple, list):
        return _sequence(origin, inner, value, place, how)
    if origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise how.refuse(place, f"needs a mapping of names; found {_short_repr(value)}")
        kind = inner[1] if inner else Any
        return {key: _value(kind, item, _join(place, key), how) for key, item in value.items()}
    if hint is np.ndarray or getattr(hint, "array_type", None) is np.ndarray:
        return _array(value, place, how)
    raise TypeError(f"{place}: the codec does not know {hint!r}")


def _either(kinds: tuple[Any, ...], value: Any, place: str, how: _Reading) -> Any:
    if value is None and type(None) in kinds:
        return None
    refused: RetakeError | None = None
    for kind in kinds:
        if kind is not type(None):
            try:
                return _value(kind, value, place, how)
            except RetakeError as error:
                refused = refused or error
    assert refused is not None
    raise refused


def _sequence(origin: Any, kinds: tuple[Any, ...], value: Any, place: str, how: _Reading) -> Any:
    if not isinstance(value, list | tuple):
        raise how.refuse(place, f"needs a list; found {_short_repr(value)}")
    if origin is tuple and not (len(kinds) == 2 and kinds[1] is Ellipsis):
        if len(value) != len(kinds):
            raise how.refuse(place, f"needs a list of {len(kinds)}; found {_short_repr(value)}")
    else:
        kinds = (kinds[0] if kinds else Any,) * len(value)
    return origin(
        _value(kind, item, f"{place}[{i}]", how) for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _array(value: Any, place: str, how: _Reading) -> np.ndarray:
    try:
        found = np.array(value, np.float64)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if not np.isfinite(found).all():
        raise how.refuse(place, f"needs an array of numbers; found {_short_repr(value)}")
    return found


def _json(value: Any, place: str, how: _Reading) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise how.refuse(
            place,
            f"is {_short_repr(value)}, which JSON cannot hold ({error}); use finite numbers, text, lists, mappings",
        ) from error
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_SCALARS: dict[Any, tuple[Callable[[Any], bool], Callable[[Any], Any], str]] = {
    bool: (lambda v: isinstance(v, bool), bool, "true or false"),
    int: (lambda v: isinstance(v, int) and not isinstance(v, bool), int, "a whole number"),
    float: (_is_number, float, "a finite number"),
    str: (lambda v: isinstance(v, str), str, "text"),
    Path: (lambda v: isinstance(v, Path) or (isinstance(v, str) and v != ""), Path, "a path"),
}


def _has_default(item: Any) -> bool:
    return item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING


def _join(place: str, name: object) -> str:
    return f"{place}.{name}" if place else str(name)


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
