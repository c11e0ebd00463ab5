# SPDX-License-Identifier: Apache-2.0
"""Clients of policy servers, speaking their documented wires.

openpi: a websocket; the server greets with its metadata; each message is a msgpack map, arrays as
{b"__ndarray__": True, b"data", b"dtype", b"shape"}; the answer holds `actions` (H, A), an error is a text message.
GR00T: ZeroMQ request/reply; msgpack maps {"endpoint", "data"}, arrays as {"__ndarray_class__": True, "as_npy": .npy bytes};
N1.6 and later take {"observation": {video, state, language}, "options"} and answer (actions, info), N1.5 takes flat keys. Which
cameras, parts of the state and name of the task a model wants, and how many past ones of each, differ between embodiments:
`get_modality_config` tells, as {"__ModalityConfig_class__": True, "as_json": a map, or its JSON text in N1.5}.
No pickles are read; waits are bounded.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retake.core.errors import InputError, WorkerError, unknown_name
from retake.core.export.encode import require
from retake.core.robustness.policy import KeyMap, Observation, Policy, as_actions

SCHEMES = ("openpi", "gr00t", "gr00t-n1.5")


def connect(scheme: str, address: str, mapping: KeyMap, timeout_s: float) -> Policy:
    """A client of the server at `host:port`. Raises InputError, MissingDependencyError, WorkerError."""
    if scheme not in SCHEMES:
        raise InputError(unknown_name("policy server", scheme, SCHEMES))
    host, _, port = address.rstrip("/").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"{scheme}://{address}: expected {scheme}://host:port")
    if scheme == "openpi":
        return OpenpiPolicy(host, int(port), mapping, timeout_s)
    return Gr00tPolicy(host, int(port), mapping, timeout_s, nested=scheme == "gr00t")


class OpenpiPolicy:
    """openpi's websocket server. Keys: `observation/<camera>`, `observation/state`, `prompt`, unless mapped."""

    def __init__(self, host: str, port: int, mapping: KeyMap, timeout_s: float) -> None:
        self.name, self._mapping, self._timeout_s = f"openpi://{host}:{port}", mapping, timeout_s
        self._msgpack = require("msgpack", "policy")
        client = require("websockets.sync.client", "policy")
        # What is no websocket, or closes the connection, is no OSError there.
        self._errors = (OSError, TimeoutError, require("websockets.exceptions", "policy").WebSocketException)
        self._stack = contextlib.ExitStack()
        try:
            connection = client.connect(f"ws://{host}:{port}", compression=None, max_size=None, open_timeout=timeout_s)
            self._socket = self._stack.enter_context(connection)
            self.metadata = self._unpack(self._socket.recv(timeout=timeout_s))
        except (*self._errors, ValueError, TypeError) as error:
            self._stack.close()
            raise WorkerError(f"no openpi policy server answers at {host}:{port}: {error}") from error

    def infer(self, observation: Observation) -> np.ndarray:
        """One request."""
        message: dict[str, Any] = {
            self._mapping.cameras.get(name, f"observation/{name}"): image for name, image in observation.images.items()
        }
        message[self._mapping.state or "observation/state"] = np.asarray(observation.state)
        message["prompt"] = observation.task
        try:
            self._socket.send(self._msgpack.packb(message, default=_openpi_encode))
            answer = self._socket.recv(timeout=self._timeout_s)
        except self._errors as error:
            raise WorkerError(f"{self.name} stopped answering: {error}") from error
        if isinstance(answer, str):
            raise WorkerError(f"{self.name} refused the observation: {answer.strip().splitlines()[-1]}")
        try:
            content = self._unpack(answer)
        except (ValueError, TypeError) as error:
            raise WorkerError(f"{self.name} answered what is no msgpack map of arrays: {error}") from error
        if not isinstance(content, dict) or "actions" not in content:
            found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
            raise WorkerError(f"{self.name} answered {found}; expected 'actions'")
        return as_actions(content["actions"], self.name)

    def _unpack(self, data: bytes) -> dict[str, Any]:
        return self._msgpack.unpackb(data, object_hook=_openpi_decode)

    def reset(self) -> None:
        """The server keeps no state between requests."""

    def close(self) -> None:
        """Close the connection."""
        self._stack.close()


def _openpi_encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _openpi_decode(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return np.frombuffer(value[b"data"], np.dtype(value[b"dtype"])).reshape(value[b"shape"])
    if b"__npgeneric__" in value:
        return np.dtype(value[b"dtype"]).type(value[b"data"])
    return value


@dataclass(frozen=True)
class _Wanted:
    """What a GR00T server says its model takes: name → how many of it, the present one last."""

    video: Mapping[str, int]
    state: Mapping[str, int]
    language: tuple[str, ...]

    @staticmethod
    def of(config: Any) -> _Wanted | None:
        """Of an answer to `get_modality_config`; None where it tells nothing."""
        if not isinstance(config, dict) or not {"video", "state", "language"} <= set(config):
            return None
        horizons = [_horizons(config[modality]) for modality in ("video", "state", "language")]
        video, state, language = horizons
        return None if video is None or state is None or language is None else _Wanted(video, state, tuple(language))


def _horizons(config: Any) -> dict[str, int] | None:
    try:
        return {str(key): len(config["delta_indices"]) for key in config["modality_keys"]}
    except (KeyError, TypeError):
        return None


class Gr00tPolicy:
    """GR00T's ZeroMQ server. State parts and cameras are those of modality.json, unless mapped."""

    def __init__(self, host: str, port: int, mapping: KeyMap, timeout_s: float, *, nested: bool) -> None:
        self.name, self._mapping, self._nested = f"gr00t://{host}:{port}", mapping, nested
        self._msgpack, zmq = require("msgpack", "policy"), require("zmq", "policy")
        self._errors = zmq.ZMQError
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
            self._socket.setsockopt(option, int(1000 * timeout_s))
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"tcp://{host}:{port}")
        self._call("ping", None)
        self._wanted = _Wanted.of(self._ask("get_modality_config", None))
        self._keeps_state = nested

    def infer(self, observation: Observation) -> np.ndarray:
        """One request; the parts of the answer are put together in the order of the action vector. Of past pictures and states
        that the model wants, each is the present one: the policy was reset just now, or a history is not kept."""
        of_video, of_state = ("", "") if self._nested else ("video.", "state.")
        cameras = self._mapping.cameras
        video = {of_video + cameras.get(name, name): image for name, image in observation.images.items()}
        state = {of_state + s.name: observation.state[s.start : s.end].astype(np.float32) for s in observation.slices}
        language: tuple[str, ...] = ("task",) if self._nested else ("annotation.human.task_description",)
        if self._wanted is not None:
            video = self._chosen("picture", video, self._wanted.video, "name a camera so with --map CAMERA=NAME")
            state = self._chosen(
                "part of the state",
                state,
                self._wanted.state,
                "export the data set with the parts that it was trained on",
            )
            language = self._wanted.language
        else:
            video, state = ({key: value[None] for key, value in given.items()} for given in (video, state))
        if self._nested:
            data: dict[str, Any] = {
                "observation": {
                    "video": {key: images[None] for key, images in video.items()},
                    "state": {key: values[None] for key, values in state.items()},
                    "language": {key: [[observation.task]] for key in language},
                },
                "options": None,
            }
        else:
            data = {**video, **state, **{key: [observation.task] for key in language}}
        answer = self._call("get_action", data)
        actions = answer[0] if isinstance(answer, list | tuple) and answer else answer
        if not isinstance(actions, dict):
            raise WorkerError(f"{self.name} answered {type(actions).__name__}; expected a map of action parts")
        if "error" in actions:
            raise WorkerError(f"{self.name} refused the observation: {actions['error']}")
        actions = {str(key).removeprefix("action."): np.asarray(value) for key, value in actions.items()}
        wanted = observation.action_slices or observation.slices
        missing = [s.name for s in wanted if s.name not in actions]
        if missing:
            raise WorkerError(f"{self.name} gave no action {', '.join(missing)}; it gave {', '.join(sorted(actions))}")
        columns = []
        for part in wanted:
            values = actions[part.name]
            values = values[0] if values.ndim == 3 else values
            columns.append(values.reshape(len(values), -1) if values.ndim > 1 else values[:, None])
        return as_actions(np.concatenate(columns, axis=1), self.name)

    def _chosen(
        self, what: str, given: Mapping[str, np.ndarray], wanted: Mapping[str, int], remedy: str
    ) -> dict[str, np.ndarray]:
        """What the model wants of what there is, repeated as often as it wants it. Raises InputError for what is not there."""
        if missing := [name for name in wanted if name not in given]:
            raise InputError(
                f"{self.name} wants the {what} {', '.join(missing)}; there is {', '.join(given) or 'none'}: {remedy}"
            )
        return {name: np.repeat(given[name][None], count, axis=0) for name, count in wanted.items()}

    def _call(self, endpoint: str, data: Any) -> Any:
        answer = self._ask(endpoint, data)
        if isinstance(answer, dict) and "error" in answer:
            raise WorkerError(f"{self.name} refused {endpoint!r}: {answer['error']}")
        return answer

    def _ask(self, endpoint: str, data: Any) -> Any:
        """What the server answers, be it a refusal."""
        request = {"endpoint": endpoint} if data is None else {"endpoint": endpoint, "data": data}
        try:
            self._socket.send(self._msgpack.packb(request, default=_gr00t_encode))
            answer = self._socket.recv()
        except self._errors as error:
            self.close()
            raise WorkerError(f"no GR00T policy server answers at {self.name}: {error}") from error
        try:
            return self._msgpack.unpackb(answer, object_hook=_gr00t_decode)
        except (ValueError, TypeError, KeyError, EOFError) as error:
            raise WorkerError(f"{self.name} answered what is no msgpack map of arrays: {error}") from error

    def reset(self) -> None:
        """A policy may count its steps; one that knows no reset keeps no state."""
        if self._keeps_state:
            answer = self._ask("reset", {"options": None})
            self._keeps_state = not (isinstance(answer, dict) and "error" in answer)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        self._context.term()


def _gr00t_encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": buffer.getvalue()}
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _gr00t_decode(value: dict[Any, Any]) -> Any:
    if "__ndarray_class__" in value:
        return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
    if "__ModalityConfig_class__" in value:
        stated = value["as_json"]
        return json.loads(stated) if isinstance(stated, str) else stated
    return value
