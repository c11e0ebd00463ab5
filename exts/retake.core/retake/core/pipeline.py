# SPDX-License-Identifier: Apache-2.0
"""The arrow in one screen: Episode → Skeleton → Variants → Takes → Verdicts → report, each stage on the run folder.

Every function does only what is missing or whose inputs changed (content hashes) and may be killed at any moment:
calling it again gives the same artefacts as an undisturbed run.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from retake.core import plugins
from retake.core.config import RunConfig, config_path
from retake.core.ends import load_declarations
from retake.core.episode import Episode, open_episode
from retake.core.episode.check import EpisodeCheck, check_episode
from retake.core.episode.layout import COMPLETE
from retake.core.episode.records import NAME_PATTERN
from retake.core.errors import EpisodeError, InputError, MissingDependencyError, RunError, TakeError, VariantError
from retake.core.files import read_json, sha256_file, sha256_json, write_json
from retake.core.licences import require_commercial
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.report import make_report
from retake.core.run_layout import take_id
from retake.core.run_store import RunDirectory, tidy
from retake.core.skeleton import Skeleton, make_skeleton
from retake.core.takes import Take, TakeRequest
from retake.core.takes.fan_out import backend_obstacle, produce_takes, video_backend, video_backend_class
from retake.core.takes.follow import FOLLOWER, split_views
from retake.core.variants import (
    Catalogue,
    Gated,
    World,
    load_catalogue,
    make_gated_variants,
    open_variant,
    select_worlds,
)
from retake.core.variants.base import MAPS
from retake.core.variants.make import licensed_backend, require_reader

Stage = Callable[[str], Progress]
"""Makes the progress display of a named stage."""

Producer = Callable[..., "list[Take]"]
"""Has `produce_takes`' signature."""

SIMULATORS = {"newton": "retake.newton.run:capture"}
SIMULATOR_EXTRAS = {"newton": "newton"}
FINGERPRINTS = {"newton": "retake.newton.preset:fingerprint"}
"""Simulator → what hashes the stage with its layers and textures, without simulating; others hash the stage file."""


def quiet(title: str) -> Progress:
    """No display."""
    return silent


def run(
    run: RunDirectory,
    config: RunConfig,
    stage: Stage = quiet,
    check_cancel: CheckCancel = never,
    produce: Producer = produce_takes,
) -> Path:
    """The whole arrow. Returns the path of the report. `produce` makes the takes (here, or over a cluster).

    Worlds, seeds, first-frame and video backend are looked at before anything is simulated.
    """
    chosen = config.variants
    if produce is produce_takes and (obstacle := backend_obstacle(config.takes.backend)):
        raise MissingDependencyError(obstacle)
    maker = licensed_backend(chosen.backend, chosen.only_commercial, chosen.settings, _catalogue(config))
    require_reader(maker, _worlds(config, check_cancel))
    used_seeds(config)
    episode = capture(run, config, stage("Episode"), check_cancel)  # held: the stages below share what it read
    check(run, config, check_cancel).require(force=config.check.force)
    skeleton(run, config, stage("Skeleton"), check_cancel)
    variants(run, config, stage("Variants"), check_cancel)
    takes(run, config, stage("Takes"), check_cancel, produce)
    if config.verdicts.enabled:
        verify(run, config, stage("Verdicts"), check_cancel)
    page = report(run, stage("Report"), check_cancel)
    del episode
    return page


def capture(
    run: RunDirectory, config: RunConfig, progress: Progress = silent, check_cancel: CheckCancel = never
) -> Episode:
    """Simulate one Episode into the run folder, unless the same one is there already.

    An episode that came from elsewhere (imported, recorded in Isaac Sim) is used as it is and never replaced. What was
    made from an episode that is replaced moves to `superseded/`, so that a run never mixes two motions.
    """
    wanted = config.capture
    stage_file = Path(wanted.stage) if wanted.stage else None
    if stage_file is not None and not stage_file.is_file():
        fault = "is a folder" if stage_file.is_dir() else "does not exist"
        raise InputError(
            f"capture.stage {stage_file} {fault}; expected a USD stage or a robot description (.urdf, .xml)"
        )
    remembered = run.stage("capture")
    if run.episode_is_elsewhere and not run.episode.exists():
        raise RunError(f"{run.episode}, the episode of {run.path}, is gone; put it back, or make a run of another one")
    if run.episode.exists() and not remembered:
        return open_episode(run.episode)
    if wanted.robot:
        load_declarations(Path(wanted.robot))
    inputs = _capture_inputs(config, stage_file)
    if run.episode.exists() and _same(remembered.get("inputs"), inputs) and "episode_sha256" in remembered:
        episode = _as_remembered(run, remembered["episode_sha256"])
        if episode is not None:
            episode.verify()
            progress(len(episode), len(episode), "unchanged")
            return episode
    simulate = plugins.pick("simulator", wanted.simulator, "retake.simulators", SIMULATORS, SIMULATOR_EXTRAS)
    tidy(run)
    finished = "episode_sha256" in remembered
    target = run.path / ".episode.tmp" if finished else run.episode
    if not finished:
        run.finish_stage("capture", started=inputs)
        shutil.rmtree(target, ignore_errors=True)

    def advance(done: int, total: int) -> None:
        check_cancel()
        progress(done, total, "")

    simulate(
        target,
        preset=wanted.preset,
        seed=wanted.seed,
        stage=stage_file,
        overrides={**wanted.overrides, **({"robot_file": wanted.robot} if wanted.robot else {})},
        progress=advance,
    )
    if finished:
        # The old episode stays until the new one is whole, and leaves in one step.
        old = run.path / ".episode.old.tmp"
        if run.episode.exists():
            run.episode.rename(old)
        target.rename(run.episode)
        shutil.rmtree(old, ignore_errors=True)
    episode = open_episode(run.episode)
    if finished and remembered["episode_sha256"] != episode.content_sha256:
        run.set_aside(str(remembered["episode_sha256"])[:12])
    run.finish_stage("capture", inputs=inputs, episode_sha256=episode.content_sha256)
    return episode


def _capture_inputs(config: RunConfig, stage_file: Path | None) -> str:
    """`settings:stage`, two hashes of what an Episode follows from: the settings with the preset's file, and the stage
    with its layers and textures. The second is empty where the simulator that could read the stage is not installed."""
    wanted = config.capture
    preset = config_path("capture", f"{wanted.preset}.yaml") if NAME_PATTERN.fullmatch(wanted.preset) else None
    settings = sha256_json(
        {
            **{key: value for key, value in asdict(wanted).items() if key != "robot"},
            "stage": "",
            **({"robot": sha256_file(Path(wanted.robot))} if wanted.robot else {}),
            "preset_file": sha256_file(preset) if preset is not None and preset.is_file() else "",
        }
    )
    if reference := FINGERPRINTS.get(wanted.simulator):
        with contextlib.suppress(MissingDependencyError):
            fingerprint = plugins.load(reference, extra=SIMULATOR_EXTRAS.get(wanted.simulator, ""))
            return f"{settings}:{fingerprint(wanted.preset, dict(wanted.overrides), stage_file)}"
        return f"{settings}:"
    return f"{settings}:{sha256_file(stage_file) if stage_file else 'none'}"


def _same(remembered: object, inputs: str) -> bool:
    """Whether an Episode made from `remembered` is what `inputs` asks for; a stage that cannot be read here is taken to be."""
    return remembered == inputs or (inputs.endswith(":") and str(remembered).startswith(inputs))


def _as_remembered(run: RunDirectory, content_sha256: str) -> Episode | None:
    """The Episode run.json speaks of; None when a process was killed while another one took its place."""
    if not (run.episode / COMPLETE).exists():
        return None
    episode = open_episode(run.episode)
    return episode if episode.content_sha256 == content_sha256 else None


def check(run: RunDirectory, config: RunConfig, check_cancel: CheckCancel = never) -> EpisodeCheck:
    """Check the Episode's motion; writes check.json. The caller decides what a failure means (`require`)."""
    episode = open_episode(run.episode)
    inputs = sha256_json({"episode": episode.content_sha256, "limits": {**asdict(config.check), "force": False}})
    if run.check.exists() and run.stage("check").get("inputs") == inputs:
        with contextlib.suppress(OSError, ValueError, EpisodeError):  # damaged: checked again
            return EpisodeCheck.from_json(read_json(run.check), str(run.check))
    result = check_episode(episode, config.check, check_cancel)
    write_json(run.check, result.to_json())
    run.finish_stage("check", inputs=inputs, passed=result.passed)
    return result


def skeleton(
    run: RunDirectory, config: RunConfig, progress: Progress = silent, check_cancel: CheckCancel = never
) -> dict[str, Skeleton]:
    """Draw the Skeleton of every configured camera; camera → Skeleton."""
    episode = _checked_episode(run, config)
    cameras = cameras_of(config, episode)
    declared = load_declarations(Path(config.capture.robot)) if config.capture.robot else ()
    drawn: dict[str, Skeleton] = {}
    for done, camera in enumerate(cameras):

        def advance(frame: int, total: int, note: str = "", done: int = done, camera: str = camera) -> None:
            progress(done * total + frame, len(cameras) * total, note or camera)

        drawn[camera] = make_skeleton(
            episode,
            camera,
            run.skeleton(camera),
            advance,
            check_cancel,
            model_size=config.skeleton.size,
            declared=declared,
        )
    return drawn


def cameras_of(config: RunConfig, episode: Episode) -> tuple[str, ...]:
    """The cameras whose view of every world is made: those named; else all that recorded depth, normals and ids, or all
    where none did. Raises EpisodeError listing the episode's for one that it lacks."""
    every = episode.header.cameras
    mapped = [camera.name for camera in every if set(camera.channels) >= MAPS]
    named = tuple(episode.header.camera(name).name for name in dict.fromkeys(config.cameras))
    return named or tuple(mapped or [camera.name for camera in every])


def _worlds(config: RunConfig, check_cancel: CheckCancel) -> tuple[World, ...]:
    chosen = config.variants
    return select_worlds(
        chosen.presets, chosen.count, chosen.seed, of_presets=chosen.of_presets, prompts=chosen.prompts,
        catalogue=_catalogue(config), check_cancel=check_cancel,
    )  # fmt: skip


def _catalogue(config: RunConfig) -> Catalogue | None:
    """The worlds known to a run with files of the user's own, or with objects that keep their shape; None: Retake's alone."""
    own = config.variants
    return load_catalogue(own.catalogue, keep_shapes=own.keep_shapes) if own.catalogue or own.keep_shapes else None


def variants(
    run: RunDirectory, config: RunConfig, progress: Progress = silent, check_cancel: CheckCancel = never
) -> Gated:
    """Dress every camera's first frame into the configured worlds; what is delivered passed the gate, the rest is named.

    Raises VariantError when no world at all passed.
    """
    episode = _checked_episode(run, config)
    chosen = config.variants
    _check_start(config, episode)
    worlds = _worlds(config, check_cancel)
    made = make_gated_variants(
        episode, cameras_of(config, episode), run.variants_folder, worlds=worlds, backend=chosen.backend,
        settings=chosen.settings, seed=chosen.seed, index=config.takes.start, rerolls=chosen.rerolls, gate=chosen.gate,
        depth=chosen.depth_estimator, blind=chosen.blind,
        only_commercial=chosen.only_commercial, catalogue=_catalogue(config), workers=0,
        progress=progress, check_cancel=check_cancel,
    )  # fmt: skip
    if not made.variants:
        name, reasons = next(iter(made.missing.items()))
        raise VariantError(
            f"none of {len(worlds)} worlds passed the gate; {name}: {'; '.join(reasons)}. "
            f"{run.variants_folder / 'gate.json'} says more; try another backend (variants.backend)"
        )
    return made


def takes(
    run: RunDirectory,
    config: RunConfig,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
    produce: Producer = produce_takes,
) -> list[Take]:
    """One Take per Variant and seed of this Episode, its cameras and first frame; variants of others are left alone.

    Raises RunError when a stage before it is missing, InputError for a window outside the Episode or a wrong seed.
    """
    return takes_of([(run, config)], progress, check_cancel, produce)


def takes_of(
    runs: Sequence[tuple[RunDirectory, RunConfig]],
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
    produce: Producer = produce_takes,
) -> list[Take]:
    """The Takes of several runs: M Episodes × N Variants × K seeds go to `produce` together. Raises as `takes`."""
    batches: dict[tuple[str, bool], list[tuple[Path, TakeRequest]]] = {}
    for run, config in runs:
        require_commercial(
            f"video backend {config.takes.backend!r}", video_backend_class(config.takes.backend).licence,
            config.variants.only_commercial, TakeError,
        )  # fmt: skip
        requests = take_requests(run, config)
        passed, following = check(run, config).passed, []
        if video_backend_class(config.takes.backend).domain == "generated":
            requests, following = split_views(requests)
        batches.setdefault((config.takes.backend, passed), []).extend(requests)
        if following:  # after the takes that they look at
            batches.setdefault((FOLLOWER, passed), []).extend(following)
    total, made = sum(map(len, batches.values())), []
    for (backend, passed), requests in batches.items():

        def part(done: int, of: int, note: str = "", before: int = len(made), count: int = len(requests)) -> None:
            progress(before + done * count // max(of, 1), total, note)

        extra = {} if passed else {"episode_check": "failed, forced"}
        made += produce(
            requests, backend, extra=extra, progress=part if len(batches) > 1 else progress, check_cancel=check_cancel
        )
    return made


def take_requests(run: RunDirectory, config: RunConfig) -> list[tuple[Path, TakeRequest]]:
    """(folder, request) of every Take that a run's configuration asks for. Raises as `takes`."""
    episode = _checked_episode(run, config)
    _check_start(config, episode)
    chosen = config.takes
    if chosen.frames < 0:
        raise InputError(f"takes.frames is {chosen.frames}; expected a number of frames, or 0 for the whole episode")
    length = min(chosen.frames or len(episode), len(episode) - chosen.start)
    cameras = cameras_of(config, episode)
    if bare := [camera for camera in cameras if not run.has_skeleton(camera)]:
        raise RunError(f"{run.path} has no skeleton of camera {bare[0]!r}; `retake skeleton {run.path}` draws it")
    if broken := [found for found in run.damaged() if found.kind == "variant"]:
        raise VariantError(broken[0].reason)
    every = [open_variant(found.folder) for found in run.variants()]
    wanted = {"episode_sha256": episode.content_sha256, "frame": chosen.start}
    usable = [v for v in every if wanted.items() <= v.source.items() and v.source.get("camera") in cameras]
    if not usable:
        others = f" ({len(every)} are there for another episode, camera or first frame)" if every else ""
        raise RunError(
            f"{run.path} has no variants of camera {', '.join(map(repr, cameras))} at frame {chosen.start}{others}; "
            f"`retake variants {run.path}` makes them"
        )
    return [
        (
            run.take_folder(take_id(variant.id, chosen.backend, seed, chosen.start)),
            TakeRequest(
                episode=run.episode,
                camera=variant.source["camera"],
                skeleton=run.skeleton(variant.source["camera"]),
                variant=run.variant_folder(variant.id),
                prompt=variant.prompt,
                negative_prompt=variant.negative_prompt,
                seed=seed,
                frames=length,
                start=chosen.start,
                settings=dict(chosen.settings),
            ),
        )
        for variant in usable
        for seed in used_seeds(config)
    ]


def used_seeds(config: RunConfig) -> tuple[int, ...]:
    """The seeds of which a variant gets a take: all that were asked for, or the first where the backend reads none.
    Raises as `takes`."""
    seeds = _seeds(config)
    return seeds if getattr(video_backend_class(config.takes.backend), "reads_seed", True) else seeds[:1]


def _seeds(config: RunConfig) -> tuple[int, ...]:
    """The seeds of a variant's takes. Raises InputError for what is no whole number, or one named twice."""
    seeds = config.takes.seeds or (config.takes.seed,)
    if any(type(seed) is not int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InputError(f"takes.seeds is {list(seeds)}; expected whole numbers, each once")
    return seeds


def verify(
    run: RunDirectory, config: RunConfig, progress: Progress = silent, check_cancel: CheckCancel = never
) -> list[dict[str, object]]:
    """Judge every Take, make failed ones again within `verdicts.reroll` further attempts, and compare the cameras of every
    world; writes verdicts/."""
    from retake.core.verdicts import (  # only runs that judge pay for loading the estimator
        compare_worlds,
        reroll_run,
        verify_run,
    )

    if config.verdicts.reroll > 0:
        backend = video_backend(config.takes.backend)
        reroll_run(run.path, backend, config.verdicts.reroll, progress=progress, check_cancel=check_cancel)
    rows = verify_run(run.path, progress=progress, check_cancel=check_cancel)
    compare_worlds(run, check_cancel=check_cancel)
    return rows


def report(run: RunDirectory, progress: Progress = silent, check_cancel: CheckCancel = never) -> Path:
    """Write report.html from whatever the run holds."""
    return make_report(run, progress=progress, check_cancel=check_cancel)


def _check_start(config: RunConfig, episode: Episode) -> None:
    """Raises InputError when the first frame of the takes lies outside the Episode."""
    if not 0 <= config.takes.start < len(episode):
        raise InputError(f"takes.start is {config.takes.start}; the episode has frames 0 … {len(episode) - 1}")


def _checked_episode(run: RunDirectory, config: RunConfig) -> Episode:
    """The Episode, once its check passed (or was forced): stages called one by one hold the same line as `run`."""
    if not run.episode.exists():
        raise RunError(f"{run.path} has no episode yet; `retake capture {run.path}` makes one")
    check(run, config).require(force=config.check.force)
    return open_episode(run.episode)
