"""Names and removal: docker's rules, its wording, and nothing left over."""

import io

import pytest
from image_fakes import NOTHING, Bench, make_tar

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.images import Image, Removed, Use
from wherry.spec.digest import Digest

CONTAINER = "c0ffee000000" + "0" * 52


def make(bench: Bench, name: str | None, seed: bytes = b"1") -> Image:
    return bench.images.import_(io.BytesIO(make_tar({"file": seed})), name)


def unused(image: Digest) -> list[Use]:
    return []


def running(image: Digest) -> list[Use]:
    return [Use(CONTAINER, True)]


def stopped(image: Digest) -> list[Use]:
    return [Use(CONTAINER, False)]


def test_resolve_in_every_way(bench: Bench) -> None:
    image = make(bench, "me/app:1")
    plain = image.id.removeprefix("sha256:")
    for name in ("me/app:1", "docker.io/me/app:1", image.id, plain, plain[:12], f"sha256:{plain[:7]}", plain[:1]):
        assert bench.images.resolve(name) == image
    for name, shown in (
        ("nope", "nope:latest"),
        ("me/app", "me/app:latest"),
        ("docker.io/nope:1", "nope:1"),
        ("a" * 64, "sha256:" + "a" * 64),
        (f"me/app:1@{image.id}", f"me/app:1@{image.id}"),
        (f"{plain[:12]}:latest", f"{plain[:12]}:latest"),
    ):
        with pytest.raises(NotFound) as caught:
            bench.images.resolve(name)
        assert caught.value.message == f"No such image: {shown}"
    with pytest.raises(InvalidArgument):
        bench.images.resolve("UPPER")


def test_an_ambiguous_prefix_is_no_image(bench: Bench) -> None:
    images = [make(bench, None, str(number).encode()) for number in range(17)]
    first = [image.id.removeprefix("sha256:")[0] for image in images]
    twice = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(NotFound):
        bench.images.resolve(twice)


def test_a_tag_moves(bench: Bench) -> None:
    first, second = make(bench, "app", b"1"), make(bench, "app", b"2")
    assert bench.images.resolve("app").id == second.id
    assert bench.images.resolve(first.id).references == ()
    assert bench.images.tag(bench.images.resolve(first.id), "app").references == ("app:latest",)
    assert [image.references for image in bench.images.list()] == [(), ("app:latest",)]
    for bad in ("sha256:x", f"x@{first.id}", "UP"):
        with pytest.raises(InvalidArgument):
            bench.images.tag(first, bad)


def test_the_last_name_takes_the_image_along(bench: Bench) -> None:
    image = make(bench, "app:1")
    bench.images.tag(image, "app:2")
    assert bench.images.remove("app:1", force=False, in_use=unused) == [Removed(image.id, untagged="app:1")]
    assert bench.images.remove("app:2", force=False, in_use=unused) == [
        Removed(image.id, untagged="app:2"),
        Removed(image.id, deleted=image.id),
        Removed(image.id, deleted=image.layers[0], size=1),
    ]
    assert bench.leftovers() == NOTHING


def test_conflicts_are_worded_as_dockers(bench: Bench) -> None:
    image = make(bench, "app")
    short = image.id.removeprefix("sha256:")[:12]
    cases = [
        (
            "app",
            False,
            stopped,
            'unable to remove repository reference "app" (must force) - container c0ffee000000 '
            f"is using its referenced image {short}",
        ),
        (
            image.id,
            False,
            stopped,
            f"unable to delete {short} (must be forced) - image is being used by stopped container c0ffee000000",
        ),
        (
            image.id,
            True,
            running,
            f"unable to delete {short} (cannot be forced) - image is being used by running container c0ffee000000",
        ),
    ]
    for name, force, in_use, message in cases:
        with pytest.raises(Conflict) as caught:
            bench.images.remove(name, force=force, in_use=in_use)
        assert caught.value.message == f"conflict: {message}"
    bench.images.tag(image, "other")
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is referenced in multiple repositories"):
        bench.images.remove(image.id, force=False, in_use=unused)
    assert bench.images.resolve("app").references == ("app:latest", "other:latest")


def test_force_untags_under_a_running_container(bench: Bench) -> None:
    image = make(bench, "app")
    assert bench.images.remove("app", force=True, in_use=running) == [Removed(image.id, untagged="app:latest")]
    assert bench.images.resolve(image.id).references == ()


def test_a_layer_goes_when_its_container_does(bench: Bench) -> None:
    image = make(bench, "app")
    bench.snapshots.held = set(image.layers)
    done = bench.images.remove("app", force=True, in_use=stopped)
    assert [item.deleted for item in done] == [None, image.id]
    assert bench.snapshots.has(image.layers[0])
    bench.restart()
    assert bench.snapshots.has(image.layers[0])
    bench.snapshots.held = set()
    bench.images.container_removed()
    assert bench.leftovers() == NOTHING


def test_shared_layers_stay_until_the_last_image(bench: Bench) -> None:
    first = make(bench, "first")
    second = bench.images.import_(io.BytesIO(make_tar({"file": b"1"})), "second", message="other")
    assert first.layers == second.layers
    bench.images.remove("first", force=False, in_use=unused)
    assert bench.snapshots.has(second.layers[0])
    bench.images.remove("second", force=False, in_use=unused)
    assert bench.leftovers() == NOTHING


def test_prune(bench: Bench) -> None:
    named, dangling, kept = make(bench, "named", b"1"), make(bench, None, b"2"), make(bench, None, b"3")
    use = {kept.id: stopped(kept.id)}
    done = bench.images.prune(dangling_only=True, in_use=lambda id: use.get(id, []))
    assert [item.deleted for item in done] == [dangling.id, dangling.layers[0]]
    done = bench.images.prune(dangling_only=False, in_use=lambda id: use.get(id, []), until=1)
    assert done == []
    done = bench.images.prune(dangling_only=False, in_use=lambda id: use.get(id, []))
    assert [item.untagged or item.deleted for item in done] == ["named:latest", named.id, named.layers[0]]
    assert [image.id for image in bench.images.list()] == [kept.id]
