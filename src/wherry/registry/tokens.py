"""Bearer tokens (distribution spec/auth: token, jwt): ours, signed with a secret all processes share, or another
server's, checked with its public key."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument
from wherry.registry.errors import Refused

_LIFE_SECONDS = 300
_LEEWAY_SECONDS = 30
_FOREIGN_ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "EdDSA"]


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """`realm`: where clients get tokens. `service`: for whom they are. `issuer`: who makes them."""

    realm: str
    service: str
    issuer: str


class Tokens:
    """Makes (with a `secret`) and checks tokens. `keys`: a PEM file of the foreign issuer's certificates or keys."""

    def __init__(self, settings: TokenSettings, *, secret: bytes | None = None, keys: Path | None = None) -> None:
        try:
            import jwt
        except ImportError:
            raise InvalidArgument(
                "bearer tokens need the package PyJWT", hint="install wherry with the extra `registry`"
            ) from None
        self._jwt = jwt
        self._settings = settings
        self._secret = secret
        self._keys: list[Any] = [secret] if secret is not None else _load_keys(keys)
        self._algorithms = ["HS256"] if secret is not None else _FOREIGN_ALGORITHMS

    @property
    def issues(self) -> bool:
        """Whether tokens can be had here."""
        return self._secret is not None

    def issue(self, user: str, access: list[dict[str, Any]], now: int) -> dict[str, Any]:
        """The token document a client gets."""
        claims = {
            "iss": self._settings.issuer,
            "sub": user,
            "aud": self._settings.service,
            "exp": now + _LIFE_SECONDS,
            "nbf": now - _LEEWAY_SECONDS,
            "iat": now,
            "jti": secrets.token_hex(16),
            "access": access,
        }
        token = self._jwt.encode(claims, self._secret or b"", algorithm="HS256")
        return {"token": token, "access_token": token, "expires_in": _LIFE_SECONDS}

    def verify(self, token: str) -> tuple[str, Mapping[str, Collection[str]]]:
        """Whom it is for, and the actions it grants by repository; Refused(UNAUTHORIZED)."""
        failure = "no key"
        for key in self._keys:
            try:
                claims = self._jwt.decode(
                    token,
                    key,
                    algorithms=self._algorithms,
                    audience=self._settings.service,
                    issuer=self._settings.issuer,
                    leeway=_LEEWAY_SECONDS,
                    options={"require": ["exp", "iss", "aud"]},
                )
                return str(claims.get("sub") or ""), _granted(claims)
            except self._jwt.PyJWTError as error:
                failure = str(error)
            except TypeError:
                continue  # the key is of another algorithm's kind
        raise Refused(
            "UNAUTHORIZED",
            f"invalid token: {failure}",
            headers={"WWW-Authenticate": self.challenge("", error="invalid_token")},
        )

    def challenge(self, scope: str, error: str = "") -> str:
        """The WWW-Authenticate header."""
        parts = {"realm": self._settings.realm, "service": self._settings.service, "scope": scope, "error": error}
        return "Bearer " + ",".join(f'{name}="{value}"' for name, value in parts.items() if value)


def _granted(claims: Mapping[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for entry in claims.get("access") or ():
        if isinstance(entry, dict) and entry.get("type") == "repository" and isinstance(entry.get("name"), str):
            actions = {str(action) for action in entry.get("actions") or ()}
            if "*" in actions:
                actions |= {"pull", "push", "delete"}
            found.setdefault(entry["name"], set()).update(actions)
    return found


def _load_keys(path: Path | None) -> list[Any]:
    if path is None:
        return []
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}", object=str(path)) from None
    found: list[Any] = []
    for block in text.split(b"-----BEGIN ")[1:]:
        pem = b"-----BEGIN " + block
        try:
            if block.startswith(b"CERTIFICATE"):
                found.append(load_pem_x509_certificate(pem).public_key())
            else:
                found.append(load_pem_public_key(pem))
        except ValueError as error:
            raise InvalidArgument(f"{path} holds something that is no certificate or public key: {error}") from None
    if not found:
        raise InvalidArgument(f"{path} holds no certificate and no public key", object=str(path))
    return found


def shared_secret(path: Path) -> bytes:
    """The secret of all processes of one store, made once."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    aside.touch(mode=0o600)
    aside.write_bytes(secrets.token_bytes(32))
    try:
        # The first one wins.
        path.hardlink_to(aside)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    return path.read_bytes()
