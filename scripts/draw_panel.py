# SPDX-License-Identifier: Apache-2.0
"""Draws docs/images/panel_layout.png from the panel's own layout, and the extensions' icons and previews.

The picture is a drawing, not a screenshot: it shows what the panel says in one state, in the order and with the words
that omni.ui gets. `python scripts/draw_panel.py`
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from retake.core.episode import open_episode
from retake.isaac.preview import draw
from retake.ui.layout import build_layout
from retake.ui.state import Choice, ExportRow, PanelState, Phase, TakeRow, WorkerRow
from retake.ui.widgets import Widget

ROOT = Path(__file__).resolve().parents[1]
WIDTH, PAD = 620, 12
BACK, GROUP, TEXT = (46, 46, 46), (58, 58, 58), (215, 215, 215)
TONES = {
    "plain": TEXT,
    "good": (110, 205, 110),
    "warning": (240, 190, 60),
    "error": (240, 80, 80),
    "primary": (110, 190, 240),
}


def example() -> PanelState:
    """A state in which every part of the panel has something to show."""
    return PanelState(
        phase=Phase.EXPORTING,
        robots=(Choice("/World/Panda", "Panda", True),),
        cameras=(
            Choice("/World/Camera", "Camera", True),
            Choice("/World/Panda/panda_hand/wrist_camera", "wrist", True, size=(320, 240)),
        ),
        objects=(Choice("/World/Packet", "Packet", True),),
        task="pick up the packet and drop it into the tray",
        folder="~/retake_runs/20260301-101500",
        frames=81,
        disk="348 MB of pictures taken, 212 GB free",
        message="Writing the dataset.",
        worlds=(
            Choice("bun_warehouse", "bun warehouse", True),
            Choice("chips_conveyor", "chips conveyor", True),
            Choice("vegetable_kitchen", "vegetable kitchen", True),
            Choice("drone_hangar", "more worlds…", False),
        ),
        stage_line="Report 1/1",
        share=1.0,
        takes=(
            TakeRow("bun_warehouse-oscar-s42", "done", 1.0, "oscar", "pass"),
            TakeRow("chips_conveyor-oscar-s42", "done", 1.0, "oscar", "pass"),
            TakeRow("vegetable_kitchen-oscar-s42", "done", 1.0, "oscar", "unsure"),
        ),
        export=ExportRow("lerobot-v3", min_verdict=0.9, include_sim=True),
        export_folder="~/retake_datasets/20260301-101500-lerobot-v3",
        export_line="Export 1/3",
        export_share=1 / 3,
        worker=WorkerRow("idle", "0 queued", "19.2 of 24.0 GiB VRAM free", frozenset({"stop_worker", "free_vram"})),
        picture=40,
        backend="oscar",
    )


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of this machine, or Pillow's own."""
    for name in ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def panel(state: PanelState, picture: np.ndarray) -> Image.Image:
    """The layout as an image."""
    canvas = Image.new("RGB", (WIDTH, 4000), BACK)
    pen, small, normal, title = ImageDraw.Draw(canvas), font(12), font(14), font(16)
    y = PAD
    label = "Drawing of the layout, made from the panel's view-model by scripts/draw_panel.py.\nNot a screenshot of Isaac Sim."
    pen.text((PAD, y), label, fill=(240, 190, 60), font=small)
    y += 42
    for section in build_layout(state):
        pen.rectangle((PAD, y, WIDTH - PAD, y + 26), fill=(35, 35, 35))
        pen.text((PAD + 8, y + 4), ("▾ " if section.open else "▸ ") + section.title, fill=TEXT, font=title)
        y += 32
        if not section.open:
            continue
        for row in section.rows:
            y += _row(canvas, pen, normal, small, row.widgets, y, picture) + 5
        y += 6
    return canvas.crop((0, 0, WIDTH, y + PAD))


def _row(
    canvas: Image.Image, pen: ImageDraw.ImageDraw, normal, small, widgets: tuple[Widget, ...], y: int, picture
) -> int:
    x, height = PAD + 10, 22
    fixed = sum(widget.width + 6 for widget in widgets if widget.width)
    free = (WIDTH - 2 * PAD - 20 - fixed) // max(sum(not widget.width for widget in widgets), 1)
    for widget in widgets:
        share = widget.width + 6 if widget.width else free
        colour = TONES[widget.tone] if widget.enabled else (120, 120, 120)
        if widget.kind == "button":
            fill = (
                (70, 95, 120)
                if widget.tone == "primary" and widget.enabled
                else (80, 80, 80)
                if widget.enabled
                else (55, 55, 55)
            )
            pen.rounded_rectangle((x, y, x + share - 6, y + 24), 4, fill=fill)
            pen.text((x + (share - 6) / 2, y + 12), widget.label, fill=colour, font=normal, anchor="mm")
            height = 26
        elif widget.kind == "check":
            pen.rectangle((x, y + 3, x + 14, y + 17), outline=(150, 150, 150))
            if widget.value:
                pen.line((x + 3, y + 10, x + 6, y + 14, x + 12, y + 5), fill=(110, 205, 110), width=2)
            pen.text((x + 22, y + 2), widget.label, fill=colour, font=normal)
        elif widget.kind in ("field", "number", "combo"):
            pen.text((x, y + 2), widget.label, fill=TEXT, font=normal)
            start = x + int(pen.textlength(widget.label, font=normal)) + 8
            pen.rectangle((start, y, x + share - 8, y + 20), fill=(30, 30, 30))
            value = (
                f"{widget.value:g}"
                if widget.kind == "number"
                else str(widget.value) + (" ▾" if widget.kind == "combo" else "")
            )
            pen.text((start + 5, y + 2), value, fill=colour, font=normal)
        elif widget.kind == "progress":
            pen.text((x, y), widget.label, fill=colour, font=small)
            pen.rectangle((x, y + 17, x + share - 8, y + 29), fill=(30, 30, 30))
            pen.rectangle((x, y + 17, x + int((share - 8) * float(widget.value)), y + 29), fill=(70, 130, 180))
            height = 32
        elif widget.kind == "picture":
            image = Image.fromarray(picture)
            canvas.paste(image, (x, y))
            pen.text((x, y + image.height + 2), widget.label, fill=colour, font=small)
            height = image.height + 20
        else:
            pen.text((x, y + 2), widget.label, fill=colour, font=normal)
        x += share
    return height


def icon(size: int) -> np.ndarray:
    """A frame being shot again: three offset frames, a two-link arm in the front one."""
    s = 512
    image = np.zeros((s, s, 4), np.uint8)
    for offset, colour in ((96, (96, 108, 128, 255)), (48, (128, 148, 178, 255)), (0, (236, 240, 246, 255))):
        box = ((40 + offset, 130 - offset + 30), (360 + offset, 400 - offset + 30))
        cv2.rectangle(image, *box, (28, 34, 44, 255), -1)
        cv2.rectangle(image, *box, colour, 14)
    joints = [(110, 380), (150, 270), (240, 230), (290, 310)]
    for a, b in itertools.pairwise(joints):
        cv2.line(image, a, b, (240, 150, 60, 255), 16, cv2.LINE_AA)
    for joint in joints:
        cv2.circle(image, joint, 16, (90, 190, 240, 255), -1, cv2.LINE_AA)
    for tip in ((270, 350), (315, 340)):
        cv2.line(image, joints[-1], tip, (110, 205, 110, 255), 12, cv2.LINE_AA)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def main(argv: list[str]) -> int:
    """Write the pictures. An episode folder may be given for the live picture."""
    picture = np.full((270, 480, 3), 70, np.uint8)
    if argv:
        episode = open_episode(argv[0])
        index = min(40, len(episode) - 1)
        picture = draw(index, episode.frame(index), episode.header, 0, 480).rgba[..., :3]
    images = ROOT / "docs/images"
    images.mkdir(parents=True, exist_ok=True)
    panel(replace(example()), picture).save(images / "panel_layout.png", optimize=True)
    for name in ("core", "usd", "isaac", "ui", "newton", "worker"):
        data = ROOT / f"exts/retake.{name}/data"
        data.mkdir(exist_ok=True)
        Image.fromarray(icon(128)).save(data / "icon.png", optimize=True)
        sheet = Image.new("RGB", (512, 256), (28, 34, 44))
        sheet.paste(Image.fromarray(icon(220)[..., :3]), (18, 18), Image.fromarray(icon(220)[..., 3]))
        pen = ImageDraw.Draw(sheet)
        pen.text((256, 90), "Retake", fill=(236, 240, 246), font=font(44))
        pen.text((252, 146), "Simulate once, shoot everywhere", fill=(150, 170, 200), font=font(14))
        sheet.save(data / "preview.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
