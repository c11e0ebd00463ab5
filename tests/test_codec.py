# SPDX-License-Identifier: Apache-2.0
"""The record codec: what is encoded comes back, what is wrong is told with place, finding and what would be valid."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.codec import OMITTED, NullIs, Within, decode, encode, merged
from retake.core.errors import InputError, RunError
from retake.core.files import canonical_json, sha256_json


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, Within(0, 1)] = 0.5
    limit: Annotated[float, NullIs(math.inf)] = math.inf
    words: tuple[str, ...] = ()
    span: tuple[float, Annotated[float, NullIs(math.inf)]] = (0.0, math.inf)


@dataclass(frozen=True)
class Grown:
    """A record with a field that came later."""

    first: int = 1
    later: Annotated[tuple[Inner, ...] | None, OMITTED] = None


@dataclass(frozen=True)
class Outer:
    name: str
    path: Path
    kind: Literal["a", "b"] = "a"
    count: Annotated[int, Within(low=1)] = 1
    size: tuple[int, int] = (640, 480)
    on: bool = False
    maybe: float | None = None
    inner: Inner = Inner()
    named: dict[str, Inner] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)
    several: list[Inner] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.name == "forbidden":
            raise InputError("this name is taken")


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
LIMIT = st.just(math.inf) | st.floats(-9, 9)
INNER = st.builds(
    Inner, st.floats(0, 1), LIMIT, st.lists(TEXT, max_size=3).map(tuple), st.tuples(st.floats(-9, 9), LIMIT),
)  # fmt: skip
OUTER = st.builds(
    Outer, TEXT.filter(lambda t: t != "forbidden"), TEXT.filter(bool).map(lambda t: Path("/x") / t.replace("\0", "")),
    st.sampled_from(["a", "b"]), st.integers(1, 99), st.tuples(st.integers(), st.integers()), st.booleans(),
    st.none() | st.floats(-9, 9), INNER, st.dictionaries(TEXT, INNER, max_size=2),
    st.dictionaries(TEXT, JSON, max_size=2), st.lists(INNER, max_size=2),
)  # fmt: skip


@given(OUTER)
def test_what_is_encoded_comes_back(record):
    text = json.dumps(encode(record), allow_nan=False)
    assert decode(Outer, json.loads(text), "x") == record


@given(st.none() | st.lists(INNER, max_size=2).map(tuple))
def test_what_came_later_is_left_out_where_it_says_nothing(later):
    found = encode(Grown(later=later))
    assert list(found) == (["first"] if later is None else ["first", "later"])
    assert decode(Grown, json.loads(json.dumps(found)), "x") == Grown(later=later)


@given(OUTER, OUTER)
def test_merging_a_whole_record_gives_it(record, other):
    wanted = replace(other, named={**record.named, **other.named})
    assert merged(record, json.loads(json.dumps(encode(other))), "x") == wanted
    assert merged(record, {}, "x") == record


WRONG = [None, True, 3, -1, 0, 2.5, 1e400, math.nan, "x", "", [], [1], [1, 2, 3], {}, {"a": 1}, {1: 2}, b"x", object()]


@given(OUTER, st.sampled_from(list(Outer.__dataclass_fields__)), st.sampled_from(WRONG))
def test_any_value_in_any_place_is_taken_or_told(record, name, value):
    data, refused = {**encode(record), name: value}, ""
    try:
        again = decode(Outer, data, "the file", error=RunError)
        assert encode(decode(Outer, encode(again), "x")) == encode(again)
    except RunError as error:
        refused = str(error)
    assert not refused or (refused.startswith("the file: ") and name in refused)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"path": "/p"}, "f: name is missing"),
        ({"name": "n", "path": "/p", "nmae": 1}, "f: unknown field 'nmae'; valid: count, free, inner, .*name"),
        ({"name": 3, "path": "/p"}, "f: name needs text; found 3"),
        ({"name": "n", "path": ""}, "f: path needs a path; found ''"),
        ({"name": "n", "path": "/p", "count": 0}, "f: count needs a number 1 or more; found 0"),
        ({"name": "n", "path": "/p", "count": True}, "f: count needs a whole number; found True"),
        ({"name": "n", "path": "/p", "kind": "c"}, "f: unknown kind 'c'; valid: a, b"),
        ({"name": "n", "path": "/p", "size": [1]}, "f: size needs a list of 2; found"),
        ({"name": "n", "path": "/p", "inner": {"share": 2}}, "f: inner.share needs a number within 0 … 1; found 2"),
        ({"name": "n", "path": "/p", "inner": {"x": 2}}, "f: inner: unknown field 'x'; valid: limit, share, span, words"),
        ({"name": "n", "path": "/p", "inner": 5}, "f: inner needs a mapping of fields; found 5"),
        ({"name": "n", "path": "/p", "several": [{"words": [1]}]}, r"f: several\[0\].words\[0\] needs text; found 1"),
        ({"name": "n", "path": "/p", "named": {"k": 5}}, "f: named.k needs a mapping of fields; found 5"),
        ({"name": "n", "path": "/p", "free": {"k": math.inf}}, "f: free.k is inf, which JSON cannot hold"),
        ({"name": "n", "path": "/p", "maybe": "x"}, "f: maybe needs a finite number; found 'x'"),
        ({"name": "forbidden", "path": "/p"}, "f: this name is taken"),
        ([], "f: needs a mapping of fields; found "),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(data, says):
    with pytest.raises(InputError, match=says):
        decode(Outer, data, "f")


def test_merging_changes_single_values_and_keeps_what_is_left_empty():
    record = Outer("n", Path("/p"), inner=Inner(0.2, words=("a",)), named={"k": Inner(0.1)}, free={"x": 1})
    found = merged(
        record, {"inner": {"share": 1}, "named": {"k": {"limit": 3}, "new": {"share": 0}}, "free": {"y": 2}}, "f"
    )
    assert found.inner == Inner(1.0, words=("a",))
    assert found.named == {"k": Inner(0.1, 3.0), "new": Inner(0.0)}
    assert found.free == {"y": 2}
    assert merged(record, {"inner": None, "named": None}, "f") == record
    assert merged(record, {"free": None, "name": None}, "f") == replace(record, free={}, name="")


def test_newer_fields_are_ignored_only_where_that_is_said():
    assert decode(Inner, {"later": 1}, "f", ignore_unknown=True) == Inner()
    with pytest.raises(InputError, match="unknown setting 'later'"):
        merged(Inner(), {"later": 1}, "f")


def test_arrays_are_numbers():
    @dataclass(frozen=True, eq=False)
    class Pose:
        T: np.ndarray

    assert (np.eye(2) == decode(Pose, {"T": [[1, 0], [0, 1]]}, "f").T).all()
    assert encode(Pose(np.eye(2))) == {"T": [[1.0, 0.0], [0.0, 1.0]]}
    for wrong in ([[1], [1, 2]], "x", [math.nan], None):
        with pytest.raises(InputError, match="T needs an array of numbers"):
            decode(Pose, {"T": wrong}, "f")


@given(st.dictionaries(TEXT, JSON, min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value, random):
    keys = list(value)
    random.shuffle(keys)
    assert canonical_json({key: value[key] for key in keys}) == canonical_json(value)
    assert sha256_json({key: value[key] for key in reversed(keys)}) == sha256_json(value)


def test_canonical_json_is_these_bytes():
    assert (
        canonical_json({"b": [1, 2.5, None], "a": {"y": True, "x": "ü"}})
        == '{"a":{"x":"ü","y":true},"b":[1,2.5,null]}'.encode()
    )


def test_a_verdict_threshold_that_is_no_mapping_is_told(tmp_path, capsys):
    from retake.core.cli import main

    (tmp_path / "mine.yaml").write_text("thresholds: {arm_offset: 5}\n")
    (tmp_path / "run").mkdir()
    assert main(["verify", str(tmp_path / "run"), "--config", str(tmp_path / "mine.yaml")]) == 2
    assert "mine.yaml: thresholds.arm_offset needs a mapping of settings; found 5" in capsys.readouterr().err
