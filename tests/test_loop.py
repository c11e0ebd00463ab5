# SPDX-License-Identifier: Apache-2.0
"""Closed loop without a simulator: statistics, looks, tasks, how chunks are played, the study and its report."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_toy import ToyEnvironment, seeker

from retake.core.errors import Cancelled, InputError, RunError, StageError
from retake.core.robustness import Observation, open_policy
from retake.core.robustness.policies import CallablePolicy
from retake.loop.cli import identity_of, overrides_of, parser
from retake.loop.environment import Goal, Moment
from retake.loop.looks import UNCHANGED, Look, Pattern, choose_looks, combined, load_looks, world_look
from retake.loop.policies import Blinded, Expert, Hold, Player
from retake.loop.statistics import mcnemar, paired, wilson
from retake.loop.study import Asked, closed_loop
from retake.loop.tasks import TASKS, judged, open_task, pick_place
from retake.loop.textures import SIDE, picture

DARK = Look("dark", "light", sun=(0.3, 0.3, 0.3))
BRIGHT = Look("bright", "light", sun=(1.1, 1.1, 1.1))
HIDDEN = Look("hidden", "object", colours={"object": "#141414"})
LOOKS = (Look(UNCHANGED, UNCHANGED), DARK, BRIGHT, HIDDEN)


# Statistics -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 300))
def test_wilson_holds_the_rate_and_mirrors(a, b):
    low, high = wilson(a, a + b)
    assert 0 <= low <= high <= 1
    if a + b:
        assert low <= a / (a + b) <= high
    mirrored = wilson(b, a + b)
    assert low == pytest.approx(1 - mirrored[1], abs=1e-12)
    assert high == pytest.approx(1 - mirrored[0], abs=1e-12)


def test_wilson_gives_published_numbers():
    """Brown, Cai and DasGupta (2001): 0 of 20, and the textbook's 81 of 263."""
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial(lost, won):
    p = mcnemar(lost, won)
    assert 0 < p <= 1
    assert p == mcnemar(won, lost)
    if lost == won:
        assert p == 1.0


def test_mcnemar_by_hand():
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(1, 5) == pytest.approx(2 * 7 / 64)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=40)
def test_paired_differences_hold_their_value_and_turn_round(pairs):
    first, second = zip(*pairs, strict=True)
    d, back = paired(first, second, samples=400), paired(second, first, samples=400)
    assert d.low <= d.value <= d.high
    assert d.value == pytest.approx((sum(second) - sum(first)) / len(pairs))
    assert (d.lost, d.won) == (back.won, back.lost)
    assert d.value == pytest.approx(-back.value)


def test_few_pairs_prove_nothing_and_many_do():
    """One lost pair is no finding; all pairs agreeing leave an interval that is no point."""
    one = paired([1.0], [0.0])
    assert one.low == -1.0
    assert one.high > 0
    same = paired([1.0] * 20, [1.0] * 20)
    assert same.low < 0 < same.high < 0.15
    many = paired([1.0] * 50, [0.0] * 50)
    assert -1.0 <= many.low < many.high < -0.8


# Looks ----------------------------------------------------------------------------------------------------------------


def test_every_look_of_the_house_changes_something_and_all_axes_are_there():
    looks = load_looks()
    plain = replace(looks[UNCHANGED], name="", axis="")
    assert [n for n, look in looks.items() if replace(look, name="", axis="") == plain] == [UNCHANGED]
    wanted = {"light", "surface", "background", "object", "robot", "distractors", "camera", "combined"}
    assert wanted <= {look.axis for look in looks.values()}
    everything = looks["everything"]
    assert everything.sun == looks["dim_warm"].sun
    assert everything.distractors == looks["distractors"].distractors


def test_a_later_change_of_a_part_takes_the_earlier_ones_place():
    stripes = Pattern("stripes", ("#000000", "#ffffff"))
    both = combined(Look("a", colours={"object": "#ff0000"}), Look("b", textures={"object": stripes}))
    assert (both.colours, both.textures) == ({}, {"object": stripes})
    back = combined(both, Look("c", colours={"object": "#00ff00"}))
    assert (back.colours, back.textures) == ({"object": "#00ff00"}, {})


def test_looks_are_chosen_with_the_unchanged_one_first():
    known = load_looks()
    chosen = choose_looks(["low_sun", "unchanged"], known, ["bun_warehouse"])
    assert [look.name for look in chosen] == ["unchanged", "low_sun", "world:bun_warehouse"]
    assert chosen[2].drawn_by == "painter"
    with pytest.raises(InputError, match=r"unknown look .moon.; valid: .*low_sun"):
        choose_looks(["moon"], known)
    with pytest.raises(Exception, match="unknown preset 'atlantis'"):
        choose_looks(["world:atlantis"], known)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"son": [1, 1, 1]}, "unknown change 'son'"),
        ({"sun": [1, 1]}, "sun is .* expected three numbers"),
        ({"sun": [1, 1, float("nan")]}, "expected three numbers"),
        ({"sun": [1, -1, 1]}, "light is not negative"),
        ({"sun_direction": [0, 0, 0]}, "sun_direction is zero"),
        ({"colours": {"object": "red"}}, "expected a colour '#rrggbb'"),
        ({"colours": {"sky": "#ffffff"}}, "unknown part 'sky'"),
        ({"colours": "#ffffff"}, "must map parts"),
        ({"textures": {"object": {"kind": "fur", "colours": ["#ffffff", "#000000"]}}}, "unknown pattern 'fur'"),
        ({"textures": {"object": {"kind": "noise"}}}, "needs kind"),
        ({"textures": {"object": {"kind": "noise", "colours": ["#ffffff"]}}}, "two or more"),
        ({"backdrop": {"kind": "noise", "colours": ["#ffffff", "#000000"], "tile_m": 9}}, "tile_m is 9"),
        ({"distractors": 1.5}, "distractors is 1.5"),
        ({"combine": ["nowhere"]}, "unknown look to combine 'nowhere'"),
        ("dark", "expected a mapping of changes"),
    ],
)
def test_a_bad_look_in_a_sentence(tmp_path, changes, text):
    file = tmp_path / "looks.yaml"
    file.write_text(yaml.safe_dump({"looks": {"mine": changes}}))
    with pytest.raises(InputError, match=text):
        load_looks([file])


def test_a_look_file_without_looks_and_a_taken_name(tmp_path):
    file = tmp_path / "looks.yaml"
    file.write_text("colours: 3")
    with pytest.raises(InputError, match="expected a mapping `looks`"):
        load_looks([file])
    file.write_text("looks: {unchanged: {distractors: 3}}")
    with pytest.raises(InputError, match="'unchanged' is taken"):
        load_looks([file])
    file.write_text("looks: {no: {distractors: 3}}")
    with pytest.raises(InputError, match=r"in quotes.; found False"):
        load_looks([file])
    file.write_text("looks: {many: {distractors: 3}, few: {combine: [many], distractors: 0}}")
    assert load_looks([file])["few"].distractors == 0
    file.write_text("looks: {../up: {distractors: 3}}")
    with pytest.raises(InputError, match="letters, digits and underscores"):
        load_looks([file])


@pytest.mark.parametrize("kind", ["checker", "stripes", "planks", "noise"])
def test_patterns_repeat_without_a_seam(kind):
    image = picture(Pattern(kind, ("#203040", "#c0d0e0", "#806040"), 0.13, 2)).astype(int)
    assert image.shape == (SIDE, SIDE, 3)
    assert image.std() > 10
    if kind == "noise":
        inside = np.abs(np.diff(image, axis=1)).max()
        assert np.abs(image[:, 0] - image[:, -1]).max() <= 2 * inside
        assert np.abs(image[0] - image[-1]).max() <= 2 * inside


# Tasks ----------------------------------------------------------------------------------------------------------------

GOAL = Goal(0, np.array([1.0, 0, 0]), np.full(3, 0.2), np.zeros(3), np.array([0.0, 0, 0.3]))


def story(x, z, held, openness) -> list[Moment]:
    out = []
    for k, (a, b, h, o) in enumerate(zip(x, z, held, openness, strict=True)):
        T = np.eye(4)[None].copy()
        T[0, :3, 3] = a, 0, b
        q = np.zeros(2)
        out.append(Moment(k / 10, (q,), (q,), T, frozenset({0} if h else ()), np.array([0, 0, 0.3 + 0.01 * k]), o))
    return out


@pytest.mark.parametrize(
    ("x", "z", "held", "openness", "failure"),
    [
        ([0, 0, 0.5, 1, 1], [0, 0.1, 0.1, 0.1, 0], [0, 1, 1, 0, 0], [1, 0.3, 0.3, 0.6, 1], ""),
        ([0, 0, 0, 0, 0], [0, 0, 0.01, 0, 0], [0, 1, 1, 0, 0], [1, 0.3, 0.3, 0.6, 1], "never grasped"),
        ([0, 0, 0.5, 0.5, 0.5], [0, 0.1, 0.1, 0.05, 0], [0, 1, 1, 0, 0], [1, 0.3, 0.3, 0.2, 0.1], "dropped"),
        ([0, 0, 0.5, 0.5, 0.5], [0, 0.1, 0.1, 0.05, 0], [0, 1, 1, 0, 0], [1, 0.3, 0.3, 0.6, 1], "missed the target"),
        ([0, 0, 0.5, 1, 1], [0, 0.1, 0.1, 0.1, 0.1], [0, 1, 1, 1, 1], [1, 0.3, 0.3, 0.3, 0.3], "never let go"),
    ],
)
def test_a_failure_has_a_name(x, z, held, openness, failure):
    outcome = pick_place(story(x, z, held, openness), GOAL)
    assert (outcome.success, outcome.failure) == (not failure, failure)
    if failure in ("dropped", "missed the target"):
        assert outcome.frame == 3


def test_reach_and_tasks_of_ones_own(tmp_path):
    moments = story([0, 0], [0, 0], [0, 0], [1, 1])
    assert judged(TASKS["reach"], moments, GOAL).success
    assert judged(TASKS["reach"], moments, replace(GOAL, hover_m=np.array([1.0, 0, 0]))).failure == "not reached"
    with pytest.raises(InputError, match="needs the scripted scenario's goal"):
        judged(TASKS["reach"], moments, None)
    file = tmp_path / "mine.py"
    file.write_text(
        "def far(moments, goal): return len(moments) > 5\ndef odd(moments, goal): return 'yes'\nnumber = 3\n"
    )
    assert judged(open_task(f"{file}:far"), moments, None).failure == "failed"
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    with pytest.raises(InputError, match=r"broken.py fails when it is loaded: ModuleNotFoundError"):
        open_task(f"{tmp_path / 'broken.py'}:far")
    with pytest.raises(InputError, match="returned str; expected True, False or an Outcome"):
        judged(open_task(f"{file}:odd"), moments, None)
    for name, text in ((f"{file}:number", "not callable"), (f"{file}:gone", "has no 'gone'"), ("jump", "unknown task")):
        with pytest.raises(InputError, match=text):
            open_task(name)


# Playing chunks -------------------------------------------------------------------------------------------------------


def observation(value: float = 0.0) -> Observation:
    return Observation({"front": np.zeros((2, 2, 3), np.uint8)}, np.array([value], np.float32), "", ("a",))


def player(function, **options) -> Player:
    return Player(CallablePolicy(function, "mine"), 1, ("a",), **options)


def test_chunks_are_played_and_asked_again():
    asked = []

    def chunk(o):
        asked.append(float(o.state[0]))
        return np.arange(5.0)[:, None] + 10 * len(asked)

    two = player(chunk, execute=2)
    two.reset()
    assert [float(two.action(observation(k))[0]) for k in range(5)] == [10, 11, 20, 21, 30]
    assert asked == [0, 2, 4]
    whole = player(lambda o: np.array([7.0]), execute=9)
    assert [float(whole.action(observation())[0]) for _ in range(3)] == [7, 7, 7]
    two.close()
    whole.close()


def test_an_ensemble_averages_what_speaks_of_the_frame():
    answers = iter([[[0.0], [2.0], [4.0]], [[10.0], [12.0], [14.0]], [[20.0], [22.0], [24.0]]])
    one = player(lambda o: np.array(next(answers)), ensemble=True)
    one.reset()
    said = [float(one.action(observation())[0]) for _ in range(3)]
    w = np.exp(-0.1 * np.arange(3))
    assert said == pytest.approx(
        [0, (2 * w[0] + 10 * w[1]) / w[:2].sum(), (4 * w[0] + 12 * w[1] + 20 * w[2]) / w.sum()]
    )
    one.close()


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda o: [[np.nan]], "expected finite actions"),
        (lambda o: np.zeros((3, 2)), "gives 2 action entries, the environment takes 1 .a.; wrap it"),
        (lambda o: "left", "expected actions"),
        (lambda o: np.array([1j]), "returned ndarray; expected actions"),
        (lambda o: None, "returned nothing"),
        (lambda o: np.zeros((0, 1)), "expected finite actions"),
        (lambda o: 1 / 0, "mine failed: ZeroDivisionError"),
        (lambda o: np.zeros((2, 1, 1)), "expected finite actions"),
    ],
)
def test_a_bad_answer_in_a_sentence(function, text):
    one = player(function)
    with pytest.raises(InputError, match=text):
        one.action(observation())
    one.close()


def test_a_policy_that_cannot_forget_ends_in_a_sentence(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "class Act:\n def infer(self, o): return [0.0]\n def reset(self): raise RuntimeError('no memory')\n"
    )
    one = Player(open_policy(f"{file}:Act"), 1)
    with pytest.raises(InputError, match="Act failed: RuntimeError: no memory"):
        one.reset()
    one.close()
    release = threading.Event()
    stuck = CallablePolicy(lambda o: [0.0], "mine")
    stuck.reset = release.wait  # type: ignore[method-assign]
    one = Player(stuck, 1, timeout_s=0.05)
    with pytest.raises(InputError, match="gave no answer within"):
        one.reset()
    release.set()
    one.close()


def test_a_policy_that_leaves_the_process_ends_in_a_sentence():
    one = player(lambda o: sys.exit(5))
    with pytest.raises(InputError, match="mine failed: SystemExit: 5"):
        one.action(observation())
    one.close()


def test_a_policy_that_paints_over_its_observation_spoils_no_picture(tmp_path):
    def paint(o):
        o.images["front"][:] = 255
        o.state[:] = 9
        return np.zeros(2)

    kept = []

    class Keeping(ToyEnvironment):
        def _observe(self):
            kept.append(super()._observe())
            return kept[-1]

    run(tmp_path / "out", paint, looks=LOOKS[:1], count=1, environment=Keeping())
    assert len(kept) == 7
    assert {int(o.images["front"].max()) for o in kept} == {220}
    assert {float(o.state[0]) for o in kept} == {0.0}


def test_a_policy_that_never_answers_ends_in_a_sentence():
    release = threading.Event()
    one = player(lambda o: release.wait() and np.zeros(1), timeout_s=0.05)
    with pytest.raises(InputError, match=r"gave no answer within 0.05 s; .*--timeout"):
        one.action(observation())
    release.set()
    one.close()


# The study ------------------------------------------------------------------------------------------------------------


def run(out, policy=seeker, looks=LOOKS, count=6, environment=None, task="reach", **options):
    environment = environment or ToyEnvironment()
    made = policy if hasattr(policy, "infer") else CallablePolicy(policy, "seeker")
    given = {k: options.pop(k) for k in ("progress", "check_cancel") if k in options}
    asked = Asked(looks, tuple(range(count)), environment.frames, **options)
    return closed_loop(environment, made, TASKS[task], out, asked, **given)


def test_a_policy_that_reads_pictures_fails_where_they_hide_the_target(tmp_path):
    told = []
    study = run(tmp_path / "out", progress=lambda done, total, note: told.append((done, total)))
    rows = {row.name: row for row in study.looks}
    assert {n: r.successes for n, r in rows.items()} == {"unchanged": 6, "dark": 0, "bright": 6, "hidden": 0}
    assert rows["dark"].failures == {"not reached": 6}
    assert rows["dark"].difference is not None
    assert (rows["dark"].difference.value, rows["dark"].difference.lost) == (-1.0, 6)
    axes = {row.name: row for row in study.axes}
    assert (axes["light"].count, axes["light"].successes) == (12, 6)
    assert axes["light"].difference is not None
    assert axes["light"].difference.value == -0.5
    assert told == [(i + 1, 24) for i in range(24)]
    assert not study.same_states
    data = json.loads(study.json.read_text())
    assert len(data["rollouts"]) == 24
    page = study.html.read_text()
    assert "It loses beyond chance to: object (-100 points), light (-50 points)." in page
    assert "http" not in page.replace("http-equiv", "")
    assert sorted(p.name for p in (tmp_path / "out/failures").glob("dark*.mp4")) == ["dark--0.mp4", "dark--1.mp4"]


def test_the_expert_is_the_same_in_every_look_and_staying_is_nothing(tmp_path):
    environment = ToyEnvironment()
    expert = run(tmp_path / "a", Expert(environment), environment=environment)
    assert expert.same_states
    assert all(row.successes == 6 for row in expert.looks)
    hold = run(tmp_path / "b", Hold(environment), environment=environment, count=2)
    assert hold.same_states
    assert all(row.successes == 0 for row in hold.looks)


def test_a_blinded_policy_is_named_and_sees_nothing(tmp_path):
    study = run(tmp_path / "out", Blinded(CallablePolicy(seeker, "seeker")), count=2)
    assert json.loads(study.json.read_text())["policy"] == "seeker (blinded)"
    assert len({r.states_sha256 for r in study.rollouts if r.seed == 0}) == 1


def test_a_stopped_study_goes_on_and_says_the_same(tmp_path):
    whole = run(tmp_path / "whole", count=3)
    environment, asked = ToyEnvironment(), 0

    def stop():
        nonlocal asked
        asked += 1
        if asked == 30:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        run(tmp_path / "parts", count=3, environment=environment, check_cancel=stop)
    done = len(list((tmp_path / "parts/rollouts").glob("*/*.json")))
    assert 0 < done < 12
    again = ToyEnvironment()
    parts = run(tmp_path / "parts", count=3, environment=again)
    assert again.resets == 12 - done
    assert parts.looks == whole.looks
    assert [r.states_sha256 for r in parts.rollouts] == [r.states_sha256 for r in whole.rollouts]


def test_more_looks_and_seeds_come_to_a_study(tmp_path):
    run(tmp_path / "out", looks=LOOKS[:2], count=2)
    environment = ToyEnvironment()
    study = run(tmp_path / "out", count=3, environment=environment)
    assert environment.resets == 12 - 4
    assert study.looks[0].count == 3


def test_another_study_in_the_folder_is_refused_and_left_alone(tmp_path):
    run(tmp_path / "out", count=1)
    before = (tmp_path / "out/report.json").read_bytes()
    with pytest.raises(InputError, match=r"another study \(execute differs\)"):
        run(tmp_path / "out", count=1, execute=1)
    with pytest.raises(InputError, match="another study"):
        run(tmp_path / "out", count=1, looks=(LOOKS[0], replace(DARK, sun=(0.1, 0.1, 0.1))))
    assert (tmp_path / "out/report.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not empty and holds no study"):
        run(tmp_path / "mine", count=1)


def test_a_look_that_changes_no_picture_is_named(tmp_path):
    study = run(tmp_path / "out", looks=(*LOOKS[:2], Look("planks", "surface")), count=1)
    assert study.no_change == ("planks",)
    assert json.loads(study.json.read_text())["no_change"] == ["planks"]
    assert "Nothing to see in: planks." in study.html.read_text()


def test_a_look_that_changes_nothing_is_named_whichever_seed_came_first(tmp_path):
    run(tmp_path / "out", looks=LOOKS[:1], count=1)
    planks = (LOOKS[0], Look("planks", "surface"))
    asked = Asked(planks, (1,), 6)
    study = closed_loop(ToyEnvironment(), CallablePolicy(seeker, "seeker"), TASKS["reach"], tmp_path / "out", asked)
    assert study.no_change == ("planks",)


def test_what_was_done_before_does_not_make_the_rest_look_faster(tmp_path):
    run(tmp_path / "out", looks=LOOKS[:2], count=2)
    told = []
    run(tmp_path / "out", count=2, progress=lambda done, total, note: told.append(done))
    assert told == [4, 5, 6, 7, 8]


def test_two_processes_do_not_share_a_study(tmp_path):
    def meddling(o):
        with pytest.raises(RunError, match=r"out is being written by another process; .* another folder with --out"):
            run(tmp_path / "out", count=1)
        return np.zeros(2)

    run(tmp_path / "out", meddling, looks=LOOKS[:1], count=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file is a file; choose another folder with --out"):
        run(tmp_path / "file", count=1)


def test_a_study_that_was_killed_in_its_first_rollout_makes_way(tmp_path):
    run(tmp_path / "out", looks=LOOKS[:1], count=1)
    (tmp_path / "out/rollouts/unchanged/0.json").unlink()  # as after a kill: only study.json and pictures
    study = run(tmp_path / "out", Hold(ToyEnvironment()), count=1)
    assert json.loads((tmp_path / "out/study.json").read_text())["policy"] == "hold"
    assert len(study.rollouts) == 4


def test_an_unstable_simulation_is_an_outcome(tmp_path):
    study = run(tmp_path / "out", environment=ToyEnvironment(breaks_at=2), looks=LOOKS[:1], count=2)
    assert study.looks[0].failures == {"unstable": 2}
    assert study.rollouts[0].frames == 1


def test_a_bad_policy_leaves_no_trace(tmp_path):
    with pytest.raises(InputError, match="gives 3 action entries, the environment takes 2"):
        run(tmp_path / "out", lambda o: np.zeros(3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "text"),
    [({"frames": 0}, "--frames is 0"), ({"execute": 0}, "--execute is 0"), ({"timeout_s": 0}, "--timeout is 0"),
     ({"timeout_s": float("inf")}, "--timeout is inf"), ({"timeout_s": 1e30}, "at most 86400"),
     ({"seeds": ()}, "seeds must be"), ({"seeds": (1, 1)}, "seeds must be"), ({"looks": ()}, "no look")],
)  # fmt: skip
def test_what_cannot_be_asked(options, text):
    with pytest.raises(InputError, match=text):
        Asked(**{"looks": LOOKS, "seeds": (0,), "frames": 3, **options})


def test_options_become_capture_settings():
    args = parser().parse_args(
        [
            *("--policy", "p", "--out", "o", "--stage", "s.usd", "--object", "cube", "--target", "bin"),
            *("--set", "fps=10", "randomise.object_yaw_deg=[-3,3]", "--camera", "front=64x48", "wrist=32x24"),
        ]
    )
    out = overrides_of(args)
    assert out["scenario"] == "pick_place"
    assert (out["object"], out["target"], out["fps"]) == ("cube", "bin", 10)
    assert out["randomise"] == {"object_yaw_deg": [-3, 3]}
    assert out["cameras"][1] == {"name": "wrist", "size": [32, 24], "mount": "body"}
    for option, text in ((["--set", "fps"], "expected KEY=VALUE"), (["--camera", "front=9"], "NAME=WIDTHxHEIGHT"),
                         (["--camera", "front=99999x9"], "size 99999x9; expected 1 to 8192 pixels a side"),
                         (["--camera", "front=9x9", "front=8x8"], "names 'front' twice")):  # fmt: skip
        with pytest.raises(InputError, match=text):
            overrides_of(parser().parse_args(["--policy", "p", "--out", "o", *option]))


def test_an_edited_policy_is_another_policy(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def act(o): return 1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/config.json").write_text("{}")
    before = [identity_of(f"{file}:act"), identity_of(str(tmp_path / "folder")), identity_of("expert", "reach")]
    assert before == [identity_of(f"{file}:act"), identity_of(str(tmp_path / "folder")), identity_of("expert", "reach")]
    file.write_text("def act(o): return 2")
    (tmp_path / "folder/config.json").write_text("{ }")
    after = [identity_of(f"{file}:act"), identity_of(str(tmp_path / "folder")), identity_of("expert", "reach")]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]


def test_what_a_policy_imports_from_beside_it_is_part_of_it(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/helping.py").write_text("VALUE = 1.0")
    (tmp_path / "parts/unused.py").write_text("")
    (tmp_path / "acting.py").write_text("import parts.helping\ndef act(o): return [parts.helping.VALUE]")
    monkeypatch.chdir(tmp_path)
    specs = (f"{tmp_path}/acting.py:act", "acting:act")
    for spec in specs:
        open_policy(spec)
    before = [identity_of(spec) for spec in specs]
    (tmp_path / "parts/unused.py").write_text("# edited")
    assert [identity_of(spec) for spec in specs] == before
    (tmp_path / "parts/helping.py").write_text("VALUE = 2.0")
    after = [identity_of(spec) for spec in specs]
    (tmp_path / "acting.py").write_text("def act(o): return [2.0]")
    last = [identity_of(spec) for spec in specs]
    assert all(len({a, b, c}) == 3 for a, b, c in zip(before, after, last, strict=True))


def test_a_task_of_ones_own_imports_what_lies_beside_it(tmp_path):
    (tmp_path / "measure_it.py").write_text("LONG = 1")
    (tmp_path / "judging.py").write_text(
        "def long(moments, goal):\n    import measure_it\n    return len(moments) > measure_it.LONG"
    )
    task = open_task(f"{tmp_path}/judging.py:long")
    assert judged(task, story([0, 0], [0, 0], [0, 0], [1, 1]), None).success


def test_what_has_a_name_alone_depends_on_no_file_around_it(tmp_path, monkeypatch):
    here = identity_of("expert", "reach")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").write_text("of the user's")
    assert identity_of("expert", "reach") == here


def test_a_scene_that_cannot_be_planned_says_which(tmp_path):
    class Steep(ToyEnvironment):
        def reset(self, seed, look):
            if seed == 1:
                raise StageError("out of reach")
            return super().reset(seed, look)

    with pytest.raises(StageError, match=r"the scene of seed 1: out of reach .vary less"):
        run(tmp_path / "out", environment=Steep(), looks=LOOKS[:1])
    assert (tmp_path / "out/rollouts/unchanged/0.json").exists()


def test_a_world_is_a_look_of_the_painter():
    assert world_look("x").drawn_by == "painter"
    assert Look("y").drawn_by == "simulator"
