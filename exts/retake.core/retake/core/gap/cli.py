# SPDX-License-Identifier: Apache-2.0
"""`retake gap`: SAGE's logs in and out, measured, fitted, and replayed through the fitted joints."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.files import write_bytes, write_json
from retake.core.gap.measure import gaps
from retake.core.gap.model import fit, read_model, through, write_model
from retake.core.gap.page import page
from retake.core.importers.sage import JointLog, log_of, read_log, write_log, write_motion
from retake.core.run_store import episode_at

_EPILOG = """examples:
  retake gap export runs/demo --out output/sim/panda/retake/demo --motion motion_files/panda/retake/demo.txt
  retake gap measure output/sim/panda/retake/demo output/real/panda/retake/demo --out gap
  retake gap replay output/real/panda/retake/demo --model gap/actuators.json --out real_motors.csv
  retake capture runs/real --stage scene.usda --motion real_motors.csv
"""


def main(argv: list[str]) -> int:
    """`retake gap export|measure|replay`; returns the exit code. Raises RetakeError."""
    parser = argparse.ArgumentParser(
        prog="retake gap",
        description="How far real joints are from simulated ones (SAGE's files), and takes that show what real motors would do.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")
    sub = words.add_parser("export", help="an Episode as SAGE's simulated log")
    sub.add_argument("run", type=Path, metavar="RUN")
    sub.add_argument(
        "--out", type=Path, required=True, help="motion folder: control.csv, state_motor.csv, joint_list.txt"
    )
    sub.add_argument("--motion", type=Path, help="the commands as a motion file, too")
    sub.add_argument("--robot", default="", help="where the episode has several")
    sub = words.add_parser("measure", help="per-joint gap of a simulated and a real log, a fit, and a page")
    sub.add_argument("sim", type=Path, metavar="SIM")
    sub.add_argument("real", type=Path, metavar="REAL")
    sub.add_argument("--out", type=Path, required=True, help="folder of gap.json, actuators.json and report.html")
    sub = words.add_parser(
        "replay", help="a log's commands as the fitted joints follow them, as a motion for `retake capture`"
    )
    sub.add_argument("log", type=Path, metavar="LOG")
    sub.add_argument("--model", type=Path, required=True, help="actuators.json of `measure`")
    sub.add_argument("--out", type=Path, required=True, metavar="CSV")
    args = parser.parse_args(argv)
    return {"export": _export, "measure": _measure, "replay": _replay}[args.word](args)


def _export(args: argparse.Namespace) -> int:
    episode = open_episode(episode_at(args.run))
    log = log_of(episode, args.robot)
    if args.motion is not None and args.motion.exists():
        raise InputError(f"{args.motion} exists; choose another (nothing was changed)")
    write_log(log, args.out)
    if args.motion is not None:
        write_motion(log, args.motion)
    print(f"{args.out}: {len(log.joints)} joints, {log.state_time_s[-1]:.2f} s")
    return 0


def _measure(args: argparse.Namespace) -> int:
    sim, real = read_log(args.sim), read_log(args.real)
    if sim.real or not real.real:
        what = "real" if sim.real else "simulated"
        raise InputError(
            f"{args.sim if sim.real else args.real} is a {what} log; `retake gap measure` takes SIM, then REAL"
        )
    if args.out.exists():
        raise InputError(f"{args.out} exists; choose another --out (nothing was changed)")
    found, model = gaps(sim, real), fit(real)
    write_json(args.out / "gap.json", {"schema": "retake.gap/1", "joints": [vars(one) for one in found]})
    write_model(args.out / "actuators.json", model)
    write_bytes(args.out / "report.html", page(sim, real, found, model).encode())
    for one in found:
        a = model[one.joint]
        print(
            f"{one.joint:<24} RMSE {one.rmse:.4f}  lag {one.lag_s * 1e3:+.0f} ms  fitted: lag {a.lag_s * 1e3:.0f} ms, delay "
            f"{a.delay_s * 1e3:.0f} ms, friction {a.friction:.4f}, RMSE {a.rmse:.4f} (told: {a.rmse_ideal:.4f})"
        )
    print(args.out / "report.html")
    return 0


def _replay(args: argparse.Namespace) -> int:
    if args.out.exists():
        raise InputError(f"{args.out} exists; choose another --out (nothing was changed)")
    motion = through(read_log(args.log), read_model(args.model))
    write_bytes(args.out, motion_csv(motion).encode())
    print(f"{args.out}: {len(motion.joints)} joints, {motion.control_time_s[-1]:.2f} s")
    print(f"next: retake capture RUN --stage STAGE --motion {args.out}")
    return 0


def motion_csv(log: JointLog) -> str:
    """The log's positions as a motion file of the embedded simulator (docs/motion.md): `time_s` and a column per joint."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["time_s", *log.joints])
    for time, row in zip(log.state_time_s, log.position, strict=True):
        writer.writerow([repr(float(time)), *(repr(float(x)) for x in row)])
    return out.getvalue()
