"""The options of dockerfile.v0 (FrontendOpt) as a BuildRequest; one that means nothing to us is refused by name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from wherry.build.dockerfile.source import Source
from wherry.build.remote import git_remote, is_url
from wherry.build.request import BuildRequest, NamedContext
from wherry.errors import InvalidArgument, Unimplemented
from wherry.spec.docker import Ulimit
from wherry.spec.platform import Platform, parse_platform

_IGNORED = frozenset(
    (
        # Who asks, what for, and how things are called: nothing is made differently for them.
        "cmdline",
        "source",
        "frontend.caps",
        "requestid",
        "contextkey",
        "dockerfilekey",
        "filename",
        "context",
        "contextsubdir",
        "multi-platform",
        "cache-imports",
        "cache-from",
        "build-arg:BUILDKIT_INLINE_CACHE",
        "build-arg:BUILDKIT_SYNTAX",
    )
)
_PREFIXES = ("vcs:", "local-sessionid:", "local-sharedkeyhint:", "input-metadata:", "attest:", "context:")


@dataclass(frozen=True, slots=True)
class Options:
    """What a build is asked to do, before its Dockerfile is read."""

    values: Mapping[str, str]

    @property
    def filename(self) -> str:
        return self.values.get("filename") or "Dockerfile"

    @property
    def context_name(self) -> str:
        return self.values.get("contextkey") or "context"

    @property
    def dockerfile_name(self) -> str:
        return self.values.get("dockerfilekey") or "dockerfile"

    @property
    def candidates(self) -> tuple[str, ...]:
        """The names the Dockerfile may have."""
        return (self.filename, "dockerfile") if self.filename == "Dockerfile" else (self.filename,)

    @property
    def dockerfile_given(self) -> bool:
        """Whether the Dockerfile is in a directory of the client's although the context is not."""
        return "dockerfilekey" in self.values

    @property
    def subdirectory(self) -> str:
        return self.values.get("contextsubdir", "")

    @property
    def build_args(self) -> dict[str, str]:
        return self._prefixed("build-arg:")

    @property
    def remote(self) -> str:
        """The context, when it is not a directory of the client's."""
        return self.values.get("context", "")

    @property
    def request_id(self) -> str:
        """A question about the Dockerfile instead of a build."""
        return self.values.get("requestid", "")

    @property
    def cache_images(self) -> tuple[str, ...]:
        """Images whose layers may stand for steps (--cache-from)."""
        try:
            entries = json.loads(self.values.get("cache-imports") or "[]")
            found = [(str(entry["Type"]), str(entry.get("Attrs", {}).get("ref", ""))) for entry in entries]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InvalidArgument("cache-imports cannot be read", object="cache-imports") from None
        for kind, _ in found:
            if kind != "registry":
                raise Unimplemented(f"importing the cache ({kind}) is not supported yet", object=kind)
        return tuple(reference for _, reference in found if reference)

    @property
    def platforms(self) -> tuple[Platform, ...]:
        texts = [text.strip() for text in self.values.get("platform", "").split(",") if text.strip()]
        return tuple(dict.fromkeys(parse_platform(text).normalized() for text in texts))

    @property
    def contexts(self) -> dict[str, NamedContext]:
        found = {}
        for key, value in self.values.items():
            if key.startswith("context:"):
                # A name may carry a platform: "context:base::linux/amd64".
                found[key.removeprefix("context:").partition("::")[0].lower()] = named_context(value)
        return found

    def request(self, source: Source, platform: Platform | None, entitlements: frozenset[str]) -> BuildRequest:
        """For one platform."""
        values = self.values
        self._check()
        no_cache = values.get("no-cache")
        return BuildRequest(
            dockerfile=source,
            target=values.get("target", ""),
            build_args=self.build_args,
            labels=self._prefixed("label:"),
            contexts=self.contexts,
            platform=platform,
            no_cache=no_cache == "",
            no_cache_stages=frozenset(name.strip().lower() for name in no_cache.split(","))
            if no_cache
            else frozenset(),
            pull=values.get("image-resolve-mode") == "pull",
            network=values.get("force-network-mode") or "default",
            extra_hosts=tuple(part for part in values.get("add-hosts", "").split(",") if part),
            shm_size=_number(values, "shm-size"),
            ulimits=tuple(_ulimit(part) for part in values.get("ulimit", "").split(",") if part),
            cgroup_parent=values.get("cgroup-parent", ""),
            entitlements=entitlements,
        )

    def _prefixed(self, prefix: str) -> dict[str, str]:
        return {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}

    def _check(self) -> None:
        for key, value in self.values.items():
            if key.startswith("attest:"):
                _check_attestation(key.removeprefix("attest:"), value)
            if key in _KNOWN or key in _IGNORED or key.startswith((*_PREFIXES, "build-arg:", "label:")):
                continue
            raise Unimplemented(f"the build option {key!r} is not supported", object=key)


_KNOWN = frozenset(
    (
        "target",
        "no-cache",
        "image-resolve-mode",
        "force-network-mode",
        "add-hosts",
        "shm-size",
        "ulimit",
        "cgroup-parent",
        "platform",
    )
)


def _check_attestation(kind: str, value: str) -> None:
    """What a client asks for unless told otherwise is for exporters that can hold it; none of ours can."""
    fields = dict(part.strip().partition("=")[::2] for part in value.split(","))
    if fields.get("disabled") == "true" or fields.get("inline-only") == "true":
        return
    raise Unimplemented(
        f"{kind} attestations are not supported yet", object=kind, hint="--provenance=false --sbom=false"
    )


def named_context(value: str) -> NamedContext:
    """The value of a `context:NAME` option."""
    if value.startswith("docker-image://"):
        return NamedContext("image", value.removeprefix("docker-image://"))
    if value.startswith("local:"):
        return NamedContext("local", value.removeprefix("local:"))
    if value.startswith("input:"):
        return NamedContext("input", value.removeprefix("input:"))
    if git_remote(value) is not None:
        return NamedContext("git", value)
    if is_url(value):
        return NamedContext("url", value)
    raise Unimplemented(f"named context {value!r} is not supported", object=value)


def _number(values: Mapping[str, str], name: str) -> int:
    text = values.get(name) or "0"
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(f"invalid {name} {text!r}: a number of bytes is expected", object=name)
    return int(text)


def _ulimit(text: str) -> Ulimit:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        return Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError:
        raise InvalidArgument(f"invalid ulimit {text!r}: NAME=SOFT:HARD is expected", object=text) from None
