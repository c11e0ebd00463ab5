# SPDX-License-Identifier: Apache-2.0
"""Out of memory, memory taken by others, and broken contexts in mid-take. Counts are small here; `make prove` runs all."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cuda_faults as faults
import numpy as np
import pytest


@cache
def expected(tier: str) -> np.ndarray:
    return faults.undisturbed(tier)


@pytest.mark.parametrize(("tier", "place", "visit", "message"), [
    ("resident-overlap", "encode", 0, 0), ("resident", "step 2", 1, 1), ("resident-overlap", "step 3", 3, 2),
    ("resident", "decode", 2, 0),
], ids=str)  # fmt: skip
def test_out_of_memory_costs_no_take_and_no_finished_step(monkeypatch, tier, place, visit, message):
    found = faults.out_of_memory(monkeypatch, tier, place, visit, 5, faults.MESSAGES[message])
    assert np.array_equal(found["frames"], expected("resident"))  # all of these tiers compute alike
    assert found["resumed_steps"] == faults.steps_before(place)
    assert found["evaluations"] == 2 * 4 * (faults.STEPS + 1)  # not one forward was made twice


def test_the_smallest_tier_says_so_and_the_next_call_works(monkeypatch):
    found = faults.out_of_memory(monkeypatch, "group-offload", "step 1", 0, 5, faults.MESSAGES[0])
    assert np.array_equal(found["frames"], expected("group-offload"))


def test_memory_that_another_process_takes(monkeypatch):
    found = faults.memory_taken(monkeypatch, "resident", "step 1")
    assert found["ended_in"] in faults.TIER_NAMES[3:]
    assert found["frames"].shape == expected("resident").shape


@pytest.mark.parametrize(("place", "message"), [("encode", 0), ("step 2", 1), ("decode", 0)])
def test_a_broken_context_is_raised_at_once(monkeypatch, place, message):
    faults.broken_context(monkeypatch, place, faults.BROKEN[message])


def test_every_fault_that_was_found_names_tests_that_are_there():
    root = Path(__file__).parent.parent
    assert len(faults.FOUND) == 13
    for _, tests in faults.FOUND:
        assert tests
        for file, names in tests.items():
            text = (root / file).read_text("utf-8")
            assert [name for name in names if f"def {name}(" not in text] == []
