# SPDX-License-Identifier: Apache-2.0
"""`retake tune`, word by word: what each option changes of what is trained, and what is printed. Nothing is trained here."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from retake.core.errors import InputError
from retake.worker.oscar.few_step import Student
from retake.worker.tune import cli, distill_run, evaluate, launch, planning, ray_train
from retake.worker.tune.config import LinearSchedule, LoraSettings, ObjectSupervision, TuneConfig
from retake.worker.tune.distill_run import DistilSettings
from retake.worker.tune.folder import only_writer
from retake.worker.tune.planning import TunePlan
from retake.worker.tune.reward_run import RewardSettings
from retake.worker.tune.settings import RunSettings

STEP = TuneConfig(gradient_checkpointing=True)
PLAIN = {
    "run": RunSettings(step=STEP),
    "reward": RewardSettings(step=STEP, steps=200, validate_every=50),
    "distil": DistilSettings(step=replace(STEP, lr=1e-6, ema_rate=None)),
}
"""What is trained where nothing is said: the settings' own defaults, with the memory of checkpointing."""
PLAN = TunePlan(2**30, 2**29, 2**28, 0, 2**27, 0, 2**30, 10**12, 10**6)


class Asked:
    """What the commands asked for, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.patch = monkeypatch

    def stand_in(self, module: Any, name: str, result: Any = None) -> None:
        def called(*given: Any, **named: Any) -> Any:
            self.calls.append((name, given, named))
            return result

        self.patch.setattr(module, name, called)

    def one(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        (call,) = self.calls
        self.calls.clear()
        return call


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    monkeypatch.chdir(tmp_path)
    made = Asked(monkeypatch)
    for module, name, result in (
        (launch, "train", None), (distill_run, "distil", None), (launch, "save_weights", "what was saved"),
        (ray_train, "train_on_ray", None), (planning, "plan_training", PLAN),
    ):  # fmt: skip
        made.stand_in(module, name, result)
    return made


def settings_of(asked: Asked, word: str, *more: str) -> Any:
    assert cli.main([word, "data", "--model", "m", "--out", "out", *more]) == 0
    _, given, named = asked.one()
    return named["settings"] if word == "run" else given[3]


@pytest.mark.parametrize("word", PLAIN)
def test_without_a_word_the_defaults_are_trained(asked, word):
    assert settings_of(asked, word) == PLAIN[word]


def step(**changes: Any) -> dict[str, Any]:
    return {"step": replace(STEP, **changes)}


COMMON = {
    "--warm-up 2": step(schedule=LinearSchedule(warm_up=2)), "--cycle 500": step(schedule=LinearSchedule(cycle=500)),
    "--save-every 9": {"save_every": 9}, "--seed 4": {**step(seed=4), "data_seed": 4}, "--frames 9": {"frames": 9},
    "--size 32x48": {"size": (32, 48)}, "--batch 2": {"batch": 2}, "--no-checkpointing": step(gradient_checkpointing=False),
    "--domain a=0.5 --domain b=1": {"domains": {"a": 0.5, "b": 1.0}}, "--balance": {"balance": True}, "--steps 5": {"steps": 5},
    "--lr 0.5": step(lr=0.5),
}  # fmt: skip
OPTIONS = {
    "run": COMMON | {
        "--lora": step(lora=LoraSettings()), "--lora --rank 3 --alpha 5": step(lora=LoraSettings(3, 5.0)), "--rank 3": {},
        "--no-average": step(ema_rate=None), "--object-control drawn": step(objects=ObjectSupervision(control="drawn")),
        "--object-weight 2": step(objects=ObjectSupervision(weight=2.0)),
        "--release-boost 3": step(objects=ObjectSupervision(release_boost=3.0)), "--accumulate 3": {"accumulate": 3},
        "--time-weight reweighting": step(time_weight="reweighting"), "--text-dropout 0.25": step(text_dropout=0.25),
        "--skeleton-dropout 0.5": step(skeleton_dropout=0.5), "--validation 0.25": {"validation": 0.25},
        "--validate-every 7": {"validate_every": 7}, "--picture-steps 0": {"picture_steps": 0},
    },
    "reward": COMMON | {
        "--reward acceleration": {"reward": "acceleration"}, "--sample-steps 5": {"sample_steps": 5},
        "--gradient-steps 2": {"gradient_steps": 2}, "--anchor 0": {"anchor": 0.0}, "--validation 0.25": {"validation": 0.25},
        "--validate-every 7": {"validate_every": 7}, "--picture-steps 3": {"picture_steps": 3},
        "--lora --rank 3": step(lora=LoraSettings(3)), "--no-average": step(ema_rate=None),
    },
    "distil": COMMON | {
        "--student-steps 2": {"student": Student(2)}, "--student-steps 2 --sampler ode": {"student": Student(2, "ode")},
        "--guidance 0": {"guidance": 0.0}, "--critic-steps 3": {"critic_steps": 3}, "--critic-lr 0.5": {"critic_lr": 0.5},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "option"), [(word, option) for word, options in OPTIONS.items() for option in options]
)
def test_an_option_changes_what_it_names_and_nothing_else(asked, word, option):
    plain, changes = PLAIN[word], dict(OPTIONS[word][option])
    if "step" in changes:  # the same change of this command's own step
        mine = {name: value for name, value in vars(changes["step"]).items() if value != getattr(STEP, name)}
        changes["step"] = replace(plain.step, **mine)
    assert settings_of(asked, word, *option.split()) == replace(plain, **changes)


@pytest.mark.parametrize("word", PLAIN)
def test_what_surrounds_a_training_is_said_to_it(asked, word, tmp_path, capsys):
    defaults = {"device": None, "dtype": None, "include_sim": False, "unverified": False, "only_commercial": False}
    for words, changes in (
        ([], {}), (["--device", "cpu"], {"device": "cpu"}), (["--dtype", "fp32"], {"dtype": "fp32"}),
        (["--include-sim"], {"include_sim": True}), (["--unverified"], {"unverified": True}),
        (["--only-commercial"], {"only_commercial": True}),
    ):  # fmt: skip
        typed = [word, "a b", "c", "--model", "m", "--out", "out", *words]
        assert cli.main(typed) == 0
        _, given, named = asked.one()
        if word == "run":
            given = tuple(named[name] for name in ("model", "data", "out"))
            assert named["shard"] is False
        assert given[:3] == (tmp_path / "m", [tmp_path / "a b", tmp_path / "c"], tmp_path / "out")
        assert {name: named[name] for name in defaults} == {**defaults, **changes}
        assert named["command"] == f"cd {tmp_path} && retake tune {word} 'a b' {' '.join(typed[2:])}"
        named["cancel"]()
        assert callable(named["progress"])
    told = capsys.readouterr().out
    assert f"out: step {PLAIN[word].steps}; `retake tune save out" in told
    assert ("experimental" in told) == (word != "run")


def test_several_processes_share_the_weights_or_run_on_ray(asked, tmp_path, monkeypatch):
    words = ["run", "data", "--model", "m", "--out", "out"]
    cli.main([*words, "--shard"])
    assert asked.one()[2]["shard"] is True
    for more, processes, gpus in (
        (["--device", "cpu"], 2, False),
        (["--processes", "5", "--device", "cuda:0"], 5, True),
    ):
        monkeypatch.setattr("retake.worker.memory.usable_device", torch.device)
        cli.main([*words, "--ray", "local", *more])
        name, (work, training), named = asked.one()
        assert (name, work) == ("train_on_ray", ray_train.train_from_folders)
        assert named == {"processes": processes, "gpus": gpus, "address": "local", "storage": Path("out/ray")}
        assert (training["settings"], training["out"]) == (PLAIN["run"], tmp_path / "out")
        work(training)
        assert asked.one() == ("train", (), training)


@pytest.mark.parametrize("option", ["--size 640", "--size x480", "--size 640x", "--size ax48", "--size 48xa", "--domain a",
                                    "--domain a=much", "--domain a=1=2"])  # fmt: skip
def test_what_cannot_be_read_is_refused(asked, option):
    with pytest.raises(InputError, match=f"{option.split()[0]} '{option.split()[1]}': expected"):
        settings_of(asked, "run", *option.split())
    assert asked.calls == []


def test_a_plan_is_of_what_a_run_would_train(asked, tmp_path, capsys):
    assert cli.main(["plan"]) == 0
    _, given, named = asked.one()
    assert given == (STEP,)
    plain = PLAIN["run"]
    assert named == {
        "transformer": None, "dtype": torch.bfloat16, "frames": plain.frames, "size": plain.size, "batch": plain.batch,
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines() == PLAN.lines()
    assert cli.main(["plan", "--dtype", "fp32", "--lora", "--batch", "3", "--frames", "9", "--size", "32x48"]) == 0
    _, (config,), named = asked.one()
    assert config == replace(STEP, lora=LoraSettings())
    assert named == {"transformer": None, "dtype": torch.float32, "frames": 9, "size": (32, 48), "batch": 3}
    for part in ("transformer", "vae"):
        (tmp_path / "m" / part).mkdir(parents=True)
        (tmp_path / "m" / part / "config.json").write_text(json.dumps({"_class_name": "X", "of": part}))
    capsys.readouterr()
    assert cli.main(["plan", "--model", "m", "--json"]) == 0
    assert asked.one()[2]["transformer"] == {"of": "transformer"}
    assert json.loads(capsys.readouterr().out) == {**asdict(PLAN), "peak": PLAN.peak}
    assert cli.main(["plan", "--distil", "--no-average", "--json"]) == 0
    peak = json.loads(capsys.readouterr().out)["distil_peak"]
    assert peak == distill_run.distil_peak(PLAN)
    assert cli.main(["plan", "--distil", "--no-average"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:5] == [
        "distilling",
        "in",
        "all",
        f"{peak / 2**30:.2f}",
        "GiB",
    ]


def test_a_checkpoint_is_saved_as_asked(asked, capsys, monkeypatch):
    words = ["save", "folder", "--model", "m", "--out", "o"]
    for more, number, average in (([], None, True), (["--step", "3"], 3, True), (["--last"], None, False)):
        monkeypatch.setattr("sys.argv", ["retake", *words, *more])
        assert cli.main() == 0
        assert asked.one() == ("save_weights", (Path("folder"), Path("m"), Path("o"), number), {"average": average})
        assert capsys.readouterr().out == "what was saved\n"


def test_a_training_is_asked_to_stop_where_one_may_be(tmp_path, capsys):
    for name in ("checkpoints", "curves"):
        folder = tmp_path / f"with {name}"
        (folder / name).mkdir(parents=True)
        assert cli.main(["stop", str(folder)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
        with only_writer(folder):
            assert cli.main(["stop", str(folder)]) == 0
            assert len(capsys.readouterr().out.splitlines()) == 1, "it is heard at once"
        assert (folder / "stop").exists()
    with pytest.raises(InputError, match="is no training folder"):
        cli.main(["stop", str(tmp_path)])


def test_a_comparison_is_asked_for_and_told(asked, capsys):
    row = {"group": "all", "name": "arm_offset", "base": 1.25, "tuned": 2.5, "gain": -1.25, "low": -2.0, "high": -0.5, "p": 0.015,
           "pairs": 4}  # fmt: skip
    summary = {"rows": [row, {**row, "group": "box", "name": "unseen"}], "arm_follows_worse": []}
    asked.stand_in(launch, "eval_backends", {"base": 1, "tuned": 2})
    asked.stand_in(launch, "training_episodes", ["e1"])
    asked.stand_in(evaluate, "evaluate", summary)
    words = ["eval", "b", "t", "--episodes", "r1", "r2", "--out", "o"]
    for more, seeds, frames, settings in (
        ([], [42], 81, {}), (["--seeds", "1,2"], [1, 2], 81, {}), (["--frames", "0", "--steps", "8"], [42], 0, {"steps": 8}),
    ):  # fmt: skip
        asked.calls.clear()
        assert cli.main([*words, *more]) == 0
        (_, told, _), (_, tuned, _), (_, given, named) = asked.calls
        assert (told, tuned) == ((Path("b"), Path("t"), ""), (Path("t"),))
        assert given == ({"base": 1, "tuned": 2}, [Path("r1"), Path("r2")], Path("o"))
        assert (named["seeds"], named["frames"], named["settings"], named["trained_on"]) == (
            seeds,
            frames,
            settings,
            ["e1"],
        )
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == [
            "arm_offset",
            "1.25",
            "2.5",
            "gain",
            "-1.25",
            "[-2,",
            "-0.5]",
            "p",
            "0.015",
            "n",
            "4",
        ]
        assert lines[1:] == ["o/eval.html"]
    summary["arm_follows_worse"] = ["arm_offset", "lag"]
    cli.main(words)
    assert "the arm follows WORSE: arm_offset, lag" in capsys.readouterr().out
    with pytest.raises(InputError, match="expected whole numbers"):
        cli.main([*words, "--seeds", "1,x"])
