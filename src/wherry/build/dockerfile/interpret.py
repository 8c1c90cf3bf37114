"""A statement becomes an instruction. ValueError says what is wrong with it; the place is added by `parse`."""

import re
from collections.abc import Callable, Mapping

from wherry.build.dockerfile import instructions as kinds
from wherry.build.dockerfile.flags import Flags
from wherry.build.dockerfile.heredoc import Heredoc, parse_heredoc
from wherry.build.dockerfile.mounts import parse_mount
from wherry.build.dockerfile.source import suggestion
from wherry.build.dockerfile.statements import Statement, parse_line
from wherry.build.dockerfile.values import blank_words, go_quote, json_words, pairs, quoted_words

_STAGE = re.compile(r"[a-z][a-z0-9\-_.]*\Z")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_MILLISECOND = 10**6
_NOT_BEFORE_HEALTH = ("CMD", "NONE")


def interpret(statement: Statement, escape: str = "\\") -> kinds.Instruction:
    """The instruction a statement is."""
    reader = _READERS.get(statement.name)
    if reader is None:
        raise ValueError(f"unknown instruction: {statement.keyword}{suggestion(statement.keyword, _READERS)}")
    return reader(statement, Flags(statement.name, statement.flags), escape)


def _from(statement: Statement, flags: Flags, _: str) -> kinds.From:
    image, *naming = blank_words(statement.rest) or ("",)
    if not image or len(naming) not in (0, 2) or (naming and naming[0].lower() != "as"):
        raise ValueError("FROM requires either one or three arguments")
    as_keyword, stage = naming or ("", "")
    if stage and not _STAGE.match(stage.lower()):
        shown = go_quote(stage)
        raise ValueError(f"invalid name for build stage: {shown}, name can't start with a number or contain symbols")
    return kinds.From(
        statement=statement,
        image=image,
        platform=flags.text("platform"),
        stage=stage,
        as_keyword=as_keyword,
    )


def _arg(statement: Statement, flags: Flags, escape: str) -> kinds.Arg:
    words = quoted_words(statement.rest, escape)
    if not words:
        raise ValueError("ARG requires at least one argument")
    values: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise ValueError("ARG names can not be blank")
        values.append((name, value if equals else None))
    return kinds.Arg(statement=statement, values=tuple(values))


def _pairs(statement: Statement, flags: Flags, escape: str) -> kinds.Pairs:
    values, legacy = pairs(statement.rest, statement.name, escape)
    if any(not name for name, _ in values):
        raise ValueError(f"{statement.name} names can not be blank")
    return kinds.Pairs(statement=statement, values=tuple(values), legacy=legacy)


def _transfer(statement: Statement, flags: Flags, escape: str) -> kinds.Transfer:
    words = json_words(statement.rest)
    if words is None:
        words = blank_words(statement.rest)
    if not words:
        raise ValueError(f"{statement.name} requires at least two arguments")
    if len(words) == 1:
        raise ValueError(
            f"{statement.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    sources, files = _inline_files(words[:-1], statement.heredocs, escape)
    if files and not words[-1]:
        raise ValueError(f"{statement.name} requires a destination")
    if parse_heredoc(words[-1], escape):
        raise ValueError(f"{statement.name} cannot accept a heredoc as a destination")
    return kinds.Transfer(
        statement=statement,
        sources=sources,
        target=words[-1],
        files=files,
        origin=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.truth("link")),
        parents=bool(flags.truth("parents")),
        excludes=flags.many("exclude"),
        keep_git_dir=flags.truth("keep-git-dir"),
        checksum=flags.text("checksum"),
        unpack=flags.truth("unpack"),
    )


def _inline_files(
    words: tuple[str, ...], heredocs: tuple[Heredoc, ...], escape: str
) -> tuple[tuple[str, ...], tuple[Heredoc, ...]]:
    """Sources that are paths, and those that are here-documents."""
    by_name = {doc.name: doc for doc in heredocs}
    sources, files = [], []
    for word in words:
        opened = parse_heredoc(word, escape) if heredocs else None
        if opened is not None and opened.name in by_name:
            files.append(by_name[opened.name])
        else:
            sources.append(word)
    return tuple(sources), tuple(files)


def _run(statement: Statement, flags: Flags, _: str) -> kinds.Run:
    words = json_words(statement.rest)
    if not statement.rest and not statement.heredocs:
        raise ValueError("RUN requires at least one argument")
    network = flags.text("network") or "default"
    if network not in ("default", "none", "host"):
        raise ValueError(f'unsupported network mode "{network}"{suggestion(network, ("default", "none", "host"))}')
    security = flags.text("security") or "sandbox"
    if security not in ("sandbox", "insecure"):
        raise ValueError(f'security "{security}" is not valid{suggestion(security, ("sandbox", "insecure"))}')
    for mount in flags.many("mount"):
        parse_mount(mount)
    return kinds.Run(
        statement=statement,
        command=words if words is not None else (statement.rest,),
        shell=words is None,
        files=statement.heredocs,
        mounts=flags.many("mount"),
        network=network,
        security=security,
        devices=flags.many("device"),
    )


def _command(statement: Statement, flags: Flags, _: str) -> kinds.Command:
    words = json_words(statement.rest)
    if words is None:
        return kinds.Command(statement=statement, command=(statement.rest,) if statement.rest else (), shell=True)
    return kinds.Command(statement=statement, command=words, shell=False)


def _expose(statement: Statement, flags: Flags, _: str) -> kinds.Words:
    values = blank_words(statement.rest)
    if not values:
        raise ValueError("EXPOSE requires at least one argument")
    return kinds.Words(statement=statement, values=tuple(sorted(values)))


def _volume(statement: Statement, flags: Flags, _: str) -> kinds.Words:
    words = json_words(statement.rest)
    values = blank_words(statement.rest) if words is None else words
    if not values:
        raise ValueError("VOLUME requires at least one argument")
    if any(not value.strip() for value in values):
        raise ValueError("VOLUME specified can not be an empty string")
    return kinds.Words(statement=statement, values=values)


def _text(statement: Statement, flags: Flags, _: str) -> kinds.Text:
    if not statement.rest:
        raise ValueError(f"{statement.name} requires exactly one argument")
    return kinds.Text(statement=statement, value=statement.rest)


def _health(statement: Statement, flags: Flags, _: str) -> kinds.Health:
    keyword, _space, rest = statement.rest.partition(" ") if " " in statement.rest else (statement.rest, "", "")
    kind = keyword.upper()
    if not keyword:
        raise ValueError("HEALTHCHECK requires at least one argument")
    if kind not in _NOT_BEFORE_HEALTH:
        raise ValueError(f"Unknown type {go_quote(kind)} in HEALTHCHECK (try CMD)")
    if kind == "NONE":
        if rest.strip():
            raise ValueError("HEALTHCHECK NONE takes no arguments")
        return kinds.Health(statement=statement, test=("NONE",))
    words = json_words(rest)
    if not (words if words is not None else rest.strip()):
        raise ValueError("Missing command after HEALTHCHECK CMD")
    test = ("CMD", *words) if words is not None else ("CMD-SHELL", rest.strip())
    return kinds.Health(
        statement=statement,
        test=test,
        interval=_duration(flags, "interval"),
        timeout=_duration(flags, "timeout"),
        start_period=_duration(flags, "start-period"),
        start_interval=_duration(flags, "start-interval"),
        retries=_retries(flags.text("retries")),
    )


def _duration(flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    total, position = 0.0, 0
    plain = text.removeprefix("+")
    while match := _DURATION.match(plain, position):
        total += float(match.group(1)) * _UNITS[match.group(2)]
        position = match.end()
    if plain == "0":
        return 0
    if position != len(plain) or not plain or total >= 1 << 63:
        raise ValueError(
            f"invalid duration {go_quote(text)} of --{name}: expected a number and a unit, as in 30s or 1m30s"
        )
    if 0 < total < _MILLISECOND:
        raise ValueError(f"Interval {go_quote(name)} cannot be less than 1ms")
    return int(total)


def _retries(text: str) -> int:
    if not text:
        return 0
    try:
        retries = int(text) if len(text) < 12 else -(1 << 32)
    except ValueError:
        raise ValueError(f"invalid number {go_quote(text)} of --retries") from None
    if not 0 <= retries < 1 << 31:
        raise ValueError(
            "--retries cannot be negative" if -(1 << 31) < retries < 0 else f"--retries {text} is out of range"
        )
    return retries


def _onbuild(statement: Statement, flags: Flags, escape: str) -> kinds.Onbuild:
    if not statement.rest:
        raise ValueError("ONBUILD requires at least one argument")
    inner = parse_line(statement.rest, statement.span)
    if inner.name == "ONBUILD":
        raise ValueError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if inner.name in ("MAINTAINER", "FROM"):
        raise ValueError(f"{inner.name} isn't allowed as an ONBUILD trigger")
    if inner.name not in _READERS:
        raise ValueError(f"unknown instruction: {inner.keyword}{suggestion(inner.keyword, _READERS)}")
    expression = statement.rest + "".join(f"\n{doc.content}{doc.name}" for doc in statement.heredocs)
    return kinds.Onbuild(statement=statement, expression=expression)


def _shell(statement: Statement, flags: Flags, _: str) -> kinds.Shell:
    words = json_words(statement.rest)
    if words is None:
        raise ValueError("SHELL requires the arguments to be in JSON form")
    if not words:
        raise ValueError("SHELL requires at least one argument")
    return kinds.Shell(statement=statement, words=words)


_Reader = Callable[[Statement, Flags, str], kinds.Instruction]
_READERS: Mapping[str, _Reader] = {
    "ADD": _transfer,
    "ARG": _arg,
    "CMD": _command,
    "COPY": _transfer,
    "ENTRYPOINT": _command,
    "ENV": _pairs,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _health,
    "LABEL": _pairs,
    "MAINTAINER": _text,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _text,
    "USER": _text,
    "VOLUME": _volume,
    "WORKDIR": _text,
}
