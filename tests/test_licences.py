# SPDX-License-Identifier: Apache-2.0
"""One licence table: for every term the same answer from variants, takes, first-frame models, export, card and doctor."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial

import numpy as np
import pytest
from export_runs import make_run, write_take
from hypothesis import given
from hypothesis import strategies as st

from retake.core.episode import open_episode
from retake.core.errors import InputError, TakeError, VariantError
from retake.core.export.collect import plan
from retake.core.export.found import Selection
from retake.core.licences import (
    Policy,
    Table,
    Terms,
    commercial_obstacle,
    facts_of,
    joint_licence,
    load_table,
    require_commercial,
)
from retake.core.variants.make import require_licence

SPELLINGS = [(spelling, name) for name, terms in load_table().terms.items() for spelling in (name, *terms.also)]
ALLOWED = {
    "Apache-2.0", "MIT", "MIT-0", "MIT-CMU", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "BSL-1.0", "Unlicense",
    "MPL-2.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "ODC-By-1.0", "PDDL-1.0", "own",
    "OpenRAIL++", "NVIDIA-Open-Model-License",
}  # fmt: skip
"""Written out, so that a changed entry of the table is a decision and no slip."""
UNKNOWN = ("", "unknown", "Other", "some terms of ours", "GPL-3.0-only", "LicenseRef-mine", "proprietary")


def test_what_the_table_allows_is_what_was_decided():
    assert {name for name in load_table().terms if commercial_obstacle(name) is None} == ALLOWED


@pytest.mark.parametrize(("spelling", "name"), SPELLINGS)
def test_every_spelling_is_its_term(spelling, name):
    assert (commercial_obstacle(spelling) is None) == (name in ALLOWED)
    assert commercial_obstacle(spelling.upper().replace("-", " ")) is None or name not in ALLOWED
    assert load_table().name_of(f"  {spelling.upper()} ") == name


@pytest.mark.parametrize("text", [None, 3, *UNKNOWN, "CC-BY-NC-2.0", "academic use", "MIT/X11", "()", "AND"])
def test_what_is_not_listed_is_refused(text):
    assert commercial_obstacle(text)


NAMES = st.sampled_from(
    [*sorted(load_table().terms), "some terms of ours", "CC-BY-NC-2.0", "NVIDIA Open Model License"]
)


@st.composite
def expressions(draw, depth: int = 3):
    """(text, whether it allows commercial use by the rules of AND and OR)."""
    if depth == 0 or draw(st.booleans()):
        name = draw(NAMES)
        return name, load_table().name_of(name) in ALLOWED
    operator = draw(st.sampled_from(["AND", "OR"]))
    parts = [draw(expressions(depth=depth - 1)) for _ in range(draw(st.integers(2, 3)))]
    text = f" {operator} ".join(f"({part})" if " AND " in part or " OR " in part else part for part, _ in parts)
    return text, (all if operator == "AND" else any)(allows for _, allows in parts)


@given(expressions())
def test_and_needs_all_or_needs_one(expression):
    text, allows = expression
    assert (commercial_obstacle(text) is None) == allows
    assert (commercial_obstacle(f"({text})") is None) == allows


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("Apache-2.0 WITH LLVM-exception", True), ("CC-BY-NC-4.0 WITH LLVM-exception", False),
        ("MIT WITH Commons-Clause", False), ("Apache-2.0 OR", False), ("(MIT", False), ("MIT AND", False),
    ],
)  # fmt: skip
def test_exceptions_and_broken_expressions(text, allowed):
    assert (commercial_obstacle(text) is None) == allowed


def test_without_the_parser_expressions_are_refused_and_names_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "license_expression", None)
    assert commercial_obstacle("MIT") is None
    assert commercial_obstacle("MIT AND Apache-2.0") is None
    assert commercial_obstacle("MIT AND CC-BY-NC-4.0")
    assert "pip install license-expression" in (commercial_obstacle("MIT OR CC-BY-NC-4.0") or "")


def test_oscar_is_told_by_three_facts_and_judged_by_the_policy():
    facts = " ".join(facts_of("LicenseRef-OSCAR-2B AND MIT"))
    assert "tag apache-2.0 (seen 2026-11)" in facts
    assert "NVIDIA's Open Model License" in facts
    assert "non-commercial use only" in facts
    careful = load_table()
    assert "policy.training_data" in (commercial_obstacle("LicenseRef-OSCAR-2B", careful) or "")
    lenient = dataclasses.replace(careful, policy=Policy("not-counted"))
    assert commercial_obstacle("LicenseRef-OSCAR-2B", lenient) is None
    for part in ("weights", "base"):
        closed = Terms(**{"weights": "MIT", "base": "MIT", part: "CC-BY-NC-4.0"})
        assert commercial_obstacle("x", Table({"x": closed, "MIT": Terms(True)}, Policy("not-counted")))


def test_terms_of_several_parts_are_all_named():
    assert joint_licence(["apache-2.0", "Apache 2.0"]) == "Apache-2.0"
    assert joint_licence(["MIT", "openrail++", "mit"]) == "MIT AND OpenRAIL++"
    assert joint_licence(["MIT OR x", "y"]) == "(MIT OR x) AND y"
    assert joint_licence(["MIT", ""]) == ""
    assert commercial_obstacle(joint_licence(["MIT", "cc-by-nc-4.0"]))


def test_two_terms_of_one_name_are_a_mistake():
    with pytest.raises(InputError, match="stands for two terms"):
        Table({"A": Terms(True, also=("b c",)), "B_C": Terms(True)}).name_of("x")


def refusal(call) -> str:
    """The text of a refusal; empty when the call goes through."""
    try:
        call()
    except (VariantError, TakeError) as error:
        return str(error)
    return ""


def test_every_consumer_gives_the_same_answer(tmp_path):
    terms = [*sorted({spelling for spelling, _ in SPELLINGS}), *UNKNOWN, "MIT AND OpenRAIL++", "MIT OR CC-BY-NC-4.0"]
    run = make_run(tmp_path / "r", takes=0, frames=1, size=(32, 32))
    episode = open_episode(run / "episode")
    for k, licence in enumerate(terms):
        shade = np.full((32, 32, 3), 2 * k, np.uint8)
        write_take(run, episode, k, name=f"t{k:03d}/front", licence=licence, pixels=lambda _, shade=shade: shade)
    found = plan([run], Selection(only_commercial=True))
    delivered = {item.provenance["take_id"] for item in found.items}
    reasons = {row.take: row.reason for row in found.rejected}
    for k, licence in enumerate(terms):
        obstacle, name = commercial_obstacle(licence), f"t{k:03d}/front"
        assert (name in delivered) == (obstacle is None), licence
        assert reasons.get(name, "") == (f"--only-commercial: video model: {obstacle}" if obstacle else "")
        for refused in (
            refusal(partial(require_licence, "b", licence, True)),
            refusal(partial(require_commercial, "take", licence, True, TakeError)),
        ):
            assert (obstacle or "") in refused
            assert bool(refused) == (obstacle is not None)
        assert refusal(partial(require_licence, "b", licence, False)) == ""
