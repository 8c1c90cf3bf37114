"""The words of an image's history, as BuildKit writes them for each instruction."""

from collections.abc import Iterable, Mapping, Sequence

from wherry.build.dockerfile.values import go_quote
from wherry.spec.oci_image import Healthcheck

COMMENT = "buildkit.dockerfile.v0"
_LAYER = " # buildkit"


def run(words: Sequence[str], arguments: Mapping[str, str]) -> str:
    """RUN: the build arguments in scope before the command."""
    shown = [f"{name}={value}" for name, value in arguments.items()]
    count = [f"|{len(shown)}"] if shown else []
    return "RUN " + " ".join([*count, *shown, *words]) + _LAYER


def pairs(name: str, values: Iterable[tuple[str, str]]) -> str:
    """ENV and LABEL."""
    return name + "".join(f" {key}={value}" for key, value in values)


def arguments(values: Iterable[tuple[str, str | None]]) -> str:
    return "ARG" + "".join(f" {key}" if value is None else f" {key}={value}" for key, value in values)


def words(name: str, values: Sequence[str]) -> str:
    """CMD and ENTRYPOINT: Go's %q of a list."""
    return f"{name} [{' '.join(map(go_quote, values))}]"


def listed(name: str, values: Sequence[str]) -> str:
    """EXPOSE, VOLUME and SHELL: Go's %v of a list."""
    return f"{name} [{' '.join(values)}]"


def copy(name: str, flags: Sequence[str], sources: Sequence[str], target: str) -> str:
    return " ".join([name, *flags, *sources, target]) + _LAYER


def health(check: Healthcheck) -> str:
    """Go's %q of the structure: durations as text, the number of retries as a character."""
    test = f"[{' '.join(map(go_quote, check.test))}]"
    times = [
        f'"{_duration(value)}"' for value in (check.interval, check.timeout, check.start_period, check.start_interval)
    ]
    return f"HEALTHCHECK &{{{test} {' '.join(times)} {_character(check.retries)}}}"


def _duration(ns: int) -> str:
    if not ns:
        return "0s"
    if ns < 10**9:
        unit, name = (10**6, "ms") if ns >= 10**6 else (10**3, "µs")
        return f"{_trimmed(ns, unit)}{name}"
    minutes, rest = divmod(ns, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{text}{_trimmed(rest, 10**9)}s"


def _trimmed(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = f"{fraction:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def _character(number: int) -> str:
    known = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 39: "\\'", 92: "\\\\"}
    if number in known:
        return f"'{known[number]}'"
    return f"'{chr(number)}'" if 32 <= number < 127 else f"'\\x{number:02x}'"
