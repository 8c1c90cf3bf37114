"""Command lines as runc reads them: -name or --name, value after a space or "=", flags before and after arguments."""

from __future__ import annotations

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOOL, TEXT, LIST, NUMBER = "bool", "text", "list", "number"


class Options:
    """The values of flags by their long names; None (or [] or False) for those not given."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds
        self._values: dict[str, object] = {}

    def put(self, name: str, value: str | None) -> None:
        """Record a flag as it stands on the command line."""
        kind = self._kinds[name]
        if kind == BOOL:
            if value not in (None, "true", "false", "1", "0"):
                raise InvalidArgument(f"invalid boolean value {value!r} for -{name}")
            self._values[name] = value in (None, "true", "1")
        elif kind == LIST:
            self.texts(name).append(value or "")
        elif kind == NUMBER:
            text = (value or "").strip()
            if not text.removeprefix("-").isdigit():
                raise InvalidArgument(f"invalid value {value!r} for flag -{name}: not a number")
            self._values[name] = int(text)
        else:
            self._values[name] = value or ""

    def flag(self, name: str) -> bool:
        """Whether a BOOL was given."""
        return self._values.get(name) is True

    def text(self, name: str) -> str | None:
        """A TEXT."""
        found = self._values.get(name)
        return found if isinstance(found, str) else None

    def number(self, name: str) -> int | None:
        """A NUMBER."""
        found = self._values.get(name)
        return found if isinstance(found, int) else None

    def texts(self, name: str) -> list[str]:
        """All values of a LIST, in order."""
        found = self._values.setdefault(name, [])
        assert isinstance(found, list)
        return found


def parse(
    arguments: Sequence[str], kinds: Mapping[str, str], short: Mapping[str, str], *, stop: bool
) -> tuple[Options, list[str]]:
    """(flags, what is left). With `stop` everything from the first argument that is no flag on is left alone.

    InvalidArgument names what is wrong. `short`: long names by short ones.
    """
    options, left = Options(kinds), list[str]()
    index = 0
    while index < len(arguments):
        word = arguments[index]
        index += 1
        if word == "--":
            return options, left + list(arguments[index:])
        if len(word) < 2 or word[0] != "-":
            if stop:
                return options, list(arguments[index - 1 :])
            left.append(word)
            continue
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        name = short.get(name, name)
        if name not in kinds:
            raise InvalidArgument(f"flag provided but not defined: -{name}")
        if kinds[name] != BOOL and not equals:
            if index == len(arguments):
                raise InvalidArgument(f"flag needs an argument: -{name}")
            value, equals = arguments[index], "="
            index += 1
        options.put(name, value if equals else None)
    return options, left
