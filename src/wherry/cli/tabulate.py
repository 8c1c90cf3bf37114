"""Columns as Go's text/tabwriter aligns them with docker's settings: at least 10 wide, 3 blanks between."""

from __future__ import annotations

MIN_WIDTH = 10
PADDING = 3


def columns(lines: list[list[str]], min_width: int = MIN_WIDTH, padding: int = PADDING) -> str:
    """Lines of cells to text. The last cell of a line belongs to no column; a column is a run of lines that have it."""
    widths: list[list[int]] = [[0] * (len(line) - 1) for line in lines]
    depth = max((len(line) for line in lines), default=0) - 1
    for column in range(depth):
        start = 0
        while start < len(lines):
            end = start
            width = min_width
            while end < len(lines) and len(lines[end]) - 1 > column:
                width = max(width, len(lines[end][column]) + padding)
                end += 1
            for row in range(start, end):
                widths[row][column] = width
            start = max(end, start + 1)
    rows = []
    for line, sizes in zip(lines, widths, strict=True):
        rows.append("".join([cell.ljust(size) for cell, size in zip(line, sizes, strict=False)]) + line[-1])
    return "".join([row + "\n" for row in rows])


def align(text: str, min_width: int = MIN_WIDTH, padding: int = PADDING) -> str:
    """Text with tabs between cells and a line end after each line."""
    lines = text.split("\n")
    tail = lines.pop()
    return columns([line.split("\t") for line in lines], min_width, padding) + tail
