"""What log drivers tell of a container: its names, and the labels and variables that were asked for.

The document `info` of a LogTarget, docker's plugin protocol word for word (plugins_logging.md): ContainerID,
ContainerName ("/name"), ContainerEntrypoint, ContainerArgs, ContainerImageID, ContainerImageName,
ContainerCreated (RFC 3339),
ContainerEnv, ContainerLabels, LogPath, DaemonName, Config.
"""

import re
from collections.abc import Mapping
from typing import Any

Info = Mapping[str, Any]
DEFAULT_TAG = "{{.ID}}"


def attributes(info: Info, options: Mapping[str, str], *, uppercase: bool = False) -> dict[str, str]:
    """The labels and environment variables that options labels, labels-regex, env and env-regex choose."""
    found: dict[str, str] = {}
    labels: Mapping[str, str] = info.get("ContainerLabels") or {}
    env = dict(item.partition("=")[::2] for item in info.get("ContainerEnv") or () if "=" in item)
    for values, names, pattern in ((labels, "labels", "labels-regex"), (env, "env", "env-regex")):
        for name in filter(None, options.get(names, "").split(",")):
            if name in values:
                found[name] = values[name]
        if options.get(pattern):
            chosen = re.compile(options[pattern])
            found.update({name: value for name, value in values.items() if chosen.search(name)})
    return {_identifier(name): value for name, value in found.items()} if uppercase else found


def _identifier(name: str) -> str:
    """As journald's field names must be: docker's way of making them so."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper()).lstrip("_")


def file_attributes(info: Info, options: Mapping[str, str]) -> dict[str, str]:
    """What json-file writes as "attrs": the chosen labels and variables, and the tag if one is asked for."""
    from wherry.logs.tag import render

    found = attributes(info, options)
    if options.get("tag"):
        found["tag"] = render(options["tag"], info, options)
    return found


def fields(info: Info) -> dict[str, str]:
    """What a tag's template may name, as docker computes it."""
    identity, image = str(info.get("ContainerID", "")), str(info.get("ContainerImageID", ""))
    arguments = info.get("ContainerArgs") or ()
    return {
        "ID": identity[:12],
        "FullID": identity,
        "Name": str(info.get("ContainerName", "")).removeprefix("/"),
        "ImageID": image[:12],
        "ImageFullID": image,
        "ImageName": str(info.get("ContainerImageName", "")),
        "Command": " ".join([str(info.get("ContainerEntrypoint", "")), *arguments]),
        "DaemonName": str(info.get("DaemonName", "")),
        **{name: str(value) for name, value in info.items() if isinstance(value, str)},
    }
