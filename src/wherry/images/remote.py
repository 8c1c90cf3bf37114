"""What is asked of a registry without pulling: an image's descriptor and platforms, and Docker Hub's search."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import aiohttp

from wherry.errors import Internal, InvalidArgument, Unavailable
from wherry.images.endpoints import RegistryConfig, find_endpoints, is_insecure, proxy_for
from wherry.images.registry import Registry
from wherry.spec.oci_image import DOCUMENT_MAX, Index, Manifest, parse_config, parse_manifest
from wherry.spec.reference import DEFAULT_DOMAIN, Reference

_HUB_INDEX = "https://index.docker.io"
_RESULTS_MAX = 100
_TIMEOUT = aiohttp.ClientTimeout(total=30)
_FILTERS = ("is-official", "is-automated", "stars")


async def distribution(registry: Registry, reference: Reference) -> dict[str, Any]:
    """Docker's DistributionInspect document."""
    data, media_type, digest = await registry.manifest(reference.digest or reference.tag or "latest")
    found = parse_manifest(data, media_type)
    kind = found.media_type or media_type
    descriptor = {"mediaType": kind, "digest": reference.digest or digest, "size": len(data)}
    if isinstance(found, Index):
        platforms = [_platform(entry.platform) for entry in found.manifests if entry.platform]
    else:
        platforms = [_platform((await _config(registry, found)).platform)]
    return {"Descriptor": descriptor, "Platforms": platforms}


async def _config(registry: Registry, manifest: Manifest) -> Any:
    if manifest.config.size > DOCUMENT_MAX:
        raise InvalidArgument(f"configuration {manifest.config.digest} is too large", object=manifest.config.digest)
    async with registry.blob(manifest.config.content) as (response, _):
        data = await response.content.read(DOCUMENT_MAX)
    return parse_config(data)


def _platform(platform: Any) -> dict[str, str]:
    shown = {"architecture": platform.architecture, "os": platform.os, "variant": platform.variant}
    return {name: value for name, value in shown.items() if value}


async def search(
    term: str, limit: int, filters: Mapping[str, Sequence[str]], config: RegistryConfig
) -> list[dict[str, Any]]:
    """Docker's search results, from Docker Hub or, for a term that begins with a host, from that registry."""
    if not 1 <= limit <= _RESULTS_MAX:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {_RESULTS_MAX}]", object="limit")
    wanted = _check_filters(filters)
    host, slash, rest = term.partition("/")
    elsewhere = bool(slash) and ("." in host or ":" in host or host == "localhost")
    domain, text = (host, rest) if elsewhere else (DEFAULT_DOMAIN, term)
    results = await _ask(domain, text, limit, config)
    return [shown for shown in map(_shown, results) if all(check(shown) for check in wanted)]


async def _ask(domain: str, text: str, limit: int, config: RegistryConfig) -> list[Any]:
    query = urlencode({"q": text, "n": limit})
    if domain == DEFAULT_DOMAIN:
        addresses = [(_HUB_INDEX, find_endpoints(domain, config)[-1].tls)]
    else:
        addresses = [(endpoint.address, endpoint.tls) for endpoint in find_endpoints(domain, config)]
    failure = ""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        for address, tls in addresses:
            url = f"{address}/v1/search?{query}"
            try:
                async with session.get(url, ssl=tls, proxy=proxy_for(url), allow_redirects=False) as response:
                    data = await response.content.read(DOCUMENT_MAX)
                    if response.status != 200:
                        raise Internal(f"Unexpected status code {response.status}", object=url)
                found = json.loads(data)
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = f'Get "{url}": {error or type(error).__name__}'
                if not is_insecure(domain, config):
                    break
                continue
            except ValueError:
                raise Internal(f"the answer of {address} to a search is not JSON", object=url) from None
            results = found.get("results") if isinstance(found, dict) else None
            return results if isinstance(results, list) else []
    raise Unavailable(failure, object=domain)


def _shown(result: Any) -> dict[str, Any]:
    if not isinstance(result, dict):
        result = {}
    return {
        "star_count": int(result.get("star_count") or 0),
        "is_official": bool(result.get("is_official")),
        "name": str(result.get("name") or ""),
        "is_automated": False,
        "description": str(result.get("description") or ""),
    }


def _check_filters(filters: Mapping[str, Sequence[str]]) -> list[Any]:
    checks: list[Any] = []
    for name, values in filters.items():
        if name not in _FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'", object=name)
        for value in values:
            if name == "stars":
                if not value.isdecimal():
                    raise InvalidArgument(f"invalid filter 'stars={value}'", object=name)
                checks.append(lambda shown, least=int(value): shown["star_count"] >= least)
            elif value in ("true", "1", "false", "0"):
                field = name.replace("-", "_")
                checks.append(lambda shown, field=field, wanted=value in ("true", "1"): shown[field] == wanted)
            else:
                raise InvalidArgument(f"invalid filter '{name}={value}'", object=name)
    return checks
