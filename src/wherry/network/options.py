"""The options of a bridge network, by docker's names. What is not known is refused by name.

docker itself keeps unknown options silently; an option that does nothing is a mistake the user should hear of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from wherry.errors import InvalidArgument

PREFIX = "com.docker.network."
_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")
MODES = ("", "nat", "routed", "isolated", "nat-unprotected")


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOptions:
    """`name` is the device's, "" for one after the network's ID; `mtu` 0 follows the uplink's.

    `binding` "": the daemon's default. `mode4`, `mode6`: nat, routed, isolated or nat-unprotected.
    `snat4`, `snat6`: the host's address that containers are seen as, "" for the one of the way out.
    """

    name: str = ""
    mtu: int = 0
    icc: bool = True
    masquerade: bool = True
    binding: str = ""
    mode4: str = "nat"
    mode6: str = "nat"
    snat4: str = ""
    snat6: str = ""
    trusted: tuple[str, ...] = ()
    inhibit_gateway: bool = False
    interface_prefix: str = "eth"


def parse(options: Mapping[str, str], *, internal: bool = False) -> BridgeOptions:
    """InvalidArgument names the option that is unknown or has a value it cannot have."""
    found: dict[str, object] = {}
    for key, value in options.items():
        reader = _READERS.get(key.lower())
        if reader is None:
            raise InvalidArgument(
                f"unknown option {key} of the bridge driver",
                object=key,
                hint="known: " + ", ".join(sorted(name for name in _READERS if "default_bridge" not in name)),
            )
        field, read = reader
        if field:
            found[field] = read(key, value)
    made = BridgeOptions(**found)  # type: ignore[arg-type]
    for mode in (made.mode4, made.mode6):
        if mode == "isolated" and not internal:
            raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network", object=mode)
    return made


def _text(key: str, value: str) -> str:
    return value


def _device(key: str, value: str) -> str:
    if not 0 < len(value.encode()) < 16 or "/" in value or value in (".", "..") or any(c.isspace() for c in value):
        raise InvalidArgument(f"invalid value {value!r} of {key}: not a name of an interface", object=key)
    return value


def _prefix(key: str, value: str) -> str:
    return _device(key, value + "0")[:-1]


def _flag(key: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidArgument(f'failed to parse {key} value: "{value}" (type bool) (true or false)', object=key)


def _mtu(key: str, value: str) -> int:
    if not value.isdigit() or not (value == "0" or 68 <= int(value[:9]) <= 65535):
        raise InvalidArgument(f'failed to parse {key} value: "{value}" (a number from 68 to 65535)', object=key)
    return int(value)


def _address(key: str, value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise InvalidArgument(f'failed to parse {key} value: "{value}" (an IP address)', object=key) from None


def _mode(key: str, value: str) -> str:
    if value not in MODES:
        raise InvalidArgument(
            f"invalid value for {key}: {value}: unknown gateway mode {value}", object=key, hint=", ".join(MODES[1:])
        )
    return value or "nat"


def _devices(key: str, value: str) -> tuple[str, ...]:
    return tuple(_device(key, name) for name in value.split(":") if name)


_READERS = {
    f"{PREFIX}bridge.name": ("name", _device),
    f"{PREFIX}bridge.enable_icc": ("icc", _flag),
    f"{PREFIX}bridge.enable_ip_masquerade": ("masquerade", _flag),
    f"{PREFIX}bridge.host_binding_ipv4": ("binding", _address),
    f"{PREFIX}bridge.gateway_mode_ipv4": ("mode4", _mode),
    f"{PREFIX}bridge.gateway_mode_ipv6": ("mode6", _mode),
    f"{PREFIX}bridge.trusted_host_interfaces": ("trusted", _devices),
    f"{PREFIX}bridge.inhibit_ipv4": ("inhibit_gateway", _flag),
    f"{PREFIX}bridge.default_bridge": ("", _flag),
    f"{PREFIX}container_iface_prefix": ("interface_prefix", _prefix),
    f"{PREFIX}driver.mtu": ("mtu", _mtu),
    f"{PREFIX}host_ipv4": ("snat4", _address),
    f"{PREFIX}host_ipv6": ("snat6", _address),
}
