# SPDX-License-Identifier: Apache-2.0
"""Clients of policy servers, speaking their documented wires.

openpi: a websocket; the server greets with its metadata; each message is a msgpack map, arrays as
{b"__ndarray__": True, b"data", b"dtype", b"shape"}; the answer holds `actions` (H, A), an error is a text message.
GR00T: ZeroMQ request/reply; msgpack maps {"endpoint", "data"}, arrays as {"__ndarray_class__": True, "as_npy": .npy bytes};
N1.6 takes {"observation": {video, state, language}, "options"} and answers (actions, info), N1.5 takes flat keys.
No pickles are read; waits are bounded.
"""

from __future__ import annotations

import contextlib
import io
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


class Gr00tPolicy:
    """GR00T's ZeroMQ server. State parts and cameras are those of modality.json."""

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

    def infer(self, observation: Observation) -> np.ndarray:
        """One request; the parts of the answer are put together in the order of the action vector."""
        cameras = {self._mapping.cameras.get(n, n): image for n, image in observation.images.items()}
        parts = {s.name: observation.state[s.start : s.end].astype(np.float32) for s in observation.slices}
        if self._nested:
            data: dict[str, Any] = {
                "observation": {
                    "video": {name: image[None, None] for name, image in cameras.items()},
                    "state": {name: part[None, None] for name, part in parts.items()},
                    "language": {"task": [[observation.task]]},
                },
                "options": None,
            }
        else:
            data = {f"video.{name}": image[None] for name, image in cameras.items()}
            data |= {f"state.{name}": part[None] for name, part in parts.items()}
            data["annotation.human.task_description"] = [observation.task]
        answer = self._call("get_action", data)
        actions = answer[0] if isinstance(answer, list | tuple) else answer
        if isinstance(actions, dict) and "error" in actions:
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

    def _call(self, endpoint: str, data: Any) -> Any:
        request = {"endpoint": endpoint} if data is None else {"endpoint": endpoint, "data": data}
        try:
            self._socket.send(self._msgpack.packb(request, default=_gr00t_encode))
            answer = self._msgpack.unpackb(self._socket.recv(), object_hook=_gr00t_decode)
        except self._errors as error:
            self.close()
            raise WorkerError(f"no GR00T policy server answers at {self.name}: {error}") from error
        if isinstance(answer, dict) and "error" in answer:
            raise WorkerError(f"{self.name} refused {endpoint!r}: {answer['error']}")
        return answer

    def reset(self) -> None:
        """The server keeps no state between requests."""

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
    return value
