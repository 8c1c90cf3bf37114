"""Lists: the tags of a repository, the repositories of the registry."""

from bisect import bisect_right
from urllib.parse import quote

from aiohttp import web

from wherry.registry.access import Identity
from wherry.registry.errors import Refused
from wherry.registry.service import Call, Service

_PAGE, _PAGE_MAX = 100, 10_000


async def tags(call: Call) -> web.StreamResponse:
    """GET /v2/<name>/tags/list?n=&last=."""
    found = await call.service.repositories.tags(call.name)
    page, more = _page(call.request, found, _PAGE_MAX)
    return _answer(call.request, {"name": call.name, "tags": page}, page, more)


async def catalog(service: Service, request: web.Request, identity: Identity) -> web.StreamResponse:
    """GET /v2/_catalog?n=&last=: the repositories that may be read by who asks."""
    access = service.access
    found = sorted([name async for name in service.repositories.names() if "pull" in access.actions(identity, name)])
    page, more = _page(request, found, _PAGE)
    return _answer(request, {"repositories": page}, page, more)


def _page(request: web.Request, names: list[str], default: int) -> tuple[list[str], int]:
    """Those after `last`, as many as asked for; the size of the next page, or 0 when there is none."""
    text = request.query.get("n", str(default))
    if not text.isdecimal() or len(text) > 9:
        raise Refused("PAGINATION_NUMBER_INVALID", "invalid number of results requested", detail={"n": text[:20]})
    size = min(int(text), _PAGE_MAX)
    start = bisect_right(names, request.query["last"]) if "last" in request.query else 0
    page = names[start : start + size]
    return page, size if page and start + size < len(names) else 0


def _answer(request: web.Request, document: dict[str, object], page: list[str], more: int) -> web.Response:
    headers = {}
    if more:
        headers["Link"] = f'<{request.path}?n={more}&last={quote(page[-1], safe="")}>; rel="next"'
    return web.json_response(document, headers=headers)
