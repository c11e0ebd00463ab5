# SPDX-License-Identifier: Apache-2.0
"""What a call of the OSCAR pipeline may ask for, to the last value, and what of it belongs to which take; how a student wants to
be sampled; what a seam is measured to be. No model is loaded. Of retake.worker.oscar.request, .few_step, .windows, .schedule."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.worker.oscar import schedule
from retake.worker.oscar.few_step import Student, even_sigmas, read_student, renoise_seed
from retake.worker.oscar.prompts import ProjectedPrompt
from retake.worker.oscar.request import make_request
from retake.worker.oscar.vae import covering_latent_frames, latent_frames, to_uint8, to_unit
from retake.worker.oscar.windows import Seam, check_seam

WIDTH = 6
PICTURE = np.zeros((32, 48, 3), np.uint8)
FILM = np.zeros((5, 32, 48, 3), np.uint8)


def asked(**changes: Any) -> Any:
    given: dict[str, Any] = {
        "first_frame": PICTURE, "skeleton": FILM, "prompt": "a cup", "negative_prompt": None, "prompt_embeds": None,
        "negative_prompt_embeds": None, "num_frames": 5, "height": 32, "width": 48, "num_inference_steps": 35,
        "guidance_scale": 6.0, "seed": 1, "output_type": "np", "exact_first_frame": False, "fit": "squeeze", "embed_width": WIDTH,
        "max_latent": (21, 60, 80), "default_negative": lambda: "ugly",
    }  # fmt: skip
    return make_request(**{**given, **changes})


@pytest.mark.parametrize(("name", "fine", "wrong"), [
    ("height", [16, 32, np.int64(48)], [0, -16, 8, 24, 16.0, True, "16"]), ("width", [16, 640], [0, 8, 17, 16.0, True]),
    ("num_inference_steps", [1, 999, np.int64(5)], [0, 1000, -1, 1.5, True, "3"]),
    ("guidance_scale", [0, -2.5, "6", 1e9], [float("nan"), float("inf"), None, "much"]),
    ("seed", [0, 2**32 - 1, np.int64(3)], [-1, 2**32, 1.5, True, None, []]),
    ("output_type", ["np", "pt", "latent"], ["png", None]), ("fit", ["squeeze", "crop", "letterbox", "error"], ["stretch"]),
    ("num_frames", [1, 5, 81], [0, -4, 2.0, True]),
])  # fmt: skip
def test_a_value_is_taken_up_to_its_bounds(name, fine, wrong):
    more = {"skeleton": FILM[:1]} if name == "num_frames" else {}
    for value in fine:
        asked(**{name: value, **more})
    for value in wrong:
        with pytest.raises(InputError):
            asked(**{name: value, **more})


@pytest.mark.parametrize(("fine", "wrong"), [
    ({"num_frames": 81}, {"num_frames": 82}), ({"height": 480}, {"height": 496}), ({"width": 640}, {"width": 656}),
])  # fmt: skip
def test_a_video_is_no_larger_than_the_model_s_largest(fine, wrong):
    asked(**fine)
    with pytest.raises(InputError, match="largest latent 21x60x80"):
        asked(**wrong)


def test_latents_exist_for_one_window():
    long = np.zeros((6, 32, 48, 3), np.uint8)
    asked(output_type="latent")
    asked(skeleton=long)
    with pytest.raises(InputError, match="6 skeleton frames need 2 windows of 5"):
        asked(output_type="latent", skeleton=long)


def test_what_is_given_once_belongs_to_every_take():
    one = asked()
    assert (one.takes, one.seeds, one.prompts, one.negative, one.evaluations) == (1, (1,), ("a cup",), "ugly", 36)
    assert (one.steps, one.guidance, one.exact_first_frame, one.student, one.objects) == (35, 6.0, False, None, None)
    assert asked(exact_first_frame=1).exact_first_frame is True
    three = asked(seed=[1, 2, 3], prompt=["a", "b", "c"])
    assert (three.takes, three.seeds, three.prompts, len(three.first_frames)) == (3, (1, 2, 3), ("a", "b", "c"), 3)
    images = [PICTURE, PICTURE + 9]
    two = asked(first_frame=images)
    assert [int(frame.max()) for frame in two.first_frames] == [0, 9]
    assert two.seeds == (1, 1)
    assert asked(seed=np.array([4, 5])).seeds == (4, 5)
    for changes in ({"first_frame": images, "seed": [1, 2, 3]}, {"prompt": ["a", "b"], "seed": [1, 2, 3]},
                    {"first_frame": [PICTURE] * 3, "seed": [1, 2]}):  # fmt: skip
        with pytest.raises(InputError, match="entries for 3 takes"):
            asked(**changes)


def test_a_prompt_is_a_text_or_its_numbers():
    raw = torch.arange(2 * 3 * WIDTH).reshape(2, 3, WIDTH).float()
    found = asked(prompt=None, prompt_embeds=raw)
    assert [torch.equal(a, b) for a, b in zip(found.prompts, raw.split(1), strict=True)] == [True, True]
    known = ProjectedPrompt(torch.zeros(1, 2, 4), "r")
    assert asked(prompt=None, prompt_embeds=known).prompts == (known,)
    mixed = asked(prompt=None, prompt_embeds=[known, raw[:1].numpy()]).prompts
    assert mixed[0] is known
    assert torch.equal(mixed[1], raw[:1])
    for changes, says in (
        ({"prompt": None}, "found neither"), ({"prompt_embeds": raw}, "found both"), ({"prompt": ["a", 3]}, "list of texts"),
        ({"prompt": []}, "list of texts"), ({"prompt": None, "prompt_embeds": []}, "empty list"),
        ({"prompt": None, "prompt_embeds": raw[0]}, r"expected \(1, L, 6\)"),
        ({"prompt": None, "prompt_embeds": raw[:0]}, "expected"),
        ({"prompt": None, "prompt_embeds": raw[..., :5]}, "expected"), ({"prompt": None, "prompt_embeds": "x"}, "is a str"),
        ({"prompt": None, "prompt_embeds": raw[:, :0]}, "expected"),
        ({"prompt": None, "prompt_embeds": raw.int()}, "floating-point"),
        ({"prompt": None, "prompt_embeds": raw / 0}, "NaN or inf"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            asked(**changes)


def test_what_is_not_wanted_is_one_text_for_all_and_nothing_without_guidance():
    raw = torch.ones(1, 3, WIDTH)
    assert asked(negative_prompt="blur").negative == "blur"
    assert asked(negative_prompt="").negative == ""
    assert torch.equal(asked(negative_prompt_embeds=raw).negative, raw)

    def never() -> str:
        raise AssertionError("nobody asked for it")

    assert asked(guidance_scale=0, default_negative=never).negative is None
    asked(negative_prompt="x", default_negative=never)
    for changes, says in (
        ({"negative_prompt": "x", "negative_prompt_embeds": raw}, "found both"),
        ({"negative_prompt_embeds": raw.expand(2, -1, -1)}, "all takes share one"),
        ({"negative_prompt": ["x"]}, "one text"),
    ):
        with pytest.raises(InputError, match=says):
            asked(**changes)


def test_objects_are_given_to_a_model_that_reads_them():
    video = np.full((5, 64, 96, 3), 7, np.uint8)
    found = asked(object_video=video, object_channels=16).objects
    assert found.shape == FILM.shape
    assert (found == 7).all()
    for changes, says in (
        ({"object_channels": 16}, "give object_video"), ({"object_video": video}, "has no object embedding"),
        ({"object_video": video[:4], "object_channels": 16}, "has 4 frames and the skeleton 5"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            asked(**changes)


@pytest.mark.parametrize(("size", "warned"), [
    ((48, 32), False), ((96, 64), False), ((97, 64), False), ((48, 33), False), ((101, 64), True), ((48, 34), True),
])  # fmt: skip
def test_another_view_is_warned_of_where_parts_of_it_are_cut(size, warned, caplog):
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    with caplog.at_level(logging.WARNING):
        asked(first_frame=picture)
        assert caplog.text == ""
        asked(first_frame=[picture, PICTURE], fit="crop", seed=[1, 2])
    assert ("keep different parts" in caplog.text) == warned


# -- students -------------------------------------------------------------------------------------------------------------


def test_a_student_runs_in_its_own_steps():
    student = Student(4)
    found = asked(num_inference_steps=4, student=student)
    assert (found.evaluations, found.student) == (4, student)
    with pytest.raises(InputError, match="is a student of 4 steps"):
        asked(num_inference_steps=5, student=student)


@given(st.integers(1, 32))
def test_sigmas_are_spread_over_the_schedule_from_its_beginning(steps):
    found = even_sigmas(steps)
    scheduler = schedule.make_scheduler()
    schedule.start_schedule(scheduler, schedule.DEFAULT_STEPS, "cpu")
    whole = scheduler.sigmas.tolist()
    assert found[0] == whole[0]
    places = [whole.index(sigma) for sigma in found]
    assert len(found) == len(set(places)) == steps
    assert whole.index(0.0) not in places
    gaps = np.diff([*places, len(whole) - 1])
    assert gaps.max() - gaps.min() <= 1
    assert Student(steps).sigmas == found


def test_a_student_that_makes_no_sense_is_refused(tmp_path):
    Student(2, sigmas=(0.99, 0.01))
    Student(1, "ode", 2.0, (0.5,))
    for wrong in ((0,), (33,), (2, "euler"), (2, "ode", 0.0, (0.9,)), (2, "ode", 0.0, (0.5, 0.5)), (2, "ode", 0.0, (0.4, 0.5)),
                  (2, "ode", 0.0, (1.0, 0.5)), (2, "ode", 0.0, (0.5, 0.0)), (1, "ode", 0.0, (0.9, 0.5))):  # fmt: skip
        with pytest.raises(InputError):
            Student(*wrong)
    assert Student(8, "ode").label == "student:8:ode"
    assert read_student(tmp_path) is None
    for text in ("{", '{"steps": 99}', '{"steps": "many"}'):
        (tmp_path / "student.json").write_text(text)
        with pytest.raises(InputError, match=r"student\.json|1 to 32"):
            read_student(tmp_path)
    (tmp_path / "student.json").write_text('{"steps": 2, "sampler": "ode", "guidance": 1.5, "sigmas": [0.9, 0.4]}')
    assert read_student(tmp_path) == Student(2, "ode", 1.5, (0.9, 0.4))


@given(st.integers(0, 2**32 - 1))
def test_no_two_draws_of_a_take_share_a_seed(seed):
    windows = [schedule.window_seed(seed, k) for k in range(40)]
    steps = [renoise_seed(seed, k) for k in range(32)]
    assert windows[0] == seed
    assert len({*windows, *steps}) == 72
    assert all(0 <= one < 2**32 for one in (*windows, *steps))
    assert [renoise_seed((seed + 1) % 2**32, k) for k in range(32)] == [(one + 1) % 2**32 for one in steps]


def test_the_given_frame_is_shown_as_nearly_clean():
    found = schedule.net_timesteps(700, 4, "cpu")
    assert found.shape == (1, 4)
    assert found[0].tolist() == pytest.approx([1e-4, 0.7, 0.7, 0.7])
    assert torch.equal(
        schedule.make_noise(3, (2, 5)), torch.from_numpy(np.random.RandomState(3).standard_normal((2, 5))).float()
    )


# -- frames ---------------------------------------------------------------------------------------------------------------


@given(st.integers(-3, 200))
def test_a_latent_frame_stands_for_four_after_the_first(frames):
    if frames < 1 or (frames - 1) % 4:
        with pytest.raises(InputError, match=r"1 \+ 4k"):
            latent_frames(frames)
    else:
        assert latent_frames(frames) == covering_latent_frames(frames) == 1 + (frames - 1) // 4
    if frames >= 1:
        fewest = covering_latent_frames(frames)
        assert 4 * fewest - 3 >= frames > 4 * (fewest - 1) - 3


def test_pixels_come_back_as_they_were():
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    frames[0, 0, 0], frames[0, 0, 1] = 0, 255
    unit = to_unit(frames)
    assert unit.shape == (1, 3, 3, 4, 5)
    assert (float(unit.min()), float(unit.max())) == (-1, 1)
    assert torch.allclose(unit[0, 1, 2, 3, 4] * 127.5 + 127.5, torch.tensor(float(frames[2, 3, 4, 1])), atol=1e-3)
    back = to_uint8(unit)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).max() <= 1
    assert to_uint8(torch.full((1, 3, 1, 1, 1), 3.0)).max() == 255
    assert to_uint8(torch.full((1, 3, 1, 1, 1), -3.0)).max() == 0
    assert to_uint8(torch.full((1, 3, 1, 1, 1), (200.9 / 255 - 0.5) / 0.5)).max() == 200, "cut off, not rounded"


@pytest.mark.parametrize("off", [1, 5, 60])
def test_a_seam_is_measured_against_its_copy(off):
    film = np.full((4, 6, 6, 3), 100, np.uint8)
    found = check_seam(film, 1, film[1] + np.uint8(off))
    assert found.psnr_db == pytest.approx(20 * math.log10(255 / off))
    assert (found.frame, found.jump) == (1, 0)
    assert check_seam(film, 1, film[1]).psnr_db == math.inf


@pytest.mark.parametrize("frame", [0, 9, 20, 38])
def test_a_jump_is_measured_against_the_eight_steps_on_either_side(frame):
    """Near the seam the film moves by one, far from it by five, across it by three."""
    steps = np.full(39, 5)
    steps[max(0, frame - 8) : frame + 9] = 1
    steps[frame] = 3
    film = np.cumsum([0, *steps])[:, None, None, None] * np.ones((1, 2, 2, 3))
    film = film.astype(np.uint8)
    found = check_seam(film, frame, film[frame])
    assert found.jump == pytest.approx(3)
    wider = steps.copy()
    for far in (frame - 9, frame + 9):
        if 0 <= far < 39:
            wider[far] = 100
    film = (np.cumsum([0, *wider])[:, None, None, None] * np.ones((1, 2, 2, 3))).astype(np.int64)
    assert check_seam(film, frame, film[frame]).jump == pytest.approx(3)


@pytest.mark.parametrize(("psnr", "jump", "ok"), [(25, 3, True), (24.99, 3, False), (25, 3.01, False), (99, 0, True)])
def test_a_seam_is_fine_within_both_limits(psnr, jump, ok):
    assert Seam(3, psnr, jump).ok == ok


def test_a_film_that_stands_still_jumps_where_it_moves_at_all():
    film = np.zeros((20, 2, 2, 3), np.uint8)
    assert check_seam(film, 9, film[9]).jump == 0
    film[10:] = 50
    assert check_seam(film, 9, film[9]).jump == math.inf
    assert check_seam(film[9:11], 0, film[9]).jump == 1, "two frames have nothing around them"
