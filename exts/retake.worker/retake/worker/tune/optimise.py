# SPDX-License-Identifier: Apache-2.0
"""From gradients to weights: AdamW on float32 masters, clipping, and the power EMA."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retake.core.errors import InputError

from .config import TuneConfig
from .distributed import like, whole


def power_ema_exponent(rate: float) -> float:
    """The exponent of a power EMA whose width is `rate` of the training so far (Karras et al. 2024, as the reference)."""
    return float(np.roots([1, 7, 16 - rate**-2, 12 - rate**-2]).real.max())


def power_ema_beta(iteration: int, rate: float) -> float:
    """How much of the average survives iteration `iteration` (from 0; 0.0 there: the average starts as the weights)."""
    if iteration < 1:
        return 0.0
    return (1 - 1 / (iteration + 1)) ** (power_ema_exponent(rate) + 1)


class MasterOptimizer:
    """AdamW in one group (decay on everything, as the reference) over float32 copies of lower-precision weights.

    A bfloat16 weight keeps 8 bits: at lr 3e-5 most updates would round away, so they are collected in a float32 master.
    Float32 weights are their own masters and cost nothing extra.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], config: TuneConfig) -> None:
        self.parameters = dict(named)
        self.masters: dict[str, nn.Parameter] = {
            name: p if p.dtype == torch.float32 else nn.Parameter(p.detach().float().clone())
            for name, p in self.parameters.items()
        }
        self._config = config
        self._adam = torch.optim.AdamW(
            list(self.masters.values()), lr=config.lr, betas=config.betas, eps=config.eps,
            weight_decay=config.weight_decay,
        )  # fmt: skip
        self.iteration = 0
        rate = config.ema_rate
        self.ema = None if rate is None else {name: m.detach().clone() for name, m in self.masters.items()}

    @property
    def lr(self) -> float:
        """The learning rate of the step to come."""
        return self._config.lr * self._config.schedule.factor(self.iteration)

    def step(self) -> float:
        """Clip, step, update masters, weights and average; the gradient's norm before clipping.

        Raises InputError for a gradient that is not finite, which its loss may well be; nothing is changed then.
        """
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            if master is not parameter:
                master.grad = None if parameter.grad is None else parameter.grad.float()
        given = [m for m in self.masters.values() if m.grad is not None]
        limit = float("inf") if self._config.clip_norm is None else self._config.clip_norm
        norm = whole(nn.utils.clip_grad_norm_(given, limit))
        if not bool(torch.isfinite(norm)):
            raise InputError(
                f"the gradient of step {self.iteration} has the norm {float(norm)}: the weights or the learning rate are at "
                f"fault (lr {self.lr:g}); nothing was changed by this step"
            )
        for group in self._adam.param_groups:
            group["lr"] = self.lr
        self._adam.step()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if self.masters[name] is not parameter:
                    parameter.copy_(self.masters[name])
            if self.ema is not None and self._config.ema_rate is not None:
                beta = power_ema_beta(self.iteration, self._config.ema_rate)
                for name, average in self.ema.items():
                    average.mul_(beta).add_(self.masters[name], alpha=1 - beta)
        self.iteration += 1
        return float(norm)

    def zero_grad(self) -> None:
        """Forget the gradients of weights and masters."""
        for group in (self.parameters, self.masters):
            for parameter in group.values():
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, beside the frozen weights; shards are gathered (every process must call)."""
        adam = self._adam.state_dict()
        moments = {
            index: {slot: whole(value) if isinstance(value, Tensor) else value for slot, value in slots.items()}
            for index, slots in adam["state"].items()
        }
        return {
            "iteration": self.iteration,
            "masters": {name: whole(m.detach()) for name, m in self.masters.items()},
            "adam": {**adam, "state": moments},
            "ema": None if self.ema is None else {name: whole(value) for name, value in self.ema.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Back to a saved state, in place; whole tensors are split again where the weights are sharded."""
        self.iteration = int(state["iteration"])
        for name, value in state["masters"].items():
            self.masters[name].copy_(like(value, self.masters[name]))
            if self.masters[name] is not self.parameters[name]:
                self.parameters[name].copy_(self.masters[name])
        order = list(self.masters.values())
        moments = {
            index: {slot: like(v, order[index]) if v.ndim else v for slot, v in slots.items()}
            for index, slots in state["adam"]["state"].items()
        }
        self._adam.load_state_dict({**state["adam"], "state": moments})
        if self.ema is not None and state["ema"] is not None:
            for name, value in state["ema"].items():
                self.ema[name].copy_(like(value, self.ema[name]))


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, for all that takes gradients."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """An array or tensor on the device of `like`, float32."""
    return torch.as_tensor(value).to(like.device, torch.float32)
