# SPDX-License-Identifier: Apache-2.0
"""The dataset card: README.md with counts, pictures, licences, limits, what was rejected and what is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retake.core.export import tables
from retake.core.export.records import IMAGE, DatasetEpisode, Schema, VideoOptions
from retake.core.export.staging import Entry, Staging
from retake.core.export.writer import MARKER, PROVENANCE, REJECTED, picture
from retake.core.files import read_json, write_bytes
from retake.core.licences import commercial_obstacle, facts_of

MAX_PICTURES = 24
NAMES = {
    "lerobot-v3": "LeRobot v3.0",
    "lerobot-v2.1": "LeRobot v2.1 with GR00T's modality.json",
    "oscar": "OSCAR fine-tuning samples",
    "oscar-canvas": "OSCAR fine-tuning samples, all cameras of a world on one picture",
    "hdf5-isaaclab": "robomimic / Isaac Lab HDF5",
}


class Pictures:
    """One small picture per world, the first MAX_PICTURES worlds: card/000.jpg …"""

    def __init__(self, staging: Staging, schema: Schema) -> None:
        self._staging, self._cameras = staging, tuple(schema.cameras)
        self._worlds: list[str] = []
        if staging.base:
            self._worlds = [row["label"] for row in read_json(staging.base / MARKER).get("pictures", [])]

    def added(self, entry: Entry, episode: DatasetEpisode) -> Entry:
        """The entry with the name of its picture, which is written here; unchanged when it needs none."""
        label = _label(episode.provenance)
        if label in self._worlds or len(self._worlds) >= MAX_PICTURES:
            return entry
        name = f"card/{len(self._worlds):03d}.jpg"
        named = f"{IMAGE}{str(episode.provenance.get('camera_names') or '').partition(',')[0]}"
        key = named if named in self._cameras else next(iter(self._cameras), "")
        frames = episode.frames(key) if key else iter(())
        for frame in frames:
            picture(self._staging.dataset / name, frame)
            return {**entry, "picture": {"file": name, "label": label}}
        return entry

    def note(self, entry: Entry) -> None:
        """Remember a finished entry's picture."""
        if "picture" in entry:
            self._worlds.append(entry["picture"]["label"])


def _label(provenance: Any) -> str:
    domain = str(provenance.get("domain") or "other")
    world = provenance.get("world") or provenance.get("variant_id")
    return domain if domain in ("sim", "recorded") else f"{world} ({domain})"


def write_card(staging: Staging, schema: Schema, fmt: str, video: VideoOptions, split: str) -> None:
    """README.md, from the finished metadata in the staging folder."""
    root = staging.dataset
    pictures = list(read_json(staging.base / MARKER).get("pictures", [])) if staging.base else []
    pictures += [e["picture"] for e in staging.entries() if "picture" in e]
    marker = read_json(root / MARKER)
    tables.write_json_plain(root / MARKER, {**marker, "pictures": pictures})
    text = "\n".join(_card(root, schema, fmt, video, split, pictures)) + "\n"
    write_bytes(root / "README.md", text.encode())


def _card(
    root: Path, schema: Schema, fmt: str, video: VideoOptions, split: str, pictures: list[dict[str, str]]
) -> Iterator[str]:
    rows = _Counts(root / PROVENANCE)
    drawn = read_json(root / MARKER).get("object_control")
    rejected = list(tables.read_jsonl(root / REJECTED))
    licences = sorted(rows.licences)
    yield from (
        "---",
        "task_categories:",
        "- robotics",
        "tags:",
        *(["- LeRobot"] if fmt.startswith("lerobot") else []),
        "- robotics",
        "- simulation",
        f"license: {_front_licence(licences)}",
        *(
            ["configs:", "- config_name: default", "  data_files: data/*/*.parquet"]
            if fmt.startswith("lerobot")
            else []
        ),
        "---",
        "",
        f"# {_many(rows.episodes, 'episode')}, {_many(len(rows.trajectories), 'trajectory', 'trajectories')}",
        "",
        "Simulated robot episodes whose pixels were replaced: the motion, the states and the actions of each trajectory are the",
        "simulator's own, bit for bit, in every world it is shown in. `action[t]` is the target commanded after frame t,",
        "`observation.state[t]` the measurement at frame t. Made with Retake; format: "
        + NAMES[fmt]
        + f"; split: {split}.",
        "",
        "| | |",
        "|---|---|",
        f"| episodes / frames | {rows.episodes} / {rows.frames} |",
        f"| trajectories (source episodes) | {len(rows.trajectories)} |",
        f"| fps, robot | {schema.fps}, {schema.robot_type} |",
        f"| cameras | {', '.join(f'{k} {w}x{h}' for k, (w, h) in schema.cameras.items()) or 'none'} |",
        *(
            [f"| video | {video.codec}, crf {video.crf}, key frame every {video.gop} |"]
            if fmt.startswith("lerobot")
            else []
        ),
        *([f"| control video | skeleton, and objects drawn as {drawn} |"] if drawn else []),
        f"| motion | {', '.join(f'{n} {k}' for k, n in sorted(rows.motion.items()))} |",
        f"| actions | {', '.join(f'{n} {k}' for k, n in sorted(rows.action.items()))} |",
        "",
    )
    if pictures:
        yield from ("## Worlds", "", "| | | |", "|---|---|---|")
        for i in range(0, len(pictures), 3):
            row = pictures[i : i + 3]
            cells = [f'<img src="{p["file"]}" width="240"><br>{_plain(p["label"])}' for p in row]
            yield "| " + " | ".join(cells + [""] * (3 - len(cells))) + " |"
        yield ""
    yield from ("## Counts", "", "| domain | episodes |", "|---|---|")
    yield from (f"| {k} | {n} |" for k, n in sorted(rows.domains.items()))
    yield from ("", "| world | episodes |", "|---|---|")
    worlds = sorted(rows.worlds.items(), key=lambda kv: (-kv[1], kv[0]))
    yield from (f"| {_plain(k)} | {n} |" for k, n in worlds[:40])
    if len(worlds) > 40:
        yield f"| … {len(worlds) - 40} more worlds | {sum(n for _, n in worlds[40:])} |"
    if rows.recorded:
        yield from (
            "",
            f"**Recorded, not simulated:** {rows.recorded_episodes} episodes of runs {', '.join(sorted(rows.recorded))}.",
        )
    yield from ("", "## Features", "", "| entry | meaning | unit |", "|---|---|---|")
    yield from (
        f"| {vector}[{s.start}:{s.end}] | {s.name} of {s.robot} | {s.unit} |"
        for vector, parts in (("state", schema.slices), ("action", schema.action_slices))
        for s in parts
    )
    yield from ("", "## Licences", "", "| of | terms | commercial use |", "|---|---|---|")
    for what, licence in licences:
        obstacle = commercial_obstacle(licence)
        yield f"| {what} | {_plain(licence or 'not stated')} | {'yes' if obstacle is None else 'no: ' + _plain(obstacle)} |"
    if facts := list(dict.fromkeys(fact for _, licence in licences for fact in facts_of(licence))):
        yield from ("", *(f"- {_plain(fact)}" for fact in facts))
    yield from ("", "## What was rejected", "")
    if rejected:
        reasons = Counter(str(r["reason"]) for r in rejected)
        yield from ("| reason | takes |", "|---|---|")
        yield from (f"| {_plain(k)} | {n} |" for k, n in sorted(reasons.items(), key=lambda kv: (-kv[1], kv[0])))
        yield from ("", f"The list is in {REJECTED}.")
    else:
        yield "Nothing."
    yield from ("", "## Known limits", "")
    yield from _limits(rows, fmt)


def _limits(rows: _Counts, fmt: str) -> Iterator[str]:
    if rows.unverified:
        yield f"- {rows.unverified} episodes were exported without a passed verdict (`verdict_status` in the provenance)."
    if rows.domains.get("generated"):
        yield "- Generated pixels follow the motion within the verdict's thresholds, not exactly; drops may differ in detail."
    if rows.domains.get("composite"):
        yield "- Composite episodes show the simulator's own robot and object pixels over another world."
    if rows.action.get("next-state"):
        yield "- Some actions are the next measured state, because the recording has no commanded targets (`action_source`)."
    if rows.forced:
        yield f"- {rows.forced} episodes come from a simulation that failed the episode check and was forced through."
    if fmt == "lerobot-v3":
        yield "- Merged quantiles in meta/stats.json are bounds of the per-episode quantiles."
    yield "- Variants of one trajectory are not independent samples: split by `trajectory_id`, never by episode."
    yield f"- Provenance of every episode is in {PROVENANCE}" + (
        " and in the `retake/` columns of meta/episodes." if fmt == "lerobot-v3" else "."
    )


class _Counts:
    """What the card says about the provenance, read line by line."""

    def __init__(self, path: Path) -> None:
        self.episodes = self.frames = self.unverified = self.forced = self.recorded_episodes = 0
        self.domains: Counter[str] = Counter()
        self.worlds: Counter[str] = Counter()
        self.motion: Counter[str] = Counter()
        self.action: Counter[str] = Counter()
        self.trajectories: set[str] = set()
        self.recorded: set[str] = set()
        self.licences: set[tuple[str, str]] = set()
        for row in tables.read_jsonl(path):
            self.episodes += 1
            self.frames += int(row.get("window_length") or 0)
            self.domains[str(row.get("domain") or "other")] += 1
            self.worlds[_label(row)] += 1
            self.motion[str(row.get("motion_source") or "unknown")] += 1
            self.action[str(row.get("action_source") or "unknown")] += 1
            self.trajectories.add(str(row.get("trajectory_id") or row.get("uid")))
            self.unverified += row.get("verdict_status") not in ("pass", "source", None)
            self.forced += str(row.get("episode_check") or "").startswith("failed")
            if row.get("motion_source") == "recorded":
                self.recorded.add(str(row.get("run")))
                self.recorded_episodes += 1
            self.licences.add(("simulated assets or recording", str(row.get("licence_source") or "")))
            if row.get("take_id"):
                self.licences.add(
                    (f"video model {row.get('model') or row.get('backend')}", str(row.get("licence_model") or ""))
                )
                name = row.get("first_frame_model") or row.get("first_frame_backend")
                self.licences.add((f"first-frame model {name}", str(row.get("licence_first_frame") or "")))


def _front_licence(licences: list[tuple[str, str]]) -> str:
    """The Hub's licence key: the one licence of everything, else `other`."""
    names = {text.lower() for _, text in licences}
    known = ("apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "bsd-3-clause")
    return names.pop() if len(names) == 1 and next(iter(names)) in known else "other"


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _plain(text: str) -> str:
    """Text that cannot break a Markdown table."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
