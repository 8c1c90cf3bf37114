"""Build checks: the findings of Docker Engine 28.5 for the same files, message for message."""
# ruff: noqa: E501

from wherry.build.checks import RULES, BaseImage, check
from wherry.build.dockerfile import Source, parse
from wherry.build.ignore import Ignore

_ONE = """\
# check=experimental=all
ARG TAG
# hello
FROM busybox:${TAG} AS Base
From busybox:$NOPE as scratch
MAINTAINER me
workdir rel
RUN foo \\

 bar
FROM --platform=linux/amd64 busybox as base
FROM --platform=$TARGETPLATFORM busybox
# bar is not X
ARG X=1
"""
_TWO = """\
FROM busybox
EXPOSE 80/TcP 127.0.0.1:80:80 8080:80
ENV FOO bar
ENV PASSWORD=x MY_TOKEN=y PUBLIC_KEY=z
ARG API_KEY
WORKDIR rel
CMD echo hi
CMD echo ho
ENTRYPOINT foo
ENV P=$PAHT Q=$undefined
LABEL a b
COPY ignored/file /x
HEALTHCHECK CMD a
HEALTHCHECK CMD b
"""


def found(text: str, **options: object) -> list[tuple[int, str, str]]:
    findings = check(parse(Source("D", text)), **options)  # type: ignore[arg-type]
    return sorted((one.span.start, one.rule, one.message) for one in findings)


def test_stages() -> None:
    assert found(_ONE) == sorted([
        (4, "StageNameCasing", "Stage name 'Base' should be lowercase"),
        (4, "InvalidDefinitionDescription", "Comment for FROM should follow the format: `# base <description>`"),
        (4, "InvalidDefaultArgInFrom", "Default value for ARG busybox:${TAG} results in empty or invalid base image name"),
        (5, "ConsistentInstructionCasing", "Command 'From' should match the case of the command majority (uppercase)"),
        (5, "ReservedStageName", 'Stage name should not use the same name as reserved stage "scratch"'),
        (5, "UndefinedArgInFrom", "FROM argument 'NOPE' is not declared"),
        (5, "InvalidDefaultArgInFrom", "Default value for ARG busybox:$NOPE results in empty or invalid base image name"),
        (6, "MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label"),
        (7, "ConsistentInstructionCasing", "Command 'workdir' should match the case of the command majority (uppercase)"),
        (7, "WorkdirRelativePath", 'Relative workdir "rel" can have unexpected results if the base image changes'),
        (10, "NoEmptyContinuation", "Empty continuation line"),
        (11, "DuplicateStageName", 'Duplicate stage name "base", stage names should be unique'),
        (11, "FromAsCasing", "'as' and 'FROM' keywords' casing do not match"),
        (11, "FromPlatformFlagConstDisallowed", 'FROM --platform flag should not use constant value "linux/amd64"'),
        (12, "RedundantTargetPlatform", "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"),
        (14, "InvalidDefinitionDescription", "Comment for ARG should follow the format: `# X <description>`"),
    ])  # fmt: skip


def test_instructions() -> None:
    once = "instructions should not be used in the same stage because only the last one will be used"
    signals = "to prevent unintended behavior related to OS signals"
    base = BaseImage({"PATH": "/bin"}, "linux/arm64", "linux/amd64")
    assert found(_TWO, bases=lambda stage: base, ignore=Ignore(["ignored"])) == sorted([
        (1, "InvalidBaseImagePlatform", 'Base image busybox was pulled with platform "linux/arm64", expected "linux/amd64" for current build'),
        (2, "ExposeInvalidFormat", "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'"),
        (2, "ExposeProtoCasing", "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase"),
        (2, "ExposeInvalidFormat", "EXPOSE instruction should not define an IP address or host-port mapping, found '8080:80'"),
        (3, "LegacyKeyValueFormat", '"ENV key=value" should be used instead of legacy "ENV key value" format'),
        (4, "SecretsUsedInArgOrEnv", 'Do not use ARG or ENV instructions for sensitive data (ENV "PASSWORD")'),
        (4, "SecretsUsedInArgOrEnv", 'Do not use ARG or ENV instructions for sensitive data (ENV "MY_TOKEN")'),
        (5, "SecretsUsedInArgOrEnv", 'Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY")'),
        (6, "WorkdirRelativePath", 'Relative workdir "rel" can have unexpected results if the base image changes'),
        (7, "JSONArgsRecommended", f"JSON arguments recommended for CMD {signals}"),
        (7, "MultipleInstructionsDisallowed", f"Multiple CMD {once}"),
        (8, "JSONArgsRecommended", f"JSON arguments recommended for CMD {signals}"),
        (9, "JSONArgsRecommended", f"JSON arguments recommended for ENTRYPOINT {signals}"),
        (10, "UndefinedVar", "Usage of undefined variable '$PAHT' (did you mean $PATH?)"),
        (10, "UndefinedVar", "Usage of undefined variable '$undefined'"),
        (11, "LegacyKeyValueFormat", '"LABEL key=value" should be used instead of legacy "LABEL key value" format'),
        (12, "CopyIgnoredFile", 'Attempting to Copy file "ignored/file" that is excluded by .dockerignore'),
        (13, "MultipleInstructionsDisallowed", f"Multiple HEALTHCHECK {once}"),
    ])  # fmt: skip


def test_every_rule_is_found_somewhere() -> None:
    seen = {rule for _, rule, _ in found(_ONE)}
    base = BaseImage({}, "a", "b")
    seen |= {rule for _, rule, _ in found(_TWO, bases=lambda stage: base, ignore=Ignore(["ignored"]))}
    assert seen == set(RULES)


def test_skipped() -> None:
    assert found("# check=skip=all\nFROM a AS B\n") == []
    assert [rule for _, rule, _ in found("# check=skip=StageNameCasing\nFROM a AS B\nCMD x\n")] == [
        "JSONArgsRecommended"
    ]
