# SPDX-License-Identifier: Apache-2.0
"""Experimental: a few-step student of OSCAR by distribution matching. The recipe and its losses; nobody trained one yet.

After DMD2 (arXiv 2405.14867): the student makes clean latents in a few steps from noise; a frozen teacher (with guidance) and
a critic that follows the student's own distribution both say where those latents, noised again, came from; the student moves
along the difference. The matching loss equals the public reference's on the same numbers (tests). Not taken over: the GAN loss.
OSCAR's first-frame rule holds throughout: the given frame is an input, and counts in no loss.

What comes out is a model folder with `student.json`; whether it is any good is for verdicts to say (`retake tune eval`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retake.core.errors import InputError
from retake.core.files import write_json

from ..oscar.few_step import FILE, Student
from ..oscar.schedule import FIRST_FRAME_TIMESTEP, TIMESTEP_SCALE
from .config import TuneConfig
from .optimise import MasterOptimizer, trained_parameters
from .step import Batch


@dataclass(frozen=True)
class DistillConfig:
    """What distillation is made of.

    guidance: the teacher's, in OSCAR's form v_c + g (v_c - v_u). critic_steps: updates of the critic per update of the
    student (DMD2: 5). low, high: sigmas between which the two are compared (DMD2: 0.02 to 0.98 of the schedule).
    """

    student: Student = field(default_factory=lambda: Student(4))
    guidance: float = 6.0
    critic_steps: int = 5
    low: float = 0.02
    high: float = 0.98
    optimiser: TuneConfig = field(default_factory=lambda: TuneConfig(lr=1e-6, ema_rate=None))
    critic_optimiser: TuneConfig = field(default_factory=lambda: TuneConfig(lr=1e-6, ema_rate=None))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.critic_steps < 1 or not 0 < self.low < self.high < 1:
            raise InputError(
                f"critic_steps {self.critic_steps}, sigmas {self.low} to {self.high}; valid: 1 or more, 0 < low < high < 1"
            )


@dataclass(frozen=True)
class DistillResult:
    """One step: losses of the student (None where only the critic learned) and of the critic, and the rung that was drawn."""

    matching: float | None
    critic: float
    rung: int

    @property
    def loss(self) -> float:
        """The critic's: it is there in every step."""
        return self.critic


def matching_loss(clean: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Half the mean square of the student's clean latents (B, …) against themselves moved from `fake` towards `real`.

    real, fake: the teacher's and the critic's clean latents. The move is scaled per sample by the mean distance to the
    teacher's, so that every noise level counts alike; its gradient with respect to `clean` is that move over the count.
    """
    with torch.no_grad():
        to_real, to_fake = clean.double() - real.double(), clean.double() - fake.double()
        scale = to_real.abs().flatten(1).mean(dim=1).reshape(-1, *[1] * (clean.ndim - 1))
        move = torch.nan_to_num((to_real - to_fake) / scale)
        target = (clean.double() - move).float()
    return 0.5 * torch.nn.functional.mse_loss(clean.float(), target)


def write_student(folder: Path, student: Student) -> None:
    """`student.json`: how the pipeline samples this model folder."""
    told = {
        "steps": student.steps,
        "sampler": student.sampler,
        "guidance": student.guidance,
        "sigmas": list(student.sigmas),
    }
    write_json(folder / FILE, told)


class Distiller:
    """Trains `student` and `critic` in place against a frozen `teacher`; all three `OscarTransformer3DModel`s."""

    def __init__(self, student: Any, critic: Any, teacher: Any, config: DistillConfig | None = None) -> None:
        self.student, self.critic, self.teacher = student, critic, teacher
        self.config = config = config or DistillConfig()
        teacher.requires_grad_(False)
        for model in (student, critic):
            model.requires_grad_(True)
            model.train()
        teacher.eval()
        self.optimizer = MasterOptimizer(trained_parameters(student).items(), config.optimiser)
        self.critic_optimizer = MasterOptimizer(trained_parameters(critic).items(), config.critic_optimiser)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.iteration = 0

    def step(self, batch: Batch, negative: Tensor | None = None) -> DistillResult:
        """One critic update, and a student update every `critic_steps`-th time.

        `batch.x0` gives the first frame's latents and the shape, `negative` (1, L, D) the teacher's negative prompt. Raises
        InputError where a loss is not finite; nothing is changed by that step then.
        """
        if self.config.guidance and negative is None:
            raise InputError("the teacher's guidance needs a negative prompt embedding; give one, or guidance 0")
        due = (self.iteration + 1) % self.config.critic_steps == 0
        rung = int(torch.randint(self.config.student.steps, (), generator=self.generator))
        matching = None
        if due:
            clean = self.generate(batch, rung)
            loss = self.compare(clean, batch, negative)
            matching = self._update(loss, self.optimizer, "student")
        with torch.no_grad():
            clean = self.generate(batch, rung)
        critic = self._update(self.critic_loss(clean, batch), self.critic_optimizer, "critic")
        self.iteration += 1
        return DistillResult(matching, critic, rung)

    def generate(self, batch: Batch, rung: int) -> Tensor:
        """The student's clean latents (B, C, T, h, w) at a rung, from noise through the rungs before it (no gradient there)."""
        sigmas = self.config.student.sigmas
        noise = self._noise(batch)
        state = noise
        with torch.no_grad():
            for index in range(rung):
                clean = self._clean(self.student, state, batch, sigmas[index])
                state = (1 - sigmas[index + 1]) * clean + sigmas[index + 1] * self._noise(batch)
        return self._clean(self.student, state, batch, sigmas[rung])

    def compare(self, clean: Tensor, batch: Batch, negative: Tensor | None) -> Tensor:
        """The matching loss of generated latents; frames after the given one."""
        with torch.no_grad():
            sigma = self.config.low + (self.config.high - self.config.low) * float(
                torch.rand((), generator=self.generator)
            )
            noised = (1 - sigma) * clean.detach() + sigma * self._noise(batch)
            fake = self._clean(self.critic, noised, batch, sigma)
            real = self._clean(self.teacher, noised, batch, sigma)
            if self.config.guidance and negative is not None:
                text = negative.expand(batch.text.shape[0], -1, -1)
                without = self._clean(self.teacher, noised, batch, sigma, text)
                real = real + self.config.guidance * (real - without)  # linear in the velocity, so in the clean latents
        return matching_loss(clean[:, :, 1:], real[:, :, 1:], fake[:, :, 1:])

    def critic_loss(self, clean: Tensor, batch: Batch) -> Tensor:
        """Flow matching of the student's own latents: mean square of the velocity's error, frames after the given one."""
        sigma = float(torch.rand((), generator=self.generator)) * 0.998 + 0.001
        noise = self._noise(batch)
        noised = (1 - sigma) * clean.detach() + sigma * noise
        velocity = self._velocity(self.critic, noised, batch, sigma, batch.text)
        return torch.nn.functional.mse_loss(velocity[:, :, 1:], (noise - clean.detach())[:, :, 1:])

    def save(self, folder: Path) -> None:
        """Write `student.json` and the transformer's weights into a copy of the teacher's model folder."""
        self.student.save_pretrained(folder / "transformer")
        write_student(folder, self.config.student)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _noise(self, batch: Batch) -> Tensor:
        return torch.randn(tuple(batch.x0.shape), generator=self.generator).to(batch.x0.device)

    def _clean(self, model: Any, state: Tensor, batch: Batch, sigma: float, text: Tensor | None = None) -> Tensor:
        """x - sigma v, with the given frame itself in its place."""
        velocity = self._velocity(model, state, batch, sigma, batch.text if text is None else text)
        return torch.cat([batch.x0[:, :, :1].float(), (state - sigma * velocity)[:, :, 1:]], dim=2)

    def _velocity(self, model: Any, state: Tensor, batch: Batch, sigma: float, text: Tensor) -> Tensor:
        size, frames = state.shape[0], state.shape[2]
        latents = torch.cat([batch.x0[:, :, :1], state[:, :, 1:]], dim=2).to(model.dtype)
        times = torch.full((size, frames), 1000.0 * sigma, device=state.device)
        times[:, 0] = FIRST_FRAME_TIMESTEP
        mask = state.new_zeros(size, 1, *state.shape[2:])
        mask[:, :, 0] = 1
        return model(
            hidden_states=torch.cat([latents, batch.control.to(model.dtype)], dim=1),
            timestep=times * TIMESTEP_SCALE,
            encoder_hidden_states=text,
            condition_mask=mask,
            text_is_projected=text.shape[-1] != model.config["crossattn_proj_in_channels"],
            return_dict=False,
        )[0].float()

    def _update(self, loss: Tensor, optimizer: MasterOptimizer, who: str) -> float:
        try:
            if not bool(torch.isfinite(loss)):
                raise InputError(
                    f"the {who}'s loss of step {self.iteration} is {float(loss.detach())}; nothing was changed by it"
                )
            loss.backward()
            optimizer.step()
        finally:
            optimizer.zero_grad()
        return float(loss.detach())
