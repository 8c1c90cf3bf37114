"""HostConfig.DeviceRequests (--gpus, --device vendor.com/class=name): each to the CDI devices that it means.

GPUs are had through CDI too: who has NVIDIA's or AMD's container toolkit has a specification of kind nvidia.com/gpu
or amd.com/gpu, with devices by number and by uuid, and "all".
"""

from collections.abc import Sequence

from wherry.engine.cdi import Registry
from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.spec.cdi import Edits
from wherry.spec.docker import DeviceRequest

_KINDS = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
_OF_GPUS_TEXT = "gpu nvidia compute utility graphics video display compat32 ngx amd"
_OF_GPUS = frozenset(_OF_GPUS_TEXT.split())


def resolve(requests: Sequence[DeviceRequest], registry: Registry) -> Edits | None:
    """The edits for all of `requests`, None when there are none, to be found in a thread. Raises as docker words it."""
    names: list[str] = []
    for request in requests:
        names += _named(request) if request.driver == "cdi" else _gpus(request, registry)
    return registry.edits(names) if names else None


def _named(request: DeviceRequest) -> Sequence[str]:
    if request.count:
        raise InvalidArgument("unexpected count in CDI device request", object="DeviceRequests")
    if request.options:
        raise InvalidArgument("unexpected options in CDI device request", object="DeviceRequests")
    return request.device_ids or ()


def _gpus(request: DeviceRequest, registry: Registry) -> list[str]:
    if request.count and request.device_ids:
        raise InvalidArgument("cannot set both Count and DeviceIDs on device request", object="DeviceRequests")
    if request.options:
        raise InvalidArgument(f"options of a {request.driver or 'gpu'} device request are not supported")
    alternatives = request.capabilities or ()
    fits = any("gpu" in wanted and set(wanted) <= _OF_GPUS for wanted in alternatives)
    kinds = [kind for driver, kind in _KINDS.items() if request.driver in ("", driver)]
    kind = next((kind for kind in kinds if fits and registry.has_kind(kind)), None)
    if kind is None:
        shown = " ".join(f"[{' '.join(wanted)}]" for wanted in alternatives)
        raise FailedPrecondition(
            f'could not select device driver "{request.driver}" with capabilities: [{shown}]',
            object="DeviceRequests",
            hint=f"no CDI specification of {' or '.join(kinds)} was found" if kinds and fits else None,
        )
    if request.device_ids:
        return [name if "=" in name else f"{kind}={name}" for name in request.device_ids]
    if request.count < 0:
        return [f"{kind}=all"]
    return [f"{kind}={number}" for number in range(request.count)]
