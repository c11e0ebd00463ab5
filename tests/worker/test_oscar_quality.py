# SPDX-License-Identifier: Apache-2.0
"""What approximate modes cost, counted over pipelines that a test plays: whose figures make which row, and how rows are told. Of
retake.worker.oscar.quality and retake.worker.oscar.stepcache."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.worker.oscar import quality, stepcache
from retake.worker.oscar.approximate import MODES
from retake.worker.oscar.quality import Row, compare, default_modes, lines, to_json
from retake.worker.oscar.stepcache import (
    Calibration,
    Residuals,
    calibrate,
    check_calibration,
    plan_skips,
    relative_error,
)

torch.set_num_threads(1)


class Pipe:
    """Off by what its modes say: latents, pixels after the given one, evaluations, seconds."""

    made: list[Pipe]
    clock: list[float]

    def __init__(self) -> None:
        self.transformer = SimpleNamespace(residuals=None)
        self.approximations: list[str] = []
        self.off, self.fewer, self.each_s, self.kernels = 0.0, 0, 4.0, "reference"
        Pipe.made.append(self)

    def use_kernels(self, name: str) -> None:
        self.kernels, self.each_s = name, 3.0

    def enable_approximation(self, name: str, **options: Any) -> None:
        if name == "absent":
            raise InputError("it is not here")
        self.approximations.append(f"{name}!")
        self.off, self.fewer, self.each_s = options["off"], options.get("fewer", 0), options.get("each_s", 4.0)
        if "reuses" in options:
            self.transformer.residuals = SimpleNamespace(reuses=options["reuses"])

    def __call__(self, **call: Any) -> Any:
        assert call["output_type"] == "np"
        assert call["prompt"] == "p"
        Pipe.clock[0] += self.each_s
        seed = call["seed"]
        latents = torch.full((2, 2), float(seed)) * (1 + self.off * seed)
        call["callback_on_step_end"](self, 0, 0, {"latents": torch.zeros(2, 2)})
        call["callback_on_step_end"](self, 1, 0, {"latents": latents})
        frames = np.full((1, 3, 2, 2, 3), 100, np.uint8)
        frames[0, 0] = 7 * (self.off > 0)  # the given frame does not count
        frames[0, 1:] += np.uint8(round(10 * self.off * seed))
        return SimpleNamespace(frames=frames, stats=SimpleNamespace(evaluations=10 - self.fewer))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    Pipe.made, Pipe.clock = [], [0.0]
    monkeypatch.setattr(quality, "time", SimpleNamespace(perf_counter=lambda: Pipe.clock[0]))


def judge(frames: np.ndarray) -> tuple[str, float]:
    level = int(frames[1, 0, 0, 0])
    return ("pass" if level < 115 else "fail"), level / 200


def test_a_row_is_the_worst_of_the_seeds_and_the_mean_of_its_costs():
    modes = {
        "same": ("same", {"off": 0.0}), "off": ("odd", {"off": 1.0, "fewer": 5, "each_s": 1.0}), "gone": ("absent", {}),
        "kept": ("kept", {"off": 0.0, "reuses": 3}),
    }  # fmt: skip
    told: list[Any] = []
    rows = compare(Pipe, {"prompt": "p"}, (1, 2), modes, judge, lambda *at: told.append(at))
    assert [row.mode for row in rows] == ["kernels fused", "same", "off", "gone", "kept"]
    fused, same, off, gone, kept = rows
    assert (fused.label, fused.latent_error, fused.psnr_db, fused.forwards, fused.seconds) == ("", 0, None, 1, 0.75)
    assert (same.label, same.seeds, same.latent_error, same.verdicts_changed, same.probability_shift) == (
        "same!",
        2,
        0,
        0,
        0,
    )
    assert off.latent_error == pytest.approx(2)
    assert off.psnr_db == pytest.approx(20 * math.log10(255 / 20))
    assert off.verdicts_changed == 1
    assert off.probability_shift == pytest.approx((10 + 20) / 2 / 200)
    assert (off.forwards, off.seconds) == (0.5, 0.25)
    assert (gone.reason, gone.seeds, gone.latent_error) == ("it is not here", 0, 0.0)
    assert kept.forwards == pytest.approx((7 + 10) / 20), "what is reused is no evaluation, and counted once"
    assert told == [
        (0, 6, "exact"),
        (1, 6, "fused kernels"),
        (2, 6, "same"),
        (3, 6, "off"),
        (4, 6, "gone"),
        (5, 6, "kept"),
        (6, 6, ""),
    ]
    assert [pipe.kernels for pipe in Pipe.made] == ["fused", "reference", "reference", "reference", "reference"]
    assert to_json(rows)[2]["verdicts_changed"] == 1


def test_without_an_episode_nothing_is_judged():
    row = compare(Pipe, {"prompt": "p"}, (3,), {})[0]
    assert (row.verdicts_changed, row.probability_shift) == (None, None)
    with pytest.raises(InputError, match="needs a seed"):
        compare(Pipe, {"prompt": "p"}, (), {})


def test_rows_are_told_in_columns():
    rows = [
        Row("a", "", 2, 0.0123, None, None, None, 1.0, 0.5), Row("b", "b:1", 2, 0.5, 31.25, 1, -0.125, 0.4, 1.5),
        Row("c", "", 0, 0.0, None, None, None, 0.0, 0.0, "not here at all"),
    ]  # fmt: skip
    title, _, *told = lines(rows, "somewhere")
    assert title.endswith("; somewhere")
    assert [line.split() for line in told] == [
        ["a", "1.23e-02", "equal", "-", "-", "100%", "50%"], ["b", "5.00e-01", "31.2", "1/2", "-0.12", "40%", "150%"],
        ["c", "not", "here:", "not", "here", "at", "all"],
    ]  # fmt: skip


def test_every_mode_that_needs_nothing_else_is_compared():
    plain, known = default_modes(), default_modes("found")
    assert set(plain) == set(MODES) - {"step-cache"}
    assert set(known) == set(MODES)
    assert known["step-cache"] == ("step-cache", {"calibration": "found"})
    assert plain["guidance-interval"][1]["low"] < plain["guidance-interval"][1]["high"]


# -- the step cache -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0, 2))
def test_steps_are_skipped_while_what_is_missed_fits_the_budget(changes, budget):
    skips = plan_skips(changes, budget)
    assert set(skips) <= set(range(stepcache.FIRST_STEPS, len(changes) - stepcache.LAST_STEPS))
    missed = 0.0
    for index in range(stepcache.FIRST_STEPS, len(changes) - stepcache.LAST_STEPS):
        if index in skips:
            missed += changes[index]
            assert missed <= budget
        else:
            assert missed + changes[index] > budget
            missed = 0.0


def test_what_the_blocks_add_is_kept_for_each_prompt_and_reused_where_it_may():
    kept, zero = Residuals((1, 3), record=True), torch.zeros(2)
    for index, (a, b) in enumerate([(1.0, 10.0), (3.0, 10.0), (3.0, 5.0)]):
        for branch, value in (("cond", a), ("uncond", b)):
            kept.begin(index, branch)
            found = kept.reused()
            if index == 1:
                assert float(found[0]) == {"cond": 1.0, "uncond": 10.0}[branch]
            else:
                assert found is None
            kept.keep(torch.full((2,), value) + 5, zero + 5)
    assert kept.reuses == 2
    assert kept.changes == {1: [pytest.approx(2), pytest.approx(0)], 2: [pytest.approx(0), pytest.approx(0.5)]}
    kept.begin(3, "cond")
    assert float(kept.reused()[0]) == 3
    kept.reset()
    assert kept.reused() is None, "nothing of another take"
    kept.keep(zero + 1, zero)
    kept.begin(0, "cond")
    kept.begin(1, "cond")
    assert kept.reused() is None, "a take begins anew"
    assert Residuals().reused() is None


def test_the_error_of_latents_is_relative_to_their_size():
    exact = torch.tensor([3.0, 4.0])
    assert relative_error(exact, exact) == 0
    assert relative_error(exact + torch.tensor([0.0, 1.0]), exact) == pytest.approx(0.2)
    assert relative_error(10 * exact + torch.tensor([0.0, 10.0]), 10 * exact) == pytest.approx(0.2)


class Cached:
    """A pipeline whose blocks add what `adds` says; each reuse moves the final latents by a hundredth."""

    model_revision = "r"
    adds = (1.0, 2.0, 2.1, 2.2, 2.2, 2.2, 4.0, 4.0)

    def __init__(self) -> None:
        self.transformer = SimpleNamespace(residuals=None)
        self.runs: list[int] = []

    def run(self, seed: int) -> torch.Tensor:
        self.runs.append(seed)
        residuals, off = self.transformer.residuals, 0.0
        for index, added in enumerate(self.adds):
            residuals.begin(index, "cond")
            if residuals.reused() is None:
                residuals.keep(torch.tensor([added]), torch.zeros(1))
            else:
                off += 0.01 * seed
        return torch.tensor([1.0 + off])


@pytest.mark.parametrize(("target", "most"), [(0.5, 5), (0.045, 2), (0.015, 0)])
def test_as_much_is_reused_as_stays_within_the_error_asked_for(target, most):
    pipe = Cached()
    found = calibrate(pipe, pipe.run, (1, 2), target, 8, 1.5)
    assert len(found.skips) <= most
    assert len(found.skips) > 0 or most == 0
    assert found.error == pytest.approx(0.02 * len(found.skips)), "of the worst seed"
    assert (found.revision, found.evaluations, found.guidance, found.target, found.seeds) == (
        "r",
        8,
        1.5,
        target,
        (1, 2),
    )
    assert found.changes == pytest.approx([1, 1, 0.05, 0.1 / 2.1, 0, 0, 1.8 / 2.2, 0], abs=1e-6)
    assert pipe.transformer.residuals is None
    assert pipe.runs[:2] == [1, 2]
    for wrong in ({"target": 0}, {"target": 1.0}, {"seeds": ()}):
        with pytest.raises(InputError, match="relative error above 0"):
            calibrate(pipe, pipe.run, wrong.get("seeds", (1,)), wrong.get("target", 0.1), 8, 1.5)


def test_a_calibration_is_of_one_model_one_length_and_one_guidance(tmp_path):
    made = Calibration("r", 8, 1.5, (2, 3), 0.1, 0.05, (1.0, 0.5), (1, 2))
    made.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == made
    check_calibration(made, "r", 8, 1.5)
    for wrong, says in (
        (("s", 8, 1.5), "model revision r"),
        (("r", 9, 1.5), "evaluations 8"),
        (("r", 8, 2.0), "guidance 1.5"),
    ):
        with pytest.raises(InputError, match=says):
            check_calibration(made, *wrong)
    for text in ("{", "[]", "{}"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(InputError):
            Calibration.load(tmp_path / "c.json")
