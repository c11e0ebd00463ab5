# SPDX-License-Identifier: Apache-2.0
"""Every number of control maps, roles, correspondence, locked robots and the gate on some frames of the analytic scene, good
ones and planted faults, against what was measured before: a measure that changes by accident is seen.

`python tests/test_variants_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from scenes import make_scene_episode
from variant_faults import KINDS, plant, visible

from retake.core.painter.procedural import ProceduralBackend
from retake.core.variants import load_catalogue, source_frame
from retake.core.variants.base import SourceFrame
from retake.core.variants.carry import carry
from retake.core.variants.controls import control_maps
from retake.core.variants.correspond import correspond, view_of
from retake.core.variants.edges import canny, edge_f1, instance_border, structure_f1
from retake.core.variants.gate import Gate, distances
from retake.core.variants.gate_skeleton import patches, skeleton_fit
from retake.core.variants.lock import lock_robot
from retake.core.variants.roles import find_roles

GOLDEN = Path(__file__).parent / "golden" / "variants" / "numbers.json"
SHARE = 0.004
"""Of a number: another processor rounds pictures differently, nothing more."""
CAMERAS, PRESETS = ("front", "wrist"), ("kitchen", "conveyor_blue")


def sources(folder: Path) -> dict[str, SourceFrame]:
    episode = make_scene_episode(folder / "e", frames=12, size=(320, 240), wrist=True, only=range(5, 6))
    return {camera: source_frame(episode, camera, 0) for camera in CAMERAS}


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceFrame]:
    return sources(tmp_path_factory.mktemp("variants"))


def maps(stills: dict[str, SourceFrame], camera: str) -> dict[str, Any]:
    own, other = stills[camera], stills[CAMERAS[1 - CAMERAS.index(camera)]]
    painted = ProceduralBackend().render(own, load_catalogue().preset("kitchen"), 3)
    found = correspond(view_of(own), view_of(other))
    carried = carry(own, painted, other)
    roles = find_roles(own)
    return summed_up({
        "maps": control_maps(own), "kept": control_maps(own, keep_object=True), "roles": roles,
        "view": view_of(own),
        "place": np.where(found.seen[..., None], found.place, 0), "seen": found.seen, "scale": np.nan_to_num(found.scale),
        "carried": {k: v for k, v in vars(carried).items()}, "patches": patches(own),
    })  # fmt: skip


def gated(stills: dict[str, SourceFrame], camera: str, preset: str) -> dict[str, Any]:
    """What the gate says of a good frame and of each fault planted in it."""
    source, world = stills[camera], load_catalogue().preset(preset)
    good, seen = ProceduralBackend().render(source, world, 5), ProceduralBackend().shown(source, world)
    kinds = [kind for kind in KINDS if visible(kind, seen)]
    frames = {"good": good, **{kind: plant(kind, good, seen) for kind in kinds}}
    gate = Gate(seen)
    whole = {name: frame for name, frame in frames.items() if frame.shape == good.shape}
    locked = {kind: lock_robot(frames[kind], seen) for kind in ("good", *kinds[:2])}
    some = list(whole.values())[:4]
    return summed_up({
        "checks": {name: {c.name: [c.value, c.passed, c.limit] for c in gate.check(f).checks} for name, f in frames.items()},
        "locked": {name: [v for v in vars(one).values() if isinstance(v, np.ndarray)] for name, one in locked.items()},
        "edges": {name: [structure_f1(f, seen.rgb, seen.robot_mask), edge_f1(canny(f), instance_border(seen.instance_ids))]
                  for name, f in whole.items()},
        "skeleton": {name: skeleton_fit(f.mean(-1).astype(np.uint8), patches(seen)) for name, f in whole.items()},
        "apart": distances(some),
    })  # fmt: skip


CASES = {
    **{f"maps of {camera}": lambda stills, camera=camera: maps(stills, camera) for camera in CAMERAS},
    **{f"{p} from {c}": lambda stills, c=c, p=p: gated(stills, c, p) for c, p in zip(CAMERAS, PRESETS, strict=True)},
}


@pytest.mark.parametrize("case", CASES)
def test_a_measure_is_what_it_was(stills: dict[str, SourceFrame], case: str) -> None:
    assert not compare(CASES[case](stills), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = sources(Path(place))
        store(GOLDEN, {case: measure(found) for case, measure in CASES.items()})
    sys.exit(0)
