# SPDX-License-Identifier: Apache-2.0
"""`retake bench WHAT`: measurements, each a table on stdout and JSON, with a named baseline in the same run."""

from __future__ import annotations

import argparse

from retake.core import plugins

BENCHES = {
    "oscar": ("retake.worker.oscar.cli:bench", "oscar", "the video model: time, memory, evaluations, FLOPs per take"),
    "worker": ("retake.worker.bench:main", "worker", "the service: latency and overhead per job"),
    "verify": ("retake.core.verdicts.bench:main", "", "verdicts: frames per second"),
    "variants": ("retake.core.variants.bench:main", "", "first frames: seconds and memory per frame and backend"),
    "isaac": ("retake.isaac.bench:main", "", "capture: cost in the simulation callback"),
}


def main(argv: list[str]) -> int:
    """Dispatch to the named bench; returns its exit code."""
    epilog = "\n".join(f"  {name:<10}{text}" for name, (_, _, text) in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="retake bench",
        description="Measure. The whole arrow is measured by `make bench` in a checkout.",
        epilog=f"benches:\n{epilog}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=sorted(BENCHES), metavar="WHAT", help=", ".join(sorted(BENCHES)))
    what = parser.parse_args(argv[:1]).what
    reference, extra, _ = BENCHES[what]
    return int(plugins.load(reference, extra=extra)(argv[1:]))
