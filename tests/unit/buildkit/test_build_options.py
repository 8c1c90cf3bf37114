"""What buildx asks for, as requests of ours; what we do not do is refused by its name."""

import pytest

from wherry.build.dockerfile import Source
from wherry.build.request import NamedContext
from wherry.buildkit.contexts import follow_paths
from wherry.buildkit.links import definition_of, input_of
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.options import Options
from wherry.errors import InvalidArgument, Unimplemented
from wherry.spec.docker import Ulimit

SOURCE = Source("Dockerfile", "FROM scratch")


def test_options_become_a_request() -> None:
    request = Options(
        {
            "filename": "Dockerfile",
            "target": "t",
            "build-arg:A": "1",
            "label:l": "2",
            "no-cache": "One,two",
            "image-resolve-mode": "pull",
            "force-network-mode": "none",
            "add-hosts": "a=1.2.3.4,b=::1",
            "ulimit": "nofile=1:2,core=0",
            "shm-size": "1048576",
            "cgroup-parent": "/x",
            "context:Mine::linux/amd64": "docker-image://busybox:1",
            "context:dir": "local:dir",
            "attest:provenance": "mode=min,inline-only=true",
        }
    ).request(SOURCE, None, frozenset(("network.host",)))
    assert (request.target, request.pull, request.network) == ("t", True, "none")
    assert (dict(request.build_args), dict(request.labels)) == ({"A": "1"}, {"l": "2"})
    assert (request.no_cache, request.no_cache_stages) == (False, {"one", "two"})
    assert request.extra_hosts == ("a=1.2.3.4", "b=::1")
    assert request.ulimits == (Ulimit(name="nofile", soft=1, hard=2), Ulimit(name="core", soft=0, hard=0))
    assert (request.shm_size, request.cgroup_parent) == (1 << 20, "/x")
    assert request.contexts == {"mine": NamedContext("image", "busybox:1"), "dir": NamedContext("local", "dir")}
    assert Options({"no-cache": ""}).request(SOURCE, None, frozenset()).no_cache


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nosuch": "x"}, "'nosuch'"),
        ({"attest:sbom": "generator=x"}, "sbom"),
        ({"attest:provenance": "mode=max"}, "provenance"),
        ({"context:x": "oci-layout://y"}, "oci-layout"),
    ],
)
def test_what_is_not_done_is_refused(values: dict[str, str], words: str) -> None:
    with pytest.raises(Unimplemented, match=words):
        Options(values).request(SOURCE, None, frozenset())


@pytest.mark.parametrize("values", [{"ulimit": "nofile"}, {"ulimit": "nofile=x"}, {"shm-size": "-1"}])
def test_malformed_options_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        Options(values).request(SOURCE, None, frozenset())


def test_cache_sources() -> None:
    imports = '[{"Type":"registry","Attrs":{"ref":"a/b:1"}}]'
    assert Options({"cache-imports": imports}).cache_images == ("a/b:1",)
    with pytest.raises(Unimplemented, match="gha"):
        Options({"cache-imports": '[{"Type":"gha"}]'}).cache_images  # noqa: B018
    for broken in ("x", "[1]", "{}1"):
        with pytest.raises(InvalidArgument):
            Options({"cache-imports": broken}).cache_images  # noqa: B018


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ({"a", "/b/", "./c/d"}, ["a", "b", "c/d"]),
        ({"a", "."}, []),
        ({"/"}, []),
        ({"../../a"}, ["a"]),
        ({"x/**/y"}, []),
        ({"*.py"}, ["*.py"]),
        (set(), []),
    ],
)
def test_only_what_is_named_is_asked_for(wanted: set[str], asked: list[str]) -> None:
    assert follow_paths(wanted) == asked


def test_a_result_is_known_again() -> None:
    assert input_of(definition_of("abc")) == "abc"
    with pytest.raises(Unimplemented):
        input_of(
            pb.Definition(operations=[b"\xff", pb.Op(source=pb.SourceOp(identifier="git://x")).SerializeToString()])
        )
