# SPDX-License-Identifier: Apache-2.0
"""Which windows a training can see and how often it sees each. Of retake.worker.tune.sampling."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tune_clips import make_clip

from retake.core.errors import InputError
from retake.worker.oscar.windows import Window
from retake.worker.tune.sampling import FLOOR, Sampler, candidate_windows, event_weight


@given(st.integers(1, 300), st.sampled_from([9, 33, 81]), st.integers(1, 20))
def test_windows_cover_every_frame_and_stay_inside(frames, length, stride):
    windows = candidate_windows(frames, length, stride)
    assert all(0 <= w.start < w.stop <= frames and w.length == length for w in windows)
    assert windows[-1].stop == frames
    if stride <= length:
        assert set().union(*(range(w.start, w.stop) for w in windows)) == set(range(frames))
    assert all(w.stop - w.start == length for w in windows) or frames < length


def test_windows_are_biased_to_events():
    held, beside = Window(40, 121, 81), Window(200, 281, 81)
    assert event_weight(held, (70, 90)) == 1.0 > event_weight(Window(68, 149, 81), (70, 90)) > FLOOR
    assert event_weight(beside, (70, 90)) == FLOOR


@given(st.integers(0, 500), st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_processes_together_draw_what_one_draws(step, count, ranks):
    sampler = Sampler([make_clip(0, 33), make_clip(1, 20, domain="sim")], 9, seed=3)
    alone = sampler.draw(step, count * ranks)
    together = [choice for rank in range(ranks) for choice in sampler.draw(step, count, rank, ranks)]
    assert [(c.clip.uid, c.window) for c in alone] == [(c.clip.uid, c.window) for c in together]


@pytest.mark.parametrize(
    ("weights", "balance", "share"), [(None, False, 0.8), (None, True, 4 ** (1 / 3)), ({"sim": 1}, False, 0.0)]
)
def test_domains_get_their_share(weights, balance, share):
    clips = [make_clip(0, 80), make_clip(1, 20, domain="sim")]
    sampler = Sampler(clips, 9, weights=weights, balance=balance)
    expected = share if not balance else share / (share + 1)
    assert sampler.shares["composite"] == pytest.approx(expected)
    drawn = [c.clip.domain for step in range(400) for c in sampler.draw(step, 2)]
    assert drawn.count("composite") / len(drawn) == pytest.approx(expected, abs=0.06)


def test_a_domain_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="composite"):
        Sampler([make_clip(0)], 9, weights={"recorded": 1.0})


@pytest.mark.parametrize(("frames", "length", "stride", "starts"), [
    (20, 9, 4, [0, 4, 8, 11]), (17, 9, 4, [0, 4, 8]), (10, 9, 8, [0, 1]), (9, 9, 1, [0]), (17, 8, 4, [0, 4, 8]),
])  # fmt: skip
def test_windows_begin_on_a_grid_and_the_last_ends_with_the_clip(frames, length, stride, starts):
    assert candidate_windows(frames, length, stride) == tuple(Window(start, start + 9, 9) for start in starts)
    assert candidate_windows(4, length, stride) == (Window(0, 4, 9),)
    assert candidate_windows(25, 9) == tuple(Window(start, start + 9, 9) for start in (0, 8, 16))


def test_a_window_counts_by_how_far_inside_its_events_lie():
    window = Window(100, 181, 81)
    for event, share in ((100, 0), (110, 10 / 20.25), (120, 20 / 20.25), (121, 1), (140, 1), (159, 1), (170, 10 / 20.25),
                         (180, 0), (181, 0), (99, 0), (300, 0)):  # fmt: skip
        assert event_weight(window, (event,)) == pytest.approx(FLOOR + (1 - FLOOR) * share), event
    assert event_weight(window, (140, 300)) == pytest.approx(FLOOR + (1 - FLOOR) / 2)
    assert event_weight(window, ()) == 1
    assert event_weight(Window(0, 3, 9), (1,)) == 1, "of three frames the middle one lies inside"


def clip(name: str, domain: str, frames: int, events: tuple[int, ...] = ()) -> Any:
    return SimpleNamespace(uid=name, domain=domain, frames=frames, events=events, episode=name)


def odds(sampler: Sampler) -> list[float]:
    return np.diff(sampler._cumulative, prepend=0.0).tolist()


def test_a_domain_a_clip_in_it_and_a_window_of_that_are_drawn_by_their_shares():
    clips = [clip("a", "sim", 9), clip("b", "sim", 17, (4,)), clip("c", "real", 9)]
    sampler = Sampler(clips, 9, weights={"sim": 3.0, "real": 1.0}, stride=4)
    assert sampler.shares == {"real": 0.25, "sim": 0.75}
    assert [(one.clip.uid, one.window.start) for one in sampler.choices] == [
        ("a", 0),
        ("b", 0),
        ("b", 4),
        ("b", 8),
        ("c", 0),
    ]
    bias = np.array([event_weight(Window(start, start + 9, 9), (4,)) for start in (0, 4, 8)])
    wanted = [0.75 * 9 / 26, *(0.75 * 17 / 26 * bias / bias.sum()), 0.25]
    assert odds(sampler) == pytest.approx(wanted)
    plain = Sampler(clips, 9, stride=4)
    assert plain.shares == pytest.approx({"sim": 26 / 35, "real": 9 / 35}), "by their frames"
    even = Sampler(clips, 9, stride=4, balance=True)
    assert even.shares["sim"] / even.shares["real"] == pytest.approx((26 / 9) ** (1 / 3))


def test_what_has_no_weight_is_neither_drawn_nor_encoded():
    clips = [clip("a", "sim", 9), clip("c", "real", 9)]
    sampler = Sampler(clips, 9, weights={"sim": 0.0, "real": 2.0})
    assert [one.clip.uid for one in sampler.choices] == ["c"]
    assert {one.clip.uid for step in range(20) for one in sampler.draw(step, 3)} == {"c"}
    for weights, says in (({"sim": -1.0}, "is -1.0; valid: 0 or more"), ({"sim": 0.0}, "every domain has weight 0"),
                          ({"sim": float("nan")}, "valid: 0 or more")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            Sampler(clips, 9, weights=weights)
    with pytest.raises(InputError, match="no clip was found"):
        Sampler([], 9)


@pytest.mark.parametrize("seed", [0, 5])
def test_a_draw_is_a_pure_function_of_seed_and_step(seed):
    clips = [clip(name, "sim", 9 + 4 * k) for k, name in enumerate("abc")]
    sampler = Sampler(clips, 9, stride=4, seed=seed)
    bounds = np.cumsum(odds(sampler))
    for step in (0, 1, 7):
        blocks = (np.random.Generator(np.random.Philox(key=seed, counter=[step, block, 0, 0])) for block in (0, 1))
        values = np.concatenate([block.random(4) for block in blocks])[:6]
        wanted = [sampler.choices[int((bounds <= value).sum())] for value in values]
        assert sampler.draw(step, 6) == wanted
        assert sampler.draw(step, 2, 1, 3) == wanted[2:4]
    drawn = [
        [one.window for one in Sampler(clips, 9, stride=4, seed=s).draw(k, 30)] for s, k in ((0, 0), (0, 1), (1, 0))
    ]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]


@pytest.mark.parametrize("count", [5, 8, 16])
def test_a_step_does_not_see_again_what_the_steps_before_it_drew(count):
    sampler = Sampler([clip("a", "sim", 4009)], 9, stride=1, seed=3)
    starts = [[one.window.start for one in sampler.draw(step, count)] for step in range(12)]
    again = [len(set(one) & set(other)) for k, one in enumerate(starts) for other in starts[:k]]
    assert sum(again) <= 0.05 * 12 * count, "4001 windows: a handful meet by chance"
