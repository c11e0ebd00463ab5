# SPDX-License-Identifier: Apache-2.0
"""A worker service in the test's own process, asked without sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from worker_support import Place, settings_for, specs

from retake.core.wire import GpuDevice, GpuProcess, job_to_json
from retake.worker.app import create_app
from retake.worker.service import Service


class FakeGpu:
    """A card whose memory a test decides."""

    def __init__(self, free_gib: float = 40.0) -> None:
        self.free_gib = free_gib

    def read(self, ours: frozenset[int] = frozenset()) -> tuple[GpuDevice, ...]:
        free = int(self.free_gib * 2**30)
        held = 48 * 2**30 - free
        return (GpuDevice(0, "Pretend 48", 48 * 2**30, held, free, (GpuProcess(42, "isaac-sim", held, False),)),)


class Api:
    """A service in this process, asked without sockets."""

    def __init__(self, tmp: Path, place: Place, **sections: dict[str, Any]) -> None:
        config, _ = settings_for(tmp, **sections)
        self.place, self.gpu = place, FakeGpu()
        self.service = Service(tmp / "state", [place.root], config, backends=specs(), gpu=self.gpu)
        self.app = create_app(self.service)
        self.headers = {"Authorization": f"Bearer {self.service.token}"}

    def __enter__(self) -> Api:
        self.service.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.service.stop()

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        import asyncio

        headers = {**self.headers, **options.pop("headers", {})}

        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(go())

    def submit(self, *jobs: Any) -> httpx.Response:
        return self.ask(
            "POST", "/api/jobs", json={"jobs": [j if isinstance(j, dict) else job_to_json(j) for j in jobs]}
        )

    def state(self, job_id: str) -> str:
        return self.service.store.get(job_id).state
