# SPDX-License-Identifier: Apache-2.0
"""What recordings at once have in common: the first to need a thing makes it, the last to leave gives it back."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

V = TypeVar("V")


@dataclass(eq=False)
class _Thing(Generic[V]):
    owner: Any
    value: V
    holders: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)


class Shared(Generic[V]):
    """Things of one kind, one of each owner (an application, a stage), with those who hold them.

    Holders are known weakly: a recording that was dropped without an end must not bind those that come after it.
    """

    def __init__(self) -> None:
        self._things: list[_Thing[V]] = []

    def take(self, holder: object, owner: Any, make: Callable[[], V]) -> V:
        """The owner's thing, made where nobody holds it; `holder` holds it until it leaves."""
        self._things = [thing for thing in self._things if thing.holders]
        thing = next((thing for thing in self._things if thing.owner == owner), None)
        if thing is None:
            thing = _Thing(owner, make())
            self._things.append(thing)
        thing.holders.add(holder)
        return thing.value

    def leave(self, holder: object) -> V | None:
        """The thing that was held, for its last holder to give back; None where somebody still holds it, or nothing was held."""
        for thing in self._things:
            if holder in thing.holders:
                thing.holders.remove(holder)
                return None if thing.holders else thing.value
        return None
