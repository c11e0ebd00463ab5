# SPDX-License-Identifier: Apache-2.0
"""Logs of joints, what is measured between two of them and a joint's model, on a few steps that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from retake.core.errors import InputError
from retake.core.gap.measure import STEP_S, _gap, common_time, gaps, lag
from retake.core.gap.model import Actuator, fit, response, through
from retake.core.gap.page import _cells, _plot
from retake.core.importers.sage import JointLog, _read_csv, read_log, read_motion, write_log


def log(times, told, did=None, state_times=None, joints=("a",), **more) -> JointLog:
    told = np.array(told, float).reshape(len(times), -1)
    did = told if did is None else np.array(did, float).reshape(-1, told.shape[1])
    return JointLog(joints, np.array(times, float), told, np.array(state_times or times, float), did, **more)


def test_a_command_stands_until_the_next_and_positions_lie_between_measurements():
    told, did = log([0, 0.1, 0.2], [1, 2, 3], [0, 4], [0.0, 0.2]).at(np.array([-0.1, 0, 0.05, 0.1, 0.15, 0.2, 0.3]))
    assert told[:, 0].tolist() == [1, 1, 1, 2, 2, 3, 3]
    assert did[:, 0] == pytest.approx([0, 0, 1, 2, 3, 4, 4])


HALF = STEP_S / np.log(2)
"""With this lag a joint goes half the way in every step."""


def test_a_joint_goes_its_share_of_what_is_beyond_its_friction():
    assert response(np.ones(3), HALF, 0, 0, start=0.0) == pytest.approx([0.5, 0.75, 0.875])
    assert response(np.ones(2), HALF, 0, 0.1, start=0.0) == pytest.approx([0.45, 0.675])
    assert response(-np.ones(2), HALF, 0, 0.1, start=0.0) == pytest.approx([-0.45, -0.675])
    assert response(np.array([0.1, 0.3]), HALF, 0, 0.2, start=0.2) == pytest.approx([0.2, 0.2]), "too little to move it"
    told = np.array([1.0, 2, 3, 4])
    assert response(told, 0, 2 * STEP_S, 0, start=7.0).tolist() == [7, 7, 1, 2]
    assert response(told, 0, 0, 0, start=7.0).tolist() == told.tolist()
    assert response(told, 0, 0.1, 0, start=7.0, step_s=0.05).tolist() == [7, 7, 1, 2]
    several = response(np.ones(2), [HALF, 0], [0, STEP_S], [0, 0], start=0.0)
    assert several == pytest.approx(np.array([[0.5, 0], [0.75, 1]]))


def step(at: int, count: int = 41) -> np.ndarray:
    return (np.arange(count) >= at).astype(float)


@pytest.mark.parametrize(
    ("ours", "theirs", "later"),
    [(10, 14, 4), (14, 10, -4), (10, 30, 20), (10, 31, 0), (30, 10, -20), (31, 10, 0), (9, 9, 0)],
)
def test_a_lag_is_looked_for_up_to_half_of_what_was_recorded(ours, theirs, later):
    assert lag(step(ours), step(theirs)) == pytest.approx(later * STEP_S)


def test_a_lag_is_at_most_half_a_second_and_the_shortest_of_equal_ones():
    assert lag(step(10, 400), step(110, 400)) == pytest.approx(0.5)
    assert lag(step(10, 400), step(111, 400)) == 0
    wave = np.tile([0.0, 1, 0, -1], 20)
    assert lag(wave, np.roll(wave, 1)) == pytest.approx(STEP_S)
    assert lag(wave, np.roll(wave, 3)) == pytest.approx(-STEP_S)
    assert lag(wave, wave) == 0


def test_the_measures_of_two_numbers_each():
    found = _gap("a", np.array([1.0, 2]), np.array([0.1, 0.05]))
    assert found.rmse == pytest.approx(np.sqrt((0.9**2 + 1.95**2) / 2))
    assert found.mape == pytest.approx(900), "what is small says nothing in per cent"
    assert found.correlation == pytest.approx(-1)
    assert found.cosine == pytest.approx(0.2 / np.sqrt(5 * 0.0125))
    still = _gap("a", np.zeros(3), np.array([0.01, 0.02, 0]))
    assert (still.mape, still.correlation, still.cosine, still.lag_s) == (None, None, None, 0)
    assert _gap("a", np.array([1.0, 2, 4]), np.ones(3)).correlation is None
    two = log([0, 1], [[1, 5], [2, 6]], joints=("a", "b"))
    other = log([0, 1], [[6, 1.5], [7, 2.5]], joints=("b", "a"))
    assert [(one.joint, round(one.rmse, 6)) for one in gaps(two, other)] == [("a", 0.5), ("b", 1.0)]


def test_ten_steps_that_both_cover_are_enough():
    long, short = log([0, 1], [0, 1]), log([0, 0.052], [0, 1])
    for pair in ((long, short), (short, long)):
        assert common_time(*pair) == pytest.approx(STEP_S * np.arange(1, 11))
    with pytest.raises(InputError, match=r"the logs share 0\.049 s; a comparison needs 0\.05 s"):
        common_time(long, log([0, 0.049], [0, 1]))


def test_a_second_is_enough_for_a_fit_and_a_joint_that_is_told_nothing_tells_nothing():
    still = log([0, 0.9975], [0.5, 0.5], [0.3, 0.3])
    assert fit(still) == {"a": Actuator(0.0, 0.0, 0.0, pytest.approx(0.2), pytest.approx(0.2))}
    for end, told in ((0.9925, 2), (2, 0.9925)):
        with pytest.raises(InputError, match="a fit needs a second"):
            fit(log([0, end], [0.5, 0.5], [0.3, 0.3], [0.0, told]))


def test_commands_go_through_the_joints_that_have_a_model():
    told = np.stack([step(10, 21), 2 * step(5, 21)], -1)
    times = (STEP_S * np.arange(21)).tolist()
    moved = through(log(times, told, joints=("a", "b")), {"a": Actuator(0.0, 3 * STEP_S, 0.0), "c": Actuator(1, 1, 1)})
    assert moved.control[:, 0].tolist() == step(13, 21).tolist()
    assert moved.position[:, 1].tolist() == (2 * step(5, 21)).tolist()
    assert moved.state_time_s == pytest.approx(times)
    assert moved.velocity is moved.torque is None
    began = through(log(times, told + 5, joints=("a", "b")), {"a": Actuator(0.0, 0.0, 2.0)})
    assert (began.position[:, 0] == 5).all(), "it stands where its first command is"
    with pytest.raises(InputError, match="the model knows c; the motion has a, b"):
        through(log(times, told, joints=("a", "b")), {"c": Actuator(1, 1, 1)})


def test_curves_fill_the_page_from_the_lowest_to_the_highest():
    drawn = _plot(np.array([3.0, 4, 5]), {"sim": np.array([0.0, 1, 2]), "real": np.array([2.0, 0, 1])})
    assert "<path class='sim' d='M20.0,190.0 L500.0,105.0 L980.0,20.0'/>" in drawn
    assert "<path class='real' d='M20.0,20.0 L500.0,190.0 L980.0,105.0'/>" in drawn
    assert ">2</text><text x='20' y='208' font-size='12'>0</text>" in drawn
    for count, points in ((599, 599), (1199, 1199), (1200, 600), (1801, 601)):
        assert _plot(np.arange(count) / 9, {"sim": np.zeros(count)}).count(",190.0") == points
    assert _cells(None, np.nan, 0.123456) == "<td>–</td><td>–</td><td>0.1235</td>"


def csv_file(tmp_path, rows, kind="STATE_MOTOR"):
    path = tmp_path / "x.csv"
    path.write_text("type,timestamp,positions,velocities,torques\n" + "\n".join(f"{kind},{row}" for row in rows) + "\n")
    return path


def test_rows_of_a_log_are_named_by_their_line(tmp_path):
    with pytest.raises(InputError, match=r"x\.csv line 4: its time is before"):
        _read_csv(csv_file(tmp_path, ['0,"[1]",,', '2,"[1]",,', '1,"[1]",,']), 1)
    with pytest.raises(InputError, match=r"x\.csv line 3: 2 positions; joint_list\.txt names 1"):
        _read_csv(csv_file(tmp_path, ['0,"[1]",,', '2,"[1, 2]",,']), 1)
    with pytest.raises(InputError, match=r"x\.csv line 3: .*expected numbers"):
        _read_csv(csv_file(tmp_path, ['0,"[1]",,', 'soon,"[1]",,']), 1)
    with pytest.raises(InputError, match=r"rows are 5\.5 s apart"):
        _read_csv(csv_file(tmp_path, ['0,"[1]",,', '5.5,"[1]",,']), 1)
    real, times, values = _read_csv(
        csv_file(tmp_path, ['1,"[1]","[2]",', '1,"[3]","[4]","[5]"', '6,"[7]","[8]","[9]"']), 1
    )
    assert (real, times.tolist()) == (False, [1, 1, 6])
    assert values["velocities"][:, 0].tolist() == [2, 4, 8]
    assert values["torques"] is None, "one row says nothing"
    real, times, _ = _read_csv(csv_file(tmp_path, ['4000000,"[1]",,'], "StateMotor"), 1)
    assert (real, times.tolist()) == (True, [4]), "one row has no distance to another"


def test_a_log_is_written_in_the_clock_of_its_kind(tmp_path):
    one = log([0, 0.25], [[1, 2], [3, 4]], [[5, 6]], [0.5], joints=("a", "b"), torque=np.array([[7.0, 8]]), real=True)
    write_log(one, tmp_path / "real")
    head = "type,timestamp,positions,velocities,torques"
    read = {path.name: path.read_text().splitlines() for path in (tmp_path / "real").iterdir()}
    assert read == {
        "control.csv": [head, 'Control,0,"[1.0, 2.0]","",""', 'Control,250000,"[3.0, 4.0]","",""'],
        "state_motor.csv": [head, 'StateMotor,500000,"[5.0, 6.0]","","[7.0, 8.0]"'],
        "joint_list.txt": ["a", "b"],
        "event.csv": ["event,timestamp", "MOTION_START,0", "DISABLE,500000"],
    }
    write_log(log([0, 0.25], [1, 3]), tmp_path / "sim")
    assert (tmp_path / "sim" / "control.csv").read_text().splitlines()[2] == 'CONTROL,0.25,"[3.0]","",""'
    assert not (tmp_path / "sim" / "event.csv").exists()


def test_times_start_at_the_first_row_of_either_file_and_end_with_the_motion(tmp_path):
    folder = tmp_path / "log"
    write_log(log([0.5, 1, 1.5, 2], [1, 2, 3, 4], [5, 6, 7, 8], [0.25, 0.9, 1.4, 2.1]), folder)
    found = read_log(folder)
    assert found.control_time_s == pytest.approx([0.25, 0.75, 1.25, 1.75])
    assert found.state_time_s == pytest.approx([0, 0.65, 1.15, 1.85])
    write_log(log([0.5, 1, 1.5, 2], [1, 2, 3, 4], [5, 6, 7, 8], [0.25, 0.9, 1.4, 2.1], real=True), tmp_path / "real")
    events = tmp_path / "real" / "event.csv"
    events.write_text("event,timestamp\nDISABLE,1500000\nMOTION_START,500000\n")
    found = read_log(tmp_path / "real")
    assert found.control_time_s == pytest.approx([0.25, 0.75])
    assert found.control[:, 0].tolist() == [2, 3]
    assert found.position[:, 0].tolist() == [6, 7]
    events.write_text("event,timestamp\nMOTION_START,1500000\n")
    assert read_log(tmp_path / "real").position[:, 0].tolist() == [8]
    events.write_text("event,timestamp\nMOTION_START,1800000\n")
    with pytest.raises(InputError, match=r"nothing was recorded between MOTION_START \(1\.8 s\) and DISABLE \(inf s\)"):
        read_log(tmp_path / "real")


def test_lines_of_a_motion_file_are_counted_without_blank_ones(tmp_path):
    path = tmp_path / "m.txt"
    path.write_text("a, b\n\n1,2\n3, 4\n")
    names, rows = read_motion(path)
    assert (names, rows.tolist()) == (("a", "b"), [[1, 2], [3, 4]])
    for text, words in (("a\n", "expected a line of joint names"), ("a,b\n1,2\n3\n", "line 3: 1 positions for 2 joints"),
                        ("a\n1\nx\n", "line 3: ")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_motion(path)
