"""Who may do what at a registry."""

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wherry.errors import InvalidArgument
from wherry.registry.access import Access, Identity, parse_rules
from wherry.registry.errors import Refused
from wherry.registry.passwords import Passwords
from wherry.registry.tokens import Tokens, TokenSettings

SETTINGS = TokenSettings("http://r/token", "r", "me")
RULES = [
    {"repositories": "public/*", "users": ["anonymous"], "actions": ["pull"]},
    {"repositories": "team/*", "users": ["alice"], "actions": ["*"]},
    {"repositories": "team/*", "users": ["*"], "actions": ["pull"]},
]


@pytest.fixture
def passwords(tmp_path: Path) -> Passwords:
    path = tmp_path / "htpasswd"
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    path.write_text(f"# users\nalice:{hashed}\nbob:{hashed}\n")
    return Passwords(path)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_without_any_setting_everybody_may_everything() -> None:
    access = Access()
    identity = asyncio.run(access.identify("Basic nonsense"))
    access.require(identity, "a/b", "delete")


def test_passwords(passwords: Passwords) -> None:
    access = Access(passwords)
    assert asyncio.run(access.identify(basic("alice", "secret"))).user == "alice"
    for wrong in (basic("alice", "wrong"), basic("mallory", "secret"), "Basic !!!", "Bearer x", basic("alice", "")):
        with pytest.raises(Refused) as refused:
            asyncio.run(access.identify(wrong))
        assert (refused.value.status, refused.value.headers["WWW-Authenticate"][:5]) == (401, "Basic")


def test_a_changed_password_counts_at_once(passwords: Passwords, tmp_path: Path) -> None:
    assert asyncio.run(passwords.check("alice", "secret"))
    (tmp_path / "htpasswd").write_text(f"alice:{bcrypt.hashpw(b'new', bcrypt.gensalt(4)).decode()}\n")
    assert not asyncio.run(passwords.check("alice", "secret"))
    assert asyncio.run(passwords.check("alice", "new"))
    assert not asyncio.run(passwords.check("bob", "secret"))


def test_hashes_that_are_not_bcrypt_are_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text("alice:{SHA}abc\n")
    with pytest.raises(InvalidArgument, match="line 1"):
        Passwords(tmp_path / "htpasswd")


@pytest.mark.parametrize(
    ("user", "repository", "action", "status"),
    [
        ("", "public/a", "pull", 0),
        ("", "public/a", "push", 401),
        ("", "team/a", "pull", 401),
        ("alice", "team/a/b", "delete", 0),
        ("bob", "team/a", "pull", 0),
        ("bob", "team/a", "push", 403),
        ("alice", "other/a", "pull", 403),
        ("anonymous", "team/a", "push", 403),
    ],
)
def test_rules(passwords: Passwords, user: str, repository: str, action: str, status: int) -> None:
    access = Access(passwords, rules=parse_rules(RULES))
    if not status:
        access.require(Identity(user), repository, action)
        return
    with pytest.raises(Refused) as refused:
        access.require(Identity(user), repository, action)
    assert refused.value.status == status


@pytest.mark.parametrize(
    "rule",
    [
        {"repositories": "a", "users": ["b"]},
        {"repositories": "a", "users": "b", "actions": ["pull"]},
        {"repositories": "a", "users": ["b"], "actions": ["fetch"]},
        {"repositories": "a", "users": ["b"], "actions": ["pull"], "more": 1},
    ],
)
def test_rules_that_say_nothing_sensible_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="access rule 1"):
        parse_rules([rule])


def test_a_token_grants_what_rules_allow_and_no_more(passwords: Passwords) -> None:
    tokens = Tokens(SETTINGS, secret=b"s" * 32)
    access = Access(passwords, tokens, parse_rules(RULES))
    claim = access.grant(Identity("bob"), ["repository:team/a:pull,push repository:other/x:pull"])
    assert claim == [{"type": "repository", "name": "team/a", "actions": ["pull"]}]
    token = tokens.issue("bob", claim, int(time.time()))["token"]
    identity = asyncio.run(access.identify(f"Bearer {token}"))
    assert identity.user == "bob"
    access.require(identity, "team/a", "pull")
    for repository, action in (("team/a", "push"), ("team/b", "pull")):
        with pytest.raises(Refused) as refused:
            access.require(identity, repository, action)
        assert f'scope="repository:{repository}:' in refused.value.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "change",
    [
        {"exp": 1},
        {"nbf": 1 << 40},
        {"aud": "another"},
        {"iss": "another"},
        {"exp": None},
    ],
)
def test_tokens_that_are_not_ours_or_not_now_are_refused(change: dict[str, Any]) -> None:
    claims = {"iss": "me", "aud": "r", "exp": int(time.time()) + 60, "access": []}
    changed = {name: value for name, value in {**claims, **change}.items() if value is not None}
    with pytest.raises(Refused):
        Tokens(SETTINGS, secret=b"s" * 32).verify(jwt.encode(changed, b"s" * 32, algorithm="HS256"))


def test_tokens_of_another_server_are_checked_by_its_public_key(tmp_path: Path) -> None:
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "keys.pem").write_bytes(pem)
    tokens = Tokens(SETTINGS, keys=tmp_path / "keys.pem")
    granted = [{"type": "repository", "name": "a/b", "actions": ["*"]}]
    claims = {"iss": "me", "aud": "r", "sub": "carol", "exp": int(time.time()) + 60, "access": granted}
    user, actions = tokens.verify(jwt.encode(claims, key, algorithm="ES256"))
    assert (user, "push" in actions["a/b"]) == ("carol", True)
    # Signed by someone else, by nobody, or with the public key as if it were a shared secret (CVE-2016-5431's kind).
    for forged in (
        jwt.encode(claims, other, algorithm="ES256"),
        jwt.encode(claims, None, algorithm="none"),
        _hs256(claims, pem),
    ):
        with pytest.raises(Refused):
            tokens.verify(forged)


def _hs256(claims: dict[str, Any], secret: bytes) -> str:
    """PyJWT refuses to sign with a public key; an attacker does not."""
    import hashlib
    import hmac
    import json

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{part(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"
