# SPDX-License-Identifier: Apache-2.0
"""What Retake takes for granted about Isaac Sim and could check on test doubles only: one list for the self-test, the
checklist and the tests. Pure: nothing of Kit or USD is imported.

`docs/isaac_sim_checklist.md` is written from it (scripts/kit_checklist.py), the self-test measures it one by one, and a test
turns each one over: the recording then ends with a message and the frames so far, never with a wrong pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Assumption:
    """One thing taken for granted."""

    key: str
    """Name of the self-test's method that measures it."""
    assumed: str
    if_false: str
    """What a recording does when it does not hold."""
    measured: str
    """What the self-test measures, and what is good."""


ASSUMPTIONS = (
    Assumption(
        "asynchronous_rendering", "asynchronous rendering obeys its settings within 3 updates, and stays off",
        "on again: the recording ends, naming the setting; slower than 3 updates: the first frames may pair wrongly, which the "
        "items on pairing and pixels show",
        "updates until it is off while a recording runs (3), and its value afterwards (as before)",
    ),
    Assumption(
        "nobody_opens_a_stage", "no other extension opens a stage once the application is ready",
        "opening is tried again three times, then refused; while recording it ends with the frames before",
        "the stage is still open after 30 updates",
    ),
    Assumption(
        "whole_steps_per_update", "every update of a running timeline makes the same whole number of physics steps",
        "the recording ends at the first frame that falls between updates, naming the time codes per second that fit",
        "physics steps per update (one number)",
    ),
    Assumption(
        "every_getter_answers", "tensor views give joint positions, velocities, targets, efforts and link poses",
        "efforts: left out, and said; anything else: the recording ends, naming what the engine does not give",
        "getters that answer (all; efforts may be missing)",
    ),
    Assumption(
        "stage_reads", "robots, cameras and geometry of the stage are found with distinct names",
        "what was not chosen leaves a note; what was chosen is refused by name",
        "robots, cameras and bodies found, and notes",
    ),
    Assumption(
        "times_agree", "a frame's reference time is the simulation manager's time of its state to 2 µs",
        "the recording ends: no state, or more than one, has the frame's time",
        "largest difference over the frames of a live recording, µs (2)",
    ),
    Assumption(
        "held_state_is_rendered", "step_async with delta_time=0 renders the state that is held",
        "a frame begun before is left out, and without another one the recording ends; a frame that lies about its time shows in "
        "the items on pixels",
        "frames of earlier states, and K and pose of frame 0 in both modes (0.01 px, 0.1 mm)",
    ),
    Assumption(
        "writes_in_order", "the writer is called once per frame, in order",
        "again: counted and left out; out of order: the recording ends; on another thread: taken all the same",
        "repeated and late frames, and the thread that called",
    ),
    Assumption(
        "payload_layout", "payloads have the layout renderProduct with rgb, depth, normals, instance ids and camera_params",
        "the recording ends, naming what is missing and what was delivered",
        "keys of a payload, and shape and type of each channel",
    ),
    Assumption(
        "capture_on_play", "capture on play, switched on at Record, takes effect at once",
        "no frame comes, and the recording ends after 300 updates with what to press",
        "updates from the first step to the first frame",
    ),
    Assumption(
        "detach_in_an_update", "writer and render products can be taken away in an update",
        "noted in the episode's notes; everything else is taken away all the same",
        "notes about things that could not be taken back (none)",
    ),
    Assumption(
        "fields_survive_a_rebuild", "omni.ui keeps what is typed in a field while the panel around it is rebuilt",
        "the panel rebuilds no part whose field is being edited",
        "not measured here: type into a field of the open panel while the stage changes",
    ),
    Assumption(
        "contacts_are_readable", "contact reports can be read after a step, also when the GPU keeps what it simulates",
        "no contacts are recorded from then on, and the notes say so",
        "contacts in the recording (more than 0 where things touch), and the physics settings that forbid them",
    ),
    Assumption(
        "exit_code_arrives", "post_quit(code) and close(exit_code=code) end the process with that code",
        "code and reason are in run.json and in the last line all the same; a process that hangs is ended by a watchdog",
        "whether this application takes an exit code; python.sh turns every failure into 1",
    ),
    Assumption(
        "packages_merge", "the namespace package retake is found over several extension folders",
        "the import says which folders are missing",
        "folders that the parts of retake come from",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One thing measured beside the assumptions."""

    key: str
    """Name of the self-test's method."""
    name: str
    what: str
    good: str
    why: str
    """Why it needs the real thing."""


MEASUREMENTS = (
    Measurement("adapters", "versions and adapters", "what was found and chosen", "", "APIs are picked by what exists"),
    Measurement("stage", "stage opens", "the demo stage, or the one that is open", "", "start-up and loading take updates"),
    Measurement(
        "record_live", "live recording pairs exactly", "frames joined with states by time; largest lag",
        "pairing error 0 steps", "the key of a step and of the frame that shows it come from two parts of Kit",
    ),
    Measurement(
        "record_stepped", "stepped recording pairs exactly", "the same with the timeline held", "every frame",
        "`step_async` must render the held state",
    ),
    Measurement(
        "same_camera", "live and stepped agree on the camera", "K and pose of frame 0", "0.01 px, 0.1 mm",
        "frame-exact camera matrices",
    ),
    Measurement(
        "intrinsics", "K of the frame is K of the stage", "largest difference, px", "0.5 px",
        "square pixels; whether aperture offsets render",
    ),
    Measurement(
        "kinematics", "link poses fit forward kinematics", "largest error, m", "1 mm",
        "order of links and joints, quaternion order, units of prismatic joints",
    ),
    Measurement(
        "projection", "skeleton lies on the robot's pixels",
        "median distance of projected links from the robot's segmentation", "5 % of the diagonal", "all of the above together",
    ),
    Measurement("cost", "cost in the simulation's callbacks", "p50, p99", "0.3 ms, 2 ms", "real tensor calls"),
    Measurement("untouched", "the user's stage is untouched", "root layer before and after", "equal", ""),
    Measurement("outside", "a Python outside Kit is found", "path", "", "environment of the worker's process"),
    Measurement("opencv", "OpenCV of this Kit", "version, video I/O", "", "videos are made outside Kit in any case"),
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """What the self-test found out about one of them."""

    key: str
    name: str
    status: str
    """pass, fail or unknown."""
    detail: str
    value: Any = None
    """What was measured, as JSON."""
