"""Extender bodies: any capitals in, the reference's exact answers out."""

import time

import orjson
import pytest

from hami.model.names import NodeName, PodUid, WireError
from hami.model.wire import extender
from hami.model.wire.extender import BindCall, FilterCall, Victims

POD = {"metadata": {"name": "p"}}


@pytest.mark.parametrize(
    ("body", "names", "nodes"),
    [
        ({"Pod": POD, "Nodes": None, "NodeNames": ["n1", "n2"]}, ("n1", "n2"), None),
        ({"pod": POD, "nodenames": []}, (), None),
        ({"pod": POD, "nodeNames": None}, None, None),
        ({"POD": POD, "Nodes": {"Items": [{"metadata": {"name": "n1"}}]}}, None, ({"metadata": {"name": "n1"}},)),
        ({"Pod": POD, "nodes": {"metadata": {}, "items": None}, "Later": 1}, None, ()),
    ],
    ids=["Go names", "lower case", "null names", "full nodes", "no items"],
)
def test_read_filter(body: object, names: tuple[str, ...] | None, nodes: tuple[object, ...] | None) -> None:
    call = extender.read_filter(orjson.dumps(body))
    assert call.pod == POD
    assert (call.node_names, call.nodes) == (names, nodes)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 10**6, "body"),
        (b"null", "body"),
        (b"[]", "body"),
        (b"{}", "Pod"),
        (b'{"Pod":null,"NodeNames":["n"]}', "Pod"),
        (b'{"Pod":"p"}', "Pod"),
        (b'{"Pod":{},"NodeNames":"n"}', "NodeNames"),
        (b'{"Pod":{},"NodeNames":["n",null]}', "NodeNames[1]"),
        (b'{"Pod":{},"NodeNames":["n",["m"]]}', "NodeNames[1]"),
        (b'{"Pod":{},"Nodes":[]}', "Nodes"),
        (b'{"Pod":{},"Nodes":{"items":{}}}', "Nodes.items"),
        (b'{"Pod":{},"Nodes":{"items":[{"metadata":{"name":"n"}},null]}}', "Nodes.items[1].metadata.name"),
        (b'{"Pod":{},"Nodes":{"items":[{"metadata":{"name":7}}]}}', "Nodes.items[0].metadata.name"),
    ],
)
def test_broken_filter_names_the_part(body: bytes, path: str) -> None:
    with pytest.raises(WireError) as caught:
        extender.read_filter(body)
    assert caught.value.field == path


def test_a_missing_pod_is_told_in_the_reference_s_words() -> None:
    with pytest.raises(WireError, match="extender args missing pod"):
        extender.read_filter(b"{}")


def test_five_thousand_names_are_read_within_milliseconds() -> None:
    body = orjson.dumps({"Pod": POD, "NodeNames": [f"node-{i}" for i in range(5000)]})
    start = time.perf_counter()
    call = extender.read_filter(body)
    assert time.perf_counter() - start < 0.1
    assert isinstance(call, FilterCall)
    assert call.node_names is not None
    assert len(call.node_names) == 5000


def test_filter_answers() -> None:
    assert extender.write_filter_result(node_names=["n2"], failed=None, error="") == (
        b'{"Nodes":null,"NodeNames":["n2"],"FailedNodes":null,"FailedAndUnresolvableNodes":null,"Error":""}'
    )
    assert extender.write_filter_result(
        node_names=None, failed={NodeName("n1"): "2/2 CardInsufficientMemory"}, error=""
    ) == (
        b'{"Nodes":null,"NodeNames":null,"FailedNodes":{"n1":"2/2 CardInsufficientMemory"},'
        b'"FailedAndUnresolvableNodes":null,"Error":""}'
    )
    assert extender.write_filter_result(
        node_names=("n1",), failed={}, error="x", nodes=[{"a": 1}], unresolvable={NodeName("n2"): "y"}
    ) == (
        b'{"Nodes":{"metadata":{},"items":[{"a":1}]},"NodeNames":["n1"],"FailedNodes":null,'
        b'"FailedAndUnresolvableNodes":{"n2":"y"},"Error":"x"}'
    )


def test_bind() -> None:
    expected = BindCall(namespace="ns", name="p", uid=PodUid("u"), node=NodeName("n"))
    for body in (
        b'{"PodName":"p","PodNamespace":"ns","PodUID":"u","Node":"n"}',
        b'{"podName":"p","podNamespace":"ns","podUID":"u","node":"n"}',
        b'{"podname":"p","podnamespace":"ns","poduid":"u","node":"n"}',
    ):
        assert extender.read_bind(body) == expected
    assert extender.write_bind_result("") == b'{"Error":""}'


@pytest.mark.parametrize("key", ["PodName", "PodNamespace", "PodUID", "Node"])
@pytest.mark.parametrize("value", [None, "", 7, ["x"]], ids=repr)
def test_broken_bind_names_the_key(key: str, value: object) -> None:
    whole = {"PodName": "p", "PodNamespace": "ns", "PodUID": "u", "Node": "n"}
    with pytest.raises(WireError) as caught:
        extender.read_bind(orjson.dumps(whole | {key: value}))
    assert caught.value.field == key


def test_priorities() -> None:
    assert extender.write_priorities([("n1", 10), ("n2", 0)]) == b'[{"Host":"n1","Score":10},{"Host":"n2","Score":0}]'


@pytest.mark.parametrize(
    "body",
    [
        {"Pod": POD, "NodeNameToMetaVictims": {"n": {"Pods": [{"UID": "u"}], "NumPDBViolations": 2}}},
        {"pod": POD, "nodeNameToMetaVictims": {"n": {"pods": [{"uid": "u"}], "numPDBViolations": 2}}},
        {"Pod": POD, "NodeNameToVictims": {"n": {"Pods": [{"metadata": {"uid": "u"}}], "NumPDBViolations": 2}}},
    ],
    ids=["by UID", "lower case", "full pods"],
)
def test_preempt(body: object) -> None:
    call = extender.read_preempt(orjson.dumps(body))
    assert call.pod == POD
    assert call.victims == {"n": Victims(uids=(PodUid("u"),), pdb_violations=2)}
    assert extender.write_preempt(call.victims) == (
        b'{"NodeNameToMetaVictims":{"n":{"Pods":[{"UID":"u"}],"NumPDBViolations":2}}}'
    )


@pytest.mark.parametrize(
    ("victims", "path"),
    [
        ([], "NodeNameToMetaVictims"),
        ({"n": []}, "NodeNameToMetaVictims[n]"),
        ({"n": {"Pods": {}}}, "NodeNameToMetaVictims[n].pods"),
        ({"n": {"Pods": [{"UID": ""}]}}, "NodeNameToMetaVictims[n].pods[0].uid"),
        ({"n": {"Pods": [], "NumPDBViolations": "2"}}, "NodeNameToMetaVictims[n].numPDBViolations"),
    ],
)
def test_broken_victims_name_the_part(victims: object, path: str) -> None:
    with pytest.raises(WireError) as caught:
        extender.read_preempt(orjson.dumps({"Pod": POD, "NodeNameToMetaVictims": victims}))
    assert caught.value.field == path
