"""Progress as BuildKit's clients draw it: vertexes with times, transfers, output, warnings."""

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from google.protobuf.timestamp_pb2 import Timestamp

from wherry.build.dockerfile.source import Source, Span
from wherry.build.graph import Context, ImageTree, Node, Plan, walk
from wherry.build.progress import Event
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.errors import InvalidArgument
from wherry.spec.reference import parse_reference

_STATUS_SECONDS = 0.1
_PLACE = re.compile(r"\[(.*?)\d+/(\d+)\] ")

Send = Callable[[pb.StatusResponse], None]


class Vertex:
    """One line of the progress. A context manager: leaving it completes it, with the error if there is one."""

    def __init__(self, report: "Report", digest: str, name: str, inputs: Sequence[str] = ()) -> None:
        self._report = report
        self.title, self.image = name, ""
        self.message = pb.Vertex(digest=digest, name=name, inputs=inputs)
        self._shown: dict[str, float] = {}
        self._began: dict[str, int] = {}

    @property
    def digest(self) -> str:
        return self.message.digest

    def announce(self) -> None:
        self._report.send(pb.StatusResponse(vertexes=[self.message]))

    def start(self, time_ns: int = 0) -> None:
        if not self.message.HasField("started"):
            self.message.started.CopyFrom(stamp(time_ns))
            self.announce()

    def complete(self, *, cached: bool = False, error: str = "", time_ns: int = 0) -> None:
        if self.message.HasField("completed"):
            return
        if not self.message.HasField("started"):
            self.message.started.CopyFrom(stamp(time_ns))
        self.message.completed.CopyFrom(stamp(time_ns))
        self.message.cached, self.message.error = cached, error
        self.announce()

    def status(self, id: str, current: int = 0, total: int = 0, *, name: str = "", done: bool = False) -> None:
        """A transfer, or a thing being done; shown at most ten times a second until it is done."""
        now = time.monotonic()
        if not done and now - self._shown.get(id, 0.0) < _STATUS_SECONDS:
            return
        self._shown[id] = now
        began = self._began.setdefault(id, time.time_ns())
        status = pb.VertexStatus(id=id, vertex=self.digest, name=name, current=current, total=total)
        status.timestamp.CopyFrom(stamp())
        status.started.CopyFrom(stamp(began))
        if done:
            status.completed.CopyFrom(stamp())
        self._report.send(pb.StatusResponse(statuses=[status]))

    def log(self, data: bytes, stream: int, time_ns: int = 0) -> None:
        entry = pb.VertexLog(vertex=self.digest, stream=stream, msg=data, timestamp=stamp(time_ns))
        self._report.send(pb.StatusResponse(logs=[entry]))

    def warn(self, short: str, detail: str, url: str, source: Source, span: Span) -> None:
        info = pb.SourceInfo(filename=source.name, data=source.text.encode("utf-8", "replace"), language="Dockerfile")
        place = pb.Range(start=pb.Position(line=span.start), end=pb.Position(line=span.end))
        warning = pb.VertexWarning(
            vertex=self.digest,
            level=1,
            short=short.encode(),
            detail=[detail.encode()],
            url=url,
            info=info,
            ranges=[place],
        )
        self._report.send(pb.StatusResponse(warnings=[warning]))

    def __enter__(self) -> "Vertex":
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.complete(error="" if error is None else str(error) or "context canceled")


class Report:
    """The progress of one build. `scope` keeps apart what several builds of one client show."""

    def __init__(self, send: Send, scope: str) -> None:
        self.send, self._scope = send, scope
        self._steps: dict[int, Vertex] = {}
        self._count = 0
        self.definition: Vertex | None = None
        """That of the first thing done, reading the Dockerfile: warnings hang on it."""
        self.cached = 0
        self.warnings = 0

    def vertex(self, name: str, inputs: Iterable[str] = ()) -> Vertex:
        self._count += 1
        made = Vertex(self, self._digest(f"{self._count} {name}"), name, list(inputs))
        self.definition = self.definition or made
        return made

    def planned(self, plan: Plan, prefix: str = "") -> None:
        """Announce every step, so that a client knows how many there are."""
        nodes = list(walk(plan.result))
        numbers = {id(node): number for number, node in enumerate(nodes, 1)}
        first = _first_steps(nodes)
        for node in nodes:
            if node.title:
                number = numbers[id(node)]
                inputs = [self._steps[n].digest for found in node.inputs if (n := numbers[id(found)]) in self._steps]
                shown = prefix + _shown(node, first.get(id(node), ""))
                # One image is one line, however many stages stand on it.
                what = node.operation.image if isinstance(node.operation, ImageTree) else ""
                known = next((step for step in self._steps.values() if what and step.image == what), None)
                step = known or Vertex(self, self._digest(f"step {number} {shown}"), shown, inputs)
                step.title, step.image = node.title, what
                self._steps[number] = step
        vertexes = {step.digest: step.message for step in self._steps.values()}
        self.send(pb.StatusResponse(vertexes=list(vertexes.values())))

    def step(self, number: int) -> Vertex | None:
        return self._steps.get(number)

    def step_named(self, title: str) -> Vertex | None:
        """A source, by the words the plan has for it."""
        return next((step for step in self._steps.values() if step.title == title), None)

    @property
    def steps(self) -> int:
        return len(self._steps)

    def event(self, event: Event) -> None:
        """The solver's."""
        step = self._steps.get(event.vertex)
        if step is None:
            return
        if event.kind == "start":
            step.start(event.time_ns)
        elif event.kind in ("cached", "done"):
            self.cached += event.kind == "cached"
            step.complete(cached=event.kind == "cached", time_ns=event.time_ns)
        elif event.kind == "error":
            step.complete(error=event.text, time_ns=event.time_ns)
        elif event.kind == "output":
            step.log(event.data, event.stream, event.time_ns)
        elif event.kind == "status":
            step.status(event.name, event.current, event.total, done=bool(event.total) and event.current >= event.total)

    def _digest(self, text: str) -> str:
        return "sha256:" + hashlib.sha256(f"{self._scope}\0{text}".encode()).hexdigest()


def stamp(time_ns: int = 0) -> Timestamp:
    seconds, nanos = divmod(time_ns or time.time_ns(), 10**9)
    return Timestamp(seconds=seconds, nanos=nanos)


def _first_steps(nodes: Sequence[Node]) -> dict[int, str]:
    """By what stands on it, what a stage's base is called: "[stage 1/3] "."""
    found: dict[int, str] = {}
    for node in nodes:
        place = _PLACE.match(node.title)
        if place and node.inputs and isinstance(node.inputs[0].operation, ImageTree):
            found.setdefault(id(node.inputs[0]), f"[{place[1]}1/{place[2]}] ")
    return found


def _shown(node: Node, place: str) -> str:
    title, operation = node.title, node.operation
    if isinstance(operation, ImageTree):
        with suppress(InvalidArgument):
            return f"{place}FROM {parse_reference(operation.reference).tagged()}"
    if isinstance(operation, Context):
        return f"[context {operation.name}] load from client" if operation.name else f"[internal] {title}"
    return title
