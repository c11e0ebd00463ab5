# SPDX-License-Identifier: Apache-2.0
"""Small numbers around a training, each against its own definition: statistics of retake.worker.tune.evaluate, curves, sheets of
pictures, bounds of settings, weights of objects, rewards."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.worker.oscar.few_step import even_sigmas
from retake.worker.tune import curves, pictures, reward
from retake.worker.tune.config import TuneConfig
from retake.worker.tune.optimise import MasterOptimizer
from retake.worker.tune.reward import Scene
from retake.worker.tune.step import Batch

torch.set_num_threads(1)

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


# -- the optimiser --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(dtype: torch.dtype, bad: float) -> None:
    """A finite loss may have one: sqrt at 0, a quotient that underflowed."""
    layer = torch.nn.Linear(3, 2).to(dtype)
    optimiser = MasterOptimizer(layer.named_parameters(), TuneConfig(lr=0.1))

    def step(value: float) -> None:
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        layer.weight.grad[0, 0] = value
        optimiser.step()
        optimiser.zero_grad()

    step(1.0)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    with pytest.raises(InputError, match=r"gradient of step 1 has the norm (nan|inf).*nothing was changed"):
        step(bad)
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters())
    assert optimiser.iteration == 1
    optimiser.zero_grad()
    step(1.0)
    assert all(torch.isfinite(p).all() for p in layer.parameters())
