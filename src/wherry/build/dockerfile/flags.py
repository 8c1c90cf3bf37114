"""The flags of an instruction, checked against what it knows."""

from collections.abc import Mapping

from wherry.build.dockerfile.source import suggestion

TEXT, BOOL, MANY = "text", "bool", "many"

_KNOWN: Mapping[str, Mapping[str, str]] = {
    "FROM": {"platform": TEXT},
    "RUN": {"mount": MANY, "network": TEXT, "security": TEXT, "device": MANY},
    "COPY": {"from": TEXT, "chown": TEXT, "chmod": TEXT, "link": BOOL, "parents": BOOL, "exclude": MANY},
    "ADD": {
        "keep-git-dir": BOOL,
        "checksum": TEXT,
        "chown": TEXT,
        "chmod": TEXT,
        "link": BOOL,
        "unpack": BOOL,
        "exclude": MANY,
    },
    "HEALTHCHECK": {
        "interval": TEXT,
        "timeout": TEXT,
        "start-period": TEXT,
        "start-interval": TEXT,
        "retries": TEXT,
    },
}


class Flags:
    """The flags one statement gives."""

    def __init__(self, instruction: str, words: tuple[str, ...]) -> None:
        """ValueError for one that is unknown, given twice, or without the value it needs."""
        known = _KNOWN.get(instruction, {})
        self._values: dict[str, list[str]] = {}
        for word in words:
            name, equals, value = word[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                near = suggestion(f"--{name}", [f"--{other}" for other in known])
                raise ValueError(f"unknown flag: --{name}{near}")
            if kind != MANY and name in self._values:
                raise ValueError(f"Duplicate flag specified: --{name}")
            if kind == BOOL:
                value = _boolean(name, value if equals else "true")
            elif not equals:
                raise ValueError(f"Missing a value on flag: --{name}")
            self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        return self._values.get(name, [""])[0]

    def many(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))

    def truth(self, name: str) -> bool | None:
        """None where the flag is not given."""
        return None if name not in self._values else self._values[name][0] == "true"


def _boolean(name: str, value: str) -> str:
    if value.lower() not in ("true", "false"):
        raise ValueError(f"Expecting boolean value for flag {name}, not: {value}")
    return value.lower()
