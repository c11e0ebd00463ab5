# SPDX-License-Identifier: Apache-2.0
"""`retake oscar` and `retake bench oscar`, word by word: what is asked of the parts, what is printed, what is refused. Nothing
is computed here."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retake.core.errors import Cancelled, InputError, MissingDependencyError
from retake.worker import memory
from retake.worker.oscar import bench, cli, convert, costs, planner, quality, stepcache, take_file
from retake.worker.oscar.cli import dependencies, read_settings


class Pipe:
    """A pipeline that says what it was called with."""

    name = "pipe"

    def __call__(self, **call: Any) -> Any:
        return SimpleNamespace(frames=(call["seed"], call["output_type"]))


class Asked:
    """Stand-ins for the parts, and what was asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        self.patch = monkeypatch

    def stand_in(self, module: Any, name: str, result: Any = None) -> None:
        def called(*given: Any, **named: Any) -> Any:
            self.calls.setdefault(name, []).append((given, named))
            return result

        self.patch.setattr(module, name, called)

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return self.calls.pop(name, [])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    monkeypatch.chdir(tmp_path)
    return Asked(monkeypatch)


# -- bench ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(asked: Asked) -> Asked:
    for name, result in (("computed", {"c": 1}), ("measured", {"m": 1}), ("cuda", {"g": 1}), ("lines", ["one", "two"])):
        asked.stand_in(bench, name, result)
    return asked


def test_what_is_measured_where(measured, capsys, tmp_path):
    assert cli.bench([]) == 0
    assert measured.of("computed") == [((35, 81), {})]
    (((report,), _),) = measured.of("lines")
    assert report == {"computed": {"c": 1}, "cuda": None, "measured": {"m": 1}}, "there is no card here"
    assert capsys.readouterr().out == "one\ntwo\n"
    cli.bench(["--no-measure", "--steps", "1", "--frames", "5", "--json", "-"])
    assert measured.of("computed") == [((1, 5), {})]
    assert json.loads(capsys.readouterr().out) == {"computed": {"c": 1}, "cuda": None}
    cli.bench(["--device", "cpu", "--tier", "staged", "--compile", "--kernels", "fused", "--json", "b.json"])
    assert json.loads((tmp_path / "b.json").read_text())["cuda"] == [{"g": 1}]
    assert capsys.readouterr().out == "one\ntwo\n"
    options = {"device": "cpu", "steps": 35, "frames": 81, "tier": "staged", "compile_blocks": True, "kernels": "fused"}
    assert measured.of("cuda") == [((), options)]
    cli.bench(["--device", "cpu", "--approximate", "fp8", "--approximate", "sage"])
    plain = {**options, "tier": "resident", "compile_blocks": False, "kernels": "auto"}
    assert measured.of("cuda") == [((), plain), ((), {**plain, "approximate": ("fp8", "sage")})]
    measured.patch.setattr(memory, "usable_device", lambda name: torch.device("cuda"))
    cli.bench([])
    assert len(measured.of("cuda")) == 1, "a card that is there is measured"
    for words, says in ((["--steps", "0"], "give 1 or more"), (["--frames", "8"], "8")):
        with pytest.raises(InputError, match=says):
            cli.bench(words)


@pytest.fixture
def compared(asked: Asked) -> Asked:
    for module, name, result in (
        (bench, "random_input", ("first", "skeleton")), (bench, "random_pipeline", Pipe()), (bench, "random_prompt", "embeds"),
        (quality, "compare", ["row"]), (quality, "lines", ["line"]), (quality, "to_json", [{"r": 1}]),
        (quality, "default_modes", {"usual": 1}),
        (quality, "run_inputs", ({"prompt": "p", "negative_prompt": "n", "height": 48, "width": 64}, "judge")),
    ):  # fmt: skip
        asked.stand_in(module, name, result)
    return asked


def test_approximate_modes_are_compared_on_a_tiny_model(compared, capsys, tmp_path):
    assert cli.bench(["--quality", "--steps", "3", "--frames", "5"]) == 0
    (((make, call, seeds, modes, judge, _), _),) = compared.of("compare")
    assert call == {
        "num_inference_steps": 3, "first_frame": "first", "skeleton": "skeleton", "num_frames": 5, "height": cli.TINY_SIZE,
        "width": cli.TINY_SIZE, "prompt_embeds": "embeds", "negative_prompt_embeds": "embeds",
    }  # fmt: skip
    assert (seeds, modes, judge) == ((1, 2), {"usual": 1}, None)
    assert compared.of("random_input") == [((5, cli.TINY_SIZE, cli.TINY_SIZE), {})]
    prompts = [given[1:] for given, _ in compared.of("random_prompt")]
    assert len(prompts) == len(set(prompts)) == 2, "what is wanted and what is not are two texts"
    assert make().name == "pipe"
    assert compared.of("lines")[0][0] == (["row"], "tiny random model, 5 frames, 3 steps, 2 seeds, cpu")
    assert capsys.readouterr().out == "line\n"
    cli.bench(["--quality", "--seeds", "7", "--approximate", "fp8", "--json", "q.json"])
    (((_, _, seeds, modes, _, _), _),) = compared.of("compare")
    assert (seeds, list(modes)) == ((7,), ["fp8"])
    where = "tiny random model, 81 frames, 35 steps, 1 seeds, cpu"
    assert json.loads((tmp_path / "q.json").read_text()) == {"where": where, "rows": [{"r": 1}]}
    capsys.readouterr()
    cli.bench(["--quality", "--json", "-"])
    assert json.loads(capsys.readouterr().out)["rows"] == [{"r": 1}]


def test_approximate_modes_are_compared_on_a_run(compared, monkeypatch):
    cli.bench(["--quality", "--run", "r", "--size", "64x48"])
    assert compared.of("run_inputs") == [((Path("r"), 81, (64, 48)), {})]
    (((_, call, _, _, judge, _), _),) = compared.of("compare")
    assert judge == "judge"
    assert set(call) == {"num_inference_steps", "height", "width", "prompt_embeds", "negative_prompt_embeds"}
    cli.bench(["--quality", "--run", "r"])
    assert compared.of("run_inputs") == [((Path("r"), 81, None), {})]
    made: list[Any] = []

    class Pipeline:
        @staticmethod
        def from_pretrained(folder: Path, **named: Any) -> Any:
            made.append((folder, named))
            return SimpleNamespace(
                set_progress_bar_config=lambda **_: None, enable_planned_memory=lambda *at: made.append(at)
            )

    monkeypatch.setattr("retake.worker.oscar.pipeline.OscarPipeline", Pipeline)
    for words, prompt in (([], "p"), (["--prompt", "a desk"], "a desk")):
        compared.calls.clear()
        cli.bench(["--quality", "--run", "r", "--model", "m", *words])
        (((make, call, _, _, _, _), _),) = compared.of("compare")
        assert (call["prompt"], call["negative_prompt"], "prompt_embeds" in call) == (prompt, "n", False)
    make()
    assert made == [(Path("m"), {"torch_dtype": torch.float32, "lazy_text_encoder": True})]
    monkeypatch.setattr(memory, "usable_device", lambda name: torch.device("cuda"))
    made.clear()
    cli.bench(["--quality", "--run", "r", "--model", "m", "--frames", "9"])
    compared.of("compare")[-1][0][0]()
    assert made == [
        (Path("m"), {"torch_dtype": torch.bfloat16, "lazy_text_encoder": True}), (torch.device("cuda"), 48, 64, 9),
    ]  # fmt: skip


def test_a_step_cache_is_calibrated_written_and_then_compared_if_asked(compared, capsys, tmp_path):
    saved: list[Path] = []
    found = SimpleNamespace(skips=(3, 4), error=0.0312, save=saved.append)
    compared.stand_in(stepcache, "calibrate", found)
    assert cli.bench(["--calibrate", "c.json", "--steps", "9", "--seeds", "1,2,3", "--error", "0.2"]) == 0
    (((_, run, seeds, error, evaluations, guidance), _),) = compared.of("calibrate")
    assert (seeds, error, evaluations, guidance) == ((1, 2, 3), 0.2, 10, 6.0)
    assert run(5) == (5, "latent")
    assert saved == [Path("c.json")]
    assert "c.json: 2 of 10 evaluations reuse, relative latent error 0.031 (asked: 0.2)" in capsys.readouterr().out
    assert compared.of("compare") == []
    cli.bench(["--calibrate", "c.json", "--quality"])
    assert len(compared.of("compare")) == 1
    assert compared.of("default_modes") == [((found,), {})]
    (tmp_path / "there.json").write_text("{}")
    for words, says in (
        (["--calibrate", "there.json"], "exists already"), (["--quality", "--model", "m"], "--model needs --run"),
        (["--quality", "--seeds", "1,x"], "give whole numbers"), (["--quality", "--run", "r", "--size", "64"], "WIDTHxHEIGHT"),
        (["--quality", "--run", "r", "--size", "64x8193"], "1 to 8192"),
        (["--quality", "--run", "r", "--size", "0x48"], "WIDTHxHEIGHT"), (["--quality", "--run", "r", "--size", "48x0"], "WIDTH"),
        (["--quality", "--run", "r", "--size", "ax48"], "WIDTHxHEIGHT"), (["--quality", "--run", "r", "--size", "48xa"], "WIDTH"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            cli.bench(words)
    compared.calls.clear()
    cli.bench(["--quality", "--run", "r", "--size", "1x1"])
    assert compared.of("run_inputs") == [((Path("r"), 81, (1, 1)), {})]


# -- convert, plan, run -----------------------------------------------------------------------------------------------


def test_a_conversion_is_asked_for_and_told(asked, capsys):
    result = SimpleNamespace(
        notes=["odd"],
        parameters={"transformer": 1_500_000, "vae": 20_000},
        folder=Path("o"),
        nbytes=3_200_000,
        revision="r1",
    )
    asked.stand_in(convert, "convert", result)
    words = ["convert", "--checkpoint", "c", "--vae", "v", "--out", "o"]
    for more, encoder, named in (
        (["--no-text-encoder"], None, {"accept_terms": False, "dtype": "keep"}),
        (
            ["--text-encoder", "t", "--dtype", "bf16", "--accept-terms"],
            Path("t"),
            {"accept_terms": True, "dtype": "bf16"},
        ),
    ):
        assert cli.main([*words, *more]) == 0
        ((given, told),) = asked.of("convert")
        assert given == (Path("c"), Path("v"), encoder, Path("o"))
        assert {name: told[name] for name in named} == named
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "note: odd"
    assert said.out.splitlines()[-1] == "o: transformer 1.50 M, vae 0.02 M parameters, 3.2 MB, revision r1"


def test_a_plan_is_asked_for_in_bytes_and_operations(asked, capsys, monkeypatch, tmp_path):
    for module, name, result in (
        (costs, "stage_costs", "costs"), (planner, "plan_report", {"r": 1}), (planner, "plan_lines", ["a", "b"]),
        (memory, "free_device_bytes", 7), (planner, "measured_matmul_flops", 100.0),
    ):  # fmt: skip
        asked.stand_in(module, name, result)
    assert cli.main(["plan"]) == 0
    assert asked.of("plan_report") == [(("costs", 1, 35, 7, None, 0), {})]
    assert asked.of("stage_costs") == [((None, None), {"frames": 81, "height": 480, "width": 640})]
    assert capsys.readouterr().out == "a\nb\n"
    for part in ("transformer", "vae"):
        (tmp_path / "m" / part).mkdir(parents=True)
        (tmp_path / "m" / part / "config.json").write_text(json.dumps({"_class_name": "X", "of": part}))
    cli.main(["plan", "--takes", "3", "--steps", "1", "--frames", "82", "--height", "16", "--width", "32", "--model", "m",
              "--free-gib", "2.5", "--tflops", "3", "--unknown-prompts", "2", "--json"])  # fmt: skip
    assert asked.of("plan_report") == [(("costs", 3, 1, 5 * 2**29, 3e12, 2), {})]
    assert asked.of("stage_costs") == [
        (({"of": "transformer"}, {"of": "vae"}), {"frames": 85, "height": 16, "width": 32})
    ]
    assert json.loads(capsys.readouterr().out) == {"r": 1}
    monkeypatch.setattr(memory, "usable_device", lambda name: torch.device("cuda"))
    cli.main(["plan"])
    assert asked.of("plan_report")[0][0][4] == pytest.approx(60.0), "below what the card was measured to do"
    cli.main(["plan", "--tflops", "3"])
    assert asked.of("plan_report")[0][0][4] == 3e12
    for words in (
        ["--takes", "0"],
        ["--steps", "0"],
        ["--height", "0"],
        ["--width", "8"],
        ["--height", "470"],
        ["--width", "-16"],
    ):
        with pytest.raises(InputError, match=f"{words[0]} is {words[1]}; give"):
            cli.main(["plan", *words])


def test_settings_of_a_model_folder_are_read_without_what_is_diffusers_own(tmp_path):
    for text in (None, "[1]", "{"):
        if text is not None:
            (tmp_path / "transformer").mkdir(exist_ok=True)
            (tmp_path / "transformer" / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"transformer.config\.json is unreadable"):
            read_settings(tmp_path)


def test_a_take_is_made_when_there_is_room_for_it(asked, capsys):
    asked.stand_in(take_file, "check_target")
    asked.stand_in(take_file, "make_take", "made")
    words = ["run", "--model", "m", "--first-frame", "f", "--skeleton", "s", "--out", "o.npz"]
    assert cli.main(words) == 0
    assert asked.of("check_target") == [((Path("o.npz"),), {})]
    assert capsys.readouterr().out == "made\n"
    arguments = asked.of("make_take")[0][0][0]
    assert (arguments.frames, arguments.steps, arguments.guidance, arguments.seed, arguments.as_reference) == (
        81,
        35,
        6,
        42,
        False,
    )


# -- on the way out ---------------------------------------------------------------------------------------------------


def test_a_missing_package_names_what_brings_it_and_our_own_faults_stay_ours():
    with pytest.raises(MissingDependencyError, match=r"needs nothing_like_it: .*oscar"), dependencies():
        raise ModuleNotFoundError("x", name="nothing_like_it")
    with pytest.raises(ModuleNotFoundError), dependencies():
        raise ModuleNotFoundError("x", name="retake.worker.nothing")
    with pytest.raises(MissingDependencyError), dependencies():
        raise ModuleNotFoundError("x")


@pytest.mark.skipif(os.name != "posix", reason="a process tells itself to end")
def test_a_request_to_end_is_an_orderly_cancel_and_forgotten_afterwards(asked):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    inside: list[Any] = []

    def ended(*_: Any, **__: Any) -> None:
        inside.append(signal.getsignal(signal.SIGINT))
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 1)

    asked.patch.setattr(take_file, "check_target", ended)
    words = ["run", "--model", "m", "--first-frame", "f", "--skeleton", "s", "--out", "o.npz"]
    with pytest.raises(Cancelled, match="nothing half-made"):
        cli.main(words)
    assert inside == [before[signal.SIGINT]], "Ctrl-C is Python's own"
    assert {number: signal.getsignal(number) for number in before} == before

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    asked.patch.setattr(take_file, "check_target", interrupted)
    with pytest.raises(Cancelled):
        cli.main(words)
    asked.stand_in(take_file, "check_target")
    asked.stand_in(take_file, "make_take", "made")
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(cli.main(words)))
    thread.start()
    thread.join()
    assert found == [0], "signals are the main thread's; others do without"
