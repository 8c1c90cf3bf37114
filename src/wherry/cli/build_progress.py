"""A build's progress as people know it: steps with numbers and times, plain or drawn on a terminal."""

from __future__ import annotations

import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

_TAIL = 6


class Plain:
    """A line for everything that happens, each with its step's number."""

    def __init__(self, out: TextIO, explain: bool = False) -> None:
        self._out, self._explain = out, explain
        self._numbers: dict[int, int] = {}
        self._started: dict[int, int] = {}
        self._half: dict[int, bytes] = {}
        self._last = 0
        self.cached = self.steps = 0

    def event(self, event: dict[str, Any]) -> None:
        kind, vertex = event["kind"], event.get("vertex", 0)
        if kind in ("start", "output", "cached", "done", "error", "reason"):
            number = self._begin(vertex, event)
            if kind == "output":
                self._output(number, vertex, event)
            elif kind == "reason":
                if self._explain:
                    self._say(number, f"not cached: {event['text']}")
            elif kind != "start":
                self._finish(kind, number, vertex, event)

    def _begin(self, vertex: int, event: dict[str, Any]) -> int:
        number = self._numbers.get(vertex)
        if number is None:
            number = self._numbers[vertex] = len(self._numbers) + 1
            self._started[vertex] = event["time"]
            self._say(number, event["title"])
        return number

    def _output(self, number: int, vertex: int, event: dict[str, Any]) -> None:
        import binascii

        data = self._half.pop(vertex, b"") + binascii.a2b_base64(event["data"])
        *lines, rest = data.split(b"\n")
        if rest:
            self._half[vertex] = rest
        passed = (event["time"] - self._started[vertex]) / 1e9
        for line in lines:
            self._say(number, f"{passed:.3f} {line.decode('utf-8', 'replace')}")

    def _finish(self, kind: str, number: int, vertex: int, event: dict[str, Any]) -> None:
        if rest := self._half.pop(vertex, b""):
            self._say(number, rest.decode("utf-8", "replace"))
        passed = (event["time"] - self._started[vertex]) / 1e9
        self.steps += 1
        if kind == "cached":
            self.cached += 1
            self._say(number, "CACHED")
        elif kind == "done":
            self._say(number, f"DONE {passed:.1f}s")
        elif event.get("text") == "canceled":
            self._say(number, "CANCELED")
        else:
            self._say(number, f"ERROR: {event.get('text', '')}")

    def _say(self, number: int, text: str) -> None:
        if self._last and self._last != number:
            self._out.write("\n")
        self._last = number
        self._out.write(f"#{number} {text}\n")
        self._out.flush()

    def end(self) -> None:
        """Nothing more will come."""


class Terminal:
    """The steps drawn in place: those that run with the end of their output, above them those that are done."""

    def __init__(self, out: TextIO, explain: bool = False) -> None:
        self._out, self._explain = out, explain
        self._titles: dict[int, str] = {}
        self._started: dict[int, int] = {}
        self._tails: dict[int, list[str]] = {}
        self._half: dict[int, bytes] = {}
        self._reasons: dict[int, str] = {}
        self._drawn = 0
        self._next = 0.0
        self._begun = time.monotonic()
        self.cached = self.steps = 0

    def event(self, event: dict[str, Any]) -> None:
        kind, vertex = event["kind"], event.get("vertex", 0)
        if kind == "start":
            self._titles[vertex], self._started[vertex] = event["title"], event["time"]
        elif kind == "output":
            self._output(vertex, event)
        elif kind == "reason":
            self._reasons[vertex] = event["text"]
        elif kind in ("cached", "done", "error") and vertex in self._titles:
            self._finish(kind, vertex, event)
        now = time.monotonic()
        if kind != "output" or now >= self._next:
            self._next = now + 0.05
            self._draw()

    def _output(self, vertex: int, event: dict[str, Any]) -> None:
        import binascii

        data = self._half.pop(vertex, b"") + binascii.a2b_base64(event["data"])
        *lines, self._half[vertex] = data.split(b"\n")
        tail = self._tails.setdefault(vertex, [])
        tail += [line.decode("utf-8", "replace").rpartition("\r")[2] for line in lines]
        del tail[:-_TAIL]

    def _finish(self, kind: str, vertex: int, event: dict[str, Any]) -> None:
        passed = (event["time"] - self._started.pop(vertex)) / 1e9
        title = self._titles.pop(vertex)
        self.steps += 1
        self.cached += kind == "cached"
        mark = {"cached": "CACHED ", "done": "", "error": "ERROR "}[kind]
        self._clear()
        width = self._width()
        text = f" => {mark}{title}"
        times = "" if kind == "cached" else f"{passed:.1f}s"
        self._out.write(f"{text[: width - 8]:<{max(0, width - 8)}}{times:>7}\n")
        if self._explain and vertex in self._reasons:
            self._out.write(f" => => not cached: {self._reasons[vertex]}\n")
        if kind == "error" and event.get("text") != "canceled":
            for line in self._tails.get(vertex, []):
                self._out.write(f" > {line}\n")
        self._tails.pop(vertex, None)

    def _clear(self) -> None:
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _draw(self) -> None:
        self._clear()
        width, now = self._width(), time.time_ns()
        lines = [f"[+] Building {time.monotonic() - self._begun:.1f}s"]
        for vertex, title in self._titles.items():
            passed = f"{max(0, now - self._started[vertex]) / 1e9:.1f}s"
            lines.append(f"{f' => {title}'[: width - 8]:<{max(0, width - 8)}}{passed:>7}")
            lines += [f" => => # {line}"[:width] for line in self._tails.get(vertex, [])]
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._drawn = len(lines)

    def _width(self) -> int:
        try:
            return max(20, posix.get_terminal_size(self._out.fileno()).columns)
        except OSError:
            return 80

    def end(self) -> None:
        """Take down what moves."""
        self._clear()
        self._out.flush()


class Quiet:
    """Nothing."""

    cached = steps = 0

    def event(self, event: dict[str, Any]) -> None: ...

    def end(self) -> None: ...
