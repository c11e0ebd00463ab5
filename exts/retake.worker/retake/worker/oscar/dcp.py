# SPDX-License-Identifier: Apache-2.0
"""Torch distributed checkpoints and `.pth` files, read without ever running what a pickle asks for.

`.metadata` is a pickle. It is parsed by an unpickler that knows a short list of names and builds inert records for
them; any other name is refused. Tensor bytes go through torch's weights-only loader, which does the same for tensors.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from retake.core.errors import InputError

Loader = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: shape, dtype, and how to read it when it is wanted."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Loader

    @property
    def nbytes(self) -> int:
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


class _Inert:
    """Stands in for one of torch's metadata classes: holds what the pickle states, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.state = args, dict(kwargs)

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {"values": state}

    def get(self, name: str, default: Any = None) -> Any:
        return self.state.get(name, default)

    def __hash__(self) -> int:
        return id(self)


class Metadata(_Inert): ...


class TensorMeta(_Inert): ...


class BytesMeta(_Inert): ...


class Properties(_Inert): ...


class Chunk(_Inert): ...


class Index(_Inert): ...


class StorageInfo(_Inert): ...


class StorageMeta(_Inert): ...


class MemoryFormat(_Inert): ...


class _Constructor:
    """A callable handed to a pickle, with no attribute that the pickle's BUILD opcode could set."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        object.__setattr__(self, "_build", build)

    def __setattr__(self, name: str, value: Any) -> None:
        raise InputError(f"refused: the pickle sets {name} of a constructor; nothing was run")

    def __call__(self, *args: Any) -> Any:
        return self._build(*args)


_MEMORY_FORMATS = ("TORCH_CONTIGUOUS_FORMAT", "TORCH_CHANNELS_LAST", "TORCH_PRESERVE_FORMAT")


def _enum_member(*args: Any) -> MemoryFormat:
    """What `getattr(EnumClass, name)` stands for: the form in which Python 3.11.0 to 3.11.3 pickles an enum member
    (cpython issue 105332, taken back in 3.11.4). Raises InputError for any other class, name or number of arguments."""
    if len(args) == 2 and args[0] is MemoryFormat and type(args[1]) is str and args[1] in _MEMORY_FORMATS:
        return MemoryFormat(args[1])
    raise InputError(
        "refused: the pickle asks for builtins.getattr on something else than a member of _MEM_FORMAT_ENCODING; "
        "nothing was run. A file that does this is not a plain checkpoint"
    )


_ENUM_MEMBER = _Constructor(_enum_member)
_PATH = _Constructor(lambda *parts: "/".join(str(part) for part in parts))
_METADATA = "torch.distributed.checkpoint.metadata"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
}  # fmt: skip
_ALLOWED: dict[tuple[str, str], Any] = {
    (_METADATA, "Metadata"): Metadata,
    (_METADATA, "TensorStorageMetadata"): TensorMeta,
    (_METADATA, "BytesStorageMetadata"): BytesMeta,
    (_METADATA, "TensorProperties"): Properties,
    (_METADATA, "ChunkStorageMetadata"): Chunk,
    (_METADATA, "MetadataIndex"): Index,
    (_METADATA, "StorageMeta"): StorageMeta,
    (_METADATA, "_MEM_FORMAT_ENCODING"): MemoryFormat,
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): StorageInfo,
    ("builtins", "getattr"): _ENUM_MEMBER,
    ("torch", "Size"): _Constructor(lambda sizes=(): tuple(int(size) for size in sizes)),
    ("torch.serialization", "_get_layout"): str,
    ("pathlib", "PosixPath"): _PATH,
    ("pathlib._local", "PosixPath"): _PATH,  # Python 3.13
    ("pathlib", "WindowsPath"): _PATH,
    ("pathlib", "PurePosixPath"): _PATH,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # as protocols 0 to 2 call it
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise InputError(
            f"refused: the pickle asks for {module}.{name}, which is neither a tensor nor checkpoint metadata; "
            "nothing was run. A file that does this is not a plain checkpoint"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise InputError("refused: checkpoint metadata with persistent objects; nothing was run")


def restricted_load(data: bytes, name: str) -> Any:
    """Unpickle checkpoint metadata from the allowed names only. Raises InputError, and runs nothing, otherwise."""
    try:
        found = _RestrictedUnpickler(io.BytesIO(data)).load()
        _require_data(found)
        return found
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except Exception as error:  # a broken pickle can raise anything
        raise InputError(f"{name} is damaged or no checkpoint metadata ({type(error).__name__}: {error})") from None


def _require_data(found: Any) -> None:
    """Raises InputError when a constructor itself, not what it builds, is part of what was loaded."""
    waiting, seen = [found], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Constructor):
            raise InputError("refused: the pickle holds a function where data belongs; nothing was run")
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, _Inert):
            waiting += vars(item).values()
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set):
            waiting += item


def read_dcp(folder: Path) -> dict[str, TensorEntry]:
    """Tensors of a released checkpoint folder (`DIR` with `model/.metadata`, or the inner folder itself).

    Non-tensor entries (byte blobs such as `_extra_state`) are left unread. Raises InputError.
    """
    inner = folder / "model" if (folder / "model").is_dir() else folder
    if not folder.is_dir():
        raise InputError(f"no checkpoint folder at {folder}; give the folder that holds model/.metadata")
    path = inner / ".metadata"
    if not path.is_file():
        raise InputError(f"{inner} has no .metadata; a checkpoint folder holds model/.metadata and model/*.distcp")
    metadata = restricted_load(path.read_bytes(), str(path))
    try:
        if not isinstance(metadata, Metadata):
            raise TypeError(f"it holds a {type(metadata).__name__}")
        chunk_files = {
            (key.get("fqn"), tuple(key.get("offset") or ())): info for key, info in metadata.get("storage_data").items()
        }
        entries = {}
        for name, meta in metadata.get("state_dict_metadata").items():
            if isinstance(meta, TensorMeta):
                entries[name] = _dcp_entry(inner, name, meta, chunk_files)
        return entries
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} is no distributed-checkpoint metadata ({type(error).__name__}: {error})") from None


def _dcp_entry(folder: Path, name: str, meta: TensorMeta, chunk_files: dict[Any, StorageInfo]) -> TensorEntry:
    properties = meta.get("properties")
    dtype = properties.get("dtype", properties.get("values", (None,))[0])  # a dict in older versions of torch
    shape = tuple(meta.get("size"))
    if not isinstance(dtype, torch.dtype):
        raise InputError(f"{name}: the metadata states no dtype")
    pieces = []
    for chunk in meta.get("chunks"):
        offsets, sizes = tuple(chunk.get("offsets")), tuple(chunk.get("sizes"))
        if len(offsets) != len(shape) or any(o < 0 or o + s > n for o, s, n in zip(offsets, sizes, shape, strict=True)):
            raise InputError(f"{name}: a piece at {list(offsets)} of size {list(sizes)} lies outside {list(shape)}")
        info = chunk_files.get((name, offsets))
        if info is None:
            raise InputError(f"{name}: the metadata names no file for its piece at {list(offsets)}")
        pieces.append((offsets, sizes, _Slice.of(folder, info)))
    overlap = any(_overlap(a[:2], b[:2]) for i, a in enumerate(pieces) for b in pieces[:i])
    if overlap or sum(int(torch.Size(sizes).numel()) for _, sizes, _ in pieces) != int(torch.Size(shape).numel()):
        raise InputError(f"{name}: the pieces do not fill its shape {list(shape)}, each place once")

    def load() -> torch.Tensor:
        result = torch.empty(shape, dtype=dtype)
        for offsets, sizes, where in pieces:
            tensor = where.read(name)
            if tuple(tensor.shape) != sizes or tensor.dtype != dtype:
                raise InputError(
                    f"{name}: {where.path.name} holds {list(tensor.shape)} {tensor.dtype}, "
                    f"the metadata says {list(sizes)} {dtype}"
                )
            target = result
            for axis, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
                target = target.narrow(axis, offset, size)
            target.copy_(tensor)
        return result

    return TensorEntry(shape, dtype, load)


def _overlap(a: tuple[Any, Any], b: tuple[Any, Any]) -> bool:
    """Whether two pieces (offsets, sizes) share an element."""
    return all(p < q + n and q < p + m for p, m, q, n in zip(*a, *b, strict=True))


@dataclass(frozen=True)
class _Slice:
    """Bytes of one serialised tensor inside a shard."""

    path: Path
    offset: int
    length: int

    @classmethod
    def of(cls, folder: Path, info: StorageInfo) -> _Slice:
        relative = PurePosixPath(str(info.get("relative_path")))
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(f"refused: the metadata points outside the checkpoint folder ({relative})")
        if info.get("transform_descriptors"):
            raise InputError(f"{relative} is compressed ({info.get('transform_descriptors')}); that is not supported")
        path = folder / relative
        if not path.is_file():
            raise InputError(f"the checkpoint is incomplete: {relative} is missing from {folder}")
        offset, length = int(info.get("offset")), int(info.get("length"))
        size = path.stat().st_size
        if offset < 0 or length < 0 or offset + length > size:
            raise InputError(f"{path} is truncated: {size} bytes, a tensor needs bytes {offset} to {offset + length}")
        return cls(path, offset, length)

    def read(self, name: str) -> torch.Tensor:
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            data = io.BytesIO(stream.read(self.length))
        value = _weights_only(data, f"{self.path.name} ({name})")
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{self.path.name} holds a {type(value).__name__} for {name}, not a tensor")
        return value


def _weights_only(source: Any, name: str, mmap: bool = False) -> Any:
    try:
        with warnings.catch_warnings():  # a note about foreign pickles; we refuse or accept them ourselves
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        text = str(error)
        if asked := re.search(r"GLOBAL ([\w.]+)", text):
            raise InputError(
                f"{name}: refused: the pickle asks for {asked[1]}, which is no tensor; nothing was run"
            ) from None
        # torch's text opens with advice to switch the check off; the reason comes after it
        reason = (
            text.split("WeightsUnpickler error:")[-1] if "WeightsUnpickler error:" in text else "not a tensor pickle"
        )
        raise InputError(f"{name} is damaged, or refused as no plain tensor file: {_first_line(reason)}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{name} is damaged or no torch file: {_first_line(str(error))}") from None


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0][:200]


def read_pth(path: Path) -> dict[str, TensorEntry]:
    """Tensors of a `.pth`/`.pt`/`.bin` state dict (flat, or under `state_dict`/`model`). Raises InputError."""
    with path.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    by_content = path.suffix == ".safetensors"  # torch takes a path of this name for what it says
    source = io.BytesIO(path.read_bytes()) if by_content else str(path)
    state = _weights_only(source, str(path), mmap=zipped and not by_content)
    for name in ("state_dict", "model_state", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not state:
        raise InputError(f"{path} holds a {type(state).__name__}, not a state dict of tensors")
    foreign = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise InputError(f"{path} holds more than tensors: {', '.join(map(str, foreign[:4]))}")
    return {key: TensorEntry(tuple(t.shape), t.dtype, lambda t=t: t) for key, t in state.items()}
