"""The language: what docker's own pages show, its errors word for word, and anything at all without a crash."""
# ruff: noqa: E501

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.build.dockerfile import DockerfileError, Source, parse
from wherry.build.dockerfile import instructions as kinds
from wherry.build.dockerfile.mounts import parse_mount
from wherry.build.dockerfile.words import ExpansionError, Words


def read(text: str) -> kinds.Instruction:
    """The last instruction of a Dockerfile that begins with FROM."""
    return parse(Source("Dockerfile", f"FROM x\n{text}")).stages[-1].instructions[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a\nRUNN x", "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("RUN x", "dockerfile parse error on line 1: no build stage in current context (a Dockerfile begins with FROM or ARG)"),
        ("", "dockerfile parse error on line 1: file with no instructions"),
        ("FROM a\nCOPY --chwon=1 a b", "dockerfile parse error on line 2: unknown flag: --chwon (did you mean --chown?)"),
        ("FROM a\nCOPY --chown=1 --chown=2 a b", "dockerfile parse error on line 2: Duplicate flag specified: --chown"),
        ("FROM a\nRUN --mount=type=bnd,target=/x y", 'dockerfile parse error on line 2: unsupported mount type "bnd" (did you mean bind?)'),
        ("FROM a\nRUN --mount=type=cache,targt=/x y", "dockerfile parse error on line 2: unexpected key 'targt' in 'targt=/x' (did you mean target?)"),
        ("FROM a\nONBUILD ONBUILD RUN x", "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM a\nONBUILD FROM x", "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nSHELL bash", "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form"),
        ("FROM a\nENV a=1 b", "dockerfile parse error on line 2: Syntax error - can't find = in \"b\". Must be of the form: name=value"),
        ("FROM a\nCOPY x", "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined"),
        ("FROM a\nRUN <<E\nx", "dockerfile parse error on line 2: unterminated heredoc"),
        ("FROM a\nHEALTHCHECK CDM x", 'dockerfile parse error on line 2: Unknown type "CDM" in HEALTHCHECK (try CMD)'),
        ("# escape=x\nFROM a", "dockerfile parse error on line 1: invalid ESCAPE token 'x' does not match ` or \\"),
        ("# syntax=a\n# syntax=b\nFROM a", "dockerfile parse error on line 2: only one syntax parser directive can be used"),
        ("FROM a AS 1b", 'dockerfile parse error on line 1: invalid name for build stage: "1b", name can\'t start with a number or contain symbols'),
    ],
)  # fmt: skip
def test_errors(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(Source("Dockerfile", text))
    assert str(caught.value) == message


def test_an_error_shows_its_place() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(Source("app.Dockerfile", "FROM a\n\nCOPY --link \\\n  --chwon=1 a b\nRUN x\n"))
    assert caught.value.excerpt().splitlines() == [
        "app.Dockerfile:4:3",
        "--------------------",
        "   2 |",
        "   3 |     COPY --link \\",
        "   4 | >>>   --chwon=1 a b",
        "             ^",
        "   5 |     RUN x",
        "--------------------",
    ]


def test_statements() -> None:
    text = "FROM x\r\nRUN a \\\r\n # no\n\n  b\\\\\nENV A=1\n# what\n# A more\nARG A\nRUN echo `x`\n"
    stage = parse(Source("Dockerfile", text)).stages[0]
    run, env, arg, last = stage.instructions
    assert isinstance(run, kinds.Run)
    assert run.command == ("a   b\\\\",)
    assert run.statement.empty_continuation
    assert isinstance(env, kinds.Pairs)
    assert arg.statement.comments == ("what", "A more")
    assert (last.span.start, last.span.end) == (10, 10)


def test_here_documents() -> None:
    copy = read('COPY <<A <<-"B" x /d/\n$v\nA\n\t\tb\n\tB\n')
    assert isinstance(copy, kinds.Transfer)
    assert [(doc.name, doc.text, doc.expand) for doc in copy.files] == [("A", "$v\n", True), ("B", "b\n", False)]
    assert copy.sources == ("x",)
    run = read("RUN cat <<A > x && cat <<B\na\nA\nb\nB\n")
    assert isinstance(run, kinds.Run)
    assert [doc.content for doc in run.files] == ["a\n", "b\n"]
    trigger = read("ONBUILD COPY <<A /\nin\nA\n")
    assert isinstance(trigger, kinds.Onbuild)
    assert trigger.expression == "COPY <<A /\nin\nA"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$a", "A"), ("${a}b", "Ab"), ("$none", ""), ("${none:-x$a}", "xA"), ("${empty:-x}", "x"), ("${empty-x}", ""),
        ("${a:+y}", "y"), ("${none:+y}", ""), ("${empty+y}", "y"), ("'$a'", "$a"), ('"$a"', "A"), ('"\\$a \\x"', "$a \\x"),
        ("\\$a", "$a"), ("a\\ b", "a b"), ("$", "$"), ("$$a", "a"), ("${s#f*b}", "arbaz"), ("${s##f*b}", "az"),
        ("${s%b*}", "foobar"), ("${s%%b*}", "foo"), ("${s/ba/fo}", "fooforbaz"), ("${s//ba/fo}", "fooforfoz"),
        ("${s/*/x}", "x"), ("${s#\\*}", "foobarbaz"), ("${a:?bad}", "A"),
    ],
)  # fmt: skip
def test_expansion(text: str, expected: str) -> None:
    assert Words().expand(text, {"a": "A", "empty": "", "s": "foobarbaz"}) == expected


@pytest.mark.parametrize("text", ["${", "${}", "${a", "${:x}", "'x", '"x', "${a!b}", "${none:?}", "${a/x"])
def test_expansion_errors(text: str) -> None:
    with pytest.raises(ExpansionError):
        Words().expand(text, {"a": "A"})


def test_mounts() -> None:
    secret = parse_mount("type=secret,id=aws,target=/root/.aws,mode=0440,uid=1,required", lambda text: text)
    assert (secret.id, secret.target, secret.mode, secret.uid, secret.required) == ("aws", "/root/.aws", 0o440, 1, True)
    assert parse_mount("type=secret,id=x,env=X", lambda text: text).target == ""
    assert parse_mount("type=secret,id=a/b", lambda text: text).target == "/run/secrets/b"
    cache = parse_mount("type=cache,dst=/c,readonly,sharing=locked", lambda text: text)
    assert (cache.id, cache.read_only, cache.sharing) == ("/c", True, "locked")
    assert parse_mount("type=tmpfs,target=/t,size=2m", lambda text: text).size == 2 << 20
    with pytest.raises(ValueError, match="'from' doesn't support variable expansion"):
        parse_mount("from=$x,target=/y", lambda text: text)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "interop" / "dockerfiles").glob("*.Dockerfile")))
def test_cases_parse(path: Path) -> None:
    parse(Source(path.name, path.read_text()))


_ALPHABET = st.sampled_from(
    [*"abFROM \\\n\t\"'$`{}[]#=<>-:/%*,0", "RUN ", "COPY ", "--mount=", "<<E\n", "E\n", "${", "type=", "ENV "]
)
_TEXT = st.lists(_ALPHABET, max_size=60).map("".join)


@given(_TEXT)
def test_nothing_crashes_the_parser(text: str) -> None:
    try:
        found = parse(Source("Dockerfile", text))
    except DockerfileError as error:
        error.excerpt()
        return
    for stage in found.stages:
        for step in (stage.base, *stage.instructions):
            assert 1 <= step.span.start <= step.span.end <= text.count("\n") + 1


@given(_TEXT, _TEXT)
def test_nothing_crashes_the_expansion(text: str, value: str) -> None:
    words = Words()
    try:
        expanded = words.expand(text, {"a": value})
        assert "".join(Words().split(text, {"a": value})) == re.sub(r"\s", "", expanded) or any(
            quote in text for quote in "'\"\\`"
        )
    except ExpansionError:
        pass


@given(st.text(alphabet="ab*?\\", max_size=12), st.text(alphabet="ab*?\\", max_size=20))
def test_patterns_match_as_a_regular_expression_does(pattern: str, text: str) -> None:
    from wherry.build.dockerfile.patterns import trim_prefix

    parts, index = [], 0
    while index < len(pattern):
        char = pattern[index]
        if char == "\\" and index + 1 < len(pattern):
            index += 1
            parts.append(re.escape(pattern[index]))
        else:
            parts.append({"*": ".*", "?": "."}.get(char, re.escape(char)))
        index += 1
    found = re.match("".join(parts), text, re.DOTALL)
    assert trim_prefix(text, pattern, longest=True) == (text[found.end() :] if found else text)
