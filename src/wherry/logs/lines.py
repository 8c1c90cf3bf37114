"""Lines as docker cuts them: one longer than 16 KB becomes pieces, so that a program that never ends one cannot grow
us."""

LONGEST = 16 * 1024


def has_long_line(data: bytes) -> bool:
    """Whether any line in `data`, its newline not counted, is longer. Looks at one newline in every 16 KB."""
    start, size = 0, len(data)
    while size - start > LONGEST:
        end = data.rfind(b"\n", start, start + LONGEST + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def cut(data: bytes) -> list[bytes]:
    """`data` as lines, each with its newline, and pieces of lines that are too long; what has no end comes last."""
    pieces = []
    for line in data.split(b"\n"):
        while len(line) > LONGEST:
            end = character_boundary(line[:LONGEST])
            pieces.append(line[:end])
            line = line[end:]
        pieces.append(line + b"\n")
    pieces[-1] = pieces[-1][:-1]
    if data.endswith(b"\n"):
        pieces.pop()
    return pieces


def character_boundary(data: bytes) -> int:
    """Where to cut so that no UTF-8 character is halved."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needed > back else len(data)
    return len(data)
