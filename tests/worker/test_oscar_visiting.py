# SPDX-License-Identifier: Apache-2.0
"""Modules that visit a card: all of their weights come, what is there already stays as it is, and leaving copies nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pretend_cuda import machine
from torch import nn

from retake.worker.oscar import streaming
from retake.worker.oscar.streaming import is_streamed, stream_blocks, unstream_blocks, visiting

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda:0"), torch.device("cuda:1")


class Weighted(nn.Module):
    """A module with parameters of its own and of a part, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.arange(100.0))
        self.part = nn.Linear(20, 10)
        self.register_buffer("table", torch.arange(80))

    def values(self) -> list[torch.Tensor]:
        return [*self.parameters(), *self.buffers()]


def places(world: Any, *modules: Weighted) -> set[str]:
    return {str(world.of(value.data)) for module in modules for value in module.values()}


def where(*modules: Weighted) -> list[int]:
    return [value.data_ptr() for module in modules for value in module.values()]


@pytest.mark.parametrize("pin", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_every_weight_comes_and_leaving_copies_nothing(monkeypatch: Any, pin: bool, fails: bool) -> None:
    with machine(monkeypatch, cards=2) as world:
        modules = [Weighted(), Weighted()]
        before = [value.detach().clone() for module in modules for value in module.values()]
        size = sum(value.numel() * value.element_size() for value in before)
        try:
            with visiting(modules, SECOND, pin=pin):
                assert places(world, *modules) == {"cuda:1"}
                assert sum(world.to_card.values()) == size
                assert not any("streaming" in why for why in world.waits), "the host does not wait for copies"
                if fails:
                    raise ValueError
        except ValueError:
            assert fails
        assert places(world, *modules) == {"cpu"}
        assert sum(world.from_card.values()) == 0
        assert world.live == [0, 0]
        after = [value for module in modules for value in module.values()]
        assert all(torch.equal(value, known) for value, known in zip(after, before, strict=True))


def test_a_module_that_is_there_already_is_left_as_it_is(monkeypatch: Any) -> None:
    """Neither copied, nor put back to what it was; one beside it still visits."""
    with machine(monkeypatch) as world:
        resident, guest = Weighted(), Weighted()
        resident.to(FIRST)
        new = torch.zeros(100, device=FIRST)
        world.reset()
        with visiting([resident, guest], FIRST):
            assert sum(world.to_card.values()) == sum(v.numel() * v.element_size() for v in guest.values())
            assert places(world, resident, guest) == {"cuda:0"}
            resident.own.data = new
        assert places(world, resident) == {"cuda:0"}
        assert places(world, guest) == {"cpu"}
        assert not resident.own.any(), "a change of weights that live there stays"


def test_modules_of_the_host_do_not_move_to_the_host() -> None:
    module, new = Weighted(), torch.zeros(100)
    before = where(module)
    with visiting([module], CPU):
        assert where(module) == before
        module.own.data = new
    assert module.own.data_ptr() == new.data_ptr()
    assert where(module)[1:] == before[1:]


def test_changes_made_while_visiting_are_lost(monkeypatch: Any) -> None:
    with machine(monkeypatch):
        module = Weighted()
        with visiting([module], FIRST), torch.no_grad():
            module.own.zero_()
        assert torch.equal(module.own.data, torch.arange(100.0))


@pytest.mark.parametrize(
    ("device", "pin", "pinned"), [(FIRST, True, True), (FIRST, None, True), (FIRST, False, False), (CPU, True, False)]
)
def test_weights_are_pinned_where_they_go_to_a_card_and_that_is_wanted(
    monkeypatch: Any, device: torch.device, pin: bool | None, pinned: bool
) -> None:
    asked: list[int] = []
    with machine(monkeypatch):
        monkeypatch.setattr(streaming, "_pinned", lambda host: asked.append(host.data_ptr()) or host.clone())
        module = Weighted()
        before = where(module)
        with visiting([module], device, **({} if pin is None else {"pin": pin})):
            pass
        assert asked == (before if pinned else [])
        assert (where(module) != before) == pinned, "later visits come from the pinned copy"


@pytest.mark.parametrize(
    ("is_pinned", "refuses", "same"), [(True, False, True), (False, False, False), (False, True, True)]
)
def test_what_is_pinned_or_cannot_be_is_used_as_it_is(
    monkeypatch: Any, is_pinned: bool, refuses: bool, same: bool
) -> None:
    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        if refuses:
            raise RuntimeError("no more page-locked memory")
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: is_pinned)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    host = torch.arange(3.0)
    assert (streaming._pinned(host) is host) == same
    assert torch.equal(streaming._pinned(host), host)


class Blocks(nn.Module):
    """Equal blocks with something before and after them."""

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.transformer_blocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(count)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for block in self.transformer_blocks:
            x = block(x).tanh()
        return self.last(x)


def test_blocks_wait_in_the_host_and_the_rest_lives_on_the_card(monkeypatch: Any) -> None:
    model, x = Blocks(), torch.ones(2, 8)
    with torch.no_grad():
        expected = model(x)
    with machine(monkeypatch) as world, torch.no_grad():
        stream_blocks(model, FIRST)
        marked = getattr(model, streaming._MARK)
        stream_blocks(model, FIRST)
        assert getattr(model, streaming._MARK) is marked, "streaming what is streamed does nothing"
        world.reset()
        for _ in range(3):
            assert torch.allclose(model(x.to(FIRST)).cpu(), expected)
            assert {str(world.of(p.data)) for p in model.transformer_blocks.parameters()} == {"cpu"}
        assert {str(world.of(p.data)) for part in (model.embed, model.last) for p in part.parameters()} == {"cuda:0"}
        assert world.races == []
        assert not any("streaming" in why for why in world.waits), "the next block comes while one computes"
        unstream_blocks(model)
        assert not is_streamed(model)
        assert {str(world.of(p.data)) for p in model.parameters()} == {"cpu"}
        del marked
        assert world.live == [0], "both places are given back"
        unstream_blocks(model)  # what is not streamed stays as it is
        assert torch.allclose(model(x), expected)
    assert len(model.embed._forward_hooks) == sum(len(b._forward_hooks) for b in model.transformer_blocks) == 0
    assert sum(len(block._forward_pre_hooks) for block in model.transformer_blocks) == 0
