"""Families that give out single units of a device, Neuron's cores and Enflame's slices: none twice, and all of them.

Random pods come and go on nodes that differ in what a request means; what the engine decides is held against a plain
recount and against a search over all sets of devices. What a bound pod holds is read back from its annotations.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hami.alloc.ledger import Ledger, hold_of
from hami.alloc.place import place
from hami.alloc.quota import Quotas
from hami.alloc.record import annotations, read_node, read_pod
from hami.alloc.request import read_request
from hami.model.claim import Need, Placed, Refused, Segments, Share, Why
from hami.model.names import NodeName
from hami.model.vendor import Registry, Spot, Wanted
from hami.vendors import awsneuron, enflame_drs
from hami.vendors.awsneuron import NEURON
from hami.vendors.enflame_drs import DRS

FAMILIES = Registry((NEURON, DRS))
DEVICES, CORES = NEURON.resources.count, NEURON.resources.cores
SLICES, GIB, PERCENT = DRS.resources.count, DRS.resources.memory, DRS.resources.cores
KIND = "node.kubernetes.io/instance-type"
COARSE = '{"1g.6gb":"0","3g.20gb":"1","6g.40gb":"2"}'
FINE = '{"1g.4gb":"0","2g.8gb":"1","4g.16gb":"2","12g.48gb":"3"}'
Json = dict[str, Any]


def neuron(name: str, kind: str, devices: int, each: int) -> Json:
    amounts = {DEVICES: str(devices), CORES: str(devices * each)}
    return {"metadata": {"name": name, "labels": {KIND: kind}}, "status": {"capacity": amounts, "allocatable": amounts}}


def drs(name: str, cards: int, slices: int, profiles: str) -> Json:
    listed = ",".join(f'{{"index":"{i}","minor":"{i}","capacity":{slices}}}' for i in range(cards))
    text = f'{{"devices":[{listed}],"profiles":{profiles}}}'
    return {"metadata": {"name": name, "annotations": {DRS.node_key: text}}}


NODES = (
    neuron("inf2", "inf2.24xlarge", 6, 2),
    neuron("inf1", "inf1.6xlarge", 4, 4),
    neuron("trn2", "trn2.48xlarge", 16, 8),
    drs("coarse", 2, 6, COARSE),
    drs("fine", 2, 12, FINE),
)
NAMES = [NodeName(node["metadata"]["name"]) for node in NODES]
asks = st.one_of(
    st.sampled_from([1, 2, 3, 4, 8]).map(lambda n: {DEVICES: n}),
    st.sampled_from([1, 2, 4, 6, 8, 16]).map(lambda n: {CORES: n}),
    st.integers(1, 7).map(lambda n: {SLICES: n}),
    st.integers(1, 49).map(lambda n: {GIB: n}),
    st.integers(1, 100).map(lambda n: {PERCENT: n}),
)
steps = st.lists(
    st.tuples(
        st.lists(asks, min_size=1, max_size=3),
        st.integers(0, 1),
        st.sampled_from(["binpack", "spread", "fragmentation"]),
        st.booleans(),
    ),
    max_size=25,
)


def ledger_of(nodes: Sequence[Json]) -> Ledger:
    ledger = Ledger(FAMILIES)
    for node in nodes:
        record, problems = read_node(node, FAMILIES)
        assert not problems
        ledger.put_node(record)
    return ledger


def pod(name: str, asked: Sequence[Json], inits: int = 0) -> Json:
    containers = [
        {"name": f"c{i}", "resources": {"limits": {key: str(value) for key, value in ask.items()}}}
        for i, ask in enumerate(asked)
    ]
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": {}},
        "spec": {"initContainers": containers[:inits], "containers": containers[inits:]},
    }


def costs(share: Share) -> Share:
    """A share without the marks that say how it was asked: a device of which no unit is left takes nobody anyway."""
    return replace(share, leaves=0)


def running(segments: Segments, inits: int) -> list[Share]:
    """What all containers that run beside each other hold."""
    return [share for segment in segments[inits:] for share in segment]


def has_room(ledger: Ledger, name: NodeName, asked: Need) -> bool:
    """Whether a node serves the only need of a pod, by counting."""
    usages = [usage for usage in ledger.usage(name) if usage.vendor == asked.vendor]
    measure = awsneuron.measure if asked.vendor == NEURON.name else enflame_drs.measure
    need = measure(asked, usages[0].device.mode) if usages else None
    if need is None:
        return False
    able = [
        usage.device.index
        for usage in usages
        if usage.used_slots < (1 if need.count > 1 else usage.device.slots)
        and usage.device.memory_mib - usage.used_memory_mib >= need.memory.amount
        and usage.device.parts[0] - usage.used_parts[0] >= need.parts[0]
        and (asked.vendor == DRS.name or usage.device.cores - usage.used_cores >= need.cores)
    ]
    ring = name.startswith("inf")
    return any(neighbours(places, len(usages), ring) for places in combinations(sorted(able), need.count))


@settings(max_examples=60, deadline=None)
@given(steps)
def test_no_unit_is_given_twice_none_is_left_over_and_a_restart_changes_nothing(history: list[Any]) -> None:
    ledger = ledger_of(NODES)
    bound: dict[str, Json] = {}
    held: dict[str, list[Share]] = {}
    for number, (asked, inits, policy, leaves) in enumerate(history):
        inits = min(inits, len(asked) - 1)
        document = pod(f"p{number}", asked, inits)
        request = read_request(document, FAMILIES)
        room = len(asked) > 1 or any(has_room(ledger, name, request.containers[0].needs[0]) for name in NAMES)
        verdict = place(ledger, request, NAMES, node_policy=policy, card_policy=policy)
        ledger.check()
        assert len(asked) > 1 or isinstance(verdict, Placed) is room
        if isinstance(verdict, Placed):
            assignment = verdict.assignment
            ledger.put_pod(hold_of(request, assignment))
            node = ledger.node(assignment.node)
            written = annotations(assignment, FAMILIES, now_unix=1, request=request, node=node)
            document["metadata"]["annotations"] = written
            document["spec"]["nodeName"] = assignment.node
            again, problems = read_pod(document, FAMILIES)
            assert again is not None
            assert not problems
            for family, segments in assignment.segments.items():
                assert [list(map(costs, segment)) for segment in again.segments[family]] == [
                    list(map(costs, segment)) for segment in segments
                ]
                held[f"p{number}"] = running(segments, inits) + held.get(f"p{number}", [])
            bound[f"p{number}"] = document
        if leaves and bound:
            name, gone = next(iter(bound.items()))
            ledger.drop_pod(read_request(gone, FAMILIES).uid)
            del bound[name], held[name]
        recount(ledger, held)
    after = ledger_of(NODES)
    for document in bound.values():
        record, _ = read_pod(document, FAMILIES)
        assert record is not None
        after.put_pod(record)
    assert [after.usage(name) for name in NAMES] == [ledger.usage(name) for name in NAMES]
    used = awsneuron.IN_USE
    assert [after.table.columns["left"][row] & used for name in NAMES for row in after.table.span(name)] == [
        ledger.table.columns["left"][row] & used for name in NAMES for row in ledger.table.span(name)
    ]


def recount(ledger: Ledger, held: dict[str, list[Share]]) -> None:
    every = [share for shares in held.values() for share in shares]
    for name in NAMES:
        for usage in ledger.usage(name):
            device = usage.device
            own = [share for share in every if share.uuid == device.uuid]
            assert sum(share.memory_mib for share in own) <= device.memory_mib
            assert sum(share.parts[0] for share in own) <= device.parts[0]
            if usage.vendor == DRS.name:
                # Shares are rounded up each; together they are no more than a card, and what is left is free.
                assert sum(share.cores for share in own) <= 100
            else:
                masks = [share.units for share in own]
                assert sum(masks) < 1 << device.cores, "a core is given twice"
                assert [mask.bit_count() for mask in masks] == [share.cores for share in own]


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
    st.integers(0, (1 << 12) - 1),
    st.integers(0, (1 << 12) - 1),
)
def test_windows_are_found_where_there_are_any(size: int, want: int, ring: bool, busy: int, barred: int) -> None:
    spots = [
        Spot(index=i, facts={awsneuron.KIND: "inf2" if ring else "trn1"}, idle=not busy >> i & 1) for i in range(size)
    ]
    order = [i for i in reversed(range(size)) if spots[i].idle and not barred >> i & 1]
    request = read_request(pod("p", [{DEVICES: want}]), FAMILIES)
    need = awsneuron.measure(request.containers[0].needs[0], "2")
    assert need is not None
    found = awsneuron.choose(spots, order, Wanted(need=need)) if len(order) >= want else None
    legal = [places for places in combinations(range(size), want) if neighbours(places, size, ring)]
    able = [places for places in legal if set(places) <= set(order)]
    assert (found is not None) == bool(able)
    if found is not None:
        assert tuple(sorted(found.places)) in able


def neighbours(places: Sequence[int], size: int, ring: bool) -> bool:
    """By the hardware's rule, and not by the way in which the family looks for them."""
    if len(places) == 1:
        return True
    if not ring:
        return len(places) in (4, 8, 16) and places[0] % len(places) == 0 and places[-1] - places[0] == len(places) - 1
    # On a ring the devices that are no part of it lie together, too.
    edges = sum((place + 1) % size not in places for place in places)
    return edges <= 1


def test_a_quota_counts_what_a_node_makes_of_a_request() -> None:
    quotas = Quotas(FAMILIES)
    hard = {f"limits.{CORES}": "5"}
    quotas.put({"metadata": {"namespace": "default", "name": "q"}, "spec": {"hard": hard}})
    ledger = ledger_of(NODES[:2])
    request = read_request(pod("p", [{DEVICES: 1}, {DEVICES: 1}]), FAMILIES)
    # Two devices are four cores on the one node and eight on the other.
    for name, fits in (("inf2", True), ("inf1", False)):
        verdict = place(ledger, request, [name], node_policy="binpack", card_policy="spread", quota=quotas)
        assert isinstance(verdict, Placed) is fits
        if isinstance(verdict, Refused):
            assert Why.QUOTA in verdict.refusals[NodeName(name)].counts


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"devices":[{"index":"0","capacity":0}],"profiles":{"1g.6gb":"0"}}', "devices[0].capacity"),
        ('{"devices":[{"index":"0","capacity":"x"}],"profiles":{"1g.6gb":"0"}}', "devices[0].capacity"),
        ('{"devices":[{"index":"0","capacity":6}],"profiles":{"1g6gb":"0"}}', "profiles"),
        ('{"devices":[{"index":"0","capacity":6}],"profiles":{}}', "profiles"),
        ('{"devices":[{"index":"0","capacity":6}],"profiles":[]}', "profiles"),
        ('{"devices":[{"index":"1","capacity":6},{"index":"x","capacity":6}],"profiles":{"1g.6gb":"0"}}', "devices"),
        ("{", DRS.node_key),
        ("[]", DRS.node_key),
    ],
)
def test_a_node_that_describes_its_slices_wrongly_is_told_so(text: str, named: str) -> None:
    record, problems = read_node({"metadata": {"name": "n", "annotations": {DRS.node_key: text}}}, FAMILIES)
    assert not record.inventories
    assert any(named in str(problem) for problem in problems)


def test_more_cores_than_a_device_can_have_are_a_mistake() -> None:
    record, problems = read_node(neuron("n", "trn9", 1, 9), FAMILIES)
    assert not record.inventories
    assert any(CORES in str(problem) for problem in problems)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"c":1}', '{"c":{"profileName":3}}', '{"c":{"profileName":"big"}}'])
def test_slices_of_a_pod_that_says_nothing_usable_are_known_by_memory_only(text: str) -> None:
    share = Share(uuid="u", kind="Enflame", memory_mib=6144, cores=17)  # type: ignore[arg-type]
    assert enflame_drs.recall(((share,),), {enflame_drs.CONTAINERS: text}, DRS) == ((share,),)


def test_renamed_resources_are_still_asked_for_without_the_count() -> None:
    section = {"resourceNameVGCU": "example.com/slices", "resourceNameGCUMemory": "example.com/mem"}
    vendor = enflame_drs.configured(section)
    # The count's older key counts where the newer one is not there, and any name alone asks for a device.
    assert (vendor.resources.count, vendor.resources.memory) == ("example.com/slices", "example.com/mem")
    assert vendor.resources.also == ("example.com/slices", "example.com/mem", PERCENT)
    (need,) = read_request(pod("p", [{"example.com/mem": 6}]), Registry((vendor,))).containers[0].needs
    assert need.memory.amount == 6
    newer = enflame_drs.configured(section | {"resourceNameDRSGCU": "example.com/drs"})
    assert newer.resources.count == "example.com/drs"
    (neuron_too,) = awsneuron.configured({"resourceCoreName": "example.com/core"})
    assert neuron_too.resources.also == (DEVICES, "example.com/core")
