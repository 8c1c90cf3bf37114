"""Further processes in running containers."""

from typing import Any, Protocol

from wherry.spec.docker import ExecConfig


class ExecStream(Protocol):
    """The streams of a started exec, straight between the daemon and the process."""

    tty: bool

    async def read(self) -> bytes:
        """The next frames (raw bytes with a tty); b"" at the end, when the exit code is known."""
        ...

    async def write(self, data: bytes) -> None:
        """Standard input; what the process no longer reads is dropped."""
        ...

    async def close_write(self) -> None:
        """End of standard input."""
        ...

    async def wait(self) -> int:
        """The exit code."""
        ...

    def close(self) -> None:
        """Let go; the process runs on."""
        ...


class Execs:
    """Every operation on execs; `id` is an exec's full id."""

    async def create(self, container: str, config: ExecConfig) -> str:
        """Note an exec; its id. NotFound: no such container. Conflict: it does not run, or is paused."""
        raise NotImplementedError

    async def start(
        self, id: str, *, detach: bool = False, tty: bool = False, console_size: tuple[int, int] | None = None
    ) -> ExecStream | None:
        """Run it; None when detached. `console_size`: (height, width)."""
        raise NotImplementedError

    async def resize(self, id: str, height: int, width: int) -> None:
        """Set the size of its terminal."""
        raise NotImplementedError

    async def inspect(self, id: str) -> dict[str, Any]:
        """Docker's exec inspect document."""
        raise NotImplementedError
