"""gcplogs: Google Cloud Logging through its own library (extra `wherry[gcplogs]`), which also finds the credentials."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from wherry.errors import Unavailable
from wherry.logs.backlog import Message
from wherry.logs.remote.driver import Context, Driver
from wherry.logs.rotation import parse_bool

_LOG = "gcplogs-docker-driver"


class Gcplogs:
    """One container's entries."""

    retry_seconds = 5.0
    max_retries: int | None = None

    def __init__(self, context: Context) -> None:
        options, info = context.options, context.info
        self._project = options.get("gcp-project") or None
        self._logger: Any = None
        self._container: dict[str, Any] = {
            "name": str(info.get("ContainerName", "")),
            "id": str(info.get("ContainerID", "")),
            "imageName": str(info.get("ContainerImageName", "")),
            "imageId": str(info.get("ContainerImageID", "")),
            "created": str(info.get("ContainerCreated", "")),
            "metadata": context.extra,
        }
        if options.get("gcp-log-cmd") and parse_bool("gcp-log-cmd", options["gcp-log-cmd"]):
            command = [str(info.get("ContainerEntrypoint", "")), *(info.get("ContainerArgs") or ())]
            self._container["command"] = " ".join(command)
        meta = {key: options.get(f"gcp-meta-{key}", "") for key in ("zone", "name", "id")}
        self._instance = meta if any(meta.values()) else None

    def connect(self) -> None:
        if self._logger is None:
            from google.cloud import logging

            try:
                self._logger = logging.Client(project=self._project).logger(_LOG)
            except Exception as error:  # noqa: BLE001 - the library has hundreds of its own
                self._logger = None
                raise Unavailable(f"gcplogs: unable to connect or authenticate with Google Cloud: {error}") from None

    def send(self, messages: Sequence[Message]) -> None:
        self.connect()
        try:
            batch = self._logger.batch()
            for message in messages:
                payload: dict[str, Any] = {
                    "message": message.line.decode("utf-8", "replace"),
                    "container": self._container,
                }
                if self._instance is not None:
                    payload["instance"] = self._instance
                at = datetime.fromtimestamp(message.time_ns / 1e9, UTC)
                batch.log_struct(payload, timestamp=at)
            batch.commit()
        except Exception as error:  # noqa: BLE001 - as above
            raise Unavailable(f"gcplogs: {error}") from None

    def disconnect(self) -> None:
        self._logger = None

    def finish(self) -> None:
        self._logger = None


def create(context: Context) -> Driver:
    """See wherry.logs.remote.driver.make."""
    return Gcplogs(context)
