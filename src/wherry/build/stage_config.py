"""What instructions do to an image's configuration: everything that makes no layer."""

import posixpath
import re
from dataclasses import dataclass, field

from wherry.build.dockerfile import instructions as kinds
from wherry.spec.oci_image import Healthcheck, RunConfig

_DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d+)(?:-(\d+))?\Z")
_PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(slots=True)
class StageConfig:
    """A configuration in the making. `cmd_set`: CMD was given in this build, so ENTRYPOINT keeps it."""

    user: str = ""
    ports: dict[str, dict[str, str]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, dict[str, str]] = field(default_factory=dict)
    working_dir: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    author: str = ""
    cmd_set: bool = False

    @classmethod
    def of(cls, config: RunConfig) -> "StageConfig":
        """As a stage begins on an image with this configuration."""
        return cls(
            user=config.user,
            ports=dict(config.exposed_ports),
            env=dict(item.partition("=")[::2] for item in config.env),
            entrypoint=config.entrypoint,
            cmd=config.cmd,
            volumes=dict(config.volumes),
            working_dir=config.working_dir,
            labels=dict(config.labels),
            stop_signal=config.stop_signal,
            stop_timeout=config.stop_timeout,
            healthcheck=config.healthcheck,
            args_escaped=config.args_escaped,
            on_build=config.on_build,
            shell=config.shell,
        )

    def copy(self) -> "StageConfig":
        """As a stage begins on another stage."""
        copied = StageConfig.of(self.finished())
        copied.author = self.author
        return copied

    def finished(self) -> RunConfig:
        return RunConfig(
            user=self.user,
            exposed_ports=dict(self.ports),
            env=tuple(f"{name}={value}" for name, value in self.env.items()),
            entrypoint=self.entrypoint,
            cmd=self.cmd,
            volumes=dict(self.volumes),
            working_dir=self.working_dir,
            labels=dict(self.labels),
            stop_signal=self.stop_signal,
            stop_timeout=self.stop_timeout,
            healthcheck=self.healthcheck,
            args_escaped=self.args_escaped,
            on_build=self.on_build,
            shell=self.shell,
        )

    def shell_form(self, words: tuple[str, ...]) -> tuple[str, ...]:
        return (*(self.shell or _DEFAULT_SHELL), " ".join(words))

    def set_command(self, step: kinds.Command) -> tuple[str, ...]:
        """CMD or ENTRYPOINT; the words as they are kept."""
        words = self.shell_form(step.command) if step.shell and step.command else step.command
        if step.name == "CMD":
            self.cmd, self.cmd_set, self.args_escaped = words, True, True
        else:
            self.entrypoint = words
            if not self.cmd_set:
                self.cmd = None
        return words

    def set_health(self, step: kinds.Health) -> None:
        self.healthcheck = Healthcheck(
            test=step.test,
            interval=step.interval,
            timeout=step.timeout,
            start_period=step.start_period,
            start_interval=step.start_interval,
            retries=step.retries,
        )

    def change_directory(self, path: str) -> str:
        """An absolute path stays as it is written, as docker's does."""
        if not path.startswith("/"):
            path = posixpath.normpath(posixpath.join(self.working_dir or "/", path))
        self.working_dir = "/" + path.lstrip("/")
        return self.working_dir


def parse_port(text: str) -> list[str]:
    """ "80", "80/udp", "8000-8002", "127.0.0.1:80:80": the container's ports as "80/tcp"."""
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    match = _PORT.match(body.rpartition(":")[2])
    if match is None or protocol not in _PROTOCOLS:
        wrong = f"invalid proto: {protocol}" if match else f"invalid containerPort: {text}"
        raise ValueError(wrong)
    first, last = int(match.group(1)), int(match.group(2) or match.group(1))
    if not 0 <= first <= last <= 65535:
        raise ValueError(f"invalid containerPort: {text}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]
