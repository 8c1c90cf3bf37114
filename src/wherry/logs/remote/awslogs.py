"""awslogs: Amazon CloudWatch Logs through boto3 (the extra `wherry[awslogs]`), which also finds the credentials."""

import re
from collections.abc import Sequence
from typing import Any

from wherry.errors import FailedPrecondition, Unavailable
from wherry.logs.backlog import Message
from wherry.logs.remote.driver import Context, Driver
from wherry.logs.rotation import parse_bool

# PutLogEvents: a batch is at most 1 MB, where each event counts 26 bytes more than its text, and 10,000 events.
_MAX_BATCH, _OVERHEAD, _MAX_EVENTS, _MAX_EVENT = 1_048_576, 26, 10_000, 262_144
_STRFTIME = {
    "%d": r"\d{2}",
    "%H": r"\d{2}",
    "%I": r"\d{2}",
    "%m": r"\d{2}",
    "%M": r"\d{2}",
    "%S": r"\d{2}",
    "%y": r"\d{2}",
    "%Y": r"\d{4}",
    "%j": r"\d{3}",
    "%L": r"\.\d{3}",
    "%f": r"\d{6}",
    "%z": r"[+-]\d{4}",
    "%Z": r"[A-Z]{1,4}T",
    "%a": r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
    "%A": r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day",
    "%b": r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
    "%p": r"[A-Z]{2}",
    "%%": "%",
    "%B": r"(?:January|February|March|April|May|June|July|August|September|October|November|December)",
}
Event = dict[str, Any]


class Awslogs:
    """One container's events, in one log stream."""

    retry_seconds = 5.0
    max_retries: int | None = None

    def __init__(self, context: Context) -> None:
        options = context.options
        self._group = options["awslogs-group"]
        self._stream = options.get("awslogs-stream") or self._stream_name(context)
        self._create_group = _flag(options.get("awslogs-create-group"))
        self._options = options
        self._start = _start_of_event(options)
        self._held: tuple[int, bytes] | None = None
        self._client: Any = None

    def connect(self) -> None:
        client = self._made()
        try:
            self._create(client, group=False)
        except client.exceptions.ResourceNotFoundException:
            if not self._create_group:
                raise FailedPrecondition(
                    f"awslogs: there is no log group {self._group}", hint="create it, or awslogs-create-group=true"
                ) from None
            self._create(client, group=True)
            self._create(client, group=False)

    def send(self, messages: Sequence[Message]) -> None:
        batch: list[Event] = []
        size = 0
        for moment, line in self._events(messages):
            for start in range(0, len(line), _MAX_EVENT - _OVERHEAD):
                text = line[start : start + _MAX_EVENT - _OVERHEAD].decode("utf-8", "replace")
                length = len(text.encode()) + _OVERHEAD
                if batch and (size + length > _MAX_BATCH or len(batch) == _MAX_EVENTS):
                    self._put(batch)
                    batch, size = [], 0
                batch.append({"timestamp": moment // 1_000_000, "message": text})
                size += length
        if batch:
            self._put(batch)

    def disconnect(self) -> None:
        self._client = None

    def finish(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._put([{"timestamp": held[0] // 1_000_000, "message": held[1].decode("utf-8", "replace")}])

    def _events(self, messages: Sequence[Message]) -> list[tuple[int, bytes]]:
        """Lines as they are, or joined from one that starts an event up to the next."""
        if self._start is None:
            return [(message.time_ns, message.line) for message in messages if message.line]
        made = []
        for message in messages:
            starts = self._start.search(message.line.decode("utf-8", "replace")) is not None
            if self._held is not None and (starts or len(self._held[1]) > _MAX_EVENT):
                made.append(self._held)
                self._held = None
            before = self._held or (message.time_ns, b"")
            self._held = (before[0], before[1] + message.line + b"\n")
        return made

    def _put(self, batch: list[Event]) -> None:
        batch.sort(key=lambda event: event["timestamp"])
        try:
            self._made().put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=batch)
        except Exception as error:  # noqa: BLE001 - the library has hundreds of its own
            raise Unavailable(f"awslogs: {error}") from None

    def _create(self, client: Any, *, group: bool) -> None:
        try:
            if group:
                client.create_log_group(logGroupName=self._group)
            else:
                client.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
        except client.exceptions.ResourceAlreadyExistsException:
            pass

    def _made(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config

            region = self._options.get("awslogs-region")
            settings = Config(user_agent_extra="wherry", retries={"max_attempts": 3})
            self._client = boto3.client(
                "logs",
                region_name=region,
                endpoint_url=self._options.get("awslogs-endpoint"),
                config=settings,
                **_credentials(self._options.get("awslogs-credentials-endpoint", "")),
            )
        return self._client

    @staticmethod
    def _stream_name(context: Context) -> str:
        if context.options.get("tag"):
            return re.sub("[:*]", "_", context.tag)
        return str(context.info.get("ContainerID", ""))


def _credentials(endpoint: str) -> dict[str, str]:
    """From the container credentials endpoint, as on ECS: a path at 169.254.170.2."""
    if not endpoint:
        return {}
    import json
    import urllib.request

    with urllib.request.urlopen(f"http://169.254.170.2{endpoint}", timeout=10) as answer:
        found = json.loads(answer.read(65536))
    return {
        "aws_access_key_id": found["AccessKeyId"],
        "aws_secret_access_key": found["SecretAccessKey"],
        "aws_session_token": found["Token"],
    }


def _start_of_event(options: Any) -> re.Pattern[str] | None:
    if options.get("awslogs-multiline-pattern"):
        return re.compile(options["awslogs-multiline-pattern"])
    if options.get("awslogs-datetime-format"):
        pieces = re.split("(%.)", options["awslogs-datetime-format"])
        return re.compile("".join(_STRFTIME.get(piece, re.escape(piece)) for piece in pieces))
    return None


def _flag(text: str | None) -> bool:
    return text is not None and parse_bool("awslogs", text)


def create(context: Context) -> Driver:
    """See wherry.logs.remote.driver.make."""
    return Awslogs(context)
