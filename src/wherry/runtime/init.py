"""`--init`: the program run by an init of ours that is nowhere to be seen in the container (machine/init.py).

The configuration asks for it by an annotation, and names it as docker does, before the program's own arguments.
"""

from __future__ import annotations

import os

from wherry.runtime import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

    from wherry.runtime.scene import Operation, Scene
else:
    from wherry.kernel.tuples import NamedTuple

ANNOTATION = "io.wherry.init"


class HoldInit(NamedTuple):
    """Have the program in memory, sealed, before a filter could forbid to make it."""

    image: bytes

    def describe(self) -> str:
        return "make the init"

    def apply(self, scene: Scene) -> None:
        from wherry.runtime.machine.elf import sealed
        from wherry.runtime.machine.init import NAME

        scene.init = sealed(NAME, self.image)


class ExecuteInit(NamedTuple):
    """Become the init (execveat(2) of a descriptor)."""

    args: tuple[str, ...]
    env: dict[str, str]

    def describe(self) -> str:
        return "exec the init"

    def apply(self, scene: Scene) -> None:
        process.inherit_signals()
        os.execve(scene.init, self.args, self.env)


def is_wanted(config: Mapping[str, Any]) -> bool:
    """Whether the container is to have an init: then its arguments begin with the init's own two."""
    from wherry.runtime.machine.init import ARGUMENTS

    if (config.get("annotations") or {}).get(ANNOTATION) != "true":
        return False
    args = config["process"]["args"]
    return tuple(args[: len(ARGUMENTS)]) == ARGUMENTS and len(args) > len(ARGUMENTS)


def wrap(operations: Sequence[Operation], args: Sequence[str], env: dict[str, str]) -> list[Operation]:
    """The last operations of a process, with an init in the place of its program. `args` begin with the init's own."""
    from wherry.runtime.machine.init import ARGUMENTS, build

    name = args[len(ARGUMENTS)]
    places = [name] if "/" in name else [f"{where or '.'}/{name}" for where in env.get("PATH", "").split(":")]
    return [HoldInit(build(name, places)), *operations[:-1], ExecuteInit(tuple(args), env)]
