# SPDX-License-Identifier: Apache-2.0
"""Tables of the painter bench: bounds, and faults of several views together."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts" / "prove"))
from bounds import upper_bound
from film_splits import SPLITS, UNSEEN
from newton_painter import Shot
from painter_bench import changed_px
from painters_figures import auc_bound, by_shown, together
from painters_pages import LOOKED_AT, STILL_UNSEEN


@given(st.floats(0, 1), st.integers(1, 60))
def test_an_auc_is_bounded_from_below_and_closer_with_more_videos(value: float, n: int) -> None:
    bound = auc_bound(value, n)
    assert 0 <= bound <= value + 1e-9
    assert auc_bound(value, 10 * n) >= bound - 1e-9


def test_the_bound_of_what_is_always_found_is_that_of_a_rate_without_misses() -> None:
    assert auc_bound(1.0, 20) == pytest.approx(0.05 ** (1 / 20))
    assert auc_bound(1.0, 0) == 0
    assert auc_bound(0.9, 20) == pytest.approx(1 - upper_bound(2, 20))
    # Misses are rounded up, never down.
    assert auc_bound(0.899, 20) == pytest.approx(1 - upper_bound(3, 20))


def test_faults_of_two_views_are_one_row_and_of_one_view_none() -> None:
    def row(kind: str, view: str, n: int, auc: float | None) -> dict:
        return {
            "kind": kind, "level": 2, "unit": "cm", "view": view, "target": 0.95, "n": n, "renders": n, "fail": n - 1,
            "unsure": 1, "pass": 0, "auc": auc, "checks": "",
        }  # fmt: skip

    faults = [row("sunk", "fixed", 30, 1.0), row("sunk", "wrist", 10, 0.6), row("lag", "fixed", 9, 1.0)]
    (both,) = together([*faults, row("lag", "wrist", 9, None)])
    assert (both["kind"], both["view"], both["n"], both["fail"], both["unsure"]) == ("sunk", "all", 40, 38, 2)
    assert both["auc"] == pytest.approx(0.9)
    assert both["auc_bound"] == auc_bound(both["auc"], 40)


def test_faults_are_told_apart_by_how_much_of_them_shows() -> None:
    rows = [
        {"kind": "extra_finger", "overall": overall, "changed_px": px}
        for overall, px in (
            ("pass", 40.0),
            ("pass", 149.9),
            ("unsure", 150.0),
            ("fail", 499.0),
            ("fail", 900.0),
            ("fail", None),
        )
    ]
    found = by_shown([*rows, {"kind": "lag", "overall": "fail"}])
    assert [(r["low"], r["high"], r["n"], r["fail"], r["unsure"], r["pass"]) for r in found] == [
        (0.0, 150.0, 2, 0, 0, 2), (150.0, 500.0, 2, 1, 1, 0), (500.0, None, 1, 1, 0, 0),
    ]  # fmt: skip
    assert {r["kind"] for r in found} == {"extra_finger"}
    assert by_shown([]) == []


def test_changed_pixels_are_counted_where_frames_differ() -> None:
    clean = Shot(np.zeros((3, 4, 5, 3), np.uint8), np.ones((3, 4, 5), np.uint8), ("a",))
    ids = clean.ids.copy()
    assert changed_px(clean, clean) is None
    ids[1, :2], ids[2, 0, 0] = 2, 2
    assert changed_px(clean, Shot(clean.rgb, ids, ("a", "b"))) == (10 + 1) / 2
    assert changed_px(clean, Shot(clean.rgb[:2], ids[:2], ("a", "b"))) is None


def test_what_has_been_looked_at_is_a_split_and_the_latest_one_is_not() -> None:
    assert set(LOOKED_AT) <= set(SPLITS)
    assert set(UNSEEN) - set(LOOKED_AT)
    assert set(STILL_UNSEEN) <= set(LOOKED_AT) & set(UNSEEN)
