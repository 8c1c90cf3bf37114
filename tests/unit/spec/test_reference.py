"""References: the wording of refusals is what dockerd 28.5 answers to the same text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import InvalidArgument, WherryError
from wherry.spec.reference import parse_reference

HEX = "fe2cd0591c46ad7ee0d403347b13b09496fc7d97b139e013dd081dd89fa67968"


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("me/app:1.0_x-y", "docker.io/me/app:1.0_x-y", "me/app:1.0_x-y"),
        ("library/a/b:1", "docker.io/library/a/b:1", "library/a/b:1"),
        ("docker.io/library/a", "docker.io/library/a", "a"),
        ("index.docker.io/a", "docker.io/library/a", "a"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("Foo/bar", "Foo/bar", "Foo/bar"),
        ("a.b/c", "a.b/c", "a.b/c"),
        ("a.b", "docker.io/library/a.b", "a.b"),
        ("local_host/a__b--c", "docker.io/local_host/a__b--c", "local_host/a__b--c"),
        (f"x:t@sha256:{HEX}", f"docker.io/library/x:t@sha256:{HEX}", f"x:t@sha256:{HEX}"),
    ],
)
def test_is_normalised_and_shortened(text: str, full: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (str(reference), reference.familiar) == (full, familiar)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        (":x", "invalid reference format"),
        ("x:", "invalid reference format"),
        ("x:-", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-x", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a..b/c", "invalid reference format"),
        ("../etc", "invalid reference format"),
        ("a/b:c:d", "invalid reference format"),
        ("x@sha256:12", "invalid reference format"),
        ("x:" + "t" * 129, "invalid reference format"),
        ("x" * 10_000, "invalid reference format"),
        ("UPPER", "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ("localhost/UP", "invalid reference format: repository name (UP) must be lowercase"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a" * 256, "repository name must not be more than 255 characters"),
        ("x@md5:" + "0" * 32, "unsupported digest algorithm"),
        ("x@sha256:" + "0" * 32, "invalid checksum digest length"),
        (f"x@sha256:{HEX.upper()}", "invalid checksum digest format"),
    ],
)
def test_is_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_reference(text)
    assert caught.value.message == message


@given(st.text("ab/.:@-_A0[]", max_size=24))
def test_what_is_accepted_means_the_same_again(text: str) -> None:
    try:
        reference = parse_reference(text)
    except WherryError:
        return
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference
