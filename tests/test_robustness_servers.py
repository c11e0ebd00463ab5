# SPDX-License-Identifier: Apache-2.0
"""Policy servers are spoken to in the very messages of their makers' code (tests/golden/policy_servers), not in our reading."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retake.core.errors import InputError, WorkerError
from retake.core.export.records import Slice
from retake.core.robustness import open_policy
from retake.core.robustness.policy import KeyMap, Observation
from retake.core.robustness.servers import _Wanted

MESSAGES = json.loads((Path(__file__).parent / "golden/policy_servers/messages.json").read_text("utf-8"))
PARTS = (Slice("arm", 0, 2, "arm", "rad", "r"), Slice("gripper", 2, 3, "gripper", "", "r"))
OBSERVED = Observation(
    {"front": np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "wrist": np.zeros((4, 4, 3), np.uint8)},
    np.array([0.1, 0.2, 0.9], np.float32), "pick “it”", (), PARTS,
)  # fmt: skip


@contextmanager
def answering(answers: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """A GR00T server that gives these answers in turn; (host:port, the requests it got)."""
    zmq = pytest.importorskip("zmq")
    context, seen = zmq.Context(), []
    socket = context.socket(zmq.REP)
    socket.setsockopt(zmq.RCVTIMEO, 10_000)
    port = socket.bind_to_random_port("tcp://127.0.0.1")

    def serve() -> None:
        for answer in answers:
            try:
                seen.append(socket.recv())
            except zmq.ZMQError:
                return
            socket.send(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{port}", seen
    thread.join(15)
    socket.close(0)
    context.term()


def plain(message: bytes) -> Any:
    """A message with its arrays as (dtype, shape, numbers): the header of a .npy file differs between NumPy versions."""

    def array(value: dict[Any, Any]) -> Any:
        if "__ndarray_class__" not in value:
            return value
        found = np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
        return [found.dtype.str, list(found.shape), found.ravel().tolist()]

    return pytest.importorskip("msgpack").unpackb(message, object_hook=array)


@pytest.mark.parametrize(("scheme", "form"), [("gr00t", "n1.6"), ("gr00t-n1.5", "n1.5")])
def test_a_gr00t_server_gets_what_its_model_wants_in_its_own_messages(scheme: str, form: str) -> None:
    """The name of the task, two pictures for one, no camera that it does not know: as its modality configuration says."""
    golden = MESSAGES["gr00t"][form]
    with answering([bytes.fromhex(text) for text in golden["answers"]]) as (address, seen):
        policy: Any = open_policy(f"{scheme}://{address}", mapping=KeyMap({"front": "image"}), timeout_s=10)
        policy.reset()
        actions = policy.infer(OBSERVED)
        policy.close()
    assert actions.tolist() == [[1, 1, 0], [1, 1, 0]]
    assert [plain(message) for message in seen] == [plain(bytes.fromhex(text)) for text in golden["requests"]]


@pytest.mark.parametrize(("scheme", "form"), [("gr00t", "n1.6"), ("gr00t-n1.5", "n1.5")])
def test_what_a_gr00t_model_wants_and_does_not_get_is_named_before_it_is_asked(scheme: str, form: str) -> None:
    answers = [bytes.fromhex(text) for text in MESSAGES["gr00t"][form]["answers"][:2]]
    prefix = "" if form == "n1.6" else "video."
    with answering(answers) as (address, seen):
        policy: Any = open_policy(f"{scheme}://{address}", timeout_s=10)
        words = rf"wants the picture {prefix}image; there is {prefix}front, {prefix}wrist: .* --map CAMERA=NAME"
        with pytest.raises(InputError, match=words):
            policy.infer(OBSERVED)
        policy.close()
    assert len(seen) == 2
    with answering(answers) as (address, _):
        policy: Any = open_policy(f"{scheme}://{address}", mapping=KeyMap({"front": "image"}), timeout_s=10)
        armless = Observation(OBSERVED.images, OBSERVED.state, OBSERVED.task, (), PARTS[1:])
        with pytest.raises(InputError, match=r"wants the part of the state .*arm; there is .*gripper: export"):
            policy.infer(armless)
        policy.close()


def test_a_gr00t_server_that_knows_neither_reset_nor_configuration_is_asked_for_each_once() -> None:
    """As servers of one's own do: pictures and parts go by the data set's names, and an unknown reset is no failure."""
    msgpack = pytest.importorskip("msgpack")
    unknown = msgpack.packb({"error": "Unknown endpoint"})
    action = bytes.fromhex(MESSAGES["gr00t"]["n1.6"]["answers"][3])
    with answering([msgpack.packb({"status": "ok"}), unknown, unknown, action, action]) as (address, seen):
        policy: Any = open_policy(f"gr00t://{address}", timeout_s=10)
        for _ in range(2):
            policy.reset()
            assert policy.infer(OBSERVED).shape == (2, 3)
        policy.close()
    requests = [plain(message) for message in seen]
    assert [request["endpoint"] for request in requests] == [
        "ping", "get_modality_config", "reset", "get_action", "get_action",
    ]  # fmt: skip
    sent = requests[3]["data"]["observation"]
    assert sent["language"] == {"task": [["pick “it”"]]}
    assert {name: value[1] for name, value in sent["video"].items()} == {
        "front": [1, 1, 4, 4, 3],
        "wrist": [1, 1, 4, 4, 3],
    }
    assert sent["state"]["arm"][:2] == ["<f4", [1, 1, 2]]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"ERROR", "no msgpack map of arrays"),
        (b"\x93\x01\x02\x03", "answered int; expected a map of action parts"),
        (b"\x90", "answered list; expected a map of action parts"),
        (b"\xc0", "answered NoneType; expected a map of action parts"),
    ],
)
def test_a_gr00t_server_that_answers_something_else_is_told_in_a_sentence(answer: bytes, words: str) -> None:
    pytest.importorskip("msgpack")
    with answering([b"\x80", b"\x80", answer]) as (address, _):
        policy: Any = open_policy(f"gr00t://{address}", timeout_s=10)
        with pytest.raises(WorkerError, match=words):
            policy.infer(OBSERVED)
        policy.close()


def test_an_openpi_server_gets_the_bytes_that_its_own_client_sends() -> None:
    pytest.importorskip("msgpack")
    server_module = pytest.importorskip("websockets.sync.server")
    golden = {name: bytes.fromhex(text) for name, text in MESSAGES["openpi"].items()}
    seen = []

    def serve(connection: Any) -> None:
        connection.send(golden["greeting"])
        for message in connection:
            seen.append(message)
            connection.send(golden["answer"])

    with server_module.serve(serve, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mapping = KeyMap({"front": "observation/exterior_image_1_left"}, "observation/joint_position")
        policy: Any = open_policy(f"openpi://127.0.0.1:{server.socket.getsockname()[1]}", mapping=mapping, timeout_s=10)
        alone = Observation({"front": OBSERVED.images["front"]}, OBSERVED.state, OBSERVED.task)
        assert np.array_equal(policy.infer(alone), np.full((5, 3), 2.0))
        assert policy.metadata["model"] == "pi0"
        assert policy.metadata["mean"].tolist() == [0.0, 1.0, 2.0]
        policy.close()
        server.shutdown()
    assert seen == [golden["request"]]


def test_what_a_gr00t_model_takes_is_told_by_its_three_modalities():
    def modality(**horizons: int) -> dict[str, Any]:
        return {"modality_keys": [*horizons], "delta_indices": list(range(max(horizons.values())))}

    config = {"video": modality(front=2), "state": modality(arm=1), "language": modality(task=1)}
    wanted = _Wanted({"front": 2}, {"arm": 1}, ("task",))
    assert _Wanted.of(config) == _Wanted.of({**config, "action": modality(arm=16)}) == wanted
    for missing in config:
        assert _Wanted.of({key: value for key, value in config.items() if key != missing}) is None
        assert _Wanted.of({**config, missing: {"modality_keys": ["a"]}}) is None
        assert _Wanted.of({**config, missing: 3}) is None
    assert _Wanted.of(None) is None


@pytest.mark.parametrize("address", ["", "host", ":5555", "host:", "host:0", "host:65536", "host:x"])
def test_a_server_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(InputError, match="expected gr00t://host:port"):
        open_policy(f"gr00t://{address}")
