"""`wherry completion`: scripts that ask `wherry completion --words` what fits, so that they never grow old."""

from __future__ import annotations

import sys

from wherry.cli import commands
from wherry.cli.flags import Command
from wherry.errors import InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_BASH = """\
_wherry() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
    "${COMP_WORDS[0]}" completion --words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  if [ ${#COMPREPLY[@]} -eq 0 ]; then compopt -o default 2>/dev/null; fi
}
complete -F _wherry wherry
"""
_ZSH = """\
#compdef wherry
_wherry() {
  local -a found
  found=("${(@f)$(${words[1]} completion --words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "$found" ]]; then compadd -- $found; else _files; fi
}
compdef _wherry wherry
"""
_FISH = """\
function __wherry_complete
  set -l words (commandline -opc) (commandline -ct)
  $words[1] completion --words -- $words[2..-1] 2>/dev/null
end
complete -c wherry -a '(__wherry_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_OF_CONTAINERS = "attach cp diff exec export kill logs pause port rename restart rm start stop top unpause wait inspect"
_CONTAINERS = frozenset(_OF_CONTAINERS.split()) | {"container inspect"}
_IMAGES = frozenset(("run", "create", "rmi", "tag", "history", "images", "image inspect", "pull"))
_VOLUMES = frozenset(("volume rm", "volume inspect"))
_NETWORKS = frozenset(f"network {name}" for name in ("inspect", "rm", "connect", "disconnect"))


def completion(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    if flags["words"]:
        last = arguments[-1] if arguments else ""
        found = candidates(cli, arguments[:-1], last)
        sys.stdout.write("".join(f"{word}\n" for word in sorted(set(found)) if word.startswith(last)))
        return 0
    if len(arguments) != 1 or arguments[0] not in _SCRIPTS:
        raise InvalidArgument("name a shell: bash, zsh or fish")
    sys.stdout.write(_SCRIPTS[arguments[0]])
    return 0


def candidates(cli: Cli, before: list[str], word: str) -> Iterable[str]:
    """What may stand after the words `before`."""
    from wherry.cli.main import GLOBAL_FLAGS

    path, rest = _command(before, {f"--{flag[0]}" for flag in GLOBAL_FLAGS if flag[2] != "bool"} | {"-H", "-c", "-l"})
    if not path or path in commands.GROUPS:
        if word.startswith("-"):
            return [f"--{flag[0]}" for flag in GLOBAL_FLAGS] + ["--help"]
        prefix = f"{path} " if path else ""
        names = [name.removeprefix(prefix) for name in commands.names() if name.startswith(prefix)]
        return [name for name in names if " " not in name] + ([] if path else list(commands.GROUPS))
    target = commands.resolve(path)
    command: Command = __import__(f"wherry.cli.{commands.TABLE[target][0]}", fromlist=["COMMANDS"]).COMMANDS[target]
    if word.startswith("-"):
        return [f"--{flag[0]}" for flag in command.flags if flag[0] not in command.refuse] + ["--help"]
    if target == "completion":
        return list(_SCRIPTS)
    return _objects(cli, target, rest)


def _command(words: list[str], valued: set[str]) -> tuple[str, list[str]]:
    """The command among the words, as far as it is there, and what follows it."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in valued else 1
    if at >= len(words):
        return "", []
    name = words[at]
    if name in commands.GROUPS and at + 1 < len(words):
        name, at = f"{name} {words[at + 1]}", at + 1
    return (name if commands.resolve(name) or name in commands.GROUPS else ""), words[at + 1 :]


def _objects(cli: Cli, target: str, rest: list[str]) -> list[str]:
    """Names of containers, images, volumes or networks, asked of the engine; none when it does not answer."""
    engine = cli.engine
    try:
        if target in _CONTAINERS and not (target == "exec" and any(not word.startswith("-") for word in rest)):
            alive = target in ("attach", "exec", "kill", "pause", "port", "stop", "top", "unpause")
            items = engine.get("/containers/json", [] if alive else [("all", "1")])
            return [name.removeprefix("/") for item in items for name in item["Names"]]
        if target in _IMAGES:
            return [tag for item in engine.get("/images/json") for tag in item.get("RepoTags") or ()]
        if target in _VOLUMES:
            return [item["Name"] for item in engine.get("/volumes").get("Volumes") or ()]
        if target in _NETWORKS:
            return [item["Name"] for item in engine.get("/networks")]
    except WherryError:
        pass
    return []


_WORDS = (("words", "", "bool", False, "Print the words that fit after those given"),)
COMMANDS = {"completion": Command(completion, _WORDS, (0, None))}
