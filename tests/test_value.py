# SPDX-License-Identifier: Apache-2.0
"""The value experiment's machinery at toy size: the stop rule, pairing, controls, resuming. Claims nothing about takes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from loop_toy import ToyEnvironment, seeker

from retake.core.robustness.policies import CallablePolicy
from retake.loop.looks import UNCHANGED, Look
from retake.loop.study import Asked, closed_loop
from retake.loop.tasks import TASKS

FOLDER = Path(__file__).resolve().parent.parent / "scripts" / "prove"
LOOKS = (
    Look(UNCHANGED, UNCHANGED),
    Look("dark", "light", sun=(0.3, 0.3, 0.3)),
    Look("hidden", "object", colours={"object": "#141414"}),
    Look("world:far", "world", world="far"),
)


@pytest.fixture(scope="module")
def value() -> ModuleType:
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("prove_value", FOLDER / "value.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prove_value"] = module
    spec.loader.exec_module(module)
    return module


def sharp(observation):
    """A policy that dark pictures do not disturb."""
    columns = observation.images["front"].astype(float).mean((0, 2))
    target = float(columns.argmax()) if np.ptp(columns) > 1 else float(observation.state[0])
    return np.array([target, 0.0])


def go(value, tmp_path, policies, ignore=False, seeds_of=None):
    """The experiment on the toy; (result, trainings asked for)."""
    trained = []
    sizes = value.Sizes(episodes=1, worlds=(8,), steps=1, batch=1, seeds=(0, 1), rollouts=4, frames=7)

    def train(arm, seed):
        trained.append((arm.name, seed))
        return arm.name

    def play(policy, name):
        asked = Asked(LOOKS, tuple(range(4)), 6)
        return closed_loop(ToyEnvironment(), policy, TASKS["reach"], tmp_path / name, asked)

    result = value.experiment(
        sizes,
        value.arms(sizes),
        LOOKS,
        train,
        lambda name: CallablePolicy(policies(name), name),
        play,
        ignore,
        seeds_of,
    )
    return result, trained


def test_the_experiment_says_who_is_better_and_where(value, tmp_path):
    result, trained = go(value, tmp_path, lambda name: sharp if name.startswith("takes") else seeker)
    assert result["stop_rule"] == {
        "met": True, "unchanged": 1.0, "losses": {"light": 1.0, "object": 1.0}, "axes_lost": ["light", "object"],
    }  # fmt: skip
    assert trained[:2] == [("simulated", 0), ("simulated", 1)]
    assert len(trained) == 2 * len(value.arms(value.Sizes(worlds=(8,))))
    cell = result["cells"]["takes8"]["dark"]
    assert (cell["successes"], cell["count"], cell["by_training"]) == (8, 8, [1.0, 1.0])
    told = result["comparisons"]["takes8"]
    assert (told["seeds_with_simulated"], told["seeds_with_cheap"], told["rivals"]) == (
        [0, 1],
        [0, 1],
        ["jitter", "textures"],
    )
    light = result["comparisons"]["takes8"]["axes"]["light"]
    assert light["over_simulated"]["value"] == 1.0
    assert light["over_best_cheap"]["value"] == 1.0
    assert result["comparisons"]["takes8"]["axes"]["object"]["over_simulated"]["value"] == 0.0


def test_nothing_is_claimed_when_the_stop_rule_is_not_met(value, tmp_path):
    """A policy that loses nothing leaves nothing to win; so does one that cannot do the task."""
    result, trained = go(value, tmp_path / "a", lambda name: sharp)
    assert not result["stop_rule"]["met"]
    assert not result["went_on"]
    assert {name for name, _ in trained} == {"simulated"}
    assert result["comparisons"] == {}
    lazy, _ = go(value, tmp_path / "b", lambda name: lambda o: o.state)
    assert lazy["stop_rule"]["unchanged"] == 0.0
    assert not lazy["went_on"]


def test_an_arm_is_compared_over_the_seeds_that_its_rivals_have_too(value, tmp_path):
    """Trainings that are still to be made leave a row with fewer rollouts, never a pair of different seeds."""
    have = {"simulated": (0, 1), "jitter": (1,), "textures": (0, 1), "takes8": (0, 1), "takes8 a quarter": (0,)}
    result, trained = go(
        value,
        tmp_path,
        lambda name: sharp if name.startswith("takes") else seeker,
        seeds_of=lambda arm: have.get(arm.name, ()),
    )
    assert trained == [(name, seed) for name, seeds in have.items() for seed in seeds]
    assert list(result["cells"]) == list(have)
    assert {arm: row["dark"]["count"] for arm, row in result["cells"].items()} == {
        n: 4 * len(s) for n, s in have.items()
    }
    assert result["cells"]["takes8"]["dark"]["by_training"] == [1.0, 1.0]
    told = result["comparisons"]["takes8"]
    assert (told["seeds_with_simulated"], told["seeds_with_cheap"], told["rivals"]) == ([0, 1], [0, 1], ["textures"])
    assert told["axes"]["light"]["over_best_cheap"]["value"] == told["axes"]["light"]["over_simulated"]["value"] == 1.0
    quarter = result["comparisons"]["takes8 a quarter"]
    assert (quarter["seeds_with_simulated"], quarter["seeds_with_cheap"], quarter["rivals"]) == ([0], [0], ["textures"])
    assert not quarter["claimed"]


def test_an_arm_that_shares_no_seed_with_a_rival_is_not_compared_with_it(value, tmp_path):
    have = {"simulated": (0,), "jitter": (0,), "takes8": (1,)}
    result, _ = go(value, tmp_path, lambda name: sharp, True, lambda arm: have.get(arm.name, ()))
    told = result["comparisons"]["takes8"]
    assert (told["seeds_with_simulated"], told["seeds_with_cheap"], told["rivals"]) == ([], [], [])
    assert told["axes"]["light"] == {"over_simulated": None, "best_cheap": "", "over_best_cheap": None}


def test_the_page_says_all_of_it(value, tmp_path):
    result, _ = go(value, tmp_path, lambda name: sharp, ignore=True)
    assert result["went_on"]
    curve = [[100 * k, 1 / k] for k in range(1, 61)]
    result |= {
        "trainings": {"takes8, seed 0": {"parameters": 7, "training_s": 9.4, "curve": curve}, "jitter, seed 0": {}},
        "sheet": "value/looks.jpg",
        "notes": "## Read by hand\n\nIt helps.",
        "controls": {"expert": {UNCHANGED: [4, 4]}, "expert_states_equal_across_looks": True, "blinded": {UNCHANGED: [0, 4]}},
        "open_loop": value.agreement([50.0, 80.0, 90.0], [0.2, 0.5, 0.9]) | {"score_and_rate": {"takes8, seed 0": [50.0, 0.2]}},
        "easier": {"takes8": result["cells"]["takes8"]},
        "part": {"arms": ["simulated"], "looks": [], "kept": False},
        "sizes": {"episodes": 1, "steps": 1, "seeds": [0, 1], "rollouts": 4},
        "looks": {look.name: look.axis for look in LOOKS},
        "commit": "abc",
        "reduced": True,
    }  # fmt: skip
    page = value.report(json.loads(json.dumps(result)))
    assert "not met, so nothing is claimed" in page
    assert "| takes8 | 8/8 (68%–100%) [100%, 100%] |" in page
    assert page.count("no part of the claim") == 6, (
        "takes150, twice the steps, a quarter, own shapes, with textures, with textures twice the steps"
    )
    assert "seeds 0, 1 with simulated, 0, 1 with jitter, textures." in page
    assert "Blinded (grey pictures), unchanged: 0/4" in page
    assert "Spearman 1.00" in page
    assert "| takes8, seed 0 | 50.0 | 20% |" in page
    easier = page[page.index("## An easier task") : page.index("## takes8")]
    assert "| takes8 | 8/8 (68%–100%) [100%, 100%] |" in easier
    assert "A part of the experiment" in page
    assert "Missing yet" not in page
    fewer = value.report(result | {"easier": None, "controls": None, "open_loop": None})
    assert "the easier task, the open-loop comparison, the expert in every look and the blinded policy." in fewer
    assert "A part of the experiment" not in value.report(result | {"part": {"arms": [], "looks": [], "kept": False}})
    assert "A reduced run" in page
    assert "simulated: not reached" in page
    assert "| takes8, seed 0 | 7 | 9 | 100: 1.000, 1300: 0.077," in page
    assert "6000: 0.017 |" in page
    assert "jitter, seed 0" not in page
    assert "(value/looks.jpg)" in page
    assert page.index("**Failures**") < page.index("It helps.") < page.index("## Trainings")


def test_the_sheet_shows_every_look_once_or_is_not_drawn(value, tmp_path):
    out = tmp_path / "sheet.jpg"
    value.look_sheet([look.name for look in LOOKS], tmp_path / "loops", out)
    assert not out.exists()
    asked = Asked(LOOKS, (0,), 2)
    closed_loop(ToyEnvironment(), CallablePolicy(sharp, "sharp"), TASKS["reach"], tmp_path / "loops" / "sharp", asked)
    value.look_sheet([look.name for look in LOOKS], tmp_path / "loops", out)
    one, sheet = cv2.imread(str(tmp_path / "loops" / "sharp" / "looks" / "dark.jpg")), cv2.imread(str(out))
    assert one is not None
    assert sheet is not None
    height, width = sheet.shape[:2]
    assert (height, width) == (2 * (2 * one.shape[0] + 18), 3 * 2 * one.shape[1])


def test_agreement_of_open_and_closed_loop(value):
    told = value.agreement([90.0, 50.0, 70.0], [0.1, 0.9, 0.5])
    assert told["spearman"] == pytest.approx(-1.0)
    assert not told["picks_the_right_policy"]
    assert value.agreement([50.0, 50.0], [0.1, 0.9])["pearson"] is None
    assert value.agreement([50.0, 60.0], [0.5, 0.5])["picks_the_right_policy"] is None


def test_training_worlds_and_test_worlds_share_no_environment(value):
    from value_data import HELD_OUT, TRAIN_ENVIRONMENTS

    from retake.core.variants.worlds import load_catalogue

    held = {load_catalogue().preset(name).environment for name in HELD_OUT}
    assert not held & set(TRAIN_ENVIRONMENTS)
    assert all(not look.world for look in value.tests(False) if look.axis not in ("world", UNCHANGED))


def test_what_a_training_did_is_kept_and_counts_for_that_training_alone(value, tmp_path):
    """Read back whole; another statement, look, length of play or seed finds nothing of it."""
    from value_units import NO_TRAINING, Units

    from retake.core.errors import InputError

    asked = Asked(LOOKS, (0, 1), 6)
    study = closed_loop(ToyEnvironment(), CallablePolicy(sharp, "sharp"), TASKS["reach"], tmp_path / "study", asked)
    one = Units(tmp_path / "units").of("takes 8", 1, {"steps": 3})
    assert len(one.missing(asked)) == 2 * len(LOOKS)
    with pytest.raises(InputError, match=r"takes-8-1\.json lacks 8 rollouts"):
        one.played(asked)
    one.record(study.rollouts, asked, {**NO_TRAINING, "curve": [[100, 0.5]]}, "abc")
    again = Units(tmp_path / "units").of("takes 8", 1, {"steps": 3})
    assert again.missing(asked) == []
    assert again.played(asked).rollouts == study.rollouts
    assert again.training() == {"parameters": 0, "training_s": 0.0, "curve": [[100, 0.5]]}
    assert again.played(Asked(LOOKS[1:2], (1,), 6)).rollouts == (study.rollouts[len(LOOKS) + 1],)
    assert len(again.missing(Asked(LOOKS, (0, 1, 2), 6))) == len(LOOKS)
    assert again.missing(Asked((LOOKS[0], Look("dark", "light", sun=(0.2, 0.3, 0.3))), (0,), 6)) == [("dark", 0)]
    assert len(again.missing(Asked(LOOKS, (0, 1), 5))) == 2 * len(LOOKS)
    other = Units(tmp_path / "units").of("takes 8", 1, {"steps": 4})
    assert len(other.missing(asked)) == 2 * len(LOOKS)
    assert other.training() == {}


def test_an_open_loop_score_is_kept_beside_the_rollouts(value, tmp_path):
    from value_beside import side_by_side
    from value_units import NO_TRAINING, Units

    asked, units, made = Asked(LOOKS[:2], (0,), 6), Units(tmp_path / "u"), []
    study = closed_loop(ToyEnvironment(), CallablePolicy(seeker, "seeker"), TASKS["reach"], tmp_path / "s", asked)
    some = value.arms(value.Sizes(worlds=(8,)))[:2]
    for arm in some:
        units.of(arm.name, 3, {}).record(study.rollouts, asked, NO_TRAINING, "abc")
    result = {"cells": {arm.name: {look.name: {"by_training": [0.5]} for look in LOOKS} for arm in some}}

    def score(arm, seed):
        made.append((arm.name, seed))
        return 40.0 + len(made)

    def told(how, make):
        return side_by_side(
            result, [(arm, [3]) for arm in some], lambda arm, seed: units.of(arm.name, seed, {}), how, make
        )

    assert told({"runs": 4}, None) is None
    first = told({"runs": 4}, score)
    assert first["score_and_rate"] == {"simulated, seed 3": [41.0, 0.5], "jitter, seed 3": [42.0, 0.5]}
    assert told({"runs": 4}, None) == told({"runs": 4}, score) == first
    assert made == [("simulated", 3), ("jitter", 3)]
    assert told({"runs": 5}, None) is None, "made of other runs"
    one = units.of("jitter", 3, {})
    one.record(study.rollouts, asked, NO_TRAINING, "abc")
    assert one.open_loop({"runs": 4}) == 42.0, "more rollouts leave it"


def test_passing_above_is_asked_at_any_time(value):
    from value_beside import pass_above

    from retake.loop.environment import Goal, Moment

    goal = Goal(0, np.zeros(3), np.ones(3), np.zeros(3), np.array([0.0, 0.0, 0.2]))

    def passing(nearest):
        hands = [np.array([0.1, 0.0, 0.2]), np.array([nearest, 0.0, 0.2]), np.array([0.0, 0.1, 0.0])]
        rest = ((), (), np.zeros((0, 4, 4)), frozenset())
        return pass_above([Moment(0.0, *rest, hand, 1.0) for hand in hands], goal)

    near, far = passing(0.03), passing(0.031)
    assert (near.success, near.failure, near.frame) == (True, "", 1)
    assert (far.success, far.failure, far.frame) == (False, "not reached", 1)
    assert far.distance_m == pytest.approx(0.031)


def test_the_easier_task_is_counted_of_the_seeds_there_are(value):
    from types import SimpleNamespace

    from value_beside import easier

    def play(arm, seed):
        rows = [SimpleNamespace(look=look.name, outcome=SimpleNamespace(success=seed == 1)) for look in LOOKS] * 3
        return SimpleNamespace(rollouts=rows)

    have = {"simulated": (0, 1), "jitter": (1,)}
    told = easier(value.arms(value.Sizes(worlds=(8,))), LOOKS, lambda arm: have.get(arm.name, ()), play)
    assert list(told) == ["simulated", "jitter"]
    assert told["simulated"]["dark"]["by_training"] == [0.0, 1.0]
    assert (told["simulated"]["dark"]["successes"], told["simulated"]["dark"]["count"]) == (3, 6)
    assert told["jitter"]["world:far"]["successes"] == 3


def test_rollouts_come_to_those_that_are_kept(value, tmp_path):
    from value_units import NO_TRAINING, Units

    one, both = Units(tmp_path / "u").of("jitter", 0, {}), Asked(LOOKS[:2], (0, 1, 2), 6)
    for number, asked in enumerate((Asked(LOOKS[:2], (0,), 6), Asked(LOOKS[1:2], (0, 1, 2), 6), both)):
        folder = tmp_path / str(number)
        study = closed_loop(ToyEnvironment(), CallablePolicy(sharp, "sharp"), TASKS["reach"], folder, asked)
        one.record(study.rollouts, asked, NO_TRAINING, str(number))
    kept = one.played(both).rollouts
    assert [(r.look, r.seed) for r in kept] == [(look.name, seed) for seed in (0, 1, 2) for look in LOOKS[:2]]
    assert one.played(Asked(LOOKS[:2], (0,), 6)).rollouts == kept[:2]
    content = json.loads(one.file.read_text())
    assert content["commits"] == ["0", "1", "2"]
