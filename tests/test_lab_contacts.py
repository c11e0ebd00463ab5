# SPDX-License-Identifier: Apache-2.0
"""Whose a contact sensor's bodies are, and where they are touched: scenes with robots of one kind, collections, scenery."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.lab.states import read_contacts

ORIGIN = np.array([3.0, -2.0, 0.0])


def spec(path: str) -> Any:
    return SimpleNamespace(prim_path=path)


def scene(sensor_path: str, body: str) -> tuple[Any, Any]:
    """(scene, content of clone 1): two robots with a hand each, a collection of two cubes, a tray that never moves."""
    env = "/World/envs/env_1"
    robots = tuple(
        SimpleNamespace(key=key, spec=SimpleNamespace(links=(spec(f"{env}/{key}/hand"),)), links=(0,))
        for key in ("left", "right")
    )
    objects = tuple(
        SimpleNamespace(key=f"cubes.{name}", spec=spec(f"{env}/{name}"), index=i, T_env_object=None)
        for i, name in enumerate(("Red", "Blue"))
    )
    T = np.eye(4)
    T[:3, 3] = (0.5, 0.25, 0.0)
    objects += (SimpleNamespace(key="", spec=spec(f"{env}/Tray"), index=-1, T_env_object=T),)
    at = {"left": (1.0, 0.0, 0.5), "right": (2.0, 0.0, 0.5)}
    poses = {key: np.tile([*place, 0, 0, 0, 1], (2, 1, 1)) for key, place in at.items()}
    cubes = np.tile([[7.0, 0, 0, 0, 0, 0, 1], [8.0, 0, 0, 0, 0, 0, 1]], (2, 1, 1))
    sensor = SimpleNamespace(
        body_names=[body], cfg=SimpleNamespace(prim_path=sensor_path, filter_prim_paths_expr=[]),
        data=SimpleNamespace(net_forces_w=np.tile([0.0, 0.0, 4.0], (2, 1, 1))),
    )  # fmt: skip
    found = SimpleNamespace(
        sensors={"touch": sensor}, env_ns="/World/envs", env_regex_ns="/World/envs/env_.*",
        articulations={key: SimpleNamespace(data=SimpleNamespace(body_link_pose_w=rows)) for key, rows in poses.items()},
        rigid_object_collections={
            "cubes": SimpleNamespace(data=SimpleNamespace(body_link_pose_w=cubes, body_com_vel_w=np.zeros((2, 2, 6))))
        },
    )  # fmt: skip
    return found, SimpleNamespace(env_id=1, source=env, origin=ORIGIN, robots=robots, objects=objects)


@pytest.mark.parametrize(
    ("sensor", "body", "path", "place"),
    [
        ("left/.*", "hand", "left/hand", (1.0, 0.0, 0.5)),
        ("right/.*", "hand", "right/hand", (2.0, 0.0, 0.5)),
        ("right/ha.*", "hand", "right/hand", (2.0, 0.0, 0.5)),
        ("Blue", "Blue", "Blue", (8.0, 0.0, 0.0)),
        ("Tray", "Tray", "Tray", (3.5, -1.75, 0.0)),
        ("lamp/.*", "shade", "lamp/shade", ORIGIN),
    ],
)
def test_a_contact_is_of_the_body_under_its_sensor_and_lies_where_that_is(
    sensor: str, body: str, path: str, place: Any
) -> None:
    (contact,) = read_contacts(*scene(f"/World/envs/env_.*/{sensor}", body))
    assert (contact.body_a, contact.body_b) == ("/", f"/World/envs/env_1/{path}")
    assert np.allclose(contact.position, place)
    assert np.allclose(contact.force, (0, 0, 4))
