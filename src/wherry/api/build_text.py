"""A build's events as lines of an answer: the classic builder's text, or the events themselves."""

import base64
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from wherry.build.graph import ImageTree, Node, Plan
from wherry.build.progress import Event

Send = Callable[[dict[str, Any]], None]


class EventText:
    """Events as they are: {"wherry": {"kind", "vertex", "title", ...}}, for a client that draws them itself."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def findings(self, findings: Sequence[dict[str, Any]]) -> None:
        if findings:
            self._send({"wherry": {"kind": "findings", "findings": list(findings)}})

    def planned(self, plan: Plan) -> None:
        self._send({"wherry": {"kind": "plan", "steps": len(plan.outline), "warnings": list(plan.warnings)}})

    def event(self, event: Event) -> None:
        fields: dict[str, Any] = {
            "kind": event.kind,
            "vertex": event.vertex,
            "title": event.title,
            "time": event.time_ns,
        }
        if event.data:
            fields["data"] = base64.b64encode(event.data).decode()
            fields["stream"] = event.stream
        if event.text:
            fields["text"] = event.text
        if event.kind == "status":
            fields |= {"name": event.name, "current": event.current, "total": event.total}
        self._send({"wherry": fields})

    def finish(self, image: str, names: Sequence[str]) -> None:
        self._send({"wherry": {"kind": "image", "id": image, "names": list(names)}})


class ClassicText:
    """docker's classic text. Steps may run side by side; what they say is shown in the order of the file."""

    def __init__(self, send: Send, *, quiet: bool) -> None:
        self._send, self._quiet = send, quiet
        self._outline: list[tuple[str, Node | None]] = []
        self._titles: dict[str, str] = {}
        self._next = 0
        self._shown = False
        self._waiting: defaultdict[str, list[Event]] = defaultdict(list)

    def findings(self, findings: Sequence[dict[str, Any]]) -> None:
        """The classic builder has no checks."""

    def planned(self, plan: Plan) -> None:
        self._outline = list(plan.outline)
        for warning in plan.warnings:
            self._say(f"{warning}\n")
        self._advance()

    def event(self, event: Event) -> None:
        current = self._current()
        if current is not None and event.title == current.title:
            self._show(event)
            self._advance()
        else:
            self._waiting[event.title].append(event)

    def finish(self, image: str, names: Sequence[str]) -> None:
        while self._next < len(self._outline):
            self._begin()
            self._end("")
        self._send({"aux": {"ID": image}})
        if self._quiet:
            self._send({"stream": f"{image}\n"})
            return
        self._say(f"Successfully built {image.removeprefix('sha256:')[:12]}\n")
        for name in names:
            self._say(f"Successfully tagged {name if ':' in name.rpartition('/')[2] else name + ':latest'}\n")

    def _current(self) -> Node | None:
        return self._outline[self._next][1] if self._next < len(self._outline) else None

    def _advance(self) -> None:
        while self._next < len(self._outline):
            node = self._outline[self._next][1]
            self._begin()
            if node is None or not node.title:
                self._end("")
                continue
            if isinstance(node.operation, ImageTree):
                self._end(f" ---> {node.operation.image.removeprefix('sha256:')[:12]}\n")
                continue
            position = self._next
            events, self._waiting[node.title] = self._waiting[node.title], []
            for event in events:
                self._show(event)
            if self._next == position:
                return

    def _begin(self) -> None:
        if not self._shown:
            text = self._outline[self._next][0]
            self._say(f"Step {self._next + 1}/{len(self._outline)} : {text}\n")
            self._shown = True

    def _end(self, text: str) -> None:
        if text:
            self._say(text)
        self._next += 1
        self._shown = False

    def _show(self, event: Event) -> None:
        if event.kind == "output":
            self._say(event.data.decode("utf-8", "replace"))
        elif event.kind == "cached":
            self._end(" ---> Using cache\n")
        elif event.kind == "done":
            self._end("")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._send({"stream": text})
