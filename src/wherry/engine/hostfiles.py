"""The files docker puts over the image's: /etc/hostname, /etc/hosts, /etc/resolv.conf."""

import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from wherry.engine.config import DaemonConfig
from wherry.spec.docker import HostConfig

_HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
_FALLBACK_DNS = ("8.8.8.8", "8.8.4.4")
NAMES = ("hostname", "hosts", "resolv.conf")


def hosts_file(hostname: str, domainname: str, addresses: Iterable[str], extra: Sequence[str], gateway: str) -> str:
    """/etc/hosts; `extra` are --add-host's "name:address", where host-gateway means `gateway`."""
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines = [_HOSTS]
    for entry in extra:
        name, _, address = entry.partition(":")
        address = gateway if address == "host-gateway" else address.strip("[]")
        lines.append(f"{address}\t{name}\n")
    lines += [f"{address}\t{names}\n" for address in addresses if address]
    return "".join(lines)


def resolv_file(host: HostConfig, config: DaemonConfig, *, own_namespace: bool, source: str | None = None) -> str:
    """/etc/resolv.conf: the host's, without resolvers that only the host's own namespace can reach."""
    text = _host_resolv() if source is None else source
    servers, search, options, other = _parse(text)
    if own_namespace:
        servers = [server for server in servers if not _is_loopback(server)] or list(_FALLBACK_DNS)
    servers = list(host.dns or config.dns or servers)
    search = list(host.dns_search or config.dns_search or search)
    options = list(host.dns_options or config.dns_options or options)
    lines = [f"nameserver {server}" for server in servers]
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join([*lines, *other, ""])


def _parse(text: str) -> tuple[list[str], list[str], list[str], list[str]]:
    servers, search, options, other = [], [], [], []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = words[1:]
        elif words[0] == "options":
            options += words[1:]
        else:
            other.append(line)
    return servers, search, options, other


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True


def _host_resolv() -> str:
    # systemd-resolved's stub answers on loopback only; its own list of servers is beside it.
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            text = Path(path).read_text(errors="replace")
        except OSError:
            continue
        servers = re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE)
        if servers and servers != ["127.0.0.53"]:
            return text
    return ""


def write_file(directory: Path, name: str, text: str) -> None:
    """One of the files, in place: a running container has it mounted."""
    fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def host_hosts() -> str:
    """The host's own /etc/hosts, for --network host."""
    try:
        return Path("/etc/hosts").read_text(errors="replace")
    except OSError:
        return _HOSTS
