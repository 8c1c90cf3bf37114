"""Notifications of pull, push, mount and delete, as Docker's registry sends them (about/notifications.md)."""

import asyncio
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp

from wherry.registry.metrics import Metrics

log = logging.getLogger(__name__)
_TYPE = "application/vnd.docker.distribution.events.v1+json"
_WAITING_MAX = 10_000
_TRIES = 5
_TIMEOUT = aiohttp.ClientTimeout(total=10)


class Webhooks:
    """Delivers events in the background and in order; what an address does not take in some tries is dropped."""

    def __init__(self, addresses: Sequence[str], metrics: Metrics, *, retry_seconds: float = 1.0) -> None:
        self._queues: dict[str, asyncio.Queue[dict[str, Any]]] = {
            address: asyncio.Queue(_WAITING_MAX) for address in addresses
        }
        self._metrics = metrics
        self._retry = retry_seconds
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Within the loop."""
        for address, queue in self._queues.items():
            self._tasks.append(asyncio.create_task(self._deliver(address, queue), name=f"events to {address}"))

    async def close(self) -> None:
        """Give what waits a last moment."""
        for queue in self._queues.values():
            try:
                await asyncio.wait_for(queue.join(), 2)
            except TimeoutError:
                log.warning("%d events were not delivered", queue.qsize())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell(self, action: str, target: Mapping[str, Any], *, user: str, address: str, method: str, host: str) -> None:
        """Queue one event; `target` has mediaType, size, digest, repository, url and perhaps tag."""
        if not self._queues:
            return
        event = {
            "id": secrets.token_hex(16),
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "action": action,
            "target": {**target, "length": target.get("size", 0)},
            "request": {"id": secrets.token_hex(16), "addr": address, "host": host, "method": method},
            "actor": {"name": user} if user else {},
            "source": {"addr": host, "instanceID": f"{os.uname().nodename}-{os.getpid()}"},
        }
        for queue in self._queues.values():
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._metrics.add("webhook_failures_total")

    async def _deliver(self, address: str, queue: "asyncio.Queue[dict[str, Any]]") -> None:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                event = await queue.get()
                try:
                    await self._send(session, address, event)
                finally:
                    queue.task_done()

    async def _send(self, session: aiohttp.ClientSession, address: str, event: dict[str, Any]) -> None:
        for attempt in range(_TRIES):
            try:
                headers = {"Content-Type": _TYPE}
                async with session.post(
                    address, json={"events": [event]}, headers=headers, allow_redirects=False
                ) as told:
                    if told.status < 400:
                        return
                    reason = f"status {told.status}"
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            if attempt + 1 < _TRIES:
                await asyncio.sleep(self._retry * 2**attempt)
        log.warning("an event could not be delivered to %s: %s", address, reason)
        self._metrics.add("webhook_failures_total")
