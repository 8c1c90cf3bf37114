"""The check of answers sees what is wrong with them."""

import json
from typing import Any

import pytest

from covered.answers import complaints

_JSON = {"Content-Type": "application/json", "Api-Version": "1.51"}


def _complaints(method: str, target: str, status: int, document: Any) -> list[str]:
    return complaints(method, target, status, _JSON, json.dumps(document).encode())


def test_right_answers() -> None:
    assert not _complaints("GET", "/v1.50/containers/json?all=1", 200, [])
    assert not _complaints("GET", "/containers/x/json", 404, {"message": "No such container: x"})
    assert not _complaints("POST", "/containers/create", 201, {"Id": "x", "Warnings": []})
    assert not _complaints("GET", "/nowhere", 200, {"a": 1})
    assert not _complaints("GET", "/images/a/b/json", 200, {"Id": "sha256:x"})
    assert not complaints("POST", "/containers/x/start", 304, _JSON, b"")
    assert not complaints("GET", "/events", 200, _JSON, b'{"Type":"container"}\n{"Type":"image","status":"pull"}\n')


@pytest.mark.parametrize(
    ("method", "target", "status", "document", "complaint"),
    [
        ("GET", "/containers/json", 200, {}, " is no array: {}"),
        ("GET", "/containers/json", 200, [{"Id": 5}], "[0].Id is no string: 5"),
        ("GET", "/containers/json", 200, [{"Created": True}], "[0].Created is no integer: True"),
        ("GET", "/containers/json", 200, [{"State": None}], "[0].State is null"),
        ("GET", "/containers/json", 200, [{"State": "dreaming"}], "[0].State is none of"),
        ("GET", "/containers/json", 200, [{"Nope": 1}], "[0] has Nope"),
        ("GET", "/containers/json", 200, [{"Mounts": [{"Type": 1}]}], "[0].Mounts[0].Type is no string: 1"),
        ("POST", "/containers/create", 201, {"Id": "x"}, " lacks Warnings"),
        ("POST", "/containers/create", 200, {"Id": "x", "Warnings": []}, " is not among 201"),
        ("GET", "/containers/x/json", 404, {"message": "x", "more": 1}, "ErrorResponse has more"),
        ("GET", "/containers/x/json", 404, {}, " lacks message"),
        ("GET", "/containers/x/json", 500, {"message": "internal error: KeyError: 'x'"}, "a fault of ours"),
    ],
)
def test_wrong_answers(method: str, target: str, status: int, document: Any, complaint: str) -> None:
    found = _complaints(method, target, status, document)
    assert len(found) == 1
    assert complaint in found[0]


def test_an_error_must_be_json() -> None:
    found = complaints("GET", "/containers/x/json", 404, {"Content-Type": "text/plain"}, b"page not found")
    assert found == ["GET /containers/x/json: 404: an error of type text/plain"]


def test_schemas_by_version() -> None:
    usage = {"ImageUsage": {"TotalCount": 1}}
    assert not _complaints("GET", "/v1.53/system/df", 200, usage)
    assert _complaints("GET", "/v1.50/system/df", 200, usage)
