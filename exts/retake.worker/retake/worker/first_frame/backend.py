# SPDX-License-Identifier: Apache-2.0
"""What all diffusion backends share: find and load the model, fit it into memory, paint, and lock the robot again.

A backend adds which files it needs, how its pipeline is loaded, and what it hands to the pipeline.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from retake.core.array_types import Bool, UInt8
from retake.core.errors import Cancelled, InputError, MissingDependencyError, VariantError, install_hint, unknown_name
from retake.core.licences import joint_licence
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.variants.base import SourceFrame, World
from retake.core.variants.controls import ControlMaps, control_maps
from retake.core.variants.edges import structure_f1
from retake.core.variants.lock import lock_robot
from retake.core.variants.prompts import Prompts, compose_prompts
from retake.core.variants.worlds import Catalogue
from retake.worker import memory as device_memory
from retake.worker.first_frame import memory
from retake.worker.first_frame.canvas import Canvas
from retake.worker.first_frame.conditioning import Conditioning, relit
from retake.worker.first_frame.parts import Found, ModelPart, find, weights
from retake.worker.gpu import roomiest_device

EXTRA = "oscar"
EDGES_KEPT = 0.98
"""Structure F1 of the robot's edges after relighting, against the simulated picture."""
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
log = logging.getLogger(__name__)


class DiffusionBackend(ABC):
    """Base of the diffusion first-frame backends (`retake.core.variants.base.ImageBackend`).

    `model`, `control`: folder or hub id of each part (empty: $RETAKE_MODELS/<published name>), with `revision` and
    `control_revision` for hub ids. `licence`: your statement for a model of your own. `pixels`: size the model works
    at. `controls`: control map → strength. `keep_object`: carry the task object over as well. `relight=False` leaves
    the robot's pixels bit-equal to the simulation. `pipeline`: a loaded one, instead of files.

    Raises MissingDependencyError without torch, InputError for an absent model or a wrong option. Loading happens at
    the first frame, so kept variants cost nothing.
    """

    name: ClassVar[str]
    version = "1"
    part: ClassVar[ModelPart]
    control_part: ClassVar[ModelPart | None] = None
    multiple: ClassVar[int] = 16
    default_steps: ClassVar[int]
    least_steps: ClassVar[int] = 1
    default_guidance: ClassVar[float]
    default_pixels: ClassVar[int] = 1_000_000
    default_controls: ClassVar[Mapping[str, float]] = {}
    known_controls: ClassVar[tuple[str, ...]] = ()
    masked: ClassVar[bool] = True
    """Whether the pipeline paints inside a mask; the others repaint the robot as well, and its light is theirs."""
    frames_at_once: ClassVar[int] = 1
    """Frames that the pipeline makes in one go: what memory is planned for."""

    def __init__(
        self, model: str = "", revision: str = "", control: str = "", control_revision: str = "", licence: str = "",
        steps: int = 0, guidance: float | None = None, pixels: int = 0, controls: Mapping[str, float] | None = None,
        keep_object: bool = False, relight: bool = True, device: str = "", dtype: str = "", tier: str = "",
        catalogue: Catalogue | None = None, pipeline: Any = None,
    ) -> None:  # fmt: skip
        require_torch(self.name)
        if pipeline is not None and not callable(pipeline):
            raise InputError(f"pipeline of backend {self.name!r} is a loaded one, set from Python; found {pipeline!r}")
        self.steps, self.pixels = steps or self.default_steps, pixels or self.default_pixels
        self.guidance = self.default_guidance if guidance is None else guidance
        self.controls = dict(self.default_controls if controls is None else controls)
        self.keep_object, self.relight, self.catalogue = keep_object, relight, catalogue
        self._check_options()
        self._device, self._dtype, self._tier = device, dtype, memory.check_tier(tier) if tier else ""
        self._pipeline: Any = pipeline
        self._given = pipeline is not None
        self.found = {} if self._given else self._find(model, revision, control, control_revision, licence)
        self.licence = licence if self._given else joint_licence(part.licence for part in self.found.values())
        self.model = model if self._given else self._join_parts(lambda found: _short(found.source))
        self.revision = revision if self._given else self._join_parts(lambda found: found.revision)
        self.tier = ""
        self.report: dict[str, Any] = {}
        self.progress: Progress = silent
        self.margin_bytes = device_memory.MARGIN_BYTES
        """What a plan of its own leaves free for the renderer."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the pixels beside model, world and seed; enters the variant's input hash."""
        return {
            "steps": self.steps, "guidance": self.guidance, "pixels": self.pixels, "controls": self.controls,
            "keep_object": self.keep_object, "relight": self.relight,
        }  # fmt: skip

    def render(
        self, source: SourceFrame, world: World, seed: int, check_cancel: CheckCancel = never
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The re-dressed frame, the robot locked. Raises VariantError (bad frame, refused or broken picture), InputError
        (model files that cannot be loaded), Cancelled between two denoising steps."""
        painted, maps = self._painted(source, world, seed, check_cancel)
        if not self.relight:
            return lock_robot(painted, source, maps, relight=False).frame
        if self.masked:
            # The model was told not to paint there; whatever it left is no statement about the light.
            painted[maps.keep] = relit(source, maps, world, seed, self.catalogue)[maps.keep]
        frame, share = harmonise(painted, source, maps)
        self.report["relight_share"] = share
        return frame

    def complete(
        self, source: SourceFrame, world: World, seed: int, known: UInt8[np.ndarray, "H W 3"],
        missing: Bool[np.ndarray, "H W"], check_cancel: CheckCancel = never,
    ) -> UInt8[np.ndarray, "H W 3"]:  # fmt: skip
        """A picture carried from another camera with its missing pixels painted, by the prompt and seed of that camera's world.

        Models that paint inside a mask see what is known and paint only the rest. The others see it as their picture and
        paint all of it; what was known replaces theirs. Raises as `render`.
        """
        if not missing.any():
            return known
        painted, _ = self._painted(source, world, seed, check_cancel, (known, missing))
        return np.where(missing[..., None], painted, known)

    def _painted(
        self, source: SourceFrame, world: World, seed: int, check_cancel: CheckCancel,
        carried: tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]] | None = None,
    ) -> tuple[UInt8[np.ndarray, "H W 3"], ControlMaps]:  # fmt: skip
        """The model's picture at the camera's size, and the maps it was made from. `carried`: what is known, what is missing."""
        check_cancel()
        started = time.perf_counter()
        prompts = compose_prompts(source.header, world, self.catalogue, mount=source.mount)
        if not prompts.image.strip() or not prompts.scene.strip():
            raise VariantError(f"the prompt of world {world.name!r} is empty; a model would paint anything")
        maps = control_maps(source, keep_object=self.keep_object)
        canvas = self.canvas((source.rgb.shape[1], source.rgb.shape[0]))
        inputs = Conditioning.of(source, maps, canvas, world, seed, self.catalogue)
        if carried is not None:
            inputs = inputs.around(*carried, maps.keep)
        painted = canvas.restore(self._paint_in_memory(inputs, prompts, seed, check_cancel))
        if not painted.any():
            raise VariantError(f"{self.name} returned a black picture (a guardrail's refusal looks like this)")
        self.report = {
            **self.report, "tier": self.tier, "canvas": canvas.to_json(), "seconds": round(time.perf_counter() - started, 3),
        }  # fmt: skip
        return painted, maps

    def canvas(self, capture: tuple[int, int]) -> Canvas:
        """The model's working size for a camera of (width, height)."""
        return Canvas.fit(capture, self.pixels, self.multiple)

    @abstractmethod
    def load(self) -> Any:
        """The pipeline from its files, on the CPU."""

    @abstractmethod
    def arguments(self, pipe: Any, inputs: Conditioning, prompts: Prompts) -> dict[str, Any]:
        """What the pipeline is called with, beyond what all have in common (generator, steps, callback, output)."""

    def context(self, pipe: Any, inputs: Conditioning) -> contextlib.AbstractContextManager[Any]:
        """Something that holds while the pipeline runs."""
        return contextlib.nullcontext()

    def picture(self, result: Any) -> np.ndarray:
        """RGB float (H, W, 3) in 0..1 of a pipeline's result."""
        return np.asarray(result.images[0])

    def use_tier(self, name: str) -> None:
        """Run in this tier from the next frame on; "auto": the one that fits then; "cpu": without the card."""
        if name == device_memory.CPU:
            self._device, self._tier = "cpu", ""
        elif name in ("", device_memory.AUTO):
            self._tier = ""
        else:
            self._tier = memory.check_tier(name)

    def use_card(self, card: str) -> None:
        """Run on the card of this UUID from the next frame on."""
        device = device_memory.device_of_card(card)
        if self.device.startswith("cuda") and device != self.device:
            self.close()
            self._device = device

    def plan(self) -> dict[str, int]:
        """Expected device bytes per tier, from the model's files; empty for a hub id that is not here yet."""
        parts = [found for found in self.found.values() if not found.is_hub]
        if len(parts) < len(self.found) or not parts:
            return {}
        counts: dict[str, int] = {}
        for role, found in self.found.items():
            for component, count in weights(found.folder).items():
                counts[component if role == "model" else role] = counts.get(component, 0) + count
        bytes_per_parameter = 4 if self.dtype == "float32" else 2
        return memory.needed(counts, self.pixels, bytes_per_parameter, frames=self.frames_at_once)

    @property
    def device(self) -> str:
        """Where the model runs."""
        if not self._device:
            self._device = roomiest_device()
        return self._device

    @property
    def dtype(self) -> str:
        """Name of the torch dtype of the weights: bfloat16 on a card, float32 on the CPU."""
        return self._dtype or ("float32" if self.device == "cpu" else "bfloat16")

    def close(self) -> None:
        """Let go of the model and the card's memory."""
        self._pipeline, self.tier = None, ""
        gc.collect()
        with contextlib.suppress(ImportError):
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def ready_pipeline(self) -> Any:
        """The pipeline, loaded and in a memory tier. Raises InputError when its files cannot be loaded."""
        if self._pipeline is not None and (self._given or self.tier in ("cpu", self._wanted_tier())):
            return self._pipeline
        self.close()
        tier = self._wanted_tier()
        with quiet():
            try:
                pipe = self.load()
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                where = ", ".join(found.source for found in self.found.values())
                raise InputError(f"the files of {self.name} ({where}) cannot be loaded: {error}") from error
            pipe.set_progress_bar_config(disable=True)
            if tier != "cpu":
                memory.apply(pipe, tier, self.device)
        self._pipeline, self.tier = pipe, tier
        return pipe

    def _wanted_tier(self) -> str:
        if self.device == "cpu" and not self._tier:
            return "cpu"
        if not self._tier:
            plan, free = self.plan(), device_memory.free_device_bytes(self.device)
            if self._pipeline is not None:  # a model that is there must not count against itself
                free += device_memory.held_device_bytes()
            needs = {name: plan[name] for name in memory.TIERS if name in plan}
            fits = device_memory.fitting_or_smallest(needs, free, self.margin_bytes) if needs else memory.TIERS[0]
            self._tier = fits
        return self._tier

    def _paint_in_memory(
        self, inputs: Conditioning, prompts: Prompts, seed: int, check_cancel: CheckCancel
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Paint; an out-of-memory error moves one tier down, for this frame and the following ones."""
        import torch

        while True:
            try:
                return self._paint(self.ready_pipeline(), inputs, prompts, seed, check_cancel)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not device_memory.is_out_of_memory(error):
                    raise
                # it may have run out on the way into the tier, which is none then
                lower = device_memory.next_lower(memory.TIERS, self.tier or self._tier)
                if lower is None or self._given:
                    raise VariantError(f"{self.name} ran out of memory in its smallest tier: {error}") from error
                log.warning("%s: out of memory in tier %s; going on in %s", self.name, self.tier, lower)
                self._tier = lower
            self.close()

    def _paint(
        self, pipe: Any, inputs: Conditioning, prompts: Prompts, seed: int, check_cancel: CheckCancel
    ) -> UInt8[np.ndarray, "H W 3"]:
        import torch

        cuda = self.device.startswith("cuda")
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

        def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            check_cancel()
            self.progress(step + 1, max(int(pipeline.num_timesteps), step + 1), "painting")
            return {}

        try:
            with quiet(), self.context(pipe, inputs):
                result = pipe(
                    **self.arguments(pipe, inputs, prompts),
                    height=inputs.canvas.size[1], width=inputs.canvas.size[0],
                    # On the CPU whatever the device: the same seed is the same noise on every machine.
                    generator=torch.Generator("cpu").manual_seed(seed & 0x7FFFFFFFFFFFFFFF),
                    num_inference_steps=self.steps, output_type="np", callback_on_step_end=after_step,
                )  # fmt: skip
        except (Cancelled, torch.OutOfMemoryError):
            pipe.maybe_free_model_hooks()
            raise
        except ValueError as error:
            raise VariantError(f"{self.name}: {error}") from error
        self.report = {"peak_device_bytes": int(torch.cuda.max_memory_allocated(self.device))} if cuda else {}
        values = self.picture(result)
        if not np.isfinite(values).all():
            raise VariantError(f"{self.name} returned a picture with NaN; use dtype float32 or bfloat16")
        return np.round(values * 255).clip(0, 255).astype(np.uint8)

    def _find(self, model: str, revision: str, control: str, control_revision: str, licence: str) -> dict[str, Found]:
        found = {"model": find(self.part, model, revision, licence, f"backends.{self.name}.options.model")}
        if self.control_part:
            option = f"backends.{self.name}.options.control"
            found["controlnet"] = find(self.control_part, control, control_revision, licence, option)
        return found

    def _join_parts(self, what: Callable[[Found], str]) -> str:
        return " + ".join(what(found) for found in self.found.values())

    def _check_options(self) -> None:
        for name in self.controls:
            if name not in self.known_controls:
                raise InputError(unknown_name(f"control of backend {self.name!r}", name, self.known_controls))
        if not self.least_steps <= self.steps <= 1000 or not 64 * 64 <= self.pixels <= 4_200_000:
            raise InputError(
                f"backend {self.name!r}: steps {self.steps} ({self.least_steps} … 1000) or pixels {self.pixels} (4096 … 4200000)"
            )


def harmonise(
    painted: UInt8[np.ndarray, "H W 3"], source: SourceFrame, maps: ControlMaps
) -> tuple[UInt8[np.ndarray, "H W 3"], float]:
    """The locked frame, its robot in the painting's light, and the share of that light that was taken.

    The full light where the robot's edges stay (structure F1 ≥ `EDGES_KEPT`), else less of it: a light that drowns an
    edge in black or burns it out costs more than it gives. Share 0 leaves the simulated pixels as they are.
    """
    frame = painted
    for share in SHARES:
        mixed = painted.copy()
        mixed[maps.keep] = np.round(share * painted[maps.keep] + (1 - share) * source.rgb[maps.keep])
        frame = lock_robot(mixed, source, maps).frame
        if structure_f1(frame, source.rgb, maps.keep) >= EDGES_KEPT:
            return frame, share
    return frame, SHARES[-1]


def require_torch(name: str) -> None:
    """Raises MissingDependencyError naming the extra and what works without it."""
    absent = [module for module in ("torch", "diffusers", "transformers") if importlib.util.find_spec(module) is None]
    if absent:
        raise MissingDependencyError(
            f"backend {name!r} needs {', '.join(absent)}: {install_hint(EXTRA)}, or run it through "
            "`retake worker` in an environment that has them. Works now: backend 'procedural'"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Libraries' progress bars, and chatter about their own deprecations, are not the user's business."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = of_diffusers.get_verbosity(), of_transformers.get_verbosity()
        for module in (of_diffusers, of_transformers):
            module.disable_progress_bar()
            module.set_verbosity_error()
        try:
            yield
        finally:
            for module, verbosity in zip((of_diffusers, of_transformers), before, strict=True):
                module.enable_progress_bar()
                module.set_verbosity(verbosity)


def _short(source: str) -> str:
    """A folder's name, or the hub id: machine paths do not belong into a sidecar."""
    return source.rstrip("/").rpartition("/")[2] if source.startswith(("/", ".", "~")) or "\\" in source else source
