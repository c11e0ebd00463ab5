# SPDX-License-Identifier: Apache-2.0
"""Bodies of the worker's API: their defaults are the records', their bounds are the worker's own, and nothing else is let in."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest
from pydantic import ValidationError

from retake.core.takes.base import TakeRequest
from retake.core.wire import TakeJob, VariantJob, VariantRequest
from retake.worker.api_models import (
    PriorityBody,
    SubmitBody,
    TakeJobBody,
    TakeRequestBody,
    VariantJobBody,
    VariantRequestBody,
)

TAKE = {"episode": "/e", "camera": "front", "skeleton": "/s", "variant": "/v", "prompt": "a cup"}
VARIANT = {"episode": "/e", "camera": "front", "world": {}}
REQUEST = {TakeRequestBody: TAKE, VariantRequestBody: VARIANT}
MOST = 1_000_000
BOUNDS = {
    (TakeRequestBody, "seed"): (0, 2**63 - 1), (VariantRequestBody, "seed"): (0, 2**63 - 1),
    (TakeRequestBody, "frames"): (0, MOST), (TakeRequestBody, "start"): (0, MOST), (VariantRequestBody, "index"): (0, MOST),
    (VariantRequestBody, "rerolls"): (0, 100),
    **{(kind, "max_attempts"): (1, 100) for kind in (TakeJobBody, VariantJobBody)},
    **{(kind, "priority"): (-MOST, MOST) for kind in (TakeJobBody, VariantJobBody, PriorityBody)},
}  # fmt: skip
LENGTHS = {"episode": (1, 4096), "camera": (1, 200), "prompt": (0, 20_000), "negative_prompt": (0, 20_000)}


def made(kind: Any, **change: Any) -> Any:
    if kind in REQUEST:
        return kind(**{**REQUEST[kind], **change})
    if kind is PriorityBody:
        return kind(**change)
    request = TAKE if kind is TakeJobBody else VARIANT
    return kind(**{"kind": "take" if kind is TakeJobBody else "variant", "request": request, "output": "/o", **change})


@pytest.mark.parametrize(
    ("body", "record"),
    [
        (TakeRequestBody, TakeRequest),
        (VariantRequestBody, VariantRequest),
        (TakeJobBody, TakeJob),
        (VariantJobBody, VariantJob),
    ],
)
def test_what_is_left_out_is_what_the_record_says(body, record):
    one = made(body)
    names = {f.name for f in fields(record)}
    assert set(type(one).model_fields) == names
    for field in fields(record):
        default = field.default if field.default is not MISSING else field.default_factory
        if default is MISSING or field.name in ("request", "output"):
            continue
        assert getattr(one, field.name) == (default() if callable(default) else default), field.name


@pytest.mark.parametrize(("kind", "name"), BOUNDS, ids=lambda v: getattr(v, "__name__", v))
def test_numbers_are_taken_up_to_their_bounds(kind, name):
    low, high = BOUNDS[kind, name]
    assert [getattr(made(kind, **{name: v}), name) for v in (low, high)] == [low, high]
    for wrong in (low - 1, high + 1, float(low + 1), str(low), True):
        with pytest.raises(ValidationError):
            made(kind, **{name: wrong})


@pytest.mark.parametrize("name", LENGTHS)
def test_texts_are_taken_up_to_their_length(name):
    low, high = LENGTHS[name]
    for length in (low, high):
        made(TakeRequestBody, **{name: "x" * length})
    for length in (low - 1, high + 1):
        if length >= 0:
            with pytest.raises(ValidationError):
                made(TakeRequestBody, **{name: "x" * length})


def test_nothing_unknown_and_nothing_of_another_kind():
    for kind in (TakeRequestBody, VariantRequestBody, TakeJobBody, VariantJobBody):
        with pytest.raises(ValidationError):
            made(kind, more=1)
    take, variant = made(TakeJobBody).model_dump(), made(VariantJobBody).model_dump()
    body = SubmitBody(jobs=[take, variant])
    assert [type(job) for job in body.jobs] == [TakeJobBody, VariantJobBody]
    for jobs in ([], [{**take, "kind": "other"}], [{**take, "request": VARIANT}], [take] * 5001):
        with pytest.raises(ValidationError):
            SubmitBody(jobs=jobs)
    assert len(SubmitBody(jobs=[take] * 5000).jobs) == 5000
