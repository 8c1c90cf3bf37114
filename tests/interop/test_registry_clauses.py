"""The distribution specification 1.1, clause by clause.

With WHERRY_TEST_REGISTRY=http://host:port the same tests run on another registry (Debian's docker-registry); `ours`
marks what that one, older than 1.1, does not do.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_process import (
    INDEX,
    MANIFEST,
    PEER,
    RegistryClient,
    RegistryProcess,
    descriptor,
    digest_of,
    dump,
    image,
    with_query,
)

ours = pytest.mark.skipif(bool(PEER), reason="docker-registry 2.8 does not do this")


def deviates(how: str) -> pytest.MarkDecorator:
    """A clause docker-registry 2.8 does not keep."""
    return pytest.mark.xfail(bool(PEER), reason=f"docker-registry 2.8 {how}", strict=True)


ABSENT = digest_of(b"nothing has this digest")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryClient]:
    if PEER:
        yield RegistryClient(PEER.removeprefix("http://"))
        return
    root: Path = tmp_path_factory.mktemp("registry")
    with RegistryProcess(root) as process:
        yield RegistryClient(process.address)


@pytest.fixture
def name() -> str:
    return f"some/repo-{secrets.token_hex(4)}"


def test_support_is_told(registry: RegistryClient) -> None:
    assert registry.ask("GET", "/v2/").status == 200


def test_what_is_pushed_is_pulled(registry: RegistryClient, name: str) -> None:
    config, layer = secrets.token_bytes(100), secrets.token_bytes(100_000)
    for data in (config, layer):
        registry.push_blob(name, data)
    document = image(config, layer)
    answer = registry.push_manifest(name, "v1", document)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, digest_of(dump(document)))
    assert registry.ask("GET", answer.headers["location"], Accept=MANIFEST).body == dump(document)
    for reference in ("v1", digest_of(dump(document))):
        found = registry.ask("GET", f"/v2/{name}/manifests/{reference}", Accept=MANIFEST)
        assert (found.status, found.headers["content-type"], found.body) == (200, MANIFEST, dump(document))
        head = registry.ask("HEAD", f"/v2/{name}/manifests/{reference}", Accept=MANIFEST)
        assert (head.status, int(head.headers["content-length"]), head.body) == (200, len(found.body), b"")
        assert head.headers["docker-content-digest"] == digest_of(found.body)
    blob = registry.ask("GET", f"/v2/{name}/blobs/{digest_of(layer)}")
    assert (blob.status, blob.body, blob.headers["docker-content-digest"]) == (200, layer, digest_of(layer))
    head = registry.ask("HEAD", f"/v2/{name}/blobs/{digest_of(layer)}")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(layer)), b"")


@pytest.mark.parametrize(
    ("wanted", "status", "start", "end"),
    [("bytes=10-19", 206, 10, 20), ("bytes=990-", 206, 990, 1000), ("bytes=-10", 206, 990, 1000)],
)
def test_a_range_of_a_blob(registry: RegistryClient, name: str, wanted: str, status: int, start: int, end: int) -> None:
    data = secrets.token_bytes(1000)
    digest = registry.push_blob(name, data)
    found = registry.ask("GET", f"/v2/{name}/blobs/{digest}", Range=wanted)
    assert (found.status, found.body) == (status, data[start:end])
    assert found.headers["content-range"] == f"bytes {start}-{end - 1}/1000"
    assert registry.ask("GET", f"/v2/{name}/blobs/{digest}", Range="bytes=1000-").status == 416


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("manifests/absent", "MANIFEST_UNKNOWN"),
        (f"manifests/{ABSENT}", "MANIFEST_UNKNOWN"),
        (f"blobs/{ABSENT}", "BLOB_UNKNOWN"),
        ("tags/list", "NAME_UNKNOWN"),
    ],
)
def test_what_is_absent_is_not_found(registry: RegistryClient, name: str, path: str, code: str) -> None:
    answer = registry.ask("GET", f"/v2/{name}/{path}")
    assert (answer.status, answer.code) == (404, code)


def test_a_blob_of_another_repository_is_not_found_here(registry: RegistryClient, name: str) -> None:
    digest = registry.push_blob(name, secrets.token_bytes(10))
    assert registry.ask("GET", f"/v2/{name}-other/blobs/{digest}").status == 404


def test_a_blob_in_one_request(registry: RegistryClient, name: str) -> None:
    data = secrets.token_bytes(5000)
    answer = registry.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(data)}", data)
    if answer.status == 202:  # it may be left to a PUT
        answer = registry.ask("PUT", with_query(answer.headers["location"], digest=digest_of(data)), data)
    assert answer.status == 201, answer
    assert registry.ask("GET", answer.headers["location"]).body == data


@deviates("takes chunks out of order")
def test_a_blob_in_chunks(registry: RegistryClient, name: str) -> None:
    data = secrets.token_bytes(3000)
    location = registry.begin(name)
    for start in (0, 1000):
        answer = registry.ask("PATCH", location, data[start : start + 1000], Content_Range=f"{start}-{start + 999}")
        assert (answer.status, answer.headers["range"]) == (202, f"0-{start + 999}")
        location = answer.headers["location"]
    out_of_order = registry.ask("PATCH", location, data[:1000], Content_Range="0-999")
    assert out_of_order.status == 416
    status = registry.ask("GET", location)
    assert (status.status, status.headers["range"]) == (204, "0-1999")
    location = with_query(status.headers["location"], digest=digest_of(data))
    answer = registry.ask("PUT", location, data[2000:], Content_Range="2000-2999")
    assert answer.status == 201, answer
    assert registry.ask("GET", f"/v2/{name}/blobs/{digest_of(data)}").body == data


def test_an_upload_can_be_cancelled(registry: RegistryClient, name: str) -> None:
    location = registry.begin(name)
    assert registry.ask("DELETE", location).status == 204
    assert registry.ask("GET", location).status == 404
    assert registry.ask("PUT", with_query(location, digest=ABSENT), b"x").status == 404


def test_content_must_be_what_its_digest_says(registry: RegistryClient, name: str) -> None:
    answer = registry.ask("PUT", with_query(registry.begin(name), digest=ABSENT), b"something else")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.ask("HEAD", f"/v2/{name}/blobs/{ABSENT}").status == 404
    answer = registry.ask("PUT", with_query(registry.begin(name), digest="md5:abc"), b"x")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_a_blob_is_mounted_from_where_it_is(registry: RegistryClient, name: str) -> None:
    data = secrets.token_bytes(100)
    digest = registry.push_blob(name, data)
    answer = registry.ask("POST", f"/v2/{name}-b/blobs/uploads/?mount={digest}&from={name}", b"")
    assert answer.status == 201, answer
    assert registry.ask("GET", answer.headers["location"]).body == data
    answer = registry.ask("POST", f"/v2/{name}-c/blobs/uploads/?mount={ABSENT}&from={name}", b"")
    assert (answer.status, "location" in answer.headers) == (202, True)


def test_a_manifest_needs_what_it_refers_to(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, b"config")
    answer = registry.push_manifest(name, "broken", image(b"config", b"a layer nobody pushed"))
    assert answer.code == "MANIFEST_BLOB_UNKNOWN"
    assert answer.status in (400, 404)
    assert registry.ask("GET", f"/v2/{name}/manifests/broken").status == 404


def test_an_index_needs_its_manifests(registry: RegistryClient, name: str) -> None:
    digest = registry.push_image(name, "one", b"content")
    found = registry.ask("GET", f"/v2/{name}/manifests/{digest}", Accept=MANIFEST)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, found.body)]}
    assert registry.push_manifest(name, "all", index).status == 201
    assert registry.ask("GET", f"/v2/{name}/manifests/all", Accept=INDEX).headers["content-type"] == INDEX
    absent = {"mediaType": MANIFEST, "digest": ABSENT, "size": 1}
    assert registry.push_manifest(name, "bad", {**index, "manifests": [absent]}).code == "MANIFEST_BLOB_UNKNOWN"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        pytest.param(b"{}", marks=deviates("answers 500")),
        pytest.param(b'{"schemaVersion": 1}', marks=deviates("answers 500")),
    ],
)
def test_what_is_no_manifest_is_refused(registry: RegistryClient, name: str, body: bytes) -> None:
    answer = registry.ask("PUT", f"/v2/{name}/manifests/v1", body, Content_Type=MANIFEST)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


def test_a_manifest_of_four_megabytes_is_taken_and_a_larger_one_refused(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, b"config")
    document = image(b"config", annotations={"padding": "x" * (4 << 20)})
    document["annotations"]["padding"] = "x" * ((4 << 20) - len(dump(document)) + (4 << 20))
    assert len(dump(document)) == 4 << 20
    assert registry.push_manifest(name, "large", document).status == 201
    document["annotations"]["more"] = "x" * 100_000
    assert registry.push_manifest(name, "too-large", document).status in (400, 413)


def test_a_manifest_that_is_an_index_too_is_refused(registry: RegistryClient, name: str) -> None:
    """CVE-2021-41190."""
    digest = registry.push_image(name, "one", b"content")
    both = {**image(b"config"), "manifests": [{"mediaType": MANIFEST, "digest": digest, "size": 1}]}
    assert registry.push_manifest(name, "both", both).code == "MANIFEST_INVALID"


@deviates("does not sort tags")
def test_tags_are_listed_in_pages(registry: RegistryClient, name: str) -> None:
    for tag in ("b", "a", "D", "c1"):
        registry.push_image(name, tag, b"content")
    everything = registry.ask("GET", f"/v2/{name}/tags/list").json
    assert everything == {"name": name, "tags": ["D", "a", "b", "c1"]}
    page = registry.ask("GET", f"/v2/{name}/tags/list?n=2")
    assert page.json["tags"] == ["D", "a"]
    assert registry.ask("GET", f"/v2/{name}/tags/list?n=2&last=a").json["tags"] == ["b", "c1"]


@ours
def test_the_next_page_of_tags_is_linked(registry: RegistryClient, name: str) -> None:
    for tag in ("a", "b", "c"):
        registry.push_image(name, tag, b"content")
    page = registry.ask("GET", f"/v2/{name}/tags/list?n=2")
    target, _, relation = page.headers["link"].partition(">; ")
    assert relation == 'rel="next"'
    last = registry.ask("GET", target.lstrip("<"))
    assert (last.json["tags"], "link" in last.headers) == (["c"], False)
    nothing = registry.ask("GET", f"/v2/{name}/tags/list?n=0")
    assert (nothing.json["tags"], "link" in nothing.headers) == ([], False)
    assert registry.ask("GET", f"/v2/{name}/tags/list?n=x").status == 400


def test_the_catalogue_names_repositories(registry: RegistryClient, name: str) -> None:
    registry.push_image(name, "v1", b"content")
    before = name[:-1] + chr(ord(name[-1]) - 1)
    assert registry.ask("GET", f"/v2/_catalog?n=1&last={before}").json["repositories"] == [name]


def test_a_deleted_manifest_takes_its_tags_along(registry: RegistryClient, name: str) -> None:
    digest = registry.push_image(name, "v1", b"content")
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    for reference in ("v1", digest):
        assert registry.ask("GET", f"/v2/{name}/manifests/{reference}").status == 404
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{digest}").status == 404


@ours
def test_a_deleted_tag_leaves_its_manifest(registry: RegistryClient, name: str) -> None:
    digest = registry.push_image(name, "v1", b"content")
    assert registry.ask("DELETE", f"/v2/{name}/manifests/v1").status == 202
    assert registry.ask("GET", f"/v2/{name}/manifests/v1").status == 404
    assert registry.ask("GET", f"/v2/{name}/manifests/{digest}").status == 200
    assert registry.ask("GET", f"/v2/{name}/tags/list").json["tags"] == []


def test_a_deleted_blob_is_gone_from_its_repository(registry: RegistryClient, name: str) -> None:
    digest = registry.push_blob(name, secrets.token_bytes(10))
    assert registry.ask("DELETE", f"/v2/{name}/blobs/{digest}").status == 202
    assert registry.ask("GET", f"/v2/{name}/blobs/{digest}").status == 404
    assert registry.ask("DELETE", f"/v2/{name}/blobs/{digest}").status == 404


@ours
def test_referrers_are_found_by_subject(registry: RegistryClient, name: str) -> None:
    subject = {"mediaType": MANIFEST, "digest": ABSENT, "size": 1}
    registry.push_blob(name, b"{}")
    first = image(b"{}", subject=subject, artifactType="application/x.sbom", annotations={"a": "b"})
    second = image(b"{}", subject=subject)
    for document in (first, second):
        pushed = registry.push_manifest(name, digest_of(dump(document)), document)
        assert (pushed.status, pushed.headers["oci-subject"]) == (201, ABSENT)
    found = registry.ask("GET", f"/v2/{name}/referrers/{ABSENT}")
    assert (found.status, found.headers["content-type"]) == (200, INDEX)
    shown = {item["digest"]: item for item in found.json["manifests"]}
    assert shown[digest_of(dump(first))] == {
        **descriptor(MANIFEST, dump(first)),
        "artifactType": "application/x.sbom",
        "annotations": {"a": "b"},
    }
    assert shown[digest_of(dump(second))]["artifactType"] == second["config"]["mediaType"]
    one = registry.ask("GET", f"/v2/{name}/referrers/{ABSENT}?artifactType=application/x.sbom")
    assert [item["digest"] for item in one.json["manifests"]] == [digest_of(dump(first))]
    assert one.headers["oci-filters-applied"] == "artifactType"
    registry.ask("DELETE", f"/v2/{name}/manifests/{digest_of(dump(first))}")
    assert len(registry.ask("GET", f"/v2/{name}/referrers/{ABSENT}").json["manifests"]) == 1
    assert registry.ask("GET", f"/v2/{name}/referrers/{digest_of(b'no referrers')}").json["manifests"] == []
    assert registry.ask("GET", f"/v2/{name}/referrers/nonsense").status == 400


@ours
def test_a_manifest_is_pushed_with_many_tags(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, b"{}")
    document = image(b"{}")
    path = f"/v2/{name}/manifests/{digest_of(dump(document))}?tag=1&tag=1.2&tag=latest"
    answer = registry.ask("PUT", path, dump(document), Content_Type=MANIFEST)
    assert (answer.status, "oci-tag" in answer.headers) == (201, True)
    assert registry.ask("GET", f"/v2/{name}/tags/list").json["tags"] == ["1", "1.2", "latest"]


@ours
def test_sha512_digests(registry: RegistryClient, name: str) -> None:
    import hashlib

    data = secrets.token_bytes(100)
    digest = "sha512:" + hashlib.sha512(data).hexdigest()
    location = registry.begin(name, "?digest-algorithm=sha512")
    assert registry.ask("PUT", with_query(location, digest=digest), data).status == 201
    assert registry.ask("GET", f"/v2/{name}/blobs/{digest}").body == data


@pytest.mark.parametrize(
    "bad", ["UPPER", "a//b", "../../etc", "-x", pytest.param("a" * 300, marks=deviates("answers 500")), "a/_blobs"]
)
def test_names_that_are_none_are_refused(registry: RegistryClient, bad: str) -> None:
    answer = registry.ask("GET", f"/v2/{bad}/tags/list")
    assert answer.status in (301, 400, 404)


@ours
def test_an_upload_belongs_to_its_repository(registry: RegistryClient, name: str) -> None:
    location = registry.begin(name)
    elsewhere = location.replace(name, f"{name}-other")
    assert registry.ask("PATCH", elsewhere, b"x").status == 404
    assert registry.ask("GET", f"/v2/{name}/blobs/uploads/..%2f..%2fblobs").status == 404


@ours
def test_what_is_not_supported_is_said(registry: RegistryClient, name: str) -> None:
    answer = registry.ask("POST", f"/v2/{name}/tags/list", b"")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
