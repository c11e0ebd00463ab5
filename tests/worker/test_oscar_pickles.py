# SPDX-License-Identifier: Apache-2.0
"""Checkpoint metadata as every Python writes it, and forged ones: the one form of `getattr` that 3.11.0 to 3.11.3
writes for an enum member is read, every other use of it is refused and nothing runs."""

from __future__ import annotations

import collections
import copyreg
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oscar_golden import GOLDEN
from torch.distributed.checkpoint import metadata as torch_metadata
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING as Encoding

from retake.core.errors import InputError
from retake.worker.oscar import dcp

MEMBERS = [member.name for member in Encoding]


class Call:
    """Pickled as a call of `function` on `args`."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


def dumped(value, protocol=4):
    """As Python 3.11.0 to 3.11.3 pickle: a member is `getattr(EnumClass, name)`."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol)
    pickler.dispatch_table = {
        **copyreg.dispatch_table,
        Encoding: lambda member: (getattr, (type(member), member.name)),
    }
    pickler.dump(value)
    return stream.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_enum_member_is_read_as_python_3_11_2_writes_it(protocol):
    data = dumped({"first": list(Encoding), "again": list(Encoding)}, protocol)
    assert b"getattr" in data
    found = dcp.restricted_load(data, "metadata")
    assert [item.args for item in found["first"]] == [(name,) for name in MEMBERS]
    assert found["again"] == found["first"]  # by the pickle's memo, the same records


def test_a_whole_checkpoint_is_read_in_both_forms(tmp_path):
    inner = GOLDEN / "dcp" / "model"
    for path in inner.iterdir():
        (tmp_path / path.name).symlink_to(path.resolve())
    with (inner / ".metadata").open("rb") as stream:
        metadata = pickle.load(stream)
    (tmp_path / ".metadata").unlink()
    (tmp_path / ".metadata").write_bytes(dumped(metadata))
    old, new = dcp.read_dcp(tmp_path), dcp.read_dcp(GOLDEN / "dcp")
    assert {name: entry.shape for name, entry in old.items()} == {name: entry.shape for name, entry in new.items()}
    name = next(iter(old))
    assert torch.equal(old[name].load(), new[name].load())


KNOWN = [
    Encoding, torch_metadata.Metadata, torch_metadata.TensorProperties, torch_metadata.MetadataIndex, torch.Size, set,
    collections.OrderedDict, torch.float32, "text", 7, None, (), {"a": 1},
]  # fmt: skip
ARGUMENT = st.one_of(
    st.sampled_from(KNOWN),
    st.sampled_from([*MEMBERS, "mro", "__init__", "__class__", "__subclasses__", "__setstate__", "value", "args"]),
    st.text(max_size=5),
)


def lawful(arguments):
    return len(arguments) == 2 and arguments[0] is Encoding and arguments[1] in MEMBERS


@settings(max_examples=120, deadline=None)
@given(arguments=st.lists(ARGUMENT, max_size=4), protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_getattr_is_read_on_the_enum_alone(arguments, protocol):
    data = pickle.dumps({"a": Call(getattr, *arguments)}, protocol)
    if lawful(arguments):
        assert dcp.restricted_load(data, "metadata")["a"].args == (arguments[1],)
        return
    with pytest.raises(InputError, match="metadata"):
        dcp.restricted_load(data, "metadata")


@settings(max_examples=60, deadline=None)
@given(outer=st.sampled_from(["mro", "__reduce__", "__class__", MEMBERS[0]]), member=st.sampled_from(MEMBERS))
def test_getattr_on_what_getattr_gave_is_refused(outer, member):
    nested = Call(getattr, Call(getattr, Encoding, member), outer)
    with pytest.raises(InputError, match="refused"):
        dcp.restricted_load(pickle.dumps(nested), "metadata")


FORGED = {
    "bare": lambda: getattr,
    "in a list": lambda: [1, (getattr, 2)],
    "a key": lambda: {getattr: 1},
    "in a record": lambda: Call(torch_metadata.MetadataIndex, "a", state={"fqn": getattr}),
    "beside a lawful one": lambda: [Encoding.TORCH_CHANNELS_LAST, getattr],
    "a size as itself": lambda: {"size": torch.Size},
    "text like a member": lambda: Call(getattr, "_MEM_FORMAT_ENCODING", MEMBERS[0]),
    "a class of another module": lambda: Call(getattr, torch.Tensor, "numpy"),
    "a member by call": lambda: Call(getattr, Call(Encoding, 0), MEMBERS[0]),
    "a subclass of str": lambda: Call(getattr, Encoding, Call(collections.OrderedDict)),
    "setattr": lambda: Call(setattr, Encoding, MEMBERS[0], 1),
    "eval": lambda: Call(eval, "1"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_metadata_is_refused(name):
    with pytest.raises(InputError, match="refused"):
        dcp.restricted_load(dumped(FORGED[name]()), "metadata")


GET = b"cbuiltins\ngetattr\n"  # GLOBAL; then an attribute of it set by the BUILD opcode
BUILD = {
    "attributes": GET + b"}X\x06\x00\x00\x00_buildcbuiltins\nset\nsb.",
    "slots": GET + b"(N}X\x06\x00\x00\x00_buildcbuiltins\nset\nstb.",
    "a size": b"ctorch\nSize\n(N}X\x06\x00\x00\x00_buildcbuiltins\nset\nstb.",
    "a default": b"ctorch\nSize\n(N}X\x0c\x00\x00\x00__defaults__(tstb.",
}


@pytest.mark.parametrize("name", BUILD)
def test_a_pickle_cannot_change_what_reads_it(name):
    """BUILD sets attributes of whatever is on the stack; the reader's own callables have none that can be set."""
    with pytest.raises(InputError):
        dcp.restricted_load(BUILD[name], "metadata")
    assert dcp.restricted_load(dumped([Encoding.TORCH_CHANNELS_LAST, torch.Size([2, 3])]), "m")[1] == (2, 3)
