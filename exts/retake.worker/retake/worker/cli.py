# SPDX-License-Identifier: Apache-2.0
"""`retake worker`: start the service, or talk to the one that runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

from retake.core.errors import InputError, WorkerError
from retake.core.host import ask_pid_to_stop
from retake.core.run_layout import name_of
from retake.core.wire import FINAL, JobRecord, WorkerStatus, job_from_json, record_to_json, status_to_json
from retake.core.worker_client import WorkerClient, state_folder
from retake.worker.settings import GIB, load_settings

EPILOG = """
  retake worker --root ~/runs                 start (Ctrl-C stops; the queue stays)
  retake worker status                        queue, executor, GPU memory
  retake worker open                          the page, in a browser
  retake worker submit jobs.json              queue jobs: {"jobs": [...]} as in docs/worker.md
  retake worker list --only failed
  retake worker cancel ID | retry ID | log ID
  retake worker pause | resume | release      release frees all GPU memory at once
"""
WORDS = (
    "serve",
    "status",
    "open",
    "submit",
    "list",
    "wait",
    "cancel",
    "retry",
    "log",
    "pause",
    "resume",
    "release",
    "stop",
)


def main(argv: list[str]) -> int:
    """Run one command; returns its exit code. Raises RetakeError for the dispatcher to print."""
    if not argv or (argv[0] not in WORDS and argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv = ["serve", *argv]
    options = _parser().parse_args(argv)
    return int(options.call(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retake worker", description="The local GPU service: a durable queue of takes, with a page to watch it.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    words = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, text: str, call: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        sub = words.add_parser(
            name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.add_argument("--state", type=Path, default=state_folder(), help="where queue, token and address are kept")
        sub.set_defaults(call=call)
        return sub

    sub = command("serve", "start the service (the default command)", _serve)
    sub.add_argument("--port", type=int, default=8765, help="on 127.0.0.1; 0 = any free port")
    sub.add_argument(
        "--root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder that jobs may read and write; repeat for more",
    )
    sub.add_argument("--config", type=Path, help="YAML with any of the settings of config/worker.yaml")
    sub = command("status", "queue, executor and GPU memory", _status)
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = command("open", "open the page in a browser", _open)
    sub.add_argument(
        "--no-browser", action="store_true", help="print the address only (it holds the token: keep it to yourself)"
    )
    sub = command("submit", "queue jobs from a JSON file", _submit)
    sub.add_argument("file", metavar="FILE", help='{"jobs": [...]}; - reads standard input')
    sub.add_argument(
        "--wait", action="store_true", help="wait until all are finished; exit code 1 if one did not succeed"
    )
    sub = command("list", "jobs: running, queued, then the newest", _list)
    sub.add_argument("--only", metavar="STATES", default="", help="comma-separated states")
    sub.add_argument("--limit", type=int, default=50)
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = command("wait", "wait until jobs are finished; exit code 1 if one did not succeed", _wait)
    sub.add_argument("ids", nargs="+", metavar="ID")
    for name, text, call in (
        ("cancel", "stop a job", _cancel), ("log", "a job's log", _log),
        ("retry", "queue a failed, cancelled or quarantined job again", _retry),
    ):  # fmt: skip
        command(name, text, call).add_argument("id", metavar="ID")
    command("pause", "start no further job", lambda o: _say(_client(o).pause()))
    command("resume", "go on", lambda o: _say(_client(o).resume()))
    command("release", "free all GPU memory now", lambda o: _say(_client(o).release()))
    command("stop", "stop the service; the queue stays", _stop)
    return parser


def _client(options: argparse.Namespace) -> WorkerClient:
    return WorkerClient.discover(options.state)


def _serve(options: argparse.Namespace) -> int:
    from retake.worker.serve import serve

    if not 0 <= options.port <= 65535:
        raise InputError(f"--port {options.port} is not within 0 … 65535")
    return serve(options.port, options.state, options.root, load_settings(options.config))


def _status(options: argparse.Namespace) -> int:
    status = _client(options).status()
    if options.json:
        print(json.dumps(status_to_json(status), indent=2))
        return 0
    return _say(status)


def _say(status: WorkerStatus) -> int:
    counts = ", ".join(f"{n} {state}" for state, n in status.counts.items() if n) or "empty"
    print(f"queue     {counts}{' (paused)' if status.paused else ''}")
    print(
        f"executor  {status.executor}"
        + (
            f", process {status.executor_pid}, {status.executor_rss_bytes / GIB:.2f} GiB RAM"
            if status.executor_pid
            else ""
        )
    )
    if status.tier:
        print(f"tier      {status.tier}")
    for gpu in status.gpus:
        print(f"GPU {gpu.index}     {gpu.name}: {gpu.free_bytes / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB free")
        for process in gpu.processes:
            print(
                f"            {process.name} ({process.pid}): {process.used_bytes / GIB:.1f} GiB"
                f"{' (ours)' if process.ours else ''}"
            )
    if not status.gpus:
        print("GPU       none visible to NVML")
    for text in (status.waiting, status.notice):
        if text:
            print(f"note      {text}")
    return 0


def _open(options: argparse.Namespace) -> int:
    client = _client(options)
    if not client.alive():
        raise WorkerError(f"no worker answers at {client.url}; start one with `retake worker --root DIR`")
    token = (options.state / "token").read_text("ascii").strip()
    # After the '#': a browser never sends that part to anybody.
    address = f"{client.url}/#token={token}"
    if options.no_browser or not webbrowser.open(address):
        print(address)
    return 0


def _submit(options: argparse.Namespace) -> int:
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text("utf-8")
        data = json.loads(text)
    except OSError as error:
        raise InputError(f"{options.file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{options.file} is no JSON: {error}") from error
    jobs = data.get("jobs") if isinstance(data, dict) else data
    if not isinstance(jobs, list) or not jobs:
        raise InputError(f'{options.file}: expected {{"jobs": [...]}} with at least one job')
    client = _client(options)
    records = client.submit([job_from_json(job) for job in jobs])
    for record in records:
        print(f"{record.id}  {record.state:<11} {record.output}")
    return _finish(client, [r.id for r in records]) if options.wait else 0


def _list(options: argparse.Namespace) -> int:
    records = _client(options).jobs(options.only, limit=max(1, min(options.limit, 1000)))
    if options.json:
        print(json.dumps([record_to_json(r) for r in records], indent=2))
        return 0
    for r in records:
        share = f"{100 * r.done // r.total:>3} %" if r.state == "running" and r.total else "     "
        print(
            f"{r.id}  {r.state:<11} {share} {r.backend:<12} {name_of(r.output):<28} "
            f"{r.error.splitlines()[0][:80] if r.error else r.note}"
        )
    return 0


def _wait(options: argparse.Namespace) -> int:
    return _finish(_client(options), options.ids)


def _finish(client: WorkerClient, ids: list[str]) -> int:
    seen: dict[str, str] = {}

    def show(record: JobRecord) -> None:
        if seen.get(record.id) != record.state:
            seen[record.id] = record.state
            if record.state in FINAL:
                print(f"{record.id}  {record.state}  {record.error}".rstrip())

    records = client.wait(ids, show)
    return 0 if all(r.state == "done" for r in records) else 1


def _cancel(options: argparse.Namespace) -> int:
    print(f"{options.id}  {_client(options).cancel(options.id).state}")
    return 0


def _retry(options: argparse.Namespace) -> int:
    print(f"{options.id}  {_client(options).retry(options.id).state}")
    return 0


def _log(options: argparse.Namespace) -> int:
    print(_client(options).log(options.id), end="")
    return 0


def _stop(options: argparse.Namespace) -> int:
    client = _client(options)
    if not client.alive():
        print("no worker is running")
        return 0
    pid = int(json.loads((options.state / "endpoint.json").read_text("utf-8"))["pid"])
    with contextlib.suppress(ProcessLookupError):
        ask_pid_to_stop(pid)
    for _ in range(150):
        if not client.alive():
            print("stopped; the queue is kept")
            return 0
        time.sleep(0.1)
    raise WorkerError(f"the worker (process {pid}) does not stop")
