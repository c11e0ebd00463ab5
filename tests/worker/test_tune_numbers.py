# SPDX-License-Identifier: Apache-2.0
"""Small numbers around a training, each against its own definition: statistics of retake.worker.tune.evaluate, curves, sheets of
pictures, bounds of settings, weights of objects, rewards."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.core.export.physics import NEVER
from retake.worker.oscar.few_step import Student, even_sigmas
from retake.worker.tune import curves, pictures, reward
from retake.worker.tune.config import LinearSchedule, LoraSettings, ObjectSupervision, TuneConfig
from retake.worker.tune.distill import DistillConfig
from retake.worker.tune.distill_run import DistilSettings
from retake.worker.tune.evaluate import interval, page, sign_flip_p, summarise
from retake.worker.tune.objects import free_fall, loss_weight, object_cells, pool_cells, shuffled
from retake.worker.tune.reward import RewardConfig, Scene
from retake.worker.tune.settings import RunSettings
from retake.worker.tune.step import Batch

torch.set_num_threads(1)

# -- base against tuned ---------------------------------------------------------------------------------------------------


def exact_p(gains: list[float]) -> float:
    signs = itertools.product((-1, 1), repeat=len(gains))
    return float(np.mean([abs(np.dot(one, gains)) >= abs(sum(gains)) - 1e-12 for one in signs]))


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_a_chance_is_counted_over_all_signs(values):
    moved = [float(value) for value in values if value]
    assert sign_flip_p(np.array(values, float)) == pytest.approx(exact_p(moved) if moved else 1)


def test_beyond_twelve_pairs_signs_are_drawn():
    gains = np.random.default_rng(3).normal(0.4, 1, 13)
    assert sign_flip_p(gains[:12]) == pytest.approx(exact_p(gains[:12].tolist()))
    assert sign_flip_p(gains) == pytest.approx(exact_p(gains.tolist()), abs=0.03)
    assert 0 < sign_flip_p(np.ones(40)) < 1e-3
    assert sign_flip_p(np.array([*np.ones(20), *-np.ones(20)])) == 1
    few = sign_flip_p(np.ones(40), draws=9)
    assert few == pytest.approx(0.1), "with nine draws nothing is rarer than one in ten"


def test_an_interval_holds_the_middle_ninety_five_of_a_hundred():
    assert interval(np.array([2.0])) == (-math.inf, math.inf)
    assert interval(np.array([2.0, 2.0])) == (2, 2)
    gains = np.random.default_rng(0).normal(1, 1, 400)
    low, high = interval(gains)
    sure = 1.96 * gains.std() / 20
    assert gains.mean() - low == pytest.approx(sure, rel=0.12)
    assert high - gains.mean() == pytest.approx(sure, rel=0.12)
    assert interval(gains) == (low, high)


def pairs(base: list[Any], tuned: list[Any], name: str = "lag", **more: Any) -> list[dict[str, Any]]:
    return [
        {"run": "r", "variant": "v<1>", "seed": k, "object": "box", "band": "no drop", "seen": False,
         "base": {"video": "b.mp4", "probability": 0.5, "failed": 0.0, name: a},
         "tuned": {"video": "t.mp4", "probability": 0.75, "failed": 1.0, name: b}, **more}
        for k, (a, b) in enumerate(zip(base, tuned, strict=True))
    ]  # fmt: skip


def rows(found: dict[str, Any], group: str = "all") -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found["rows"] if row["group"] == group}


@pytest.mark.parametrize(
    ("name", "sign"), [("lag", -1), ("object_l2", -1), ("object_iou", 1), ("probability", 1), ("failed", -1)]
)
def test_a_gain_is_positive_where_the_tuned_model_is_better(name, sign):
    row = rows(summarise(pairs([1.0, 2.0, 3.0], [2.0, 4.0, 3.0], name)))[name]
    assert (row["base"], row["tuned"], row["gain"], row["pairs"]) == (2.0, 3.0, sign * 1.0, 3)


def test_a_pair_counts_where_both_videos_gave_a_number():
    found = rows(summarise(pairs([1.0, None, 3.0], [2.0, 4.0, None])))
    assert (found["lag"]["pairs"], found["lag"]["base"], found["lag"]["tuned"]) == (1, 1.0, 2.0)
    assert found["probability"]["pairs"] == 3
    assert "lag" not in rows(summarise(pairs([None], [1.0])))
    assert not any("video" in row["name"] for row in summarise(pairs([1.0], [1.0]))["rows"])


def test_an_arm_is_blamed_for_what_is_surely_worse_of_the_arm():
    sure = [1.0 + 0.01 * k for k in range(8)]
    assert summarise(pairs(sure, [value + 1 for value in sure]))["arm_follows_worse"] == ["lag"]
    assert summarise(pairs(sure, [value - 1 for value in sure]))["arm_follows_worse"] == [], "better"
    assert summarise(pairs(sure, [value + 1 for value in sure], "object_l2"))["arm_follows_worse"] == [], "not the arm"
    few = summarise(pairs(sure[:3], [value + 1 for value in sure[:3]]))
    assert rows(few)["lag"]["high"] < 0
    assert few["arm_follows_worse"] == [], "three pairs may be chance"
    mixed = pairs(sure, [1.0] * 8) + pairs(
        sure, [value + 1 for value in sure], object="cup", band="drop of 10 cm or more"
    )
    found = summarise(mixed)
    assert [rows(found, group)["lag"]["pairs"] for group in ("all", "box", "cup", "no drop")] == [16, 8, 8, 8]


def test_a_page_shows_every_pair_and_says_what_is_sure():
    made = pairs([1.0, 1.0, 2.0], [3.0, 3.0, 4.0])
    made[0]["seen"], made[0]["base"]["arm_offset"] = True, 1.234
    found = summarise(made)
    text = page({**found, "arm_follows_worse": ["lag"]})
    assert text.count("<video") == 6
    assert text.count("v&lt;1&gt;") == 3
    assert "v<1>" not in text
    assert "seed 0 · box, no drop, seen in training" in text
    assert "seed 1 · box, no drop, new motion" in text
    assert "base: arm 1.23 px, p = 0.50<" in text
    assert "tuned: p = 0.75, failed<" in text
    assert "The arm follows worse: lag" in text
    assert "The arm does not follow worse" in page({**found, "arm_follows_worse": []})
    cell = {
        low: page({**found, "rows": [{**found["rows"][0], "low": low, "high": high}]})
        for low, high in ((1, 2), (-2, -1), (-1, 1))
    }
    assert [("'n good'" in cell[low], "'n bad'" in cell[low], "'n soft'" in cell[low]) for low in (1, -2, -1)] == [
        (True, False, False), (False, True, False), (False, False, True),
    ]  # fmt: skip
    zero = page({**found, "rows": [{**found["rows"][0], "low": 0, "high": 0}]})
    assert "'n soft'" in zero


# -- curves ---------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=90), st.integers(1, 30))
def test_a_thinned_curve_is_the_means_of_runs_of_alike_length(values, count):
    points = [(3 * k, value) for k, value in enumerate(values)]
    thin = curves.thinned(points, count)
    if len(points) <= count:
        assert thin == points
        return
    ends = [step // 3 + 1 for step, _ in thin]
    runs = [values[a:b] for a, b in itertools.pairwise([0, *ends])]
    assert [len(run) for run in runs if not run] == []
    assert max(map(len, runs)) - min(map(len, runs)) <= 1
    assert [value for _, value in thin] == pytest.approx([np.mean(run) for run in runs])


def test_the_time_of_a_step_is_that_of_the_newest(tmp_path, monkeypatch):
    many = [(k, 1.0) for k in range(100)] + [(100 + k, 3.0) for k in range(curves.RECENT)]
    assert curves.seconds_per_step({"seconds": many}) == 3
    assert curves.seconds_per_step({"seconds": [*many, (999, 3.0 + curves.RECENT)]}) == 4
    assert curves.seconds_per_step({"seconds": []}) is None
    assert curves.seconds_per_step({}) is None
    clock = [50.0]
    monkeypatch.setattr(curves, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    made = curves.Curves(tmp_path)
    for step in range(4):
        made.add_step(step, loss=1.0)
        clock[0] += 2 + step
    made.close()
    assert curves.read_curves(tmp_path)["seconds"] == [(1, 2), (2, 3), (3, 4)]


def test_a_line_cut_short_costs_that_line_alone(tmp_path):
    for text, read in (
        ("", [0]),
        ('{"step": 7, "loss": 1}\n', [0, 7]),
        ('{"step": 7, "loss": 1}\n{"step": 8, "lo', [0, 7]),
    ):
        folder = tmp_path / str(len(text))
        (folder / "curves").mkdir(parents=True)
        (folder / "curves" / "curves.jsonl").write_text(text)
        made = curves.Curves(folder)
        made.add(0, loss=2.0)
        assert [step for step, _ in curves.read_curves(folder)["loss"]] == read, (
            "readers see a line as soon as it is whole"
        )
        made.close()
        assert (folder / "curves" / "curves.jsonl").read_text().count("\n\n") == 0


# -- pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_picture_is_sampled_from_noise_down_to_nothing(steps):
    """A model that says the same velocity everywhere: whatever the steps, they add up to it once."""
    x0 = torch.randn(2, 3, 4, 2, 2)
    wind, times = torch.randn(x0.shape), []

    def velocity(batch: Any, state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        times.append(time)
        return wind

    tuner: Any = SimpleNamespace(velocity=velocity)
    made = pictures.sample(tuner, Batch(x0, x0, x0), steps, seed=4)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(4))
    sigmas = even_sigmas(steps)
    assert torch.allclose(made[:, :, 1:], (noise - sigmas[0] * wind)[:, :, 1:], atol=1e-5)
    assert torch.equal(made[:, :, :1], x0[:, :, :1])
    assert [time.shape for time in times] == [(2, 1)] * steps
    assert [float(time[0, 0]) for time in times] == pytest.approx([1000 * sigma for sigma in sigmas])


def test_a_sheet_has_what_was_simulated_above_what_was_made_with_outlines_on_both():
    count, height, width = 3, 32, 40
    cells = torch.zeros(1, count, height // 8, width // 8)
    cells[0, :, 1, 2] = 1.0
    cells[0, :, 3, 4] = 0.4  # covered by less than half: not inside
    shades = {"truth": 40, "made": 90}

    def decode(latents: torch.Tensor) -> np.ndarray:
        shade = int(latents.flatten()[0])
        return np.stack([np.full((height, width, 3), shade + k, np.uint8) for k in range(1 + 4 * (count - 1))])

    truth, made = (torch.full((1, 16, count, 4, 5), float(shade)) for shade in shades.values())
    sheet = pictures.draw([pictures.Shown(truth, made, cells)] * 2, decode, 7)
    wide, high = pictures.WIDTH, round(pictures.WIDTH * height / width)
    assert sheet.shape == (4 * high, count * wide, 3)
    for row, shade in enumerate([40, 90, 40, 90]):
        for column in range(count):
            cell = sheet[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            assert cell[-5, -5].tolist() == [shade + 4 * column] * 3, "the last frame of each latent one"
            drawn = np.argwhere((cell == pictures.OUTLINE).all(-1))
            assert (drawn.min(0) / 6).round().tolist() == [8, 16]
            assert ((drawn.max(0) + 1) / 6).round().tolist() == [16, 24]
    faint = pictures.draw([pictures.Shown(truth, made, 0.5 * cells)], decode, 7)
    assert (faint == pictures.OUTLINE).all(-1).any(), "what covers nothing by half is outlined by its own measure"
    plain = pictures.draw([pictures.Shown(truth, made)], decode, 7)
    assert not (plain == pictures.OUTLINE).all(-1).any()
    large = pictures.draw([pictures.Shown(truth, made)], lambda latents: decode(latents).repeat(10, 1).repeat(10, 2), 7)
    assert large.shape == plain.shape


# -- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "fine", "wrong"), [
    (lambda v: RunSettings(steps=v), [1, 10**6], [0, -1, 1.5]), (lambda v: RunSettings(batch=v), [1], [0]),
    (lambda v: RunSettings(accumulate=v), [1], [0]), (lambda v: RunSettings(stride=v), [1], [0]),
    (lambda v: RunSettings(validate_every=v), [1], [0]), (lambda v: RunSettings(save_every=v), [1], [0]),
    (lambda v: RunSettings(keep=v), [1], [0]), (lambda v: RunSettings(picture_steps=v), [0, 35], [-1, 36, 1.5]),
    (lambda v: RunSettings(size=v), [(16, 16), (32, 480)], [(0, 16), (16, 8), (24, 16), (16, 24), (-16, 16)]),
    (lambda v: RunSettings(frames=v), [1, 5, 81], [2, 4, 80, 83]),
    (lambda v: LinearSchedule(warm_up=v, cycle=10), [0, 9], [-1, 10]), (lambda v: LoraSettings(rank=v), [1], [0]),
    (lambda v: LoraSettings(alpha=v), [1e-6], [0, -1, float("nan")]),
    (lambda v: LoraSettings(targets=v), [("to_q",)], [(), ("to_x",)]),
    (lambda v: ObjectSupervision(weight=v), [0, 9], [-0.1, float("nan")]),
    (lambda v: ObjectSupervision(release_boost=v), [0, 9], [-0.1]),
    (lambda v: ObjectSupervision(control=v), ["none", "drawn", "embed"], ["paint"]),
    (lambda v: TuneConfig(lr=v), [1e-12], [0, -1, float("inf"), float("nan")]), (lambda v: TuneConfig(eps=v), [1e-12], [0]),
    (lambda v: TuneConfig(shift=v), [0.1], [0]), (lambda v: TuneConfig(text_dropout=v), [0, 0.99], [-0.1, 1]),
    (lambda v: TuneConfig(skeleton_dropout=v), [0, 0.99], [-0.1, 1]), (lambda v: TuneConfig(clip_norm=v), [None, 0.1], [0, -1]),
    (lambda v: TuneConfig(ema_rate=v), [None, 0.1], [0, -1]), (lambda v: TuneConfig(time_weight=v), ["reweighting"], ["even"]),
    (lambda v: RewardConfig(steps=v), [1, 35], [0, 36]), (lambda v: RewardConfig(last=v), [1, 8], [0, 9]),
    (lambda v: RewardConfig(anchor=v), [0, 5], [-1, float("inf")]),
    (lambda v: DistillConfig(critic_steps=v), [1], [0]), (lambda v: DistillConfig(low=v), [0.01, 0.97], [0, 0.98, 0.99]),
    (lambda v: DistillConfig(high=v), [0.03, 0.99], [0.02, 1]),
    (lambda v: DistilSettings(guidance=v), [0, 9], [-1, float("inf")]),
    (lambda v: DistilSettings(step=v), [TuneConfig(ema_rate=None)],
     [TuneConfig(lora=LoraSettings()), TuneConfig(objects=ObjectSupervision(1.0)),
      TuneConfig(objects=ObjectSupervision(control="drawn"))]),
])  # fmt: skip
def test_settings_are_taken_up_to_their_bounds(made, fine, wrong):
    for value in fine:
        made(value)
    for value in wrong:
        with pytest.raises(InputError):
            made(value)


def test_a_distillation_hands_its_settings_on():
    step = TuneConfig(lr=0.25, ema_rate=None, seed=7)
    found = DistilSettings(step=step, student=Student(2), guidance=3.0, critic_steps=4, critic_lr=0.5).config()
    assert (found.student, found.guidance, found.critic_steps, found.seed) == (Student(2), 3.0, 4, 7)
    assert found.optimiser == step
    assert found.critic_optimiser == replace(step, lr=0.5)


# -- objects --------------------------------------------------------------------------------------------------------------


def test_a_fall_is_from_release_to_settling_or_the_end():
    arrays = {"release_frame": np.array([2, 3, NEVER]), "settled_frame": np.array([4, NEVER, NEVER])}
    assert free_fall(arrays, 6).T.tolist() == [
        [False, False, True, True, True, False], [False, False, False, True, True, True], [False] * 6,
    ]  # fmt: skip


def test_cells_count_by_cover_and_by_fall():
    cells, falling = torch.tensor([[[[0.5]]]]), torch.tensor([[[[0.25]]]])
    found = loss_weight(cells, falling, ObjectSupervision(4.0, 3.0))
    assert found is not None
    assert found.shape == (1, 1, 1, 1, 1)
    assert float(found) == 1 + 4 * (0.5 + 2 * 0.25)
    assert float(loss_weight(cells, falling, ObjectSupervision(4.0, 1.0))) == 3
    assert float(loss_weight(cells, falling, ObjectSupervision(4.0, 0.0))) == 2
    assert loss_weight(cells, falling, ObjectSupervision(0.0, 3.0)) is None


def test_padding_repeats_the_last_frame_of_a_window():
    masks = np.zeros((7, 2, 16, 24), bool)
    masks[:5, 0, :8, :8] = masks[5:, 1, 8:, 16:] = True
    free = np.zeros((7, 2), bool)
    free[6, 1] = True
    truth: Any = SimpleNamespace(masks=masks, free=free)
    cells, falling = object_cells(truth, slice(2, 7), 9, (24, 16))
    first, last = np.zeros((2, 3)), np.zeros((2, 3))
    first[0, 0] = last[1, 2] = 1
    assert np.array_equal(cells[0], first)
    assert cells[1] == pytest.approx((first * 2 + last * 2) / 4)
    assert np.array_equal(cells[2], last), "four times the last frame"
    assert falling[1] == pytest.approx(last / 4)
    assert np.array_equal(falling[2], last)
    assert falling[0].sum() == 0
    whole, _ = object_cells(truth, slice(0, 5), 5, (24, 16))
    assert np.array_equal(whole, pool_cells(masks[:5, 0], (24, 16)))


def test_shuffled_places_keep_every_frame_s_values():
    cells = torch.rand(2, 3, 4, 5)
    found = shuffled(cells, torch.Generator().manual_seed(0))
    assert not torch.equal(found, cells)
    assert torch.equal(found.flatten(-2).sort().values, cells.flatten(-2).sort().values)


# -- rewards --------------------------------------------------------------------------------------------------------------


def scene(
    mask: torch.Tensor, cover: torch.Tensor, cells: torch.Tensor, falling: torch.Tensor, falls: torch.Tensor
) -> Scene:
    return Scene(mask, cells, falling, mask, cover, falls, torch.ones(len(mask)) > 0)


def test_overlap_is_what_is_shared_of_what_either_covers_while_something_falls():
    cells = torch.zeros(1, 3, 2, 2)
    cells[0, :, 0] = 1.0
    cover = torch.zeros(1, 3, 2, 2)
    cover[0, 1, 0, 0] = cover[0, 1, 1, 0] = 1.0  # one of two, and one beside
    cover[0, 2, 0] = 0.5
    falling = torch.zeros(1, 3, 2, 2)
    none = torch.zeros(1, 9) > 0
    falling[0, 1, 0, 0] = 0.1
    assert float(reward.overlap(scene(cover, cover, cells, falling, none))) == pytest.approx(1 / 3)
    falling[0, 2, 0, 0] = 0.1
    assert float(reward.overlap(scene(cover, cover, cells, falling, none))) == pytest.approx((1 + 1) / (3 + 2))
    assert float(reward.overlap(scene(cells, cells, cells, falling, none))) == pytest.approx(1)
    assert float(reward.overlap(scene(cells, cells, cells, 0 * falling, none))) == 0


@pytest.mark.parametrize("size", [2, 4])
def test_a_path_is_judged_by_how_its_acceleration_changes_in_widths_of_the_object(size):
    def film(tops: list[int], falls: list[int]) -> float:
        mask = torch.zeros(1, len(tops), 40 * size, 8 * size)
        for k, top in enumerate(tops):
            mask[0, k, top * size : top * size + size, size : 2 * size] = 1
        marked = torch.zeros(1, len(tops)) > 1
        marked[0, falls] = True
        return float(reward.acceleration(scene(mask, mask, mask, mask, marked)))

    assert film([0, 1, 4, 9, 16], [0, 1, 2, 3, 4]) == pytest.approx(0, abs=1e-5)
    # accelerations 2, 2 and 5 widths: their mean 3, their variance 2
    assert film([0, 1, 4, 9, 19], [0, 1, 2, 3, 4]) == pytest.approx(1 / (1 + 2) - 1, abs=1e-4)
    assert film([0, 1, 4, 9, 19], [0, 1, 2, 3]) == pytest.approx(0, abs=1e-5), "only while it falls"
    assert film([0, 9, 4, 1], [0, 1, 2]) == 0, "three frames say nothing"
    assert film([0, 9, 4, 1], [0, 1, 2, 3]) < -0.5


def test_a_place_is_the_middle_of_what_is_covered():
    cover = torch.zeros(1, 2, 4, 6)
    cover[0, 0, 1, 2] = cover[0, 0, 1, 5] = 0.5
    cover[0, 1, 3, 1] = 1
    cover[0, 1, 0, 1] = 0.5
    assert reward.centroids(cover)[0].tolist() == [pytest.approx([3.5, 1]), pytest.approx([1, 2])]


def test_objects_are_told_from_the_ground_and_from_an_arm_by_their_colour():
    first = torch.full((1, 3, 32, 32), -0.5)
    first[:, :, 8:16, 8:16] = torch.tensor([0.9, -0.2, 0.3])[:, None, None]
    video = torch.full((1, 3, 5, 32, 32), -0.5)
    video[:, :, 0] = first
    video[0, :, 1:, 16:24, 16:24] = torch.tensor([0.9, -0.2, 0.3])[:, None, None, None]
    video[0, :, 1:, :8, :8] = torch.tensor([-0.9, 0.9, 0.9])[:, None, None, None]  # an arm
    cells = torch.zeros(1, 2, 4, 4)
    cells[0, 0, 1, 1], cells[0, 1, 2, 2] = 1.0, 1.0
    falling = cells.clone()
    falling[0, 0] = 0
    found = reward.see(video, first, cells, falling)
    wanted = torch.zeros(1, 5, 32, 32)
    wanted[0, 0, 8:16, 8:16] = wanted[0, 1:, 16:24, 16:24] = 1
    assert (found.mask - wanted).abs().max() < 0.05
    assert found.falls.tolist() == [[False, True, True, True, True]]
    assert found.known.tolist() == [True]
    assert torch.allclose(found.cover, reward.pool(found.mask))
    stated = torch.tensor([[False, False, True, False, False]])
    assert torch.equal(reward.see(video, first, cells, falling, stated).falls, stated)
    assert reward.see(video, first, cells, 0 * falling).known.tolist() == [False]
    hidden = cells.clone()
    hidden[0, 0] = 0
    assert reward.see(video, first, hidden, falling).known.tolist() == [False]
    # a cell that is covered a little is no place to learn the colour from
    partly = cells.clone()
    partly[0, 0, 1, 2] = 0.2
    assert (reward.see(video, first, partly, falling).mask - wanted).abs().max() < 0.05
