# SPDX-License-Identifier: Apache-2.0
"""The first to need a thing makes it, and the last to leave gives it back."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from retake.isaac.sharing import Shared


class Holder:
    """Somebody who holds."""


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.booleans()), max_size=30))
def test_a_thing_lives_from_its_first_holder_to_its_last(events: list[tuple[str, int, bool]]) -> None:
    shared: Shared[list[str]] = Shared()
    holders = {(owner, number): Holder() for owner in "ab" for number in range(4)}
    made: Counter[str] = Counter()
    holding: dict[str, set[int]] = {"a": set(), "b": set()}
    things: dict[str, Any] = {}

    def make(owner: str) -> list[str]:
        made[owner] += 1
        return [owner]

    for owner, number, comes in events:
        holder, before = holders[owner, number], made[owner]
        if comes:
            thing = shared.take(holder, owner, lambda owner=owner: make(owner))
            assert made[owner] - before == (not holding[owner])
            assert thing is things.setdefault(owner, thing)
            holding[owner].add(number)
        else:
            left = shared.leave(holder)
            last = holding[owner] == {number}
            holding[owner].discard(number)
            assert left is (things.pop(owner) if last else None)


def test_who_has_gone_without_leaving_binds_nobody() -> None:
    shared: Shared[object] = Shared()
    gone, comes = Holder(), Holder()
    first = shared.take(gone, "application", object)
    del gone
    second = shared.take(comes, "application", object)
    assert second is not first
    assert shared.leave(comes) is second
