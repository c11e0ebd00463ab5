# SPDX-License-Identifier: Apache-2.0
"""A pretended CUDA machine on the CPU: which card each tensor is on, what is copied and waited for, and what memory is left.

Tensors stay ordinary CPU tensors; a table says which card their storage belongs to. A function mode answers every question
about devices (`tensor.device`, `.to`, `device=`), a dispatch mode looks at every operation: tensors of different devices in
one operation raise as CUDA does, results belong to the card of their inputs, copies and waits are counted, allocations
beyond the card's memory raise `torch.OutOfMemoryError`. Streams and events carry vector clocks, so work that reads what
another stream may still be writing is found. What it cannot show: numbers of CUDA kernels, times, the allocator's
fragmentation, and memory that the allocator hands to another stream.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
GIB = 1 << 30
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
         aten.is_nonzero.default, aten._linalg_check_errors.default}  # fmt: skip
CROSSING = {aten.copy_.default, aten._to_copy.default, aten._copy_from.default}
SCALARS = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "__complex__"}
CPU = torch.device("cpu")
NUMBERS = 64
"""Copies of so many values or fewer are scalars and tables of the schedule, not weights or activations."""


class Stream:
    """A queue of work. `clock`: how much of every stream's work is known to be done before the next work here."""

    def __init__(self, world: World, device: Any = None) -> None:
        self.world, self.device = world, world.resolve(device)
        self.id = len(world.streams)
        self.clock: dict[int, int] = {}
        self._before: Any = None
        world.streams.append(self)

    def merge(self, clock: dict[int, int]) -> None:
        for stream, tick in clock.items():
            self.clock[stream] = max(tick, self.clock.get(stream, 0))

    def synchronize(self) -> None:
        self.world.wait(self, "stream.synchronize")

    def wait_event(self, event: Event) -> None:
        assert event is not None, "waiting for an event that was never recorded"
        self.merge(event.clock)

    def wait_stream(self, other: Stream) -> None:
        self.merge(other.clock)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self.world)
        event.record(self)
        return event


class Event:
    """A point in a stream."""

    def __init__(self, world: World, *_: Any, **__: Any) -> None:
        self.world, self.clock = world, {}

    def record(self, stream: Stream | None = None) -> None:
        self.clock = dict((stream or self.world.current()).clock)

    def synchronize(self) -> None:
        self.world.waits["event.synchronize"] += 1
        self.world.known(self.clock)

    def elapsed_time(self, other: Event) -> float:
        return 1.0


class World:
    """Cards with memory, and what happened on them."""

    def __init__(self, cards: int = 1, gib: float = 80.0) -> None:
        self.cards = cards
        self.capacity = [int(gib * GIB)] * cards
        self.others = [0] * cards
        """Bytes that other processes hold."""
        self.live = [0] * cards
        self.peak = [0] * cards
        self.streams: list[Stream] = []
        self.races: list[str] = []
        self.waits: Counter[str] = Counter()
        self.to_card: Counter[str] = Counter()
        self.from_card: Counter[str] = Counter()
        self.copies = Counter[str]()
        self.dtypes: Counter[tuple[str, str]] = Counter()
        """(operation, dtype) of matrix products and attention on a card."""
        self.used: Counter[str] = Counter()
        """Operations per device."""
        self.before: Callable[[str], None] = lambda name: None
        """Called with every operation's name on a card; may raise."""
        self._entries: dict[int, Any] = {}
        self._lock = threading.RLock()
        self._host: dict[int, int] = {}
        self._local = threading.local()
        self._defaults = [Stream(self, f"cuda:{index}") for index in range(cards)]

    # -- devices ------------------------------------------------------------------------------------------------------

    def resolve(self, device: Any) -> torch.device:
        """The device with its number."""
        if device is None:
            return torch.device("cuda:0")
        found = torch.device(f"cuda:{device}") if isinstance(device, int) else torch.device(device)
        if found.type == "cuda":
            found = torch.device("cuda", found.index or 0)
            if found.index >= self.cards:
                raise RuntimeError(f"CUDA error: invalid device ordinal {found}")
        return found

    def of(self, tensor: torch.Tensor) -> torch.device:
        """Where a tensor is."""
        entry = self._entry(tensor)
        return entry.device if entry is not None else CPU

    def _entry(self, tensor: torch.Tensor) -> Any:
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return None
        return self._entries.get(id(storage))

    def put(self, tensor: torch.Tensor, device: torch.device) -> None:
        """This storage is on that card from now on. Raises torch.OutOfMemoryError when the card is full."""
        if device.type != "cuda" or tensor.device.type != "cpu":
            return
        storage = tensor.untyped_storage()
        key, size, index = id(storage), storage.nbytes(), device.index or 0
        with self._lock:
            old = self._entries.get(key)
            if old is not None:
                if old.device == device:
                    return
                self.live[old.device.index] -= size
            if self.others[index] + self.live[index] + size > self.capacity[index]:
                free = self.capacity[index] - self.others[index] - self.live[index]
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size}; {free} bytes are free")

            def leave(_: Any) -> None:
                with self._lock:
                    entry = self._entries.pop(key, None)
                    if entry is not None:
                        self.live[entry.device.index] -= size

            self._entries[key] = SimpleNamespace(
                device=device, keep=old.keep if old else weakref.ref(storage, leave), written=None, read={}
            )
            self.live[index] += size
            self.peak[index] = max(self.peak[index], self.live[index])

    # -- order --------------------------------------------------------------------------------------------------------

    def current(self, device: Any = None) -> Stream:
        index = self.resolve(device).index or 0
        chosen = getattr(self._local, "stream", None)
        return chosen if chosen is not None and chosen.device.index == index else self._defaults[index]

    @contextlib.contextmanager
    def on(self, stream: Stream | None) -> Iterator[None]:
        before = getattr(self._local, "stream", None)
        self._local.stream = stream
        try:
            yield
        finally:
            self._local.stream = before

    def known(self, clock: dict[int, int]) -> None:
        for stream, tick in clock.items():
            self._host[stream] = max(tick, self._host.get(stream, 0))

    def wait(self, stream: Stream, why: str) -> None:
        """The host waits for a stream."""
        self.waits[why] += 1
        self.known(stream.clock)

    def touch(self, device: torch.device, reads: list[Any], writes: list[Any], name: str) -> None:
        """One piece of work on the current stream; notes what may run at the same time as a write."""
        with self._lock:
            stream = self.current(device)
            stream.merge(self._host)
            tick = stream.clock.get(stream.id, 0) + 1
            stream.clock[stream.id] = tick
            seen = stream.clock
            for entry in reads:
                if entry.written is not None and entry.written[1] > seen.get(entry.written[0], 0):
                    self.races.append(f"{name} reads what stream {entry.written[0]} may still write, {site()}")
                entry.read[stream.id] = tick
            for entry in writes:
                behind = [entry.written] if entry.written else []
                behind += [(other, at) for other, at in entry.read.items() if other != stream.id]
                if any(at > seen.get(other, 0) for other, at in behind if other != stream.id):
                    self.races.append(f"{name} writes what another stream may still use, {site()}")
                entry.written, entry.read = (stream.id, tick), {}

    def moved(self, tensor: torch.Tensor, source: torch.device, target: torch.device, waits: bool) -> None:
        """Bytes between host and card."""
        if source.type == target.type:
            return
        size, kind = tensor.numel() * tensor.element_size(), "scalars" if tensor.numel() <= NUMBERS else "tensors"
        if target.type == "cuda":
            self.to_card[kind] += size
            self.copies[f"to card, {kind}"] += 1
            if waits:  # from pageable memory CUDA waits for the copy
                self.wait(self.current(target), f"copy to card {site()}")
        else:
            self.from_card[kind] += size
            self.copies[f"from card, {kind}"] += 1
            if waits:
                self.wait(self.current(source), f"copy to host {site()}")

    def reset(self) -> None:
        """Counters at zero; memory and devices stay."""
        for counter in (self.waits, self.to_card, self.from_card, self.copies, self.dtypes, self.used):
            counter.clear()


def site() -> str:
    """The line of ours (or of diffusers) that is at work."""
    frame = sys._getframe(3)  # `traceback` would read every line of the stack's files
    while frame is not None:
        name = frame.f_code.co_filename
        if "/retake/" in name or "/diffusers/" in name or "/transformers/" in name:
            return f"{name.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Every tensor in what an operation takes or gives, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    found: list[torch.Tensor] = []
    for part in value:
        found += tensors_in(part)
    return found


_WRITES: dict[Any, tuple[tuple[int, ...], frozenset[str]]] = {}


def written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that an operation changes."""
    if func not in _WRITES:
        arguments = func._schema.arguments
        places = tuple(i for i, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write)
        _WRITES[func] = (places, frozenset(arguments[i].name for i in places))
    places, names = _WRITES[func]
    found = [args[i] for i in places if i < len(args)] + [v for k, v in kwargs.items() if k in names]
    return tensors_in(found)


class Operations(TorchDispatchMode):
    """See module docstring."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        world, kwargs = self.world, kwargs or {}
        tensors = tensors_in((args, kwargs))
        entries = [(t, world._entry(t)) for t in tensors]
        cards = {entry.device for _, entry in entries if entry is not None}
        if not cards:
            return func(*args, **kwargs)
        name = str(func)
        world.before(name)
        hosts = [t for t, entry in entries if entry is None and t.dim() > 0 and t.device.type == "cpu"]
        if func not in CROSSING and (len(cards) > 1 or (hosts and func is not aten.index.Tensor)):
            where = ", ".join(f"{world.of(t)} {tuple(t.shape)}" for t in tensors)
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} got {where} at {site()}")
        if func is aten.copy_.default:
            target, source = world.of(args[0]), world.of(args[1])
            world.moved(args[0], source, target, waits=not kwargs.get("non_blocking", len(args) > 2 and args[2]))
            card = target if target.type == "cuda" else source
        else:
            card = next(iter(cards))
        boolean = func is aten.index.Tensor and any(t.dtype == torch.bool for t in tensors[1:])
        if func in WAITS or boolean:
            world.wait(world.current(card), f"{name} {site()}")
        world.used[str(card)] += 1
        if func._overloadpacket in (aten.mm, aten.addmm, aten.bmm, aten._scaled_mm):
            world.dtypes["matmul", str(tensors[-1].dtype).removeprefix("torch.")] += 1
        result = func(*args, **kwargs)
        changed = written(func, args, kwargs)
        fresh = [t for t in tensors_in(result) if world._entry(t) is None]
        known = {id(t.untyped_storage()) for t in tensors}
        for tensor in fresh:
            if id(tensor.untyped_storage()) not in known:
                world.put(tensor, card)
        changed_entries = [e for t in (*changed, *fresh) if (e := world._entry(t)) is not None]
        reads = [e for t, e in entries if e is not None and not any(t is c for c in changed)]
        world.touch(card, reads, changed_entries, name)
        return result


class Questions(TorchFunctionMode):
    """See module docstring."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        world, kwargs = self.world, dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            what = getattr(getattr(func, "__self__", None), "__name__", "")
            if what in ("device", "is_cuda", "is_cpu") and args[0].device.type == "cpu":
                found = world.of(args[0])
                return found if what == "device" else found.type == what[3:]
            return func(*args, **kwargs)
        if name in ("to", "cuda", "cpu") and args and isinstance(args[0], torch.Tensor):
            return self._to(name, *args, **kwargs)
        if name in SCALARS and world.of(args[0]).type == "cuda":
            world.wait(world.current(world.of(args[0])), f"{name} {site()}")
            with Plain():
                return func(*args, **kwargs)
        if name in ("numpy", "__array__") and world.of(args[0]).type == "cuda":
            raise TypeError(f"can't convert {world.of(args[0])} device type tensor to numpy")
        if name == "pad_sequence":  # C++ that makes its result like its inputs, whose device is the real one
            with Plain():
                result = func(*args, **kwargs)
            world.put(result, world.of(args[0][0]))
            return result
        if name == "pin_memory":
            return args[0].clone()
        if name == "is_pinned":
            return False
        if name == "get_device":
            found = world.of(args[0])
            return found.index if found.type == "cuda" else -1
        if kwargs.get("device") is not None and name not in ("_parse_to", "device"):
            target = world.resolve(kwargs["device"])
            if target.type == "cuda":
                result = func(*args, **{**kwargs, "device": "cpu"})
                if name in ("tensor", "as_tensor", "asarray"):
                    result = result.clone()
                    world.moved(result, CPU, target, waits=True)
                world.put(result, target)
                return result
        return func(*args, **kwargs)

    def _to(self, name: str, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        world, kwargs = self.world, dict(kwargs)
        copy, waits = kwargs.pop("copy", False), not kwargs.pop("non_blocking", False)
        layout = kwargs.pop("memory_format", None)
        target, dtype = None, kwargs.get("dtype")
        if name != "to":
            target = CPU if name == "cpu" else world.resolve(args[0] if args else kwargs.get("device"))
        else:
            for value in (*args, kwargs.get("device")):
                if isinstance(value, torch.dtype):
                    dtype = value
                elif isinstance(value, torch.Tensor):
                    target, dtype = world.of(value), value.dtype
                elif isinstance(value, (str, torch.device)) or (isinstance(value, int) and not isinstance(value, bool)):
                    target = torch.device("meta") if str(value) == "meta" else world.resolve(value)
        here = world.of(tensor) if tensor.device.type == "cpu" else tensor.device
        more = {} if layout is None else {"memory_format": layout}
        if target is None or target == here or target.type == "meta" or here.type == "meta":
            extra = {"device": target} if target is not None and target.type == "meta" else {}
            return tensor.to(dtype=dtype or tensor.dtype, copy=copy, **extra, **more)
        with Plain():
            result = tensor.to(dtype=dtype or tensor.dtype, copy=True, **more)
        world.moved(result, here, target, waits)
        world.put(result, target)
        card = target if target.type == "cuda" else here
        reads = [e for t in (tensor,) if (e := world._entry(t)) is not None]
        writes = [e for t in (result,) if (e := world._entry(t)) is not None]
        world.touch(card, reads, writes, name)
        return result


def Plain() -> Any:
    """Without the modes."""
    return torch.utils._python_dispatch._disable_current_modes()


@contextlib.contextmanager
def machine(monkeypatch: Any, cards: int = 1, gib: float = 80.0) -> Iterator[World]:
    """Inside: a machine with so many cards. Threads that DecodeQueue starts are inside, too."""
    import retake.worker.oscar.pipeline  # noqa: F401 - what is imported later would see the pretended names
    from retake.worker.oscar import decoding

    world = World(cards, gib)
    index = lambda device=None: world.resolve(device).index or 0  # noqa: E731
    uuid = lambda i: SimpleNamespace(  # noqa: E731
        uuid=f"GPU-{i}", total_memory=world.capacity[i], name="Pretended", major=9, minor=0, multi_processor_count=132
    )
    answers: dict[str, Any] = {
        "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: world.cards,
        "current_device": lambda: 0, "_lazy_init": lambda: None, "init": lambda: None, "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (
            max(0, world.capacity[index(device)] - world.others[index(device)] - world.live[index(device)]),
            world.capacity[index(device)],
        ),
        "memory_reserved": lambda device=None: world.live[index(device)],
        "memory_allocated": lambda device=None: world.live[index(device)],
        "max_memory_allocated": lambda device=None: world.peak[index(device)],
        "reset_peak_memory_stats": lambda device=None: world.peak.__setitem__(index(device), world.live[index(device)]),
        "get_device_properties": lambda device=None: uuid(index(device)), "is_bf16_supported": lambda *a, **k: True,
        "get_device_name": lambda device=None: "Pretended", "get_device_capability": lambda device=None: (9, 0),
        "synchronize": lambda device=None: [world.wait(s, "cuda.synchronize") for s in world.streams][:0],
        "current_stream": world.current, "stream": world.on, "set_device": lambda device: None,
        # types, because annotations of libraries name them
        "Stream": type("Stream", (), {"__new__": lambda cls, device=None, *a, **k: Stream(world, device)}),
        "Event": type("Event", (), {"__new__": lambda cls, *a, **k: Event(world, *a, **k)}),
    }  # fmt: skip
    for name, value in answers.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    generator = torch.Generator
    made = type("Generator", (), {"__new__": lambda cls, device="cpu": generator("cpu")})
    monkeypatch.setattr(torch, "Generator", made)

    def enter() -> None:
        Operations(world).__enter__()
        Questions(world).__enter__()

    monkeypatch.setattr(decoding, "ThreadPoolExecutor", lambda *a, **k: ThreadPoolExecutor(*a, initializer=enter, **k))
    decoding._stream.cache_clear()
    try:
        with Operations(world), Questions(world):
            yield world
    finally:
        decoding._stream.cache_clear()
