"""Arguments and variables of a build: what is predefined, what was given, what a stage has by now."""

from collections.abc import Mapping

from wherry.build.dockerfile.words import Words
from wherry.spec.platform import Platform

PROXIES = frozenset(
    name
    for plain in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (plain, plain.lower())
)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def platform_arguments(target: Platform, build: Platform) -> dict[str, str]:
    """TARGETPLATFORM and its kin (reference.md, "Automatic platform ARGs")."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        parts = [platform.os, platform.architecture, platform.variant]
        found[f"{prefix}PLATFORM"] = "/".join(part for part in parts if part)
        found[f"{prefix}OS"], found[f"{prefix}ARCH"], found[f"{prefix}VARIANT"] = parts
    return found


class Scope:
    """The variables of one stage: ENV and ARG in one, the last assignment counts, as docker has it."""

    def __init__(self, escape: str, env: Mapping[str, str], given: Mapping[str, str], outer: Mapping[str, str]) -> None:
        """`env` is the base's; `given` the build arguments; `outer` the global arguments' values."""
        self.variables = dict(env)
        self.arguments: dict[str, str | None] = {}
        """Declared in this stage or one it stands on, in order: what a RUN step's history shows."""
        self._escape, self._given, self._outer = escape, given, outer
        self.used: set[str] = set()
        """Build arguments that were declared."""

    def expand(self, text: str) -> str:
        return Words(self._escape).expand(text, self.variables) if self._special(text) else text

    def split(self, text: str) -> list[str]:
        return Words(self._escape).split(text, self.variables)

    def declare(self, name: str, default: str | None) -> str | None:
        """ARG: the value it has now, None for none."""
        value: str | None
        if name in self._given:
            self.used.add(name)
            value = self._given[name]
        elif default is not None:
            value = self.expand(default)
        else:
            value = self._outer.get(name)
        if value is not None:
            self.variables[name] = value
        self.arguments[name] = value
        return value

    def _special(self, text: str) -> bool:
        return any(char in text for char in ("$", "'", '"', self._escape))
