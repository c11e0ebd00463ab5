# SPDX-License-Identifier: Apache-2.0
"""Approximate modes by name: read from a command line, turned on once, refused in words, undone where that is possible."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retake.core.errors import InputError
from retake.worker.oscar import approximate, backends
from retake.worker.oscar.approximate import MODES, disable, enable, fewer_steps, read_mode
from retake.worker.oscar.schedule import DEFAULT_STEPS
from retake.worker.oscar.stepcache import Calibration, Residuals


class Body:
    """What modes touch of a transformer."""

    is_cache_enabled = False
    residuals: Any = None
    sparse: Any = None
    dtype = torch.float32

    def enable_cache(self, config: Any) -> None:
        self.is_cache_enabled, self.config = True, config

    def disable_cache(self) -> None:
        self.is_cache_enabled = False

    def enable_layerwise_casting(self, **options: Any) -> None:
        self.casting = options


def pipe() -> Any:
    return SimpleNamespace(
        transformer=Body(),
        approximations=[],
        guidance_interval=None,
        calibration=None,
        model_revision="r",
        run_device="cpu",
    )


def calibration(revision: str = "r") -> Calibration:
    known: dict[str, Any] = {name: None for name in Calibration.__dataclass_fields__}
    return Calibration(**{**known, "revision": revision, "skips": (2, 5), "evaluations": 9, "guidance": 1.0})


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("fp8", "fp8", {}),
        ("first-block-cache:threshold=0.1", "first-block-cache", {"threshold": 0.1}),
        ("guidance-interval:low=0.25,high=1", "guidance-interval", {"low": 0.25, "high": 1}),
        ("step-cache:calibration=a/b=c.json", "step-cache", {"calibration": "a/b=c.json"}),
        ("sage:kernel=sage", "sage", {"kernel": "sage"}),
    ],
)
def test_a_mode_is_read_with_its_options(text, name, options):
    assert read_mode(text) == (name, options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fast", "fast"),
        ("fp8:x=1", "'x=1' is no option of fp8; valid: none"),
        ("sage:kernel", "'kernel' is no option of sage; valid: kernel=VALUE"),
        (
            "guidance-interval:low=1,middle=2",
            "'middle=2' is no option of guidance-interval; valid: low=VALUE, high=VALUE",
        ),
    ],
)
def test_what_is_no_mode_is_refused_with_what_is(text, words):
    with pytest.raises(InputError) as error:
        read_mode(text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "label"),
    [
        ("first-block-cache", {}, "first-block-cache:0.05"),
        ("first-block-cache", {"threshold": 0.999}, "first-block-cache:0.999"),
        ("guidance-interval", {}, "guidance-interval:0-1"),
        ("guidance-interval", {"low": 0.25, "high": 0.5}, "guidance-interval:0.25-0.5"),
        ("sparse-radial", {}, "sparse-radial:1"),
        ("sparse-tile", {"reach": 2}, "sparse-tile:2"),
        ("step-cache", {"calibration": calibration()}, "step-cache:2/9"),
        ("fp8-storage", {}, "fp8-storage"),
    ],
)
def test_a_mode_says_what_it_did(name, options, label):
    made = pipe()
    assert enable(made, name, **options) == label
    body = made.transformer
    assert body.is_cache_enabled == (name == "first-block-cache")
    assert isinstance(body.residuals, Residuals) == (name == "step-cache")
    assert body.sparse == ((name.partition("-")[2], options.get("reach", 1)) if "sparse" in name else None)
    assert made.guidance_interval == (
        (options.get("low", 0.0), options.get("high", 1.0)) if "guidance" in name else None
    )
    if name == "fp8-storage":
        assert body.casting == {"storage_dtype": torch.float8_e4m3fn, "compute_dtype": torch.float32}
    made.approximations.append(label)
    with pytest.raises(InputError, match=f"{name} is on already"):
        enable(made, name, **options)
    if name == "fp8-storage":
        with pytest.raises(InputError, match="fp8-storage rounded the weights"):
            disable(made, made.approximations)
        return
    disable(made, made.approximations)
    assert (body.is_cache_enabled, body.residuals, body.sparse) == (False, None, None)
    assert (made.guidance_interval, made.calibration) == (None, None)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nothing", {}, "nothing"),
        ("fp8", {"low": 1}, "low"),
        *(("first-block-cache", {"threshold": value}, "valid: above 0, below 1") for value in (0, 1, -0.1, True, "x")),
        *(
            ("guidance-interval", {"low": low, "high": high}, "give 0 <= low < high <= 1")
            for low, high in ((0.5, 0.5), (-0.1, 0.5), (0.5, 1.1), (0.6, 0.5), (True, 1), (0, "x"))
        ),
        ("step-cache", {}, "step-cache needs calibration=FILE"),
        ("step-cache", {"calibration": 5}, "step-cache needs calibration=FILE"),
        ("sage", {"kernel": "x"}, "kernel of mode 'sage'"),
    ],
)
def test_a_mode_that_cannot_be_is_refused_in_words(name, options, words):
    with pytest.raises(InputError) as error:
        enable(pipe(), name, **options)
    assert words in str(error.value)


def test_two_caches_and_two_patterns_exclude_each_other():
    one = pipe()
    enable(one, "first-block-cache")
    with pytest.raises(InputError, match="exclude each other"):
        enable(one, "step-cache", calibration=calibration())
    one = pipe()
    enable(one, "step-cache", calibration=calibration())
    with pytest.raises(InputError, match="exclude each other"):
        enable(one, "first-block-cache")
    one = pipe()
    enable(one, "sparse-tile")
    with pytest.raises(InputError, match="one sparse pattern at a time"):
        enable(one, "sparse-radial")
    with pytest.raises(InputError):
        enable(pipe(), "step-cache", calibration=calibration("another"))


def test_quantised_attention_is_turned_on_where_it_is_and_off_again(monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(backends, "set_backend", lambda body, kernel: told.append(kernel))
    monkeypatch.setattr(backends, "obstacle", lambda kernel: "")
    kernel = backends.QUANTISED_BACKENDS[0]
    assert enable(pipe(), "sage", kernel=kernel) == f"sage:{kernel}"
    disable(pipe(), (f"sage:{kernel}",))
    disable(pipe(), ("sparse-tile:1",))
    assert told == [kernel, "native"]
    monkeypatch.setattr(backends, "obstacle", lambda kernel: "it is not here")
    with pytest.raises(InputError, match="it is not here"):
        enable(pipe(), "sage", kernel=kernel)


def test_fewer_steps_are_named_and_the_usual_ones_are_not():
    assert fewer_steps(DEFAULT_STEPS) == fewer_steps(DEFAULT_STEPS + 1) == ()
    assert fewer_steps(DEFAULT_STEPS - 1) == (f"steps:{DEFAULT_STEPS - 1}",)
    assert set(approximate.PERMANENT) <= set(MODES)
