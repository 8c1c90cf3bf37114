"""Counters of all worker processes in shared memory, shown as Prometheus' text.

A worker writes to its own row only, so nothing is locked; who shows them sums the rows.
"""

import mmap
from collections.abc import Iterator
from itertools import product

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other")
ROUTES = ("base", "blob", "upload", "manifest", "tags", "referrers", "catalog", "token", "other")
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
PLAIN = {
    "received_bytes_total": "Bytes of content received.",
    "sent_bytes_total": "Bytes of content sent.",
    "collected_blobs_total": "Blobs deleted by collections.",
    "collected_bytes_total": "Bytes freed by collections.",
    "collections_total": "Collections that ended.",
    "webhook_failures_total": "Events that could not be delivered in time.",
    "proxy_hits_total": "Requests answered from the cache.",
    "proxy_misses_total": "Requests that went upstream.",
}
_REQUESTS = {key: index for index, key in enumerate(product(METHODS, ROUTES, CLASSES))}
_HISTOGRAM = len(_REQUESTS)
_PER_ROUTE = len(BUCKETS) + 2
_PLAIN = {name: _HISTOGRAM + len(ROUTES) * _PER_ROUTE + index for index, name in enumerate(PLAIN)}
_WIDTH = _HISTOGRAM + len(ROUTES) * _PER_ROUTE + len(PLAIN)


class Metrics:
    """Rows for `workers` processes; made before they are forked."""

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        self._cells = memoryview(mmap.mmap(-1, 8 * _WIDTH * workers)).cast("d")
        self._row = 0

    def belong_to(self, worker: int) -> None:
        """From now on this process is that worker."""
        self._row = worker * _WIDTH

    def add(self, name: str, value: float = 1.0) -> None:
        """To one of PLAIN."""
        self._cells[self._row + _PLAIN[name]] += value

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request that was answered."""
        method = method if method in METHODS else "other"
        self._cells[self._row + _REQUESTS[method, route, f"{status // 100}xx"]] += 1
        base = self._row + _HISTOGRAM + ROUTES.index(route) * _PER_ROUTE
        bucket = next((index for index, limit in enumerate(BUCKETS) if seconds <= limit), len(BUCKETS))
        self._cells[base + bucket] += 1
        self._cells[base + len(BUCKETS) + 1] += seconds

    def text(self) -> str:
        """Prometheus' exposition format, version 0.0.4."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# HELP wherry_registry_requests_total Requests answered."
        yield "# TYPE wherry_registry_requests_total counter"
        for (method, route, code), index in _REQUESTS.items():
            if count := self._sum(index):
                yield f'wherry_registry_requests_total{{method="{method}",route="{route}",code="{code}"}} {count:.0f}'
        yield "# HELP wherry_registry_request_seconds From a request's head to the end of its answer."
        yield "# TYPE wherry_registry_request_seconds histogram"
        for number, route in enumerate(ROUTES):
            base, total = _HISTOGRAM + number * _PER_ROUTE, 0.0
            for index, limit in enumerate((*BUCKETS, "+Inf")):
                total += self._sum(base + index)
                yield f'wherry_registry_request_seconds_bucket{{route="{route}",le="{limit}"}} {total:.0f}'
            yield f'wherry_registry_request_seconds_sum{{route="{route}"}} {self._sum(base + _PER_ROUTE - 1):.6f}'
            yield f'wherry_registry_request_seconds_count{{route="{route}"}} {total:.0f}'
        for name, help in PLAIN.items():
            yield f"# HELP wherry_registry_{name} {help}"
            yield f"# TYPE wherry_registry_{name} counter"
            yield f"wherry_registry_{name} {self._sum(_PLAIN[name]):.0f}"

    def _sum(self, index: int) -> float:
        return sum(self._cells[worker * _WIDTH + index] for worker in range(self._workers))
