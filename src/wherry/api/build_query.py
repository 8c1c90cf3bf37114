"""What POST /build is asked, from its query and headers.

`rm` and `forcerm` need nothing: no step ever leaves a container behind. What is not done is refused by name.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from wherry.api.call import Call
from wherry.build.dockerfile import Source
from wherry.build.remote import git_remote, is_url
from wherry.build.request import BuildRequest, NamedContext
from wherry.engine.oci_spec import is_ulimit
from wherry.errors import InvalidArgument, Unimplemented
from wherry.images import RegistryAuth
from wherry.spec.docker import Ulimit
from wherry.spec.platform import parse_platform
from wherry.spec.reference import Reference

_SECRET_MAX = 500 << 10
_REFUSED = {
    "squash": "squash is only supported with experimental mode",
    "outputs": "outputs are not supported by the classic endpoint: use docker buildx, or wherry save",
    "session": "builds by session are not supported by the classic endpoint: use docker buildx 0.10 or later",
}


class GivenSecrets:
    """Secrets that came with the request."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self._values = values

    async def secret(self, id: str) -> bytes | None:
        return self._values.get(id)


def refuse(call: Call) -> None:
    """Unimplemented for a parameter that asks for what cannot be done."""
    query = call.query
    for name, message in _REFUSED.items():
        if query.flag(name) if name == "squash" else query.get(name) not in ("", "null", "[]"):
            raise Unimplemented(message, object=name)
    if query.get("remote") == "client-session":
        raise Unimplemented(_REFUSED["session"], object="remote")
    if query.get("version") not in ("", "1"):
        message = f"version {query.get('version')} of the builder is not behind this endpoint, but behind POST /session"
        raise Unimplemented(message, object="version")
    if strings(call, "securityopt"):
        raise InvalidArgument(
            "The daemon on this platform does not support setting security options on build", object="securityopt"
        )
    if query.get("isolation") not in ("", "default"):
        raise InvalidArgument(f"Unsupported isolation: {query.get('isolation')!r}", object="isolation")


def build_request(call: Call, source: Source) -> BuildRequest:
    query = call.query
    limits: list[tuple[str, int | str]] = []
    for name, field in _LIMITS.items():
        if query.get(name):
            limits.append((field, query.integer(name) or 0))
    if query.get("cpusetcpus"):
        limits.append(("cpuset_cpus", query.get("cpusetcpus")))
    if query.get("cpusetmems"):
        limits.append(("cpuset_mems", query.get("cpusetmems")))
    args = {name: value for name, value in _object(call, "buildargs").items() if value is not None}
    contexts = {}
    for name, value in _object(call, "contexts").items():
        contexts[name.lower()] = named_context(value)
    return BuildRequest(
        dockerfile=source,
        target=query.get("target"),
        build_args=args,
        labels={name: value or "" for name, value in _object(call, "labels").items()},
        contexts=contexts,
        platform=parse_platform(query.get("platform")).normalized() if query.get("platform") else None,
        no_cache=query.flag("nocache"),
        no_cache_stages=frozenset(name.lower() for name in query.all("nocachefilter")),
        pull=query.get("pull").lower() in ("1", "true"),
        network=query.get("networkmode") or "default",
        extra_hosts=_extra_hosts(query.get("extrahosts")),
        shm_size=query.integer("shmsize") or 0,
        cgroup_parent=query.get("cgroupparent"),
        ulimits=_ulimits(call),
        entitlements=frozenset(query.all("allow")),
        resources=tuple(limits),
    )


_LIMITS = {
    "memory": "memory",
    "memswap": "memory_swap",
    "cpushares": "cpu_shares",
    "cpuperiod": "cpu_period",
    "cpuquota": "cpu_quota",
}


def named_context(value: str) -> NamedContext:
    """The right side of --build-context."""
    if value.startswith("docker-image://"):
        return NamedContext("image", value.removeprefix("docker-image://"))
    if git_remote(value) is not None:
        return NamedContext("git", value)
    if is_url(value):
        return NamedContext("url", value)
    raise Unimplemented(f"named context {value!r} is not supported by the classic endpoint", object=value)


def _object(call: Call, name: str) -> dict[str, Any]:
    text = call.query.get(name)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"error reading {name}: {error}", object=name) from None
    if not isinstance(found, dict) or not all(value is None or isinstance(value, str) for value in found.values()):
        raise InvalidArgument(f"error reading {name}: an object of strings is expected", object=name)
    return found


def strings(call: Call, name: str) -> list[str]:
    """A parameter that is a JSON list of strings."""
    return [entry for entry in _list(call, name) if isinstance(entry, str) and entry]


def _list(call: Call, name: str) -> list[Any]:
    text = call.query.get(name)
    if not text:
        return []
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"error reading {name}: {error}", object=name) from None
    if found is not None and not isinstance(found, list):
        raise InvalidArgument(f"error reading {name}: a list is expected", object=name)
    return found or []


def _ulimits(call: Call) -> tuple[Ulimit, ...]:
    found = []
    for entry in _list(call, "ulimits"):
        fields = entry if isinstance(entry, dict) else {}
        name, hard, soft = fields.get("Name"), fields.get("Hard", 0), fields.get("Soft", 0)
        if not isinstance(name, str) or not is_ulimit(name) or type(hard) is not int or type(soft) is not int:
            raise InvalidArgument(f"invalid ulimit {json.dumps(entry)}", object="ulimits")
        found.append(Ulimit(name=name, hard=hard, soft=soft))
    return tuple(found)


def _extra_hosts(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    try:
        found = json.loads(text)
    except ValueError:
        # docker's CLI sends a list; the specification says comma-separated.
        found = text.split(",")
    return tuple(str(entry) for entry in found)


def secrets(call: Call) -> GivenSecrets | None:
    text = call.request.headers.get("X-Wherry-Secrets")
    if not text:
        return None
    try:
        found = json.loads(base64.b64decode(text))
        values = {str(name): base64.b64decode(value) for name, value in found.items()}
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise InvalidArgument("X-Wherry-Secrets is not what it should be") from None
    if any(len(value) > _SECRET_MAX for value in values.values()):
        raise InvalidArgument(f"a secret is larger than {_SECRET_MAX >> 10} KiB")
    return GivenSecrets(values)


def registry_config(call: Call) -> Any:
    """X-Registry-Config: from a reference to the credentials of its registry."""
    text = call.request.headers.get("X-Registry-Config")
    if not text:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        return None

    def auth(reference: Reference) -> RegistryAuth | None:
        domain = reference.name.partition("/")[0]
        for server in (domain, "https://index.docker.io/v1/" if domain == "docker.io" else domain):
            entry = found.get(server) if isinstance(found, dict) else None
            if isinstance(entry, dict):
                return RegistryAuth(
                    username=str(entry.get("username") or ""),
                    password=str(entry.get("password") or ""),
                    identity_token=str(entry.get("identitytoken") or ""),
                    registry_token=str(entry.get("registrytoken") or ""),
                    server=str(entry.get("serveraddress") or server),
                )
        return None

    return auth
