"""Descriptions of flags that many commands share."""

from __future__ import annotations

_FORMATS = "\n'json':             JSON\n'TEMPLATE':         the given Go template"
FORMAT_LIST = (
    "Format of the output:\n'table':            a table with headers (default)\n"
    f"'table TEMPLATE':   a table of the given Go template{_FORMATS}"
)
FORMAT = f"Format of the output:{_FORMATS}"
PLATFORM = 'Platform variant, as "os[/arch[/variant]]" (e.g., "linux/amd64")'
FILTER = "Filter output based on conditions provided"
DETACH_KEYS = "Override the key sequence for detaching a container"
