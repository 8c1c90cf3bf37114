"""--gpus: one device request, in docker's CSV (2, all, device=0, "device=0,1",capabilities=utility)."""

from __future__ import annotations

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def gpus(text: str) -> dict[str, Any]:
    """An entry of HostConfig.DeviceRequests. InvalidArgument in docker's words."""
    import csv

    fields = next(csv.reader([text]), None)
    if not fields:
        raise InvalidArgument("EOF")
    found: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": None, "Options": {}}
    capabilities: list[str] = []
    seen: set[str] = set()
    for field in fields:
        name, equals, value = field.partition("=")
        if not equals:
            name, value = "count", field
        elif name in seen:
            raise InvalidArgument(f"gpu request key '{name}' can be specified only once")
        seen.add(name)
        if name == "driver":
            found["Driver"] = value
        elif name == "count":
            found["Count"] = _count(value)
        elif name == "device":
            found["DeviceIDs"] = value.split(",")
        elif name == "capabilities":
            capabilities += value.split(",")
        elif name == "options":
            found["Options"] = dict(option.partition("=")[::2] for option in value.split(","))
        else:
            raise InvalidArgument(f"unexpected key '{name}' in '{field}'")
    if "count" not in seen and found["DeviceIDs"] is None:
        found["Count"] = 1
    found["Capabilities"] = [[*capabilities, "gpu"]]
    return found


def _count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(
            f'invalid count ({text}): value must be either "all" or an integer: invalid syntax'
        ) from None
