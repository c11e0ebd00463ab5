# SPDX-License-Identifier: Apache-2.0
"""Modules and objects that exist exactly as far as kit_facts.json says, and refuse calls that do not fit it."""

from __future__ import annotations

import inspect
import json
import types
from functools import cache
from pathlib import Path
from typing import Any

FACTS = Path(__file__).parent / "kit_facts.json"
PREFIXES = ("omni", "carb", "isaacsim", "pxr.PhysicsSchemaTools")
LACKS = {"5.0": ("5.1", ("isaacsim.core.simulation_manager._simulation_manager.Interface.get_current_time",))}
"""Versions without facts of their own: those of the next one without some names (v5.0.0 has no get_current_time)."""


@cache
def facts(version: str) -> dict[str, dict[str, Any]]:
    """name -> fact of one Isaac Sim version."""
    if version in LACKS:
        like, without = LACKS[version]
        return {name: fact for name, fact in facts(like).items() if name not in without}
    return {fact["name"]: fact for fact in json.loads(FACTS.read_text())["versions"][version]}


def ours(name: str) -> bool:
    """Whether a module is one of those that are faked."""
    return any(name == p or name.startswith(p + ".") for p in PREFIXES)


@cache
def signature(text: str) -> inspect.Signature:
    """A signature from its text, self and cls already removed."""
    text = text.replace("...", "None")
    scope: dict[str, Any] = {}
    exec(f"def f{text or '()'}: pass", scope)  # text comes from the committed facts file
    return inspect.signature(scope["f"])


class Strict:
    """An object of Kit: attributes and methods known to the facts, delegated to an implementation."""

    def __init__(self, version: str, prefix: str, implementation: Any) -> None:
        self.__dict__.update(_version=version, _prefix=prefix, _implementation=implementation)

    def __getattr__(self, name: str) -> Any:
        value = member(self._version, self._prefix, name, self._implementation)
        if is_call(self._version, self._prefix, name):
            self.__dict__[name] = value  # a binding of Kit costs no look-up either: callbacks are timed on these
        return value

    def __delattr__(self, name: str) -> None:
        del self.__dict__[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_may_set", ()):
            self.__dict__[name] = value
            return
        raise AttributeError(f"{self._prefix}.{name} is not Retake's to set")


def member(version: str, prefix: str, name: str, implementation: Any) -> Any:
    """A member if the facts know it; AttributeError otherwise, as Kit itself would say."""
    fact = facts(version).get(f"{prefix}.{name}")
    if fact is None or name.startswith("__"):
        raise AttributeError(f"{prefix} of Isaac Sim {version} has no {name!r}")
    value = getattr(implementation, name)
    if fact["kind"] in ("attribute", "property"):
        return value() if fact["kind"] == "property" and callable(value) else value
    return strict(value, fact)


def is_call(version: str, prefix: str, name: str) -> bool:
    """Whether a known member is a function or method."""
    return facts(version)[f"{prefix}.{name}"]["kind"] not in ("attribute", "property")


def strict(function: Any, fact: dict[str, Any]) -> Any:
    """A function that binds its arguments to the recorded signature first (TypeError where they do not fit)."""
    expected = signature(fact["signature"])
    fitting: set[int] = set()
    """Numbers of positional arguments that are known to bind."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if not kwargs and len(args) in fitting:
            return function(*args)
        try:
            bound = expected.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{fact['name']}{fact['signature']}: {error} ({fact['source']} {fact['path']}:{fact['line']})"
            ) from None
        if not kwargs:
            fitting.add(len(args))
        return function(*bound.args, **bound.kwargs)

    call.__signature__ = expected  # type: ignore[attr-defined]
    call.__name__ = fact["name"].rsplit(".", 1)[-1]
    return call


class StrictModule(types.ModuleType):
    """A module whose members are checked against the facts; plain members are given with `extra`."""

    def __init__(self, version: str, name: str, implementation: Any, **extra: Any) -> None:
        super().__init__(name)
        self.__dict__.update(_version=version, _implementation=implementation, __path__=[], **extra)

    def __getattr__(self, name: str) -> Any:
        return member(self._version, self.__name__, name, self._implementation)
