# SPDX-License-Identifier: Apache-2.0
"""Worlds as data: the axes of config/worlds/*.yaml, named presets, and the recipe that a World stands for.

Every YAML file of the folder (and any a user adds) may hold any of the sections of `SECTIONS`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from retake.core.config import config_path, load_yaml
from retake.core.errors import InputError, VariantError, unknown_name
from retake.core.files import known_sha256
from retake.core.variants.base import World

AXES = {
    "environment": "environments", "surface": "surfaces", "subject": "subjects", "lighting": "lightings",
    "look": "looks", "clutter": "clutters",
}  # fmt: skip
"""Axis of a World to its section in the YAML files. `background` is a sub-axis of the environment."""
SECTIONS = (*AXES.values(), "presets", "exclusions")


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All axis values and presets known. Mappings are name → YAML mapping; read only."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    exclusions: tuple[dict[str, Any], ...] = ()
    """Combinations that make no sense: axis → name or list of names; a world matching all of one is left out."""
    files: tuple[Path, ...] = ()
    """The user's own, in the order in which they were read."""
    keep_shapes: bool = False
    """Whether objects keep their simulated shape, whatever their subject's is."""

    def value(self, axis: str, name: str) -> dict[str, Any]:
        """The mapping of one axis value. Raises VariantError listing the valid names."""
        section = self.sections[AXES[axis]]
        if name not in section:
            raise VariantError(unknown_name(axis, name, section))
        return section[name] or {}

    def preset(self, name: str) -> World:
        """A named world. Raises VariantError listing the valid names."""
        presets = self.sections["presets"]
        if name not in presets:
            raise VariantError(unknown_name("preset", name, presets))
        world = World(name=name, **{**{"look": "neutral"}, **presets[name]})
        self.check(world)
        return world

    def check(self, world: World) -> None:
        """Raises VariantError naming the first axis value that does not exist."""
        for axis in AXES:
            if name := getattr(world, axis):
                self.value(axis, name)
        if world.prompt:
            return
        backgrounds = self.value("environment", world.environment).get("backgrounds", {})
        if world.background and world.background not in backgrounds:
            raise VariantError(unknown_name(f"background of {world.environment!r}", world.background, backgrounds))


def load_catalogue(extra: Iterable[Path | str] = (), *, keep_shapes: bool = False) -> Catalogue:
    """Everything in config/worlds plus the user's YAML files, which may replace entries of the same name.

    Raises InputError naming the file and the section for malformed data.
    """
    return _load(tuple(Path(p) for p in extra), keep_shapes)


def presets_in(files: Iterable[Path | str]) -> list[str]:
    """Names of the presets that YAML files of the user's hold, in their order. Raises as `load_catalogue`."""
    load_catalogue(files)
    return list(dict.fromkeys(str(name) for path in files for name in (load_yaml(Path(path)) or {}).get("presets", {})))


@lru_cache(maxsize=8)
def _load(extra: tuple[Path, ...], keep_shapes: bool) -> Catalogue:
    folder = config_path("worlds")
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS if name != "exclusions"}
    exclusions: list[dict[str, Any]] = []
    for path in (*sorted(folder.glob("*.yaml")), *extra):
        data = load_yaml(path) or {}
        if not isinstance(data, dict):
            raise InputError(f"{path}: expected a mapping with sections {', '.join(SECTIONS)}")
        for section, content in data.items():
            if section == "exclusions":
                if not isinstance(content, list) or not all(isinstance(x, dict) for x in content):
                    raise InputError(f"{path}: exclusions must be a list of axis: name mappings")
                exclusions += content
                continue
            if section not in sections:
                raise InputError(f"{path}: {unknown_name('section', str(section), SECTIONS)}")
            if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
                raise InputError(f"{path}: section {section!r} must map names to mappings")
            sections[section].update(placed_beside(content, Path(path).parent))
    if not sections["environments"]:
        raise InputError(f"{folder} holds no worlds; expected YAML files with a section 'environments'")
    known = {f.name for f in fields(World)} - {"name", "prompt"}
    for name, preset in sections["presets"].items():
        if unknown := set(preset) - known:
            raise InputError(f"preset {name!r}: {unknown_name('axis', sorted(map(str, unknown))[0], known)}")
        if missing := {"environment", "surface", "subject", "lighting"} - set(preset):
            raise InputError(f"preset {name!r} lacks {', '.join(sorted(missing))}")
    return Catalogue(sections, tuple(exclusions), extra, keep_shapes)


def described_world(prompt: str) -> World:
    """A world in the user's own words, lit softly; its name is made of the first words and a checksum of all.

    Raises VariantError for an empty prompt.
    """
    text = " ".join(prompt.split())
    words = re.findall(r"[a-z0-9]+", text.lower())
    if not words:
        raise VariantError(f"the prompt {prompt!r} describes no world; say what is to be seen around the robot")
    name = f"{'_'.join(words)[:48].strip('_')}-{zlib.crc32(text.encode()):08x}"
    return World(name, "", "", "", "soft_daylight", prompt=text)


def lighting_of(world: World, catalogue: Catalogue | None = None) -> dict[str, Any]:
    """The light of a world, which one in words has, too."""
    known = catalogue or load_catalogue()
    return {**known.value("lighting", world.lighting), **world.parameters.get("lighting", {})}


def with_photos(value: Any) -> Any:
    """A mapping with the content hash of every photograph it names, so that another picture is another world. Raises
    VariantError for one that is missing, or of which nobody states a licence."""
    if isinstance(value, dict):
        if "photo" in value:
            path = Path(str(value["photo"]))
            if not path.is_file():
                raise VariantError(f"{path} does not exist; a world names it as a photograph")
            if not value.get("licence"):
                raise VariantError(
                    f"the world's photograph {path} states no licence; add `licence: CC0-1.0` or what holds"
                )
            value = {**value, "sha256": known_sha256(path)}
        return {key: with_photos(item) for key, item in value.items()}
    return [with_photos(item) for item in value] if isinstance(value, list) else value


def photo_licences(value: Any) -> tuple[str, ...]:
    """The licences of all photographs in a recipe."""
    if isinstance(value, dict):
        own = (str(value.get("licence", "")),) if "photo" in value else ()
        return own + tuple(found for item in value.values() for found in photo_licences(item))
    return tuple(found for item in value for found in photo_licences(item)) if isinstance(value, list) else ()


def placed_beside(value: Any, folder: Path) -> Any:
    """A mapping whose photographs' paths are taken from the folder of the file that names them."""
    if isinstance(value, dict):
        moved = {"photo": str((folder / str(value["photo"])).resolve())} if "photo" in value else {}
        return {**{key: placed_beside(item, folder) for key, item in value.items()}, **moved}
    return [placed_beside(item, folder) for item in value] if isinstance(value, list) else value


def stated_recipe(world: World, catalogue: Catalogue | None = None) -> dict[str, Any]:
    """What is recorded of a world and enters hashes: its recipe, or the light of one in words."""
    return {"lighting": lighting_of(world, catalogue)} if world.prompt else recipe_of(world, catalogue)


def recipe_of(world: World, catalogue: Catalogue | None = None) -> dict[str, Any]:
    """The mappings a renderer needs: environment (with its background applied and clutter added), container, surface,
    subject, lighting, look. `world.parameters` may replace any of them: {"lighting": {"sun": {...}}}.

    Raises VariantError for unknown names.
    """
    known = catalogue or load_catalogue()
    known.check(world)
    if world.prompt:
        raise VariantError(
            f"world {world.name!r} is described in words and has no recipe to paint from; give it to a backend that reads "
            "prompts, or name a preset"
        )
    environment = dict(known.value("environment", world.environment))
    backgrounds = environment.pop("backgrounds", {})
    if world.background:
        environment.update({k: v for k, v in (backgrounds[world.background] or {}).items() if k != "prompt"})
    if world.clutter:
        added = known.value("clutter", world.clutter).get("furniture", [])
        environment["furniture"] = [*environment.get("furniture", []), *added]
    recipe = {
        "environment": environment,
        "container": environment.get("container", {"kind": "plain", "colours": ["#7d8790", "#6c757d"]}),
        **{axis: dict(known.value(axis, getattr(world, axis))) for axis in ("surface", "subject", "lighting", "look")},
    }
    for key, change in world.parameters.items():
        if key not in recipe:
            raise VariantError(unknown_name(f"parameter of world {world.name!r}", key, recipe))
        if not isinstance(change, dict):
            raise VariantError(f"parameter {key!r} of world {world.name!r} must be a mapping; found {change!r}")
        recipe[key] = {**recipe[key], **change}
    if known.keep_shapes:
        recipe["subject"].pop("shape", None)
    return with_photos(recipe)
