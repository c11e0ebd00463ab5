# SPDX-License-Identifier: Apache-2.0
"""A planted weakness is named, an invariant policy scores as invariant, and servers are asked in their own tongue."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from export_runs import make_header, write_episode, write_take

from retake.core.errors import InputError, RunError, WorkerError
from retake.core.export.vectors import build_schema
from retake.core.files import read_json, write_json
from retake.core.robustness import Observation, open_policy, robustness
from retake.core.robustness import cli as robustness_cli
from retake.core.robustness.analysis import WorldResult, attribute, bootstrap_score, moving_entries
from retake.core.robustness.policies import CallablePolicy
from retake.core.robustness.policy import KeyMap

pytest.importorskip("av")
AXES = {
    "environment": ("warehouse", "kitchen", "lab"),
    "surface": ("wood", "steel"),
    "subject": ("bun", "box", "can"),
    "lighting": ("day", "warm", "night"),
}
REGIONS = {"environment": (slice(0, 24), 0), "surface": (slice(24, 48), 1), "subject": (slice(48, 64), 2)}


def paint(world: dict[str, str]) -> np.ndarray:
    """A 64x64 frame whose regions show environment, surface and subject, and whose brightness shows the lighting."""
    frame = np.full((64, 64, 3), 110.0)
    for axis, (rows, channel) in REGIONS.items():
        frame[rows, :, channel] += 50.0 * AXES[axis].index(world[axis])
    return (frame * (1.0 - 0.3 * AXES["lighting"].index(world["lighting"]))).clip(0, 255).astype(np.uint8)


def worlds(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Different worlds, each a combination of axis values."""
    every = [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())]
    order = np.random.default_rng(seed).permutation(len(every))
    return [every[k] for k in order[:count]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One simulated window in 24 worlds."""
    path = tmp_path_factory.mktemp("rob") / "run"
    episode = write_episode(path / "episode", make_header(0), 4)
    for i, world in enumerate(worlds(24)):
        write_take(path, episode, i, pixels=lambda k, w=world: paint(w))
        sidecar = path / "variants" / f"{i:03d}" / "front" / "variant.json"
        variant = read_json(sidecar)
        write_json(sidecar, {**variant, "world": {**variant["world"], **world, "name": f"world {i}"}})
    return path


def weak_to(axis: str):
    """A policy that follows the state, and one region's colour (or the brightness)."""

    def act(observation: Observation) -> np.ndarray:
        image = observation.images["front"].astype(float)
        if axis == "lighting":
            # Ratios between regions do not matter to it: it reads one channel that no other axis touches.
            seen = image[2:20, :, 1].mean() / 110
        else:
            rows, channel = REGIONS[axis]
            other = image[rows, :, (channel + 1) % 3].mean()
            seen = image[rows, :, channel].mean() / other  # a ratio: lighting cancels
        return np.tile(observation.state * 0.5 + seen, (3, 1))

    return CallablePolicy(act, f"weak to {axis}")


@pytest.mark.parametrize("axis", list(AXES))
def test_a_planted_weakness_is_named_and_nothing_else(run, tmp_path, axis):
    report = robustness([run], weak_to(axis), tmp_path / "out", frames=3)
    named = [a.axis for a in report.analysis.axes if a.weakness]
    assert named == [axis]
    assert report.analysis.verdict.startswith(f"Weak to {axis}, which explains")
    assert report.analysis.score.low <= report.analysis.score.value <= report.analysis.score.high < 99
    page = report.html.read_text("utf-8")
    assert "weakness" in page
    assert page.count("data:image/jpeg") == 12
    assert "http://" not in page
    assert "https://" not in page


def test_an_invariant_policy_scores_as_invariant(run, tmp_path):
    policy = CallablePolicy(lambda o: np.tile(np.sin(o.state), (4, 1)), "blind")
    report = robustness([run], policy, tmp_path / "out")
    score = report.analysis.score
    assert (score.value, score.low, score.high) == (100, 100, 100)
    assert not any(a.weakness for a in report.analysis.axes)
    assert report.analysis.verdict.startswith("Invariant")
    assert json.loads(report.json.read_text("utf-8"))["noise"] == 0


def test_noise_is_measured_and_not_taken_for_a_weakness(run, tmp_path):
    rng = np.random.default_rng(0)
    policy = CallablePolicy(lambda o: o.state + rng.normal(scale=0.3, size=o.state.shape), "noisy")
    report = robustness([run], policy, tmp_path / "out")
    assert report.analysis.noise > 0.1
    assert not any(a.weakness for a in report.analysis.axes)
    assert "differs from itself" in report.analysis.verdict


def test_a_random_policy_scores_low(run, tmp_path):
    def chaotic(o: Observation) -> np.ndarray:
        seed = int(o.images["front"].astype(np.int64).sum())
        return np.random.default_rng(seed).normal(scale=3, size=len(o.state))

    report = robustness([run], CallablePolicy(chaotic), tmp_path / "out")
    assert report.analysis.score.value < 5


def test_axes_that_go_hand_in_hand_are_said_to_be_inseparable():
    rng = np.random.default_rng(0)
    results = []
    for i in range(20):
        value = f"v{i % 3}"
        deviation = np.full((2, 1, 3), float(i % 3)) + rng.normal(scale=0.01, size=(2, 1, 3))
        axes = {"environment": value, "surface": value.upper(), "lighting": f"l{i % 2}"}
        results.append(WorldResult("r", f"w{i}", f"t{i}", axes, deviation, 0.0))
    first = attribute(results)[0]
    assert first.weakness
    assert {first.axis, *first.confounded_with} == {"environment", "surface"}


def test_three_worlds_that_differ_in_everything_prove_nothing():
    results = [
        WorldResult(
            "r", f"w{i}", f"t{i}", {"environment": f"e{i}", "lighting": f"l{i}"}, np.full((1, 1, 2), float(i)), 0.0
        )
        for i in range(3)
    ]
    assert not any(a.weakness for a in attribute(results))


def test_false_alarms_are_rare():
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(40):
        results = [
            WorldResult("r", str(i), str(i), w, rng.normal(size=(4, 1, 5)), 0.0)
            for i, w in enumerate(worlds(20, int(rng.integers(1_000_000))))
        ]
        alarms += any(a.weakness for a in attribute(results, permutations=200))
    assert alarms <= 6  # 5 % each; 7 or more of 40 has probability 0.3 %


def test_the_interval_covers_the_true_score():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(40):
        level = rng.gamma(4, 0.05, size=30)
        results = [WorldResult("r", str(i), str(i), {}, np.full((1, 1, 1), x), 0.0) for i, x in enumerate(level)]
        score = bootstrap_score(results, samples=400)
        covered += score.low <= 100 * (1 - 0.2) <= score.high
    assert covered >= 33


def test_entries_that_never_move_are_left_out():
    truth = np.stack([np.linspace(0, 1, 20), np.full(20, 0.3), np.linspace(0, 0.001, 20)], 1)
    moving, _ = moving_entries(truth, ["arm", "arm", "gripper"])
    assert moving.tolist() == [True, False, False]


def test_policies_by_name(tmp_path, run):
    (tmp_path / "policy.py").write_text(
        "import numpy as np\n\ndef act(o):\n    return np.tile(o.state, (2, 1))\n\n\nclass Held:\n    name = 'held'\n"
        "    def reset(self):\n        self.t = 0\n    def infer(self, o):\n        return o.state\n"
        "class Plain:\n    def infer(self, o):\n        return o.state\n    def reset(self):\n        self.gone = True\n"
        "class Wanting:\n    def __init__(self, path):\n        pass\nNUMBER = 3\n"
    )
    assert open_policy(f"{tmp_path}/policy.py:Held").name == "held"
    plain = open_policy(spec := f"{tmp_path}/policy.py:Plain")
    plain.reset()
    assert plain.name == spec
    assert plain.function.__self__.gone  # type: ignore[attr-defined]
    assert np.array_equal(plain.infer(OBSERVED), OBSERVED.state[None])
    for spec, found in (
        ("nothing", "expected module:function"),
        (f"{tmp_path}/policy.py:missing", "has no 'missing'"),
        ("no_such_module_x:act", "cannot be imported"),
        (str(tmp_path), "config.json is missing"),
        (f"{tmp_path}/policy.py:Wanting", "fails when it is made without arguments: TypeError"),
        (f"{tmp_path}/policy.py:NUMBER", "is int; expected something callable, or with `infer`"),
        ("openpi://localhost:99999", "expected openpi://host:port"),
        ("ftp://x:1", "unknown policy server 'ftp'"),
        ("openpi://x", "expected openpi://host:port"),
    ):
        with pytest.raises(InputError, match=found):
            open_policy(spec)
    args = [str(run), "--policy", f"{tmp_path}/policy.py:act", "--out", str(tmp_path / "r"), "--quiet", "--frames", "2"]
    assert robustness_cli.main([*args, "--min-score", "99"]) == 0
    with pytest.raises(InputError, match="holds a report already"):
        robustness_cli.main(args)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda o: "left", "returned str"),
        (lambda o: o.state[:2], "gives 2 action entries"),
        (lambda o: o.state * np.nan, "finite"),
    ],
)
def test_odd_answers_are_explained(run, tmp_path, answer, found):
    with pytest.raises(InputError, match=found):
        robustness([run], CallablePolicy(answer), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def raising(o):
    raise KeyError("front")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (raising, "failed: KeyError: 'front'"),
        (lambda o: sys.exit(5), "failed: SystemExit: 5"),
        (lambda o: np.array([1j]), "returned ndarray"),
        (lambda o: None, "returned nothing"),
    ],
)
def test_a_policy_that_fails_is_told_in_a_sentence(run, tmp_path, answer, found):
    with pytest.raises(InputError, match=found):
        robustness([run], CallablePolicy(answer), tmp_path / "out", frames=1)
    assert not (tmp_path / "out").exists()


def test_a_policy_that_paints_over_its_observation_changes_no_other_answer(run, tmp_path):
    """Each frame of the simulator is asked twice: the second time it is the same picture."""

    def bright(o):
        level = float(o.images["front"].mean())
        o.images["front"][:] = 255
        return np.full(len(o.state), level)

    report = robustness([run], CallablePolicy(bright), tmp_path / "out", frames=1)
    assert report.analysis.noise == 0


OBSERVED = Observation(
    {"front": np.arange(48, dtype=np.uint8).reshape(4, 4, 3)}, np.array([0.1, 0.2, 0.9], np.float32), "pick “it”"
)


HOST = Path(__file__).resolve().parents[1] / "exts/retake.core/retake/core/robustness/lerobot_host.py"
WITH_TORCH = [p for p in (".lerobot-env", ".venv-worker") if (HOST.parents[5] / p / "bin/python").exists()]
HEALTHY = """import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.impl("nms", lambda dets, scores, iou_threshold: torch.tensor([7]), "CompositeExplicitAutograd")
"""
MISMATCHED = """import torch
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
"""


@pytest.mark.skipif(not WITH_TORCH, reason="no environment with torch")
@pytest.mark.parametrize(("package", "found"), [(HEALTHY, "7"), (MISMATCHED, "schema"), ("", "none")])
def test_the_policy_host_leaves_a_healthy_torchvision_alone(package: str, found: str, tmp_path: Path) -> None:
    """It defines its own operators when it loads, which aborts where they are defined already; a mismatched one has none."""
    if package:
        (tmp_path / "torchvision.py").write_text(package, "utf-8")
    else:
        (tmp_path / "torchvision.py").write_text("raise ImportError('none here')", "utf-8")
    code = (
        "import sys, runpy; host = runpy.run_path(sys.argv[1]); host['import_torchvision'](); import torch\n"
        "try: operator = torch.ops.torchvision.nms.default\n"
        "except AttributeError: print('none'); sys.exit()\n"
        "try: print(int(operator(torch.zeros(1, 4), torch.zeros(1), 0.5)))\n"
        "except NotImplementedError: print('schema')"
    )
    python = HOST.parents[5] / WITH_TORCH[0] / "bin/python"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(python), "-c", code, str(HOST)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [found]


PYTHON = Path(__file__).resolve().parent.parent / ".lerobot-env/bin/python"


@pytest.mark.skipif(not PYTHON.exists(), reason="no .lerobot-env; `make lerobot-env` makes it")
def test_a_lerobot_policy_folder_is_run_by_lerobot(run, tmp_path):
    width = sum(s.end - s.start for s in build_schema(make_header(0), {}).slices)
    reader = str(Path(__file__).with_name("lerobot_reader.py"))
    subprocess.run(
        [str(PYTHON), reader, "--make-policy", str(tmp_path / "act"), str(width)], check=True, capture_output=True
    )
    policy = open_policy(str(tmp_path / "act"), python=str(PYTHON))
    try:
        report = robustness([run], policy, tmp_path / "out", frames=1)
        assert report.worlds[0].deviation.shape[1] == 4
        assert report.analysis.noise == 0
        assert report.analysis.score.value < 100
        with pytest.raises(WorkerError, match="refused the observation"):
            policy.infer(Observation({}, np.zeros(width, np.float32), ""))
    finally:
        policy.close()


def test_openpi_servers_are_spoken_to_in_their_wire():
    msgpack = pytest.importorskip("msgpack")
    server_module = pytest.importorskip("websockets.sync.server")
    seen = {}

    def array(x):
        return {b"__ndarray__": True, b"data": x.tobytes(), b"dtype": x.dtype.str, b"shape": x.shape}

    def serve(connection):
        connection.send(msgpack.packb({"model": "pi0"}))
        for number, message in enumerate(connection):
            seen.update(msgpack.unpackb(message))
            connection.send(
                msgpack.packb({"actions": array(np.ones((5, 3), np.float32) * 2)})
                if number == 0
                else "Traceback\nValueError: no"
            )

    with server_module.serve(serve, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        mapping = KeyMap({"front": "observation/exterior_image_1_left"}, "observation/joint_position")
        policy = open_policy(f"openpi://127.0.0.1:{port}", mapping=mapping, timeout_s=10)
        assert np.array_equal(policy.infer(OBSERVED), np.full((5, 3), 2.0))
        image = seen["observation/exterior_image_1_left"]
        assert image[b"dtype"] == "|u1"
        assert image[b"shape"] == [4, 4, 3]
        assert image[b"data"] == OBSERVED.images["front"].tobytes()
        assert seen["prompt"] == "pick “it”"
        assert seen["observation/joint_position"][b"dtype"] == "<f4"
        with pytest.raises(WorkerError, match="refused the observation: ValueError: no"):
            policy.infer(OBSERVED)
        policy.close()
        server.shutdown()
    with pytest.raises(WorkerError, match="no openpi policy server answers"):
        open_policy(f"openpi://127.0.0.1:{port}", timeout_s=1)


@pytest.mark.parametrize(
    ("greeting", "answer", "found"),
    [
        (b"\x80", None, "stopped answering"),
        (b"\x80", b"\xc1", "no msgpack map of arrays"),
        (b"\x80", b"\x93\x01\x02\x03", "answered list; expected 'actions'"),
        (b"\x80", b"\x80", "answered ..; expected 'actions'"),
        ("welcome", None, "no openpi policy server answers"),
        (None, None, "no openpi policy server answers"),
    ],
)
def test_an_openpi_server_that_misbehaves_is_told_in_a_sentence(greeting, answer, found):
    """It closes the connection before or after its greeting, or answers something else."""
    pytest.importorskip("msgpack")
    server_module = pytest.importorskip("websockets.sync.server")

    def serve(connection):
        if greeting is None:
            return
        connection.send(greeting)
        connection.recv()
        if answer is not None:
            connection.send(answer)

    with server_module.serve(serve, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"openpi://127.0.0.1:{server.socket.getsockname()[1]}"
        with pytest.raises(WorkerError, match=found):
            open_policy(address, timeout_s=10).infer(OBSERVED)
        server.shutdown()


@pytest.mark.parametrize("nested", [True, False])
def test_gr00t_servers_are_spoken_to_in_their_wire(nested):
    import io

    from retake.core.export.records import Slice

    msgpack, zmq = pytest.importorskip("msgpack"), pytest.importorskip("zmq")
    context = zmq.Context()
    socket = context.socket(zmq.REP)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    seen = []

    def array(x):
        buffer = io.BytesIO()
        np.save(buffer, x)
        return {"__ndarray_class__": True, "as_npy": buffer.getvalue()}

    def serve():
        for number in range(4):
            seen.append(msgpack.unpackb(socket.recv()))
            arm, hand = np.ones((16, 2), np.float32), np.zeros((16, 1), np.float32)
            actions = {"arm": array(arm[None]), "gripper": array(hand[None])}
            answer = [actions, {}] if nested else {f"action.{k}": v for k, v in actions.items()}
            socket.send(
                msgpack.packb({"status": "ok"} if number < 2 else answer if number == 2 else {"error": "bad shape"})
            )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    parts = (Slice("arm", 0, 2, "arm", "rad", "r"), Slice("gripper", 2, 3, "gripper", "", "r"))
    observation = Observation(OBSERVED.images, OBSERVED.state, OBSERVED.task, (), parts)
    policy = open_policy(f"{'gr00t' if nested else 'gr00t-n1.5'}://127.0.0.1:{port}", timeout_s=10)
    actions = policy.infer(observation)
    assert actions.shape == (16, 3)
    assert actions[0].tolist() == [1, 1, 0]
    data = seen[2]["data"]
    image = data["observation"]["video"]["front"] if nested else data["video.front"]
    assert np.load(io.BytesIO(image["as_npy"])).shape == ((1, 1, 4, 4, 3) if nested else (1, 4, 4, 3))
    assert (data["observation"]["language"]["task"] if nested else [data["annotation.human.task_description"]]) == [
        ["pick “it”"]
    ]
    with pytest.raises(WorkerError, match="bad shape"):
        policy.infer(observation)
    policy.close()
    thread.join(10)
    socket.close()
    context.term()


def test_a_silent_gr00t_server_does_not_hang():
    pytest.importorskip("msgpack")
    zmq = pytest.importorskip("zmq")
    context = zmq.Context()
    socket = context.socket(zmq.REP)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    with pytest.raises(WorkerError, match="no GR00T policy server answers"):
        open_policy(f"gr00t://127.0.0.1:{port}", timeout_s=0.3)
    socket.close()
    context.term()


def test_a_share_that_chance_would_give_has_no_bar():
    from retake.core.robustness.report import _axis_row

    axis = {"axis": "look", "values": 3, "explained": 0.9, "effect": 0.1, "confounded_with": [], "worst_value": "crisp"}
    chance = _axis_row({**axis, "p_value": 0.98, "weakness": False})
    assert "90%, as chance would" in chance
    assert "width:" not in chance
    found = _axis_row({**axis, "p_value": 0.001, "weakness": True})
    assert "width:90.0%" in found
    assert "chance" not in found


def test_a_policy_that_never_answers_ends_in_a_sentence(tmp_path, run):
    release = threading.Event()
    with pytest.raises(InputError, match=r"asleep gave no answer within 0.05 s; .*--timeout"):
        robustness([run], CallablePolicy(lambda o: release.wait(), "asleep"), tmp_path / "out", timeout_s=0.05)
    release.set()


def test_code_of_ones_own_imports_what_lies_beside_it_and_shadows_nothing(tmp_path, monkeypatch):
    """A file finds its helper, also while it is called; `module:name` finds the working directory; afterwards the path is
    what it was, and a helper named like a module that is installed is not taken for it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/beside_it.py").write_text("VALUE = 1.0")
    (tmp_path / "a/late_helper.py").write_text("VALUE = 2.0")
    (tmp_path / "a/yaml.py").write_text("raise RuntimeError('the user has a file of this name')")
    (tmp_path / "a/mine_act.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass, fields\nimport yaml\nimport beside_it\n"
        "@dataclass\nclass Act:\n    name: str = 'act'\n    def reset(self): pass\n"
        "    def infer(self, o):\n        import late_helper\n        return [beside_it.VALUE, late_helper.VALUE]\n"
    )
    before = list(sys.path)
    assert open_policy(f"{tmp_path}/a/mine_act.py:Act").infer(OBSERVED).tolist() == [[1.0, 2.0]]
    assert sys.path == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b/beside_it.py").write_text("VALUE = 3.0\ndef act(o): return [VALUE]")
    monkeypatch.chdir(tmp_path / "b")
    assert open_policy("beside_it:act").infer(OBSERVED).tolist() == [[3.0]]
    assert sys.path == before
    (tmp_path / "b/broken_module.py").write_text("1 / 0")
    with pytest.raises(InputError, match=r"'broken_module' fails when it is loaded: ZeroDivisionError"):
        open_policy("broken_module:act")


def test_two_processes_do_not_share_a_report(tmp_path, run):
    def meddling(o):
        with pytest.raises(RunError, match=r"out is being written by another process; .* another folder with --out"):
            robustness([run], CallablePolicy(lambda o: o.state, "second"), tmp_path / "out", frames=1)
        raise InputError("the second was refused")

    with pytest.raises(InputError, match="the second was refused"):
        robustness([run], CallablePolicy(meddling, "first"), tmp_path / "out", frames=1)
    assert not (tmp_path / "out").exists()
