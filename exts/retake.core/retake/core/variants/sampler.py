# SPDX-License-Identifier: Apache-2.0
"""Sampler: N distinct worlds from the axes. Same seed, same worlds, and the first k of N are the k of a shorter draw.

Coverage: each axis takes its least-used value that makes sense here, ties broken by the seed, so that no value starves
as N grows. An environment names the surfaces, lightings and subjects that make sense in it; exclusions remove the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from retake.core.errors import VariantError
from retake.core.progress import CheckCancel, never
from retake.core.variants.base import World, require_seed
from retake.core.variants.worlds import Catalogue, load_catalogue

ORDER = ("environment", "background", "lighting", "surface", "subject", "look", "clutter")
"""Axes in the order in which values are chosen."""
MOST_WORLDS = 100_000
"""Each world becomes pictures of megabytes and takes of minutes; more is a slip, and sampling them would not end."""


def sample_worlds(
    count: int, seed: int = 0, catalogue: Catalogue | None = None, environments: Collection[str] = (),
    check_cancel: CheckCancel = never,
) -> list[World]:  # fmt: skip
    """`count` distinct worlds, none of them excluded, in the named environments (none named: in any).

    Raises VariantError for unknown environments, for more than `MOST_WORLDS`, and when fewer worlds exist, saying how many;
    Cancelled.
    """
    if count < 0:
        raise VariantError(f"the number of worlds must not be negative; found {count}")
    if count > MOST_WORLDS:
        raise VariantError(f"{count} worlds were asked for; at most {MOST_WORLDS} are sampled for one run")
    require_seed(seed)
    known = catalogue or load_catalogue()
    if environments:
        chosen = {name: known.value("environment", name) for name in environments}
        known = replace(known, sections={**known.sections, "environments": chosen})
    rng = np.random.default_rng(seed)
    used: dict[str, Counter[str]] = {axis: Counter() for axis in ORDER}
    seen: set[tuple[str, ...]] = set()
    worlds: list[World] = []
    while len(worlds) < count:
        chosen = next(_complete({}, known, used, seen, rng, check_cancel), None)
        if chosen is None:
            raise VariantError(
                f"{count} worlds were asked for; the axes and exclusions allow {len(worlds)} distinct ones. "
                "Ask for fewer, or add axis values in a YAML file of config/worlds' form"
            )
        for axis, value in chosen.items():
            # Backgrounds are named per environment; the same word elsewhere is another value.
            used[axis][_key(axis, value, chosen)] += 1
        seen.add(tuple(chosen[axis] for axis in ORDER))
        name = f"w{len(worlds):04d}-{chosen['environment']}-{chosen['subject']}-{chosen['lighting']}"
        axes: dict[str, Any] = dict(chosen)
        worlds.append(World(name=name[:100], **axes))
    return worlds


def choices(axis: str, chosen: Mapping[str, str], catalogue: Catalogue) -> list[str]:
    """Values of an axis that make sense with what is chosen so far (the environment decides)."""
    if axis == "environment":
        return sorted(catalogue.sections["environments"])
    environment = catalogue.value("environment", chosen["environment"])
    if axis == "background":
        return sorted(environment.get("backgrounds", {})) or [""]
    plural = {
        "lighting": "lightings",
        "surface": "surfaces",
        "subject": "subjects",
        "look": "looks",
        "clutter": "clutters",
    }
    allowed = environment.get(plural[axis]) or list(catalogue.sections[plural[axis]])
    values = sorted(v for v in allowed if v in catalogue.sections[plural[axis]])
    return values or ([""] if axis == "clutter" else [])


def excluded(chosen: Mapping[str, str], exclusions: tuple[dict[str, Any], ...]) -> bool:
    """Whether a (partial) choice matches all conditions of some exclusion."""

    def matches(rule: dict[str, Any]) -> bool:
        for axis, names in rule.items():
            wanted = names if isinstance(names, list) else [names]
            if chosen.get(axis) not in wanted:
                return False
        return bool(rule)

    return any(matches(rule) for rule in exclusions)


def _key(axis: str, value: str, chosen: Mapping[str, str]) -> str:
    return f"{chosen['environment']}/{value}" if axis == "background" else value


def _complete(
    chosen: dict[str, str], catalogue: Catalogue, used: dict[str, Counter[str]], seen: set[tuple[str, ...]],
    rng: np.random.Generator, check_cancel: CheckCancel,
) -> Iterator[dict[str, str]]:  # fmt: skip
    """Complete choices, least-used values first (depth first, so exclusions and repeats only cost a step back)."""
    if len(chosen) == len(ORDER):
        check_cancel()  # the last of many worlds are found behind all that were seen before
        if tuple(chosen[axis] for axis in ORDER) not in seen:
            yield dict(chosen)
        return
    axis = ORDER[len(chosen)]
    values = choices(axis, chosen, catalogue)
    rank = {v: (used[axis][_key(axis, v, {**chosen, axis: v})], float(rng.random())) for v in values}
    for value in sorted(values, key=rank.__getitem__):
        candidate = {**chosen, axis: value}
        if not excluded(candidate, catalogue.exclusions):
            yield from _complete(candidate, catalogue, used, seen, rng, check_cancel)


def coverage(worlds: list[World], catalogue: Catalogue | None = None) -> dict[str, dict[str, int]]:
    """How often each value of each axis occurs, zeros included."""
    known = catalogue or load_catalogue()
    from retake.core.variants.worlds import AXES

    table = {axis: dict.fromkeys(sorted(known.sections[section]), 0) for axis, section in AXES.items()}
    for world in worlds:
        for axis in AXES:
            if value := getattr(world, axis):
                table[axis][value] = table[axis].get(value, 0) + 1
    return table
