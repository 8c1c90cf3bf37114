"""The matcher of .dockerignore: the rules docker's page states, and equality with a straightforward model."""
# ruff: noqa: E501

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.build.ignore import Ignore, read_ignore_file
from wherry.errors import InvalidArgument


@pytest.mark.parametrize(
    ("rules", "ignored", "kept"),
    [
        ("# comment\n*/temp*\n*/*/temp*\ntemp?", ["somedir/temporary.txt", "a/b/temp", "tempa", "tempb/x"], ["temp", "x", "a/b/c/temp"]),
        ("*.md\n!README.md", ["a.md"], ["README.md", "d/a.md"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["README-secret.md", "x.md"], ["README-1.md"]),
        ("*.md\nREADME-secret.md\n!README*.md", ["x.md"], ["README-secret.md"]),
        ("/foo/bar/", ["foo/bar", "foo/bar/x"], ["bar", "foo/barx"]),
        ("**/*.go", ["a.go", "x/y/b.go"], ["a.gox"]),
        ("**/node_modules", ["node_modules", "a/node_modules/b"], ["node_modulesx"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b"]),
        ("**", ["a", "a/b"], []),
        (".", [], ["a"]),
        ("a/../b/./c", ["b/c"], ["a"]),
        ("x\n!x/keep", ["x", "x/other"], ["x/keep"]),
        ("[a-c].txt\n!b.txt", ["a.txt"], ["b.txt", "d.txt"]),
        ("\ufeff a b ", ["a b"], ["a"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("**/a/**/b", ["a/b", "x/a/y/z/b"], ["a", "b"]),
        ("a**b", ["ab", "ax/b"], ["a"]),
    ],
)  # fmt: skip
def test_rules(rules: str, ignored: list[str], kept: list[str]) -> None:
    found = Ignore(read_ignore_file(rules))
    assert [path for path in ignored if not found.ignores(path)] == []
    assert [path for path in kept if found.ignores(path)] == []


@pytest.mark.parametrize("pattern", ["[", "a[b", "!", "a\\", "[]a]", "[z-a]"])
def test_malformed(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        Ignore([pattern])


def test_the_rule_is_named() -> None:
    assert Ignore(["*.log", "!keep.log"]).reason("x.log") == "*.log"
    assert Ignore(["*.log", "!keep.log"]).reason("keep.log") is None


_PATTERNS = st.lists(st.text(alphabet="ab*?/.!", min_size=1, max_size=8), max_size=4)
_PATHS = st.lists(
    st.text(alphabet="ab.", min_size=1, max_size=3).filter(lambda n: n.strip(".")), min_size=1, max_size=4
).map("/".join)


def model(patterns: list[str], path: str) -> bool:
    """docker's rules as one would write them first: a regular expression for each, parents tried too."""
    matched = False
    for text in patterns:
        exception = text.startswith("!")
        body = text[1:] if exception else text
        out, index = "", 0
        while index < len(body):
            if body.startswith("**", index):
                index += 2
                index += body.startswith("/", index)
                out += ".*" if index >= len(body) else "(?:.*/)?"
                continue
            out += {"*": "[^/]*", "?": "[^/]"}.get(body[index], re.escape(body[index]))
            index += 1
        # Two quirks of docker's own: a pattern that begins with ** and is plain after it is a plain suffix.
        if re.fullmatch(r"\*\*[^*?]*", body):
            suffix = body[2:]
            matches = lambda one, s=suffix: one.endswith(s) or (s[:1] == "/" and one == s[1:])  # noqa: E731
        else:
            matches = lambda one, o=out: re.fullmatch(o, one) is not None  # noqa: E731
        parts = path.split("/")
        if any(matches("/".join(parts[:count])) for count in range(1, len(parts) + 1)):
            matched = not exception
    return matched


@given(_PATTERNS, _PATHS)
def test_equals_the_model(lines: list[str], path: str) -> None:
    try:
        rules = Ignore(patterns := read_ignore_file("\n".join(lines)))
    except InvalidArgument:
        return
    assert rules.ignores(path) == model([text for text in patterns if text.strip()], path)


@given(st.text(alphabet="a*/", max_size=40), st.text(alphabet="a/", max_size=200))
def test_no_pattern_hangs(pattern: str, path: str) -> None:
    Ignore([pattern or "a"]).ignores("a" + path + "b")


def test_a_walk_may_skip_only_what_holds_no_exception() -> None:
    rules = Ignore(["a", "!a/b/c"])
    assert rules.descends("a")
    assert rules.descends("a/b")
    assert not rules.descends("a/x")
    assert Ignore(["a", "!**/c"]).descends("a/x")
    assert not Ignore(["a"]).descends("a")
