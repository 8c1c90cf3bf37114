"""A graph of decisions (`filter_graph`) made into a seccomp program, as short as it gets.

Jumps of BPF go forward only. The program is therefore written from its end: wherever an instruction jumps to is there
already, at a known distance. Conditional jumps reach 255 instructions; beyond that they go by way of another
instruction next to them.
"""

from __future__ import annotations

from wherry.kernel.filter_graph import ALL, AND, JUMP, LOAD, RETURN, Answer, Graph, Instruction, Test, encode, read
from wherry.kernel.filter_graph import Unreadable as Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_REACH = 255


def shorten(program: bytes) -> bytes:
    """A program that answers every call as `program` does; `program` itself where no shorter one is found."""
    try:
        graph, root = read(program)
        code = assemble(graph, root)
        # A container's safety hangs on this: what was written must read as what was meant.
        again, root_again = read(code)
    except Unreadable:
        return program
    proven = root_again == root and again.nodes == graph.nodes
    return code if proven and len(code) < len(program) else program


def assemble(graph: Graph, root: int) -> bytes:
    """The program that starts at node `root`."""
    writer = _Writer(graph.nodes, root)
    writer.write(root)
    return encode(writer.code[::-1])


class _Writer:
    """`code` is back to front; a place is the length it had with the instruction in it: larger is earlier."""

    def __init__(self, nodes: Sequence[Answer | Test], root: int) -> None:
        self._nodes = nodes
        self._loading = _loading(nodes, root)
        self._loaded: dict[int, int] = {}  # node: place to enter with the word in the accumulator
        self._unloaded: dict[int, int] = {}  # node: place to enter without
        self.code: list[Instruction] = []

    def write(self, number: int) -> None:
        """Write what follows from a node, then the node."""
        node = self._nodes[number]
        if number in self._loaded or number in self._unloaded:
            return
        if isinstance(node, Answer):
            self._unloaded[number] = self._put(RETURN, value=node.action)
            return
        self.write(node.true)
        self.write(node.false)
        true, false = self._near(node, node.true, 2), self._near(node, node.false, 1)
        here = len(self.code)
        self._loaded[number] = self._put(node.operator, here - true, here - false, node.value)
        if number in self._loading:
            if node.mask != ALL:
                self._put(AND, value=node.mask)
            self._unloaded[number] = self._put(LOAD, value=node.word)

    def _near(self, parent: Test, number: int, margin: int) -> int:
        """The place of a node, or of a jump there, in reach of an instruction with `margin` more at most in between."""
        node = self._nodes[number]
        known = self._loaded if _shares(parent, node) else self._unloaded
        place = known[number]
        if len(self.code) - place + margin - 1 <= _REACH:
            return place
        if isinstance(node, Answer):
            known[number] = self._put(RETURN, value=node.action)
            return known[number]
        return self._put(JUMP, value=len(self.code) - place)

    def _put(self, code: int, true: int = 0, false: int = 0, value: int = 0) -> int:
        self.code.append(Instruction(code, true, false, value))
        return len(self.code)


def _shares(parent: Test, node: Answer | Test) -> bool:
    """Whether the accumulator holds, after `parent`, what `node` compares."""
    return isinstance(node, Test) and (node.word, node.mask) == (parent.word, parent.mask)


def _loading(nodes: Sequence[Answer | Test], root: int) -> set[int]:
    """The nodes that are reached without their word in the accumulator."""
    found, seen, todo = {root}, {root}, [root]
    while todo:
        node = nodes[todo.pop()]
        if isinstance(node, Answer):
            continue
        for number in (node.true, node.false):
            if not _shares(node, nodes[number]):
                found.add(number)
            if number not in seen:
                seen.add(number)
                todo.append(number)
    return found
