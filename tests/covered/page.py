"""The page: `docs/coverage.md`."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from covered import code, proofs
from covered.derive import DATA

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
_NOTES = DATA / "notes.md"

# Groups of endpoints by the first part of their path, and of commands; the rest is the last group's.
_API_GROUPS = {
    "Containers": ("containers", "exec", "commit"),
    "System": ("_ping", "version", "info", "events", "system", "auth", "session"),
    "Images": ("images", "distribution"),
    "Build": ("build",),
    "Networks": ("networks",),
    "Volumes": ("volumes",),
    "Plugins": ("plugins",),
}
_SWARM = "Swarm"
_CONTAINER_COMMANDS = """
attach checkpoint commit container cp create diff exec export inspect kill logs pause port ps rename restart rm run
start stats stop top unpause update wait
"""
_CLI_GROUPS = {
    "Containers": tuple(_CONTAINER_COMMANDS.split()),
    "System": ("context", "events", "info", "login", "logout", "system", "version"),
    "Images": (
        *("history", "image", "images", "import", "load", "manifest", "pull", "push", "rmi", "save", "search", "tag"),
        "trust",
    ),
    "Build": ("build", "builder"),
    "Networks": ("network",),
    "Volumes": ("volume",),
    "Plugins": ("plugin",),
}
_NAMES = {"endpoint": "", "query": "?", "filter": "filter ", "header": "header ", "body": ""}


class Fact(NamedTuple):
    """One row: what it is called, its status, the test that shows it ("" for none)."""

    group: str
    owner: str  # the endpoint or command
    name: str
    status: str
    test: str


def facts(*, search: bool = True) -> tuple[list[Fact], list[Fact]]:
    """Those of the API, those of the command line.

    With `search` tests are looked for and the choice is written down, else only the choice that was written is used.
    """
    api = [tuple(line) for line in _rows("api.tsv")]
    cli = [("cli", *line[:3]) for line in _rows("cli.tsv")]
    chosen = proofs.choose([*api, *cli]) if search else proofs.valid()
    if search:
        proofs.write(chosen)
    return (
        [
            Fact(
                _group(_API_GROUPS, where.split("/")[1]),
                where,
                "" if kind == "endpoint" else _NAMES[kind] + name,
                code.api(kind, where, name),
                chosen.get((kind, where, name), ""),
            )
            for kind, where, name in api
        ],
        [
            Fact(
                _group(_CLI_GROUPS, command.split()[0]),
                command,
                flag,
                code.cli(command, flag),
                chosen.get(("cli", command, flag, short), ""),
            )
            for _, command, flag, short in cli
        ],
    )


def _rows(name: str) -> Iterator[list[str]]:
    return (line.split("\t") for line in (DATA / name).read_text(encoding="utf-8").splitlines())


def _group(groups: dict[str, tuple[str, ...]], first: str) -> str:
    return next((name for name, members in groups.items() if first in members), _SWARM)


def render(api: list[Fact], cli: list[Fact]) -> str:
    """The whole page."""
    parts = [_NOTES.read_text(encoding="utf-8") if _NOTES.exists() else ""]
    parts.append(_summary("API", api) + _summary("Command line", cli))
    for title, rows in (("API", api), ("Command line", cli)):
        groups = dict.fromkeys(fact.group for fact in rows)
        parts += [f"## {title}: {name.lower()}\n\n" + _section([f for f in rows if f.group == name]) for name in groups]
    return "\n".join(parts)


def _summary(title: str, rows: list[Fact]) -> str:
    text = f"| {title} | done | of these shown by a test | refused clearly | kept | not done |\n{'|---' * 6}|\n"
    for group in dict.fromkeys(fact.group for fact in rows):
        mine = [fact for fact in rows if fact.group == group]
        count = Counter(fact.status for fact in mine)
        shown = sum(fact.status == code.DONE and bool(fact.test) for fact in mine)
        figures = (count[code.DONE], shown, count[code.REFUSED], count[code.KEPT], count[code.MISSING])
        text += f"| {group} | {' | '.join(map(str, figures))} |\n"
    return text + "\n"


def _section(rows: list[Fact]) -> str:
    text = "| what | status | shown by |\n|---|---|---|\n"
    for owner, group in itertools.groupby(rows, lambda fact: fact.owner):
        mine = list(group)
        head = mine[0]
        text += _row(f"**{owner}**", head)
        if head.status in (code.DONE, code.KEPT):
            text += "".join(_row(f"`{fact.name}`", fact) for fact in mine[1:])
        elif len(mine) > 1:
            text += f"| its {len(mine) - 1} parameters and fields | {head.status} | |\n"
    return text


def _row(name: str, fact: Fact) -> str:
    return f"| {name} | {fact.status} | {fact.test and f'`{fact.test}`'} |\n"


def missing_tests(rows: Iterable[Fact]) -> list[Fact]:
    """What is done and no test shows."""
    return [fact for fact in rows if fact.status == code.DONE and not fact.test]
