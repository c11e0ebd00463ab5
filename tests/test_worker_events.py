# SPDX-License-Identifier: Apache-2.0
"""Events of the worker: every listener hears all of them in order, leaves without a trace, and is told when it missed some."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from retake.worker.events import KEEP, QUEUE, EventHub


@given(st.integers(0, 30), st.integers(-2, 33))
def test_whoever_asks_gets_what_came_after_or_is_told_to_read_anew(count, number):
    hub = EventHub()
    for n in range(count):
        hub.publish("job", {"n": n})
    assert hub.last == count
    missed, events = hub.since(number, hub.epoch)
    assert missed == (not 0 <= number <= count)
    assert [event[0] for event in events] == ([] if missed else list(range(number + 1, count + 1)))
    assert all(event == (event[0], "job", {"n": event[0] - 1}) for event in events)
    assert hub.since(number, "another") == (True, [])


def test_what_left_the_ring_was_missed():
    hub = EventHub()
    for n in range(KEEP + 3):
        hub.publish("job", {"n": n})
    assert [hub.since(number, hub.epoch)[0] for number in (2, 3, 4)] == [True, False, False]
    assert len(hub.since(3, hub.epoch)[1]) == KEEP


def test_listeners_hear_what_is_said_while_they_listen():
    async def story():
        hub = EventHub()
        hub.publish("early", {})
        one, two = hub.listen(), hub.listen()
        hub.publish("both", {"x": 1})
        await asyncio.sleep(0)
        hub.leave(one)
        hub.leave(one)  # twice is once
        hub.publish("second", {})
        await asyncio.sleep(0)
        assert not hub.closed
        hub.close()
        hub.publish("late", {})
        await asyncio.sleep(0)
        assert hub.closed
        return [[q.get_nowait() for _ in range(q.qsize())] for q in (one, two)]

    one, two = asyncio.run(story())
    assert one == [(2, "both", {"x": 1})]
    assert two == [(2, "both", {"x": 1}), (3, "second", {}), None]


def test_who_is_too_slow_is_sent_away_with_nothing_else():
    async def story(count):
        hub = EventHub()
        slow = hub.listen()
        for n in range(count):
            hub.publish("job", {"n": n})
        await asyncio.sleep(0)
        return [slow.get_nowait() for _ in range(slow.qsize())]

    assert len(asyncio.run(story(QUEUE))) == QUEUE
    assert None not in asyncio.run(story(QUEUE))
    assert asyncio.run(story(QUEUE + 1)) == [None]


def test_a_listener_whose_loop_has_ended_hinders_nobody():
    hub, other = EventHub(), EventHub()
    dead = asyncio.new_event_loop()

    async def listen(at):
        return at.listen()

    for at in (hub, other):
        dead.run_until_complete(listen(at))
    dead.close()

    hub.publish("job", {})
    assert hub._listeners == {}

    async def story(at, end):
        alive = at.listen()
        end(at)
        end(at)
        await asyncio.sleep(0)
        return alive.qsize()

    assert asyncio.run(story(hub, lambda at: at.publish("job", {}))) == 2
    assert asyncio.run(story(other, EventHub.close)) == 1  # the second time nobody listens any more
