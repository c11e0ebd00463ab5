# SPDX-License-Identifier: Apache-2.0
"""Somebody else's policy: whatever it does, nothing for ever included, ends in an answer or a sentence."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from left_open import threads_begun

from retake.core.errors import InputError, WorkerError
from retake.core.robustness.caller import Bounded, Caller
from retake.core.robustness.policies import CallablePolicy, open_policy
from retake.core.robustness.policy import Observation

SEEN = Observation({}, np.array([1.0, 2.0]), "t")


def raising(error: BaseException):
    def function():
        raise error

    return function


@pytest.fixture
def threads():
    return threads_begun("retake-policy")


def test_answers_come_from_one_thread_that_ends_when_it_is_told_to(threads):
    call = Caller(5)
    seen = [call(threading.get_ident, "p") for _ in range(3)]
    assert len(set(seen)) == 1
    assert seen[0] != threading.get_ident()
    (own,) = threads()
    assert own.daemon, "a policy that hangs does not keep the program"
    call.close()
    assert threads() == []
    call.close()
    assert call(lambda: 3, "p") == 3, "and begins anew"
    call.close()


def test_an_answer_that_never_comes_is_told_and_the_next_question_gets_its_own(threads):
    call, gate = Caller(0.2), threading.Event()
    with pytest.raises(InputError, match=r"policy slow gave no answer within 0\.2 s; make it faster"):
        call(lambda: gate.wait(5) and "late", "slow")
    gate.set()
    assert [call(lambda: "own", "slow") for _ in range(3)] == ["own"] * 3
    call.close()
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() == [], "the late one ended too"


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (ValueError("odd"), InputError, "policy p failed: ValueError: odd"),
        (SystemExit(3), InputError, "policy p failed: SystemExit: 3"),
        (WorkerError("gone"), WorkerError, "^gone$"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_what_a_policy_raises_is_told_in_words_and_stops_are_stops(error, kind, told):
    call = Caller(5)
    with pytest.raises(kind, match=told):
        call(raising(error), "p")
    assert call(lambda: 1, "p") == 1, "the thread goes on"
    call.close()


def test_a_bounded_policy_is_asked_and_reset_through_its_caller(threads):
    did = []
    policy = SimpleNamespace(name="n", infer=lambda o: did.append(o) or [1.0], reset=lambda: did.append("reset"))
    bounded = Bounded(policy, 5)
    assert bounded.name == "n"
    bounded.reset()
    assert bounded.infer(SEEN) == [1.0]
    assert did == ["reset", SEEN]
    bounded.end()
    assert threads() == []


class Own:
    """A policy with a memory."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def act(self, observation):
        return observation.state

    def reset(self):
        self.did.append("reset")

    def close(self):
        self.did.append("close")


def test_a_function_is_told_to_forget_and_to_end_where_it_has_words_for_that():
    own = Own()
    for policy in (CallablePolicy(own.act), CallablePolicy(lambda o: o.state, owner=own)):
        assert policy.infer(SEEN).tolist() == [[1.0, 2.0]]
        policy.reset()
        policy.close()
    assert own.did == ["reset", "close"] * 2
    plain = CallablePolicy(lambda o: [[1, 2], [3, 4]])
    plain.reset()
    plain.close()
    assert plain.infer(SEEN).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert plain.name == "callable"
    with pytest.raises(InputError, match="policy callable returned"):
        CallablePolicy(lambda o: "left").infer(SEEN)


def test_a_policy_is_opened_by_what_its_name_says(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Policy:\n"
        "    name = 'called so'\n"
        "    def infer(self, observation):\n        return observation.state\n"
        "    def reset(self):\n        pass\n"
        "class Broken:\n    def __init__(self):\n        raise KeyError('x')\n"
        "def act(observation):\n    return observation.state * 2\n"
        "NUMBER = 3\n"
    )
    made = open_policy(f"{tmp_path / 'mine.py'}:Policy")
    assert (made.name, made.infer(SEEN).tolist(), made.folder) == ("called so", [[1.0, 2.0]], tmp_path)
    spec = f"{tmp_path / 'mine.py'}:act"
    assert (open_policy(spec).name, open_policy(spec).infer(SEEN).tolist()) == (spec, [[2.0, 4.0]])
    for name, told in (
        ("Broken", "fails when it is made without arguments: KeyError"),
        ("NUMBER", "is int; expected something callable"),
    ):
        with pytest.raises(InputError, match=told):
            open_policy(f"{tmp_path / 'mine.py'}:{name}")
