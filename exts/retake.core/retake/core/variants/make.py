# SPDX-License-Identifier: Apache-2.0
"""Making variants: worlds in, `variants/<id>/{frame.png, variant.json}` out; what is there already is not made again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.codec import decode, encode
from retake.core.episode import Episode
from retake.core.errors import InputError, VariantError
from retake.core.files import (
    atomic_directory,
    known_sha256,
    read_json,
    sha256_bytes,
    sha256_json,
    write_bytes,
    write_json,
)
from retake.core.licences import joint_licence, require_commercial
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import VARIANT_FRAME, VARIANT_RECORD, name_of, variant_id
from retake.core.variants.backends import image_backend
from retake.core.variants.base import ImageBackend, SourceFrame, Variant, World, require_seed, source_for
from retake.core.variants.prompts import compose_prompts
from retake.core.variants.worlds import Catalogue, described_world, load_catalogue, photo_licences, stated_recipe

SCHEMA = "retake.variant/1"
Examine = Callable[[UInt8[np.ndarray, "H W 3"]], Mapping[str, Any]]
"""Looks at a finished frame; returns what variant.json shall say about it, or raises."""


def unexamined(frame: UInt8[np.ndarray, "H W 3"]) -> Mapping[str, Any]:
    """Nobody looks."""
    return {}


def make_variants(
    episode: Episode,
    camera: str,
    out_dir: Path | str,
    *,
    worlds: Sequence[World],
    backend: str | ImageBackend = "procedural",
    seed: int = 0,
    index: int = 0,
    only_commercial: bool = False,
    catalogue: Catalogue | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> list[Variant]:
    """One variant per world of frame `index`, in folders `out_dir/<variant_id>`. Same seeds, same frames.

    A variant whose inputs are unchanged is kept; folders of other worlds are left alone. Raises VariantError for an
    empty list, two worlds of one name, a camera without the maps a backend needs, an unknown axis value, or a licence
    that `only_commercial` does not know to allow commercial use.
    """
    require_worlds(worlds)
    require_seed(seed)
    maker = licensed_backend(backend, only_commercial, catalogue=catalogue)
    require_reader(maker, worlds)
    source = source_for(maker, episode, camera, index)
    made = []
    for count, world in enumerate(worlds):
        check_cancel()
        progress(count, len(worlds), world.name)
        made.append(
            make_variant(
                source, world, maker, Path(out_dir) / variant_id(world.name, camera, index), seed,
                episode_sha256=episode.content_sha256, catalogue=catalogue, only_commercial=only_commercial,
                check_cancel=check_cancel,
            )
        )  # fmt: skip
    progress(len(worlds), len(worlds), "")
    return made


def make_variant(
    source: SourceFrame,
    world: World,
    backend: ImageBackend,
    out_dir: Path,
    seed: int = 0,
    *,
    episode_sha256: str = "",
    catalogue: Catalogue | None = None,
    extra: Mapping[str, Any] | None = None,
    examine: Examine = unexamined,
    only_commercial: bool = False,
    check_cancel: CheckCancel = never,
) -> Variant:
    """One variant folder: frame.png first, variant.json last, the whole folder appears at once.

    Kept as it is when the inputs are the same. `examine(frame)` sees a new frame before anything is written: what it
    returns goes into variant.json, what it raises leaves the folder as it was. Raises VariantError for a name that
    cannot be a folder, for a backend that returns another size than the source's, and for terms that `only_commercial`
    does not admit (asked again after rendering: a backend may choose its model then).
    """
    out_dir = Path(out_dir)
    known = catalogue or load_catalogue()
    prompts = compose_prompts(source.header, world, known, mount=source.mount)
    recipe = stated_recipe(world, known)
    digest = variant_inputs(source, world, backend, seed, episode_sha256=episode_sha256, catalogue=known)
    if (kept := unchanged(out_dir, digest)) is not None:
        require_licence(kept.backend, kept.licence, only_commercial)
        return kept
    require_licence(backend.name, backend.licence, only_commercial)
    photos = photo_licences(recipe)
    for licence in photos:
        require_licence(f"{backend.name} with the world's photographs", licence, only_commercial)
    frame = backend.render(source, world, seed, check_cancel)
    require_licence(backend.name, backend.licence, only_commercial)
    if frame.shape != source.rgb.shape or frame.dtype != np.uint8:
        raise VariantError(
            f"backend {backend.name!r} returned {frame.shape} {frame.dtype}; the source is {source.rgb.shape} uint8"
        )
    found = examine(frame)
    ok, png = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    if not ok:
        raise VariantError(f"frame of world {world.name!r} could not be encoded as PNG")
    variant = Variant(
        id=name_of(out_dir), world=world, seed=seed, prompt=prompts.take, negative_prompt=prompts.negative,
        frame_sha256=sha256_bytes(png.tobytes()), backend=backend.name, backend_version=backend.version,
        licence=joint_licence([backend.licence, *photos]) if photos else backend.licence,
        model=getattr(backend, "model", ""), revision=getattr(backend, "revision", ""),
        source={
            "episode_sha256": episode_sha256 or source_sha256(source), "camera": source.camera_name, "frame": source.index,
            "rgb_sha256": sha256_bytes(np.ascontiguousarray(source.rgb).tobytes()),
        },
    )  # fmt: skip
    record = {
        "schema": SCHEMA,
        **encode(variant),
        "image_prompt": prompts.image,
        "recipe": recipe,
        "inputs": digest,
    }
    record.update({**found, **(extra or {})})
    record["origin"] = dict(getattr(backend, "origin", None) or {"kind": "painted"})
    if out_dir.exists():
        if not (out_dir / VARIANT_RECORD).exists() and any(out_dir.iterdir()):
            raise VariantError(
                f"{out_dir} holds files but no {VARIANT_RECORD}; it is not a variant folder, move it away"
            )
        shutil.rmtree(out_dir)
    with atomic_directory(out_dir) as folder:
        write_bytes(folder / VARIANT_FRAME, png.tobytes())
        write_json(folder / VARIANT_RECORD, record)
    return variant


def variant_inputs(
    source: SourceFrame,
    world: World,
    backend: ImageBackend,
    seed: int,
    *,
    episode_sha256: str = "",
    catalogue: Catalogue | None = None,
) -> str:
    """Hash of all that a variant's pixels follow from. Raises VariantError for a world whose name cannot be a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", world.name):
        raise VariantError(
            f"world name {world.name!r} cannot be a folder: letters, digits, '_', '-', '.' (at most 100)"
        )
    inputs = {
        "episode": episode_sha256 or source_sha256(source),
        "camera": source.camera_name,
        "frame": source.index,
        "world": world.identity(),
        "recipe": sha256_json(stated_recipe(world, catalogue)),
        "seed": seed,
        "backend": [backend.name, backend.version, getattr(backend, "model", ""), getattr(backend, "revision", "")],
        "settings": getattr(backend, "settings", {}),
    }
    return sha256_json(inputs)


def read_variant(folder: Path) -> Variant:
    """The record of a variant folder. Raises VariantError when it is missing, damaged or of another schema version."""
    return variant_from_json(_record(folder), folder)


def variant_from_json(data: Any, folder: Path) -> Variant:
    """The record from the content of a folder's variant.json. Raises as `read_variant`."""
    path = Path(folder) / VARIANT_RECORD
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise VariantError(f"{path} has schema {found!r}; this version of Retake reads {SCHEMA!r}")
    # A folder may be copied or renamed: its own name is what counts.
    data = {**data, "id": name_of(path.parent)}
    return decode(Variant, data, str(path), error=VariantError, ignore_unknown=True)


def open_variant(folder: Path) -> Variant:
    """`read_variant`, with the frame checked against its hash. Raises VariantError naming what is wrong."""
    variant = read_variant(folder)
    if fault := frame_fault(variant, folder):
        raise VariantError(fault)
    return variant


def frame_fault(variant: Variant, folder: Path) -> str:
    """Why the frame in a variant's folder is not the one its record describes; empty when it is."""
    frame = Path(folder) / VARIANT_FRAME
    try:
        found = known_sha256(frame)
    except OSError:
        return f"{frame} is missing; a variant is {VARIANT_RECORD} and {VARIANT_FRAME}"
    if found == variant.frame_sha256:
        return ""
    return f"{frame} was changed: its SHA-256 is {found[:12]}…, recorded was {variant.frame_sha256[:12]}…"


def _record(folder: Path) -> Any:
    path = Path(folder) / VARIANT_RECORD
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise VariantError(f"{path} is no readable variant record ({type(error).__name__}: {error})") from error


def read_frame(path: Path) -> np.ndarray:
    """RGB uint8 (H, W, 3) of an image file. Raises VariantError when it cannot be read."""
    data = Path(path).read_bytes() if Path(path).is_file() else b""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise VariantError(f"{path} is missing or no readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def select_worlds(
    presets: Sequence[str] = (), count: int = 0, seed: int = 0, *, of_presets: bool = False, prompts: Sequence[str] = (),
    catalogue: Catalogue | None = None, check_cancel: CheckCancel = never,
) -> tuple[World, ...]:  # fmt: skip
    """The named presets, one world per prompt (`described_world`), then `count` sampled worlds; with `of_presets` these
    stay in the presets' environments.

    Raises VariantError for unknown presets (listing the valid ones), empty prompts, too many, or when nothing is asked;
    Cancelled.
    """
    from retake.core.variants.sampler import sample_worlds

    known = catalogue or load_catalogue()
    worlds = [known.preset(name) for name in dict.fromkeys(presets)]
    within = tuple(dict.fromkeys(world.environment for world in worlds)) if of_presets else ()
    worlds += [described_world(text) for text in dict.fromkeys(prompts)]
    worlds += sample_worlds(count, seed, known, within, check_cancel) if count else []
    if not worlds:
        raise VariantError(
            "no worlds were asked for: no presets, no prompts, and the count is 0; name presets "
            "(variants.presets, --worlds), a count (variants.count, --count) or a prompt (variants.prompts, --prompt)"
        )
    return tuple(worlds)


def require_worlds(worlds: Sequence[World]) -> None:
    """Raises VariantError for no worlds, and for two of one name."""
    if not worlds:
        raise VariantError("no worlds were asked for; name presets or a count of sampled worlds")
    names = [world.name for world in worlds]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise VariantError(f"two worlds are named {twice[0]!r}; names become folders and must differ")


def require_reader(backend: ImageBackend, worlds: Sequence[World]) -> None:
    """Raises VariantError when a world is described in words and the backend paints from recipes."""
    if getattr(backend, "reads_prompts", True):
        return
    if prompted := [world for world in worlds if world.prompt]:
        raise VariantError(
            f"backend {backend.name!r} paints from recipes and cannot read {prompted[0].prompt!r}; choose one that reads prompts "
            "(variants.backend: auto, z-image, flux2-klein, …), bring your own picture (folder), or name presets"
        )


def licensed_backend(
    backend: str | ImageBackend, only_commercial: bool, settings: Mapping[str, Any] | None = None,
    catalogue: Catalogue | None = None,
) -> ImageBackend:  # fmt: skip
    """The backend by name with its settings (told of `only_commercial` when it chooses among models), terms checked.

    Raises InputError for settings that it does not have.
    """
    if isinstance(backend, str):
        maker = image_backend(backend, only_commercial=only_commercial, catalogue=catalogue, **(settings or {}))
    elif settings:
        raise InputError(
            f"settings {sorted(settings)} were given beside a backend that exists already; make it with them"
        )
    else:
        maker = backend
    require_licence(maker.name, maker.licence, only_commercial)
    return maker


def require_licence(name: str, licence: str, only_commercial: bool) -> None:
    """Raises VariantError when commercial use is asked for and a backend's terms are not known to allow it."""
    require_commercial(f"backend {name!r}", licence, only_commercial, VariantError)


def source_sha256(source: SourceFrame) -> str:
    """Hash of a source frame's own pixels and maps, where no episode hash is at hand."""
    arrays = (
        source.rgb,
        source.depth_m,
        source.normals,
        source.instance_ids,
        source.camera.K,
        source.camera.T_camera_world,
        *([] if source.camera.lens is None else [np.array(source.camera.lens.coefficients)]),
    )
    return sha256_bytes(*(np.ascontiguousarray(a).tobytes() for a in arrays))


def unchanged(out_dir: Path, digest: str) -> Variant | None:
    """The variant in a folder when it is whole and was made from inputs of that hash."""
    try:
        data = _record(out_dir)
        variant = variant_from_json(data, out_dir)
    except VariantError:
        return None
    return variant if data.get("inputs") == digest and not frame_fault(variant, out_dir) else None
