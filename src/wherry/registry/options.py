"""`wherry registry serve`: its flags, and what is wrong with them."""

import argparse
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.registry.access import Rule, parse_rules
from wherry.registry.quota import parse_limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The flags, parsed. Times in seconds."""

    root: Path
    storage: str
    listen: tuple[str, int]
    metrics: tuple[str, int] | None
    workers: int
    tls_cert: Path | None
    tls_key: Path | None
    htpasswd: Path | None
    rules: tuple[Rule, ...]
    quotas: tuple[tuple[str, int], ...]
    issue_tokens: bool
    token_realm: str
    token_service: str
    token_issuer: str
    token_keys: Path | None
    read_only: bool
    proxy: str
    proxy_user: str
    proxy_password_file: Path | None
    proxy_fresh: float
    webhooks: tuple[str, ...]
    collect_every: float
    grace: float
    collect_untagged: bool


def parse(arguments: Sequence[str]) -> tuple[str, Options]:
    """The command (serve or collect) and its options; InvalidArgument for what contradicts itself."""
    found = _parser().parse_args(arguments)
    rules, quotas = _read_access(found.access)
    if bool(found.tls_cert) != bool(found.tls_key):
        raise InvalidArgument("--tls-cert and --tls-key belong together")
    if found.token_keys and found.issue_tokens:
        raise InvalidArgument("tokens are either issued here (--issue-tokens) or by another server (--token-keys)")
    if found.issue_tokens and not found.htpasswd:
        raise InvalidArgument("--issue-tokens needs --htpasswd: tokens are had by name and password")
    if (found.issue_tokens or found.token_keys) and not found.token_realm:
        raise InvalidArgument("bearer tokens need --token-realm", hint="the URL at which clients get tokens")
    if found.token_keys and not found.token_issuer:
        raise InvalidArgument("--token-keys needs --token-issuer")
    if rules and not (found.htpasswd or found.token_keys) and any("anonymous" not in rule.users for rule in rules):
        raise InvalidArgument("access rules for users need --htpasswd or --token-keys: nobody could sign in")
    if found.proxy and not found.proxy.startswith(("https://", "http://")):
        raise InvalidArgument(f"--proxy {found.proxy!r} is not an http(s) address")
    if found.workers < 1:
        raise InvalidArgument("--workers must be at least 1")
    return found.command, Options(
        root=found.root,
        storage=found.storage,
        listen=_address(found.listen, "--listen"),
        metrics=_address(found.metrics, "--metrics") if found.metrics else None,
        workers=found.workers,
        tls_cert=found.tls_cert,
        tls_key=found.tls_key,
        htpasswd=found.htpasswd,
        rules=rules,
        quotas=quotas,
        issue_tokens=found.issue_tokens,
        token_realm=found.token_realm,
        token_service=found.token_service,
        token_issuer=found.token_issuer or "wherry",
        token_keys=found.token_keys,
        read_only=found.read_only,
        proxy=found.proxy,
        proxy_user=found.proxy_user,
        proxy_password_file=found.proxy_password_file,
        proxy_fresh=found.proxy_fresh,
        webhooks=tuple(found.webhook),
        collect_every=found.collect_every,
        grace=found.grace,
        collect_untagged=found.collect_untagged,
    )


def _read_access(path: Path | None) -> tuple[tuple[Rule, ...], tuple[tuple[str, int], ...]]:
    if path is None:
        return (), ()
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}", object=str(path)) from None
    except ValueError as error:
        raise InvalidArgument(f"{path}: {error}", object=str(path)) from None
    if unknown := document.keys() - {"access", "quota"}:
        raise InvalidArgument(f"{path}: unknown table {min(unknown)!r}", hint="[[access]] and [[quota]] are known")
    return parse_rules(document.get("access", [])), parse_limits(document.get("quota", []))


def _address(text: str, flag: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"{flag} {text!r} is not ADDRESS:PORT")
    return host.strip("[]"), int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wherry registry", description="A registry for images (OCI distribution 1.1)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="serve|collect")
    serve = commands.add_parser("serve", help="serve until told to stop")
    collect = commands.add_parser("collect", help="delete what nothing refers to, once; the registry may be serving")
    for each in (serve, collect):
        add = each.add_argument
        add(
            "--root", type=Path, required=True, metavar="DIR", help="where everything is kept (secrets, with --storage)"
        )
        add("--storage", default="", metavar="URL", help="keep content in an object store: s3://, gs:// or az://")
        add("--grace", type=float, default=3600.0, metavar="SECONDS", help="what is newer is not collected (3600)")
        add("--collect-untagged", action="store_true", help="collect manifests without a tag too")
    add = serve.add_argument
    add("--listen", default="127.0.0.1:5000", metavar="ADDRESS:PORT", help="where to serve (127.0.0.1:5000)")
    add("--workers", type=int, default=1, metavar="N", help="processes (1)")
    add("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    add("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    add("--htpasswd", type=Path, metavar="FILE", help="names and bcrypt hashes of who may sign in")
    add("--access", type=Path, metavar="FILE", help="who may do what, and how much: TOML with [[access]] and [[quota]]")
    add("--issue-tokens", action="store_true", help="give bearer tokens at /token for names and passwords")
    add("--token-keys", type=Path, metavar="FILE", help="public keys (PEM) of another server that issues tokens")
    add("--token-realm", default="", metavar="URL", help="where clients get tokens")
    add("--token-service", default="wherry-registry", metavar="NAME", help="this service's name in tokens")
    add("--token-issuer", default="", metavar="NAME", help="who issues tokens")
    add("--read-only", action="store_true", help="take no pushes and deletes")
    add("--proxy", default="", metavar="URL", help="be a cache of this registry")
    add("--proxy-user", default="", metavar="NAME", help="sign in there")
    add("--proxy-password-file", type=Path, metavar="FILE", help="with the password in this file")
    add("--proxy-fresh", type=float, default=60.0, metavar="SECONDS", help="ask again for a tag after this time (60)")
    add("--webhook", action="append", default=[], metavar="URL", help="tell this address of pushes, pulls and deletes")
    add("--metrics", default="", metavar="ADDRESS:PORT", help="serve Prometheus metrics at /metrics there")
    add("--collect-every", type=float, default=6 * 3600.0, metavar="SECONDS", help="time between collections; 0: never")
    collect.set_defaults(**{action.dest: action.default for action in serve._actions if action.dest != "help"})
    return parser
