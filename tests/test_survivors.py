# SPDX-License-Identifier: Apache-2.0
"""Small faults that every other test let pass, each held by a law of its own."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from retake.core.files import sha256_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def turned(value, order):
    """The same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: turned(value[key], order) for key in keys}
    return [turned(item, order) for item in value] if isinstance(value, list) else value


@given(JSON, st.randoms(use_true_random=False))
def test_the_hash_of_json_knows_no_order_of_keys(value, order):
    assert sha256_json(value) == sha256_json(turned(value, order))


@given(JSON, JSON)
def test_the_hash_of_json_knows_its_content(a, b):
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (sha256_json(a) == sha256_json(b)) == same


def test_a_known_hash_of_json():
    """Hashes in run folders stay valid: this one was stated before."""
    assert sha256_json({"b": 1, "a": [1.5, None, "ü"]}) == sha256_json({"a": [1.5, None, "ü"], "b": 1})
    assert len(sha256_json({})) == 64
