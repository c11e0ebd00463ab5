# SPDX-License-Identifier: Apache-2.0
"""Sizing and windows: laws over many sizes and lengths."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retake.core.codec import decode
from retake.core.errors import InputError
from retake.worker.oscar.fit import FITS, FitRecord, plan_fit
from retake.worker.oscar.frames import first_frame_list, fit_first_frame, read_skeleton
from retake.worker.oscar.windows import check_seam, choose_window, plan_windows, window_length

sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))


def picture(size, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


@given(sizes, sizes, st.sampled_from(("squeeze", "crop", "letterbox")))
def test_records_stay_inside_both_pictures_and_survive_json(source, target, mode):
    record = plan_fit(source, target, mode)
    for (x, y, w, h), (width, height) in ((record.crop, source), (record.paste, target)):
        assert x >= 0
        assert y >= 0
        assert w >= 1
        assert h >= 1
        assert x + w <= width
        assert y + h <= height
    assert decode(FitRecord, record.to_json(), "sidecar") == record
    frames = np.full((2, source[1], source[0], 3), 200, np.uint8)
    fitted = record.apply(frames)
    assert fitted.shape == (2, target[1], target[0], 3)
    assert record.undo(fitted).shape == frames.shape


@given(sizes, sizes)
def test_crop_keeps_the_aspect_and_letterbox_keeps_everything(source, target):
    crop, box = plan_fit(source, target, "crop"), plan_fit(source, target, "letterbox")
    assert crop.paste == (0, 0, *target)
    assert box.crop == (0, 0, *source)
    # within the rounding of one pixel on each side
    assert abs(crop.crop[2] * target[1] - crop.crop[3] * target[0]) <= max(target)
    assert abs(box.paste[2] * source[1] - box.paste[3] * source[0]) <= max(source)


@given(sizes, sizes, st.sampled_from(("squeeze", "crop", "letterbox")), st.integers(0, 10**6))
def test_intrinsics_move_with_the_pixels(source, target, mode, seed):
    """A source point projected with the moved intrinsics lands where its pixel lands."""
    rng = np.random.default_rng(seed)
    record = plan_fit(source, target, mode)
    K = np.array([[300.0, 0, source[0] / 2], [0, 310.0, source[1] / 2], [0, 0, 1]])
    point = np.array([*rng.uniform(-1, 1, 2), 2.0])
    u, v, _ = K @ point / point[2]
    (sx, sy), (x, y, _, _), (left, top, _, _) = record.scale, record.crop, record.paste
    moved = record.intrinsics(K) @ point / point[2]
    np.testing.assert_allclose(moved[:2], [(u - x) * sx + left, (v - y) * sy + top], atol=1e-9)
    assert record.intrinsics(np.stack([K, K])).shape == (2, 3, 3)


def test_a_drawn_point_is_found_where_the_intrinsics_say():
    """The same law on pixels: a dot drawn in the source and looked for in the fitted picture."""
    source, target = (160, 90), (64, 64)
    for mode in ("squeeze", "crop", "letterbox"):
        record = plan_fit(source, target, mode)
        frame = np.zeros((90, 160, 3), np.uint8)
        frame[40:50, 80:90] = 255  # centre (85, 45)
        fitted = record.apply(frame[None])[0, ..., 0].astype(float)
        rows, columns = np.mgrid[:64, :64] + 0.5
        found = [(columns * fitted).sum() / fitted.sum(), (rows * fitted).sum() / fitted.sum()]
        expected = record.intrinsics(np.array([[1.0, 0, 85], [0, 1.0, 45], [0, 0, 1]]))[:2, 2]
        np.testing.assert_allclose(found, expected, atol=0.3)


@pytest.mark.parametrize("mode", ["squeeze", "letterbox", "crop"])
def test_undo_gives_the_picture_back(mode):
    frame = picture((640, 360))
    record = plan_fit((640, 360), (640, 480), mode)
    back = record.undo(record.apply(frame[None]))[0]
    x, y, w, h = record.crop
    error = np.abs(back[y : y + h, x : x + w].astype(int) - frame[y : y + h, x : x + w]).mean()
    assert error < 2.0
    if mode == "crop":
        assert w < 640
        assert not back[:, : x - 1].any()


def test_same_size_is_untouched_and_squeeze_is_opencv_linear():
    frame = picture((64, 48))
    assert np.array_equal(plan_fit((64, 48), (64, 48), "squeeze").apply(frame[None])[0], frame)
    expected = cv2.resize(frame, (32, 32), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(fit_first_frame(frame, (32, 32), "squeeze")[0], expected)


def test_image_files_are_resized_by_pil_as_in_the_reference():
    frame = picture((100, 60))
    expected = np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BILINEAR))
    by_pil = fit_first_frame(Image.fromarray(frame), (32, 32), "squeeze")[0]
    assert np.array_equal(by_pil, expected)
    assert not np.array_equal(by_pil, fit_first_frame(frame, (32, 32), "squeeze")[0])


@given(sizes, sizes)
def test_error_mode_allows_only_the_same_aspect(source, target):
    same = abs(source[0] / source[1] - target[0] / target[1]) < 1e-12
    different = abs(np.log(source[0] / source[1]) - np.log(target[0] / target[1])) > 0.6
    try:
        plan_fit(source, target, "error")
        accepted = True
    except InputError:
        accepted = False
    assert accepted or not same
    if min(*source, *target) > 3:
        assert not (accepted and different)
    assert set(FITS) == {"squeeze", "crop", "letterbox", "error"}


def test_video_files_are_read_as_rgb(tmp_path):
    path = tmp_path / "skeleton.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(4):
        writer.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))  # red in OpenCV's order
    writer.release()
    frames = read_skeleton(path)
    assert frames.shape == (4, 48, 64, 3)
    assert frames[..., 0].mean() > 200
    assert frames[..., 2].mean() < 50
    np.savez(tmp_path / "two.npz", a=frames, b=frames)
    with pytest.raises(InputError, match="needs an array named skeleton"):
        read_skeleton(tmp_path / "two.npz")
    np.savez(tmp_path / "one.npz", skeleton=frames, other=frames[:1])
    assert np.array_equal(read_skeleton(str(tmp_path / "one.npz")), frames)
    assert np.array_equal(read_skeleton(list(frames)), frames)
    with pytest.raises(InputError, match="differ in shape"):
        read_skeleton([frames[0], frames[0][:4]])
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="no readable video"):
        read_skeleton(tmp_path / "text.mp4")
    assert len(first_frame_list(np.stack([frames[0]] * 2))) == 2


@given(st.integers(1, 700), st.integers(1, 130))
def test_windows_cover_every_frame_once_and_share_one_frame(frames, num_frames):
    if window_length(num_frames) == 1 and frames > 1:
        with pytest.raises(InputError, match="cannot be chained"):
            plan_windows(frames, num_frames)
        return
    windows = plan_windows(frames, num_frames)
    length = window_length(num_frames)
    assert length % 4 == 1
    assert num_frames <= length < num_frames + 4
    covered = list(range(windows[0].start, windows[0].stop))
    for before, after in pairwise(windows):
        assert after.start == before.stop - 1
        assert before.padding == 0
        covered += range(after.start + 1, after.stop)
    assert covered == list(range(frames))
    assert all(w.length == length and 0 <= w.padding < length for w in windows)
    source = np.arange(frames)
    for w in windows:
        shown = w.take(source)
        assert len(shown) == length
        assert list(shown[: w.stop - w.start]) == list(range(w.start, w.stop))
        assert set(shown[w.stop - w.start :]) <= {w.stop - 1}


@given(st.integers(1, 900), st.lists(st.integers(0, 899), max_size=4))
def test_the_chosen_window_holds_its_events_in_the_middle(frames, events):
    if any(event >= frames for event in events):
        with pytest.raises(InputError, match="lie outside"):
            choose_window(frames, 81, events)
        return
    if frames > 81 and events and max(events) - min(events) + 1 > 81:
        with pytest.raises(InputError, match="do not fit one window"):
            choose_window(frames, 81, events)
        return
    window = choose_window(frames, 81, events)
    assert 0 <= window.start < window.stop <= frames
    assert window.stop - window.start == min(frames, 81)
    for event in events:
        assert window.start <= event < window.stop
    if events and frames > 81:
        before, after = min(events) - window.start, window.stop - 1 - max(events)
        at_an_end = window.start == 0 or window.stop == frames
        assert at_an_end or abs(before - after) <= 1


def test_seams_tell_a_cut_from_a_continuation():
    ramp = np.stack([np.full((8, 8, 3), 10 + 2 * i, np.uint8) for i in range(20)])
    good = check_seam(ramp, 9, ramp[9])
    assert good.ok
    assert good.jump == pytest.approx(1.0)
    cut = ramp.copy()
    cut[10:] += 80
    assert not check_seam(cut, 9, ramp[9]).ok
    assert check_seam(ramp, 9, ramp[9] + np.uint8(60)).psnr_db < 25
    still = np.zeros((4, 8, 8, 3), np.uint8)
    assert check_seam(still, 1, still[1]).ok
