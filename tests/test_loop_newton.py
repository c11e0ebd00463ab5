# SPDX-License-Identifier: Apache-2.0
"""Closed loop in the embedded simulator: looks never touch physics, one seed is one rollout, a look changes pixels."""

from __future__ import annotations

import json
import os
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core import cli
from retake.core.errors import InputError
from retake.loop.embedded import EmbeddedEnvironment
from retake.loop.environment import states_sha256
from retake.loop.looks import Look, load_looks, world_look
from retake.loop.policies import Expert, Player
from retake.loop.rollout import roll
from retake.loop.tasks import TASKS

CAMERAS = [{"name": "front", "size": [64, 48], "mount": "fixed"}, {"name": "wrist", "size": [40, 30], "mount": "body"}]
PLAIN = Look("unchanged", "unchanged")
LOOKS = load_looks()


@pytest.fixture(scope="module")
def environment():
    return EmbeddedEnvironment("short", {"cameras": CAMERAS})


def rolled(environment, task, look, seed):
    """A rollout by the expert."""
    with closing(Player(Expert(environment), len(environment.facts.action_names), execute=1)) as player:
        return roll(environment, player, TASKS[task], look, seed, environment.facts.frames)


@pytest.fixture(scope="module")
def played(environment):
    """The expert's rollout of one seed, unchanged and with everything changed."""
    return {look.name: rolled(environment, "pick_place", look, 1) for look in (PLAIN, LOOKS["everything"])}


def test_the_expert_succeeds_in_every_look_by_the_same_states(played):
    """The law: bit-equal states; only what is seen differs."""
    (plain, seen), (dressed, other) = played["unchanged"], played["everything"]
    assert plain.outcome.success
    assert dressed.outcome.success
    assert plain.states_sha256 == dressed.states_sha256
    assert all((a != b).any() for a, b in zip(seen["front"], other["front"], strict=True))


def test_the_same_seed_is_the_same_rollout_and_another_is_not(environment):
    def begin(seed):
        first = environment.reset(seed, PLAIN)
        moments = [environment.moment]
        for _ in range(3):
            last = environment.step(environment.expert())
            moments.append(environment.moment)
        return states_sha256(moments), first.images["front"], last.images["wrist"]

    a, b, c = begin(4), begin(4), begin(5)
    assert a[0] == b[0] != c[0]
    assert np.array_equal(a[1], b[1])
    assert np.array_equal(a[2], b[2])


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
@settings(max_examples=20 if os.environ.get("RETAKE_FULL") == "1" else 2)
def test_a_scene_taken_back_to_its_beginning_is_a_new_one(environment, seed, frames):
    """Whatever was done in it before, and whichever look it was seen in: bit-equal states and pictures to a fresh scene's."""
    rng = np.random.default_rng(seed)
    environment.reset(3, LOOKS["everything"])
    for _ in range(frames):
        observation = environment.step(environment.expert() + rng.normal(0, 0.3, len(environment.facts.action_names)))
    moved = environment.moment.bytes()

    def play(where):
        images, states = [where.reset(3, PLAIN).images], [where.moment.bytes()]
        for _ in range(3):
            images.append(where.step(where.expert()).images)
            states.append(where.moment.bytes())
        return images, states

    again, fresh = play(environment), play(EmbeddedEnvironment("short", {"cameras": CAMERAS}))
    assert moved not in again[1]
    assert again[1] == fresh[1]
    for a, b in zip(again[0], fresh[0], strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in observation.images)


@pytest.fixture(scope="module")
def first(environment):
    """(observation, state) at the start of seed 2, unchanged."""
    return environment.reset(2, PLAIN), environment.moment.bytes()


@pytest.mark.parametrize("name", [*[n for n in LOOKS if n not in ("unchanged", "everything")], "world:bun_warehouse"])
def test_each_look_changes_pixels_and_no_state(environment, first, name):
    plain, state = first
    look = LOOKS[name] if name in LOOKS else world_look(name.removeprefix("world:"))
    seen = environment.reset(2, look)
    assert environment.moment.bytes() == state
    assert np.array_equal(seen.state, plain.state)
    changed = np.abs(seen.images["front"].astype(int) - plain.images["front"]).max(-1) > 8
    assert changed.mean() > 0.004, name
    if look.axis in ("object", "container", "distractors", "robot"):
        assert changed.mean() < 0.6, "only its part may change"


def test_an_action_says_what_a_recording_says(environment):
    """State and action have the entries of an export; out of limits is held at the limit, nonsense is refused."""
    observation = environment.reset(0, PLAIN)
    facts = environment.facts
    assert observation.names == facts.state_names
    assert len(observation.state) == len(facts.state_names) == 10
    far = np.full(len(facts.action_names), 100.0)
    environment.step(far)
    upper = [j.upper for j in environment.header.robots[0].dof_joints]
    assert np.all(environment.moment.joint_position[0] <= np.array(upper) + 0.05)
    for bad in (np.zeros(3), np.full(len(facts.action_names), np.nan)):
        with pytest.raises(InputError, match="an action is 10 finite numbers here"):
            environment.step(bad)


def test_an_openness_moves_the_fingers_where_the_layout_has_no_others():
    environment = EmbeddedEnvironment(
        "short", {"cameras": [{"name": "front", "size": [32, 24]}]}, layout="arm+openness"
    )
    observation = environment.reset(0, PLAIN)
    assert len(observation.state) == len(environment.facts.action_names) == 8
    action = environment.expert()
    for _ in range(6):
        environment.step(np.concatenate([action[:-1], [0.0]]))
    assert environment.moment.openness < 0.3
    with pytest.raises(InputError, match=r"unknown layout .* 'deltas-ee'"):
        EmbeddedEnvironment("short", layout="deltas-ee")


def test_reach_is_the_easier_task():
    environment = EmbeddedEnvironment("short", {"cameras": [{"name": "front", "size": [32, 24]}]}, ends="approach")
    assert environment.facts.frames < 25
    made, _ = rolled(environment, "reach", PLAIN, 0)
    assert made.outcome.success, made.outcome
    assert environment.goal is not None


def test_one_command_on_a_stage_of_ones_own(tmp_path, capsys):
    """A stage, a function and a judgement of the user's own; no script, no goal."""
    policy = tmp_path / "mine.py"
    policy.write_text(
        "import numpy as np\n"
        "def act(observation):\n"
        "    assert observation.images['front'].shape == (24, 32, 3)\n"
        "    where = dict(zip(observation.names, observation.state))\n"
        "    return np.array([where[n] for n in observation.names])\n"
        "def still(moments, goal):\n"
        "    return bool(abs(moments[-1].joint_position[0] - moments[0].joint_position[0]).max() < 0.1)\n"
    )
    stage = "data/stages/sixaxis/scene.usda"
    call = [
        "closed-loop", "--stage", stage, "--policy", f"{policy}:act", "--task", f"{policy}:still", "--looks", "dim_warm",
        "--seeds", "1", "--frames", "2", "--camera", "front=32x24", "--out", str(tmp_path / "out"), "--quiet",
    ]  # fmt: skip
    assert cli.main(call) == 0
    assert cli.main(call) == 0
    data = json.loads((tmp_path / "out/report.json").read_text())
    assert [row["successes"] for row in data["looks"]] == [1, 1]
    assert "unchanged" in capsys.readouterr().out
    assert cli.main([*call[:-1], "--policy", "expert"]) == 2
    assert "another study (policy differs)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--policy", "expert", "--looks", "moon"], "unknown look 'moon'"),
        (["--policy", "expert", "--task", "dance"], "unknown task 'dance'"),
        (["--policy", "expert", "--task", "reach", "--set", "scenario=hold"], "and this scenario has no script"),
        (["--policy", "hold", "--robot-name", "Bob", "--set", "scenario=hold"], "unknown robot 'Bob'; valid: Panda"),
        (["--policy", "nobody"], "expected module:function"),
        (["--policy", "expert", "--seeds", "0"], "expected one or more"),
        (["--policy", "expert", "--set", "fps=-3"], "fps is -3"),
        (["--policy", "expert", "--set", "cameras=[]"], "there is no camera"),
        (["--policy", "expert", "--object", "ghost"], "unknown object 'ghost'; valid: Packet"),
        (["--policy", "expert", "--execute", "0"], "--execute is 0; expected 1 or more"),
        (["--policy", "expert", "--frames", "-3"], "--frames is -3; expected 0 or more"),
        (["--policy", "expert", "--min-success", "2"], "expected a rate from 0 to 1"),
    ],
)
def test_bad_input_in_a_sentence(tmp_path, capsys, options, text):
    assert cli.main(["closed-loop", *options, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
