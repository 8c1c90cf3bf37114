"""What to say about a command that does not exist."""

from __future__ import annotations

from wherry.cli import commands


def unknown_command(name: str) -> str:
    if name in commands.NOT_YET or name.partition(" ")[0] in commands.NOT_YET:
        return f"wherry: 'wherry {name}' is not implemented yet"
    group = name.partition(" ")[0] if " " in name else ""
    text = f"wherry: unknown command: wherry {name}\n"
    near = closest(name, [other for other in commands.names() if other.startswith(group)])
    if near:
        text += f"\nDid you mean: wherry {near}\n"
    if group:
        text += f"\nUsage:  wherry {group}\n\nRun 'wherry {group} --help' for more information"
    else:
        text += "\nRun 'wherry --help' for more information"
    return text


def closest(name: str, known: list[str]) -> str:
    """The known name at an edit distance of at most 2, or one that `name` begins; "" for none."""
    distance, best = min(((edit_distance(name, other), other) for other in known), default=(99, ""))
    if distance <= 2:
        return best
    return next((other for other in known if other.startswith(name)), "")


def edit_distance(one: str, two: str) -> int:
    row = list(range(len(two) + 1))
    for index, left in enumerate(one, 1):
        previous, row[0] = row[0], index
        for column, right in enumerate(two, 1):
            previous, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, previous + (left != right))
    return row[-1]
