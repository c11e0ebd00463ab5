# SPDX-License-Identifier: Apache-2.0
"""The third painter of the bench: what it draws by itself, and that its pictures are where the film says."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts" / "prove"))
import vtk_sets
from appearance import LOOKS
from film import Film, project
from film_faults import NOT_WRIST
from film_sets import FAMILIES
from film_splits import OTHER, OTHER_AT, SPLITS
from painter_bench import jobs
from toy_film import COUNT, toy
from vtk_painter import PYTHON, VtkPainter, lamp_place, panorama


def test_the_split_of_the_third_painter_shares_no_episode_and_no_set_with_another() -> None:
    mine = SPLITS["vtk"].films
    others = [film for name, split in SPLITS.items() if name != "vtk" for film in split.films]
    assert not {(r, s) for r, s, _, _ in mine} & {(r, s) for r, s, _, _ in others}
    assert {f for *_, f in mine} == set(vtk_sets.FAMILIES)
    assert not set(vtk_sets.FAMILIES) & set(FAMILIES)
    assert len(mine) == len(set(mine))


def test_the_split_of_the_third_painter_has_the_counts_that_were_asked_for() -> None:
    every = list(jobs("vtk"))
    clean = [j for j in every if j.kind == "clean"]
    assert len(clean) >= 300
    for cameras in (("front", "side"), ("wrist",)):
        assert {j.look for j in clean if j.film[2] in cameras} == set(LOOKS)
    for kind in SPLITS["vtk"].kinds:
        assert sum(j.kind == kind and j.film[2] in ("front", "side") for j in every) >= 20
        assert kind not in NOT_WRIST or not any(j.kind == kind and j.film[2] == "wrist" for j in every)
    for _, seed, camera, _ in SPLITS["vtk"].films:
        assert OTHER_AT.get((seed, camera), OTHER[seed]) != seed


@pytest.mark.parametrize("family", vtk_sets.FAMILIES)
def test_a_room_leaves_geometry_alone(family: str) -> None:
    film = toy()
    dressed = vtk_sets.dress(film, family, 4)
    assert dressed.owners[: len(film.owners)] == film.owners
    for mine, theirs in zip(dressed.items, film.items, strict=False):
        assert mine.vertices is theirs.vertices
    for owner in ("/Table", "/P"):
        assert next(i for i in dressed.items if i.owner == owner).texture is not None
    assert dressed.sun[2] < -0.5


def test_a_room_is_the_same_for_a_seed() -> None:
    film = toy()
    dressed, again, other = (vtk_sets.dress(film, "cellar", seed) for seed in (4, 4, 5))
    assert (panorama(dressed) == panorama(again)).all()
    assert dressed.sun == again.sun != other.sun
    assert np.isfinite(panorama(dressed)).all()
    assert panorama(dressed).min() >= 0


@pytest.mark.parametrize("kind", vtk_sets.KINDS)
def test_textures_repeat_without_a_seam(kind: str) -> None:
    image = vtk_sets.stuff(np.random.default_rng(2), kind, 0.3).astype(float)
    for turned in (image, image.swapaxes(0, 1)):
        steps = np.abs(np.diff(turned, axis=0)).mean((1, 2))
        assert np.abs(turned[0] - turned[-1]).mean() <= 1.5 * np.quantile(steps, 0.99) + 1


def test_a_lamp_that_swings_comes_back_and_keeps_its_height() -> None:
    film = replace(toy(), sun=(0.5, 0.0, -0.8), sway_deg=10.0)
    places = np.stack([lamp_place(film, t) for t in range(COUNT)])
    assert np.ptp(places[:, 2]) < 1e-9
    assert np.allclose(places[0], places[-1])
    assert np.linalg.norm(places[1] - places[0]) > 0.1
    still = replace(film, sway_deg=0.0)
    assert np.allclose(lamp_place(still, 3), lamp_place(still, 0))


def test_only_frames_that_changed_are_rendered_again() -> None:
    class Stub(VtkPainter):
        def __init__(self, film: Film) -> None:
            self.owners, self.seen = film.owners, []

        def render(self, film: Film, t: int) -> tuple[np.ndarray, np.ndarray]:
            self.seen.append(t)
            return np.full((120, 160, 3), 9, np.uint8), np.ones((120, 160), np.uint8)

    film = toy()
    painter = Stub(film)
    clean = painter.shoot(film)
    clean.rgb[:] = 1
    painter.seen.clear()
    pose = film.poses["/P"].copy()
    pose[4:, 0, 3] += 0.1
    made = painter.reshoot(clean, film, film.moved({"/P": pose}))
    assert painter.seen == [4, 5]
    assert [int(frame.max()) for frame in made.rgb] == [1, 1, 1, 1, 9, 9]


@pytest.mark.skipif(not PYTHON.exists(), reason="`python scripts/vtk_env.py` makes the environment of the rasteriser")
def test_pictures_and_ids_are_where_the_film_says() -> None:
    film = vtk_sets.dress(toy(), "atelier", 3)
    painter = VtkPainter(film)
    try:
        first, last, again = (painter.render(film, t) for t in (0, COUNT - 1, 0))
    finally:
        painter.close()
    assert (first[0] == again[0]).all()
    assert film.owners.index("prop:second") + 1 not in first[1]
    for t, (_, ids) in ((0, first), (COUNT - 1, last)):
        T = film.pose("/P", t)
        spots = project(film, film.points("/P") @ T[:3, :3].T + T[:3, 3], t)
        rows, columns = np.nonzero(ids == film.owners.index("/P") + 1)
        assert np.abs([columns.min(), columns.max() + 1] - np.array([spots[:, 0].min(), spots[:, 0].max()])).max() < 1.1
        assert np.abs([rows.min(), rows.max() + 1] - np.array([spots[:, 1].min(), spots[:, 1].max()])).max() < 1.1
    changed = (first[0].astype(int) != last[0]).any(-1)
    packet = film.owners.index("/P") + 1
    both = (first[1] == packet) | (last[1] == packet)
    assert changed[both].mean() > 0.9
    # Its shadow moves over the table as well.
    assert (changed & ~both).sum() > 20


@pytest.mark.skipif(not PYTHON.exists(), reason="`python scripts/vtk_env.py` makes the environment of the rasteriser")
def test_a_body_that_falls_out_of_the_world_leaves_all_shadows_alone() -> None:
    film = vtk_sets.dress(toy(), "atelier", 3)
    away = film.poses["prop:second"].copy()
    away[:, 2, 3] = -8.0
    pictures = []
    for shown in (film, film.moved({"prop:second": away})):
        painter = VtkPainter(shown)
        try:
            pictures.append(painter.render(shown, 2)[0])
        finally:
            painter.close()
    assert (pictures[0] == pictures[1]).all()
