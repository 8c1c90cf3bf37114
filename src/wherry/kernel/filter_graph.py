"""What a seccomp program answers, as a graph of decisions: libseccomp's program read, not its rules.

libseccomp alone knows what a profile means: how rules combine, which architecture has which calls, where x32 begins.
Its code is long, though: one comparison and one return for each of a thousand calls. `read` executes it on ranges of
call numbers for every architecture it tells apart, and keeps only the answers and the comparisons of arguments that
are left. Nothing about rules is known here, so nothing about them can be wrong.

    graph, root = read(program)          # Unreadable: it does what no program of libseccomp does
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NamedTuple
else:
    from wherry.kernel.tuples import NamedTuple

LOAD, AND, JUMP, EQUAL, GREATER, AT_LEAST, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
ALL = 0xFFFFFFFF
_INSTRUCTION = struct.Struct("=HBBI")
_MOST_STEPS = 300_000
_DEEPEST = 200  # decisions on arguments below each other; each is a Python frame or two
_MOST_POINTS = 3  # comparisons for equality one after the other, before searching on is better


class Unreadable(Exception):
    """The program is not of the kind that is understood here. It is right all the same."""


class Answer(NamedTuple):
    """A SECCOMP_RET_ value."""

    action: int


class Test(NamedTuple):
    """`word & mask OPERATOR value`, and the nodes to go to. `word`: its offset in struct seccomp_data."""

    word: int
    mask: int
    operator: int
    value: int
    true: int
    false: int


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    true: int
    false: int
    value: int


class Graph:
    """Nodes by number, each there once: equal numbers mean equal behaviour. Children come before their parents."""

    __slots__ = ("_numbers", "nodes")

    def __init__(self) -> None:
        self.nodes: list[Answer | Test] = []
        self._numbers: dict[Answer | Test, int] = {}

    def answer(self, action: int) -> int:
        """The node that gives `action`."""
        return self._intern(Answer(action))

    def test(self, word: int, mask: int, operator: int, value: int, true: int, false: int) -> int:
        """The node that decides; `true` itself when both ways lead to the same."""
        return true if true == false else self._intern(Test(word, mask, operator, value, true, false))

    def _intern(self, node: Answer | Test) -> int:
        # The two kinds differ in length: as tuples they are never equal.
        number = self._numbers.get(node)
        if number is None:
            number = self._numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return number


def decode(program: bytes) -> list[Instruction]:
    """The instructions of a program in this machine's byte order."""
    return [Instruction(*fields) for fields in _INSTRUCTION.iter_unpack(program)]


def encode(instructions: Sequence[Instruction]) -> bytes:
    """The inverse of `decode`. struct.error: a field out of range."""
    return b"".join([_INSTRUCTION.pack(*instruction) for instruction in instructions])


def read(program: bytes) -> tuple[Graph, int]:
    """(graph, root) of a program as libseccomp makes them. Unreadable: instructions or a size it never uses."""
    code, graph = decode(program), Graph()
    reader = _Reader(code, graph)
    architectures = _architectures(code)
    # A value that equals none of them stands for every other one, for architectures are only compared for equality.
    root = _search(graph, reader.ranges(None))
    for architecture in reversed(architectures):
        root = graph.test(ARCHITECTURE, ALL, EQUAL, architecture, _search(graph, reader.ranges(architecture)), root)
    return graph, root


def _architectures(code: Sequence[Instruction]) -> list[int]:
    """What seccomp_data.arch is compared with."""
    loaded: list[set[int]] = [set() for _ in code]
    found: dict[int, None] = {}
    for position, (operation, true, false, value) in enumerate(code):
        words = loaded[position]
        if operation == RETURN:
            continue
        if operation == LOAD:
            words = {value}
        if operation in (EQUAL, GREATER, AT_LEAST):
            following = [position + 1 + true, position + 1 + false]
            if ARCHITECTURE in words:
                if operation != EQUAL:
                    raise Unreadable("compares architectures for order")
                found[value] = None
        elif operation in (LOAD, AND, JUMP):
            following = [position + 1 + (value if operation == JUMP else 0)]
        else:
            raise Unreadable(f"instruction {operation:#x}")
        for target in following:
            if target >= len(code):
                raise Unreadable("jumps out of the program")
            loaded[target] |= words
    return list(found)


class _Reader:
    """Executes `code` for one architecture and a range of call numbers at a time."""

    def __init__(self, code: Sequence[Instruction], graph: Graph) -> None:
        self._code, self._graph = code, graph
        self._architecture: int | None = None
        self._range = (0, ALL)
        self._known: dict[tuple[int, int, int], int] = {}  # within one range: (position, word, mask): node
        self._steps = 0

    def ranges(self, architecture: int | None) -> list[tuple[int, int]]:
        """(first number, node) for all numbers in order, neighbours being different. None: any other architecture."""
        self._architecture = architecture
        made: list[tuple[int, int]] = []
        # What is left to do, lowest numbers on top: a range, the position reached, the word loaded.
        todo = [(0, ALL, 0, -1)]
        while todo:
            first, last, position, word = todo.pop()
            self._range, self._known = (first, last), {}
            position, word, mask = self._advance(position, word, ALL)
            operation, true, false, value = self._code[position]
            if operation == RETURN or word != NUMBER:
                node = self._node(position, word, mask, 0)
                if not made or made[-1][1] != node:
                    made.append((first, node))
                continue
            for low, high in reversed(list(_split(first, last, operation, value))):
                jump = true if _compare(operation, low, value) else false
                todo.append((low, high, position + 1 + jump, word))
        return made

    def _advance(self, position: int, word: int, mask: int) -> tuple[int, int, int]:
        """To the next instruction whose outcome is not known: a return, or a comparison of an argument or number."""
        while True:
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise Unreadable("takes too long")
            operation, true, false, value = self._code[position]
            if operation == RETURN:
                return position, word, mask
            position += 1
            if operation == LOAD:
                if value not in (NUMBER, ARCHITECTURE) and (value < ARGUMENTS or value >= 64 or value % 4):
                    raise Unreadable(f"loads from offset {value}")
                word, mask = value, ALL
            elif operation == JUMP:
                position += value
            elif operation == AND:
                if word < ARGUMENTS:
                    raise Unreadable("masks a number or an architecture")
                mask &= value
            else:
                outcome = self._outcome(operation, value, word) if mask else _compare(operation, 0, value)
                if outcome is None:
                    return position - 1, word, mask
                position += true if outcome else false

    def _outcome(self, operation: int, value: int, word: int) -> bool | None:
        if word == ARCHITECTURE:
            return value == self._architecture
        if word == NUMBER:
            pieces = list(_split(*self._range, operation, value))
            return _compare(operation, self._range[0], value) if len(pieces) == 1 else None
        if word < 0:
            raise Unreadable("compares before it loads")
        return None

    def _node(self, position: int, word: int, mask: int, depth: int) -> int:
        """The node for what happens from here on, in the present range."""
        if depth > _DEEPEST:
            raise Unreadable("nests too deep")
        position, word, mask = self._advance(position, word, mask)
        operation, true, false, value = self._code[position]
        if operation == RETURN:
            return self._graph.answer(value)
        if word == NUMBER:
            raise Unreadable("comes back to the number after an argument")
        key = position, word, mask
        if key not in self._known:
            ways = [self._node(position + 1 + jump, word, mask, depth + 1) for jump in (true, false)]
            self._known[key] = self._graph.test(word, mask, operation, value, *ways)
        return self._known[key]


def _compare(operation: int, left: int, right: int) -> bool:
    if operation == EQUAL:
        return left == right
    return left > right if operation == GREATER else left >= right


def _split(first: int, last: int, operation: int, value: int) -> Iterator[tuple[int, int]]:
    """The parts of a range for whose numbers the comparison comes out alike, in order."""
    bounds = {EQUAL: (value, value + 1), GREATER: (value + 1,), AT_LEAST: (value,)}[operation]
    for bound in bounds:
        if first < bound <= last:
            yield first, bound - 1
            first = bound
    yield first, last


def _search(graph: Graph, ranges: Sequence[tuple[int, int]]) -> int:
    """A balanced search for the range a call's number is in."""
    blocks = _blocks(ranges)

    def build(low: int, high: int) -> int:
        if high - low > 1:
            middle = (low + high) // 2
            bound = ranges[blocks[middle]][0]
            return graph.test(NUMBER, ALL, AT_LEAST, bound, build(middle, high), build(low, middle))
        start, end = blocks[low], blocks[low + 1]
        node = ranges[start][1]
        for number, exception in ranges[start + 1 : end : 2]:
            node = graph.test(NUMBER, ALL, EQUAL, number, exception, node)
        return node

    return build(0, len(blocks) - 1)


def _blocks(ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Where to cut: each block is one range, or one with single numbers taken out, which a comparison each tells apart.

    The fewest instructions: for every start the best end is found, from the last one backwards.
    """
    count = len(ranges)
    costs, ends = [0] * (count + 1), [0] * (count + 1)
    for start in range(count - 1, -1, -1):
        costs[start], ends[start] = 1 + costs[start + 1], start + 1
        for points in range(1, _MOST_POINTS + 1):
            at = start + 2 * points
            if at >= count or ranges[at][1] != ranges[start][1] or ranges[at][0] != ranges[at - 1][0] + 1:
                break
            cost = 1 + points + costs[at + 1]
            if cost < costs[start]:
                costs[start], ends[start] = cost, at + 1
    cuts = [0]
    while cuts[-1] < count:
        cuts.append(ends[cuts[-1]])
    return cuts
