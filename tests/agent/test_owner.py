"""Whose Allocate it is: rows of what the kubelet lists, what is granted, and who is asked for."""

from collections.abc import Mapping

import pytest

from hami.agent.owner import by_ids, likely_owners
from hami.agent.podresources import ListedPod
from hami.agent.pods import NodePod, read_node_pod
from hami.model.names import PodKey, PodUid
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA
from tests.agent.conftest import card, container, pod
from tests.agent.fake_kubelet import Json


def node_pod(document: Json) -> NodePod:
    return read_node_pod(document, registry(), NVIDIA)


def listed(name: str, **devices: str) -> ListedPod:
    """A listed pod; a container's ids are separated by blanks."""
    return ListedPod(
        key=PodKey("default", name),
        devices={key.replace("_", "-"): frozenset(ids.split()) for key, ids in devices.items()},
    )


def by_key(*documents: Json) -> Mapping[PodKey, NodePod]:
    return {found.key: found for found in map(node_pod, documents)}


def names(found: object) -> list[str]:
    assert isinstance(found, tuple)
    return [f"{owner.pod.key.name}/{owner.container.name}" for owner in found]


PODS = by_key(
    pod("one", container("main"), assigned=card(0) + ";", bind_time=1),
    pod("two", container("a"), container("b", 2), init=(container("setup"), container("side", restartPolicy="Always"))),
    pod("three", container("main"), assigned=card(0) + ";", bind_time=3),
    pod("none", container("main", 0)),
)


@pytest.mark.parametrize(
    ("shown", "granted", "count", "want"),
    [
        ([listed("one", main=""), listed("none", main="")], [], 1, ["one/main"]),
        ([listed("one", main="x"), listed("three", main="")], [], 1, ["three/main"]),
        ([listed("one", main=""), listed("three", main="")], ["one/main"], 1, ["three/main"]),
        ([listed("three", main=""), listed("one", main="")], [], 1, ["one/main", "three/main"]),
        ([listed("two", side="", a="", b="")], [], 1, ["two/setup"]),
        ([listed("two", side="", a="", b="")], ["two/setup"], 1, ["two/side"]),
        ([listed("two", side="s", a="", b="")], [], 1, ["two/a"]),
        ([listed("two", side="", a="", b="")], ["two/setup", "two/side", "two/a"], 2, ["two/b"]),
        ([listed("two", side="", a="", b="")], [], 2, []),
        ([listed("one", main="")], ["one/main"], 1, ["one/main"]),
        ([listed("stranger", main="")], [], 1, []),
        (None, ["one/main"], 1, ["three/main", "two/setup"]),
    ],
    ids=[
        "the only one that asks",
        "one that has ids is served",
        "one that is granted is served",
        "two may ask: bound first",
        "init containers first",
        "then sidecars",
        "a served container shows that those before it were",
        "the last one",
        "nobody asks for two now",
        "a kubelet that forgot asks again",
        "a pod we don't know",
        "no list: bound first, unbound last",
    ],
)
def test_likely_owner(shown: list[ListedPod] | None, granted: list[str], count: int, want: list[str]) -> None:
    done = {(PodUid(f"uid-{name}"), where) for name, where in (entry.split("/") for entry in granted)}
    assert names(likely_owners(shown, PODS, done, count)) == want


def test_ended_pods_never_ask() -> None:
    ended = pod("ended", container("main"))
    ended["status"]["phase"] = "Failed"
    assert likely_owners([listed("ended", main="")], by_key(ended), (), 1) == ()


def test_by_ids_needs_exactly_one() -> None:
    shown = [listed("one", main="x y"), listed("three", main="z")]
    found = by_ids(shown, PODS, frozenset({"z"}), ())
    assert found is not None
    assert found.pod.key.name == "three"
    assert by_ids(shown, PODS, frozenset({"x"}), ()) is None
    assert by_ids([*shown, listed("two", a="z")], PODS, frozenset({"z"}), ()) is None
