"""Help in docker's layout. Loaded only when help, or usage after an error, is shown."""

from __future__ import annotations

from wherry.cli import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.cli.flags import Command, Flag

_SLOP = 5
GLOBAL_TITLE = "Global Options"


def usage_line(name: str) -> str:
    summary = commands.summary(name)
    return f"wherry {name} {summary[1]}".rstrip() if name else "wherry [OPTIONS] COMMAND"


def terminal_width() -> int:
    import posix

    try:
        return posix.get_terminal_size(0).columns or 80
    except OSError:
        return 80


def command_help(name: str, command: Command) -> str:
    """`name` is as the user called it, without the program."""
    _, _, short = commands.summary(name)
    text = f"Usage:  {usage_line(name)}\n\n{short}\n"
    names = commands.other_names(name)
    if len(names) > 1:
        text += "\nAliases:\n  " + ", ".join(f"wherry {other}" for other in names) + "\n"
    if command.flags:
        text += "\nOptions:\n" + flag_usages(command.flags, terminal_width() - 1)
    return text


def group_help(group: str) -> str:
    rows = [
        (name.partition(" ")[2], commands.summary(name)[2]) for name in commands.names() if name.startswith(group + " ")
    ]
    text = f"Usage:  wherry {group} COMMAND\n\n{commands.GROUPS[group]}\n\nCommands:\n"
    return text + _rows(rows) + f"\nRun 'wherry {group} COMMAND --help' for more information on a command.\n"


def root_help(flags: Sequence[Flag]) -> str:
    text = "Usage:  wherry [OPTIONS] COMMAND\n\nContainers, from one machine's shell\n"
    common = [(name, commands.summary(name)[2]) for name in commands.COMMON]
    groups = sorted(commands.GROUPS.items())
    others = [
        (name, commands.summary(name)[2])
        for name in commands.names()
        if " " not in name and name not in commands.COMMON
    ]
    text += "\nCommon Commands:\n" + _rows(common) + "\nManagement Commands:\n" + _rows(groups)
    text += "\nCommands:\n" + _rows(others) + f"\n{GLOBAL_TITLE}:\n" + flag_usages(flags, terminal_width() - 1)
    return text + "\nRun 'wherry COMMAND --help' for more information on a command.\n"


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    width = max([11, *(len(name) for name, _ in rows)])
    return "".join(f"  {name:<{width}} {short}\n" for name, short in rows)


def flag_usages(flags: Sequence[Flag], columns: int) -> str:
    """The table of flags, descriptions wrapped to `columns`."""
    lines = []
    for name, short, kind, default, description in sorted(flags):
        left = f"  -{short}, --{name}" if short else f"      --{name}"
        left += "" if kind == "bool" else f" {kind}"
        lines.append((left, description + _default(kind, default)))
    width = max((len(left) for left, _ in lines), default=0) + 1
    return "".join(f"{left:<{width}}  {_wrap(width + 2, columns, text)}\n" for left, text in lines)


def _default(kind: str, default: object) -> str:
    if kind == "map" or kind == "stringToString":
        return " (default map[])" if kind == "map" else " (default [])"
    if kind == "bool":
        return " (default true)" if default else ""
    if isinstance(default, str):
        return f' (default "{default}")' if default else ""
    return f" (default {default})" if default else ""


def _wrap(indent: int, columns: int, text: str) -> str:
    newline = "\n" + " " * indent
    width = columns - indent - _SLOP
    if width + _SLOP < 24:
        return text.replace("\n", newline)
    lines = []
    while text:
        line, text = _split(width, text)
        lines.append(line.replace("\n", newline))
    return newline.join(lines)


def _split(width: int, text: str) -> tuple[str, str]:
    if width + _SLOP > len(text):
        return text, ""
    cut = max(text.rfind(char, 0, width) for char in " \t\n")
    if cut <= 0:
        return text, ""
    line_end = text.rfind("\n", 0, width)
    if 0 < line_end < cut:
        cut = line_end
    return text[:cut], text[cut + 1 :]
