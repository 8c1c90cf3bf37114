"""docs/coverage.md is what the code and the tests say now, and its readers of code see what they claim to see."""

import pytest

from covered import code, page, proofs


def test_page_is_not_stale() -> None:
    text = page.render(*page.facts(search=False))
    assert page.PAGE.read_text(encoding="utf-8") == text, "docs/coverage.md is stale: run scripts/coverage, commit all"


@pytest.mark.parametrize(
    ("kind", "where", "name", "status"),
    [
        ("endpoint", "POST /containers/{id}/start", "Container", code.DONE),
        ("endpoint", "POST /swarm/init", "Swarm", code.REFUSED),
        ("endpoint", "GET /nowhere", "", code.MISSING),
        ("query", "POST /containers/{id}/stop", "signal", code.DONE),
        ("query", "POST /containers/{id}/stop", "nosuch", code.MISSING),
        ("query", "POST /containers/{id}/resize", "h", code.DONE),
        ("body", "POST /containers/create", "HostConfig.PortBindings.HostPort", code.DONE),
        ("body", "POST /containers/create", "HostConfig.StorageOpt", code.REFUSED),
        ("body", "POST /containers/create", "HostConfig.ContainerIDFile", code.KEPT),
        ("body", "POST /containers/create", "HostConfig.NoSuch", code.MISSING),
        ("filter", "GET /containers/json", "ancestor", code.DONE),
        ("filter", "GET /containers/json", "nosuch", code.MISSING),
    ],
)
def test_status_of_the_api(kind: str, where: str, name: str, status: str) -> None:
    assert code.api(kind, where, name) == status


def test_status_of_the_command_line() -> None:
    assert code.cli("ps", "--no-trunc") == code.DONE
    assert code.cli("ps", "--nosuch") == code.MISSING
    assert code.cli("run", "--kernel-memory") == code.REFUSED
    assert code.cli("swarm init", "") == code.REFUSED
    assert code.cli("nosuch", "") == code.MISSING


def _words(*lines: str) -> proofs.Words:
    words = proofs.Words()
    for line in lines:
        words.strings.add(line)
        words.lines.append(tuple(line.split()))
        if line.startswith(("GET ", "POST ")):
            method, _, target = line.partition(" ")
            words.targets.append((method, target))
    return words


def test_proofs_of_the_command_line() -> None:
    words = _words("container ls -aq", "run --rm x")
    assert proofs.shows_cli(words, "ps", "--quiet", "-q")
    assert not proofs.shows_cli(words, "ps", "--size", "-s")
    assert proofs.shows_cli(words, "run", "--rm", "")
    assert not proofs.shows_cli(words, "rm", "", "")


def test_proofs_of_the_api() -> None:
    words = _words("GET /containers/x/json?size=1", 'GET /containers/json?filters={"name":["x"]}')
    assert proofs.shows_api(words, "query", "GET /containers/{id}/json", "size")
    assert not proofs.shows_api(words, "query", "GET /containers/{id}/json", "siz")
    assert not proofs.shows_api(words, "endpoint", "POST /containers/{id}/json", "")
    assert proofs.shows_api(words, "filter", "GET /containers/json", "name")
    assert not proofs.shows_api(words, "filter", "GET /containers/json", "label")
