"""Which engine is meant: flags, environment, and the contexts under ~/.docker, in docker's own files.

A context NAME lives in contexts/meta/<sha256 of NAME>/meta.json, its TLS files in
contexts/tls/<sha256 of NAME>/docker/{ca,cert,key}.pem; the current one is `currentContext` in config.json.
"""

from __future__ import annotations

import posix

from wherry.client import codec
from wherry.client.dial import Endpoint
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_HOST = "unix:///var/run/docker.sock"


def environment(name: str) -> str:
    return posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")


def config_directory() -> str:
    return environment("DOCKER_CONFIG") or f"{environment('HOME') or '/root'}/.docker"


def read_document(path: str) -> Any:
    """The JSON document in a file, or None when there is no such file."""
    try:
        with open(path, "rb") as file:
            return codec.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InvalidArgument(f"{path} is not valid JSON: {error}") from None


def config(directory: str) -> dict[str, Any]:
    """docker's config.json."""
    document = read_document(f"{directory}/config.json")
    return document if isinstance(document, dict) else {}


def identity(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()


def current_name(directory: str, flag: str = "") -> tuple[str, str]:
    """The name of the context in use and where it was said: flag, DOCKER_HOST, DOCKER_CONTEXT, config or ""."""
    if flag:
        return flag, "flag"
    if environment("DOCKER_HOST"):
        return "default", "DOCKER_HOST"
    if name := environment("DOCKER_CONTEXT"):
        return name, "DOCKER_CONTEXT"
    if name := str(config(directory).get("currentContext") or ""):
        return name, "config"
    return "default", ""


def read(directory: str, name: str) -> dict[str, Any]:
    """The meta.json of a context. Raises NotFound."""
    path = f"{directory}/contexts/meta/{identity(name)}/meta.json"
    document = read_document(path)
    if not isinstance(document, dict):
        raise NotFound(f'context "{name}": context not found: open {path}: no such file or directory')
    return document


def tls_files(directory: str, name: str) -> tuple[str, str, str] | None:
    base = f"{directory}/contexts/tls/{identity(name)}/docker"
    found = [path if posix.access(path, 4) else "" for path in (f"{base}/{part}.pem" for part in ("ca", "cert", "key"))]
    return (found[0], found[1], found[2]) if any(found) else None


def from_context(directory: str, name: str) -> Endpoint:
    docker = (read(directory, name).get("Endpoints") or {}).get("docker") or {}
    host = str(docker.get("Host") or DEFAULT_HOST)
    return Endpoint(host, tls_files(directory, name), not docker.get("SkipTLSVerify"), name)


def from_environment(host: str = "") -> Endpoint:
    """DOCKER_HOST, or `host`, with DOCKER_TLS, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."""
    host = host or environment("DOCKER_HOST") or DEFAULT_HOST
    verify = bool(environment("DOCKER_TLS_VERIFY"))
    if not verify and not environment("DOCKER_TLS"):
        return Endpoint(host)
    base = environment("DOCKER_CERT_PATH") or config_directory()
    return Endpoint(host, present(f"{base}/ca.pem", f"{base}/cert.pem", f"{base}/key.pem"), verify)


def present(authority: str, certificate: str, key: str) -> tuple[str, str, str]:
    def keep(path: str) -> str:
        return path if posix.access(path, 4) else ""

    return keep(authority), keep(certificate), keep(key)


def resolve(directory: str, context: str = "") -> Endpoint:
    """The engine for a command without -H."""
    name, _ = current_name(directory, context)
    return from_environment() if name == "default" else from_context(directory, name)
