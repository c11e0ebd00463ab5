# SPDX-License-Identifier: Apache-2.0
"""The page of an actuator gap: a row per joint with its numbers, and its curves over time."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from retake.core.gap.measure import STEP_S, JointGap, common_time
from retake.core.gap.model import Actuator, response
from retake.core.importers.sage import JointLog

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}figure{margin:1.5rem 0}svg{width:100%;height:auto;background:#fafafa}
.told{stroke:#999}.sim{stroke:#1565c0}.real{stroke:#c62828}.model{stroke:#2e7d32;stroke-dasharray:7 7}
path{fill:none;stroke-width:1.5}
.key span{margin-right:1.5rem}.key i{display:inline-block;width:1.5rem;height:3px;vertical-align:middle;margin-right:.4rem}"""


def page(sim: JointLog, real: JointLog, found: Sequence[JointGap], model: Mapping[str, Actuator]) -> str:
    """HTML without anything from outside."""
    time = common_time(sim, real)
    told, did = real.at(time)
    ours = sim.at(time)[1]
    rows, figures = [], []
    for one in found:
        actuator = model.get(one.joint)
        fitted = (
            ""
            if actuator is None
            else _cells(actuator.lag_s * 1e3, actuator.delay_s * 1e3, actuator.friction, actuator.rmse)
        )
        rows.append(
            f"<tr><td>{html.escape(one.joint)}</td>{_cells(one.rmse, one.mape, one.correlation, one.cosine, one.lag_s * 1e3)}"
            f"{fitted}</tr>"
        )
        i, j = real.joints.index(one.joint), sim.joints.index(one.joint)
        curves = {"told": told[:, i], "sim": ours[:, j], "real": did[:, i]}
        if actuator is not None:
            curves["model"] = response(
                told[:, i], actuator.lag_s, actuator.delay_s, actuator.friction, start=float(did[0, i])
            )
        figures.append(f"<figure><figcaption>{html.escape(one.joint)}</figcaption>{_plot(time, curves)}</figure>")
    colours = (
        ("told", "#999", "told"),
        ("sim", "#1565c0", "simulated"),
        ("real", "#c62828", "real"),
        ("model", "#2e7d32", "fitted"),
    )
    key = "".join(f'<span><i style="background:{c}"></i>{name}</span>' for _, c, name in colours)
    return (
        f"<!doctype html><meta charset='utf-8'><title>Actuator gap</title><style>{_STYLE}</style><h1>Actuator gap</h1>"
        f"<p>Simulated against real over {time[-1]:.2f} s, every {STEP_S * 1e3:.0f} ms. Lag: how much later the real joint is. "
        "Fitted: lag, delay and friction of a joint that hears late, follows slowly and sticks; its error beside.</p>"
        "<table><tr><th>joint</th><th>RMSE (rad, m)</th><th>MAPE %</th><th>correlation</th><th>cosine</th><th>lag ms</th>"
        "<th>fitted lag ms</th><th>delay ms</th><th>friction</th><th>RMSE fitted</th></tr>"
        f"{''.join(rows)}</table><p class='key'>{key}</p>{''.join(figures)}"
    )


def _cells(*values: float | None) -> str:
    return "".join(f"<td>{'–' if v is None or not np.isfinite(v) else f'{v:.4g}'}</td>" for v in values)


def _plot(time: np.ndarray, curves: Mapping[str, np.ndarray]) -> str:
    low, high = min(c.min() for c in curves.values()), max(c.max() for c in curves.values())
    step = max(1, len(time) // 600)
    x = 20 + 960 * (time - time[0]) / max(time[-1] - time[0], 1e-9)
    paths = []
    for name, curve in curves.items():
        y = 190 - 170 * (curve - low) / max(high - low, 1e-9)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[::step], y[::step], strict=True))
        paths.append(f"<path class='{name}' d='M{points.replace(' ', ' L')}'/>")
    label = f"<text x='20' y='14' font-size='12'>{high:.3g}</text><text x='20' y='208' font-size='12'>{low:.3g}</text>"
    return f"<svg viewBox='0 0 1000 212'>{label}{''.join(paths)}</svg>"
