"""MetaX beyond the recorded answers: amounts by value, zones against every set, marks that outlive the scheduler."""

import json
import random
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

from hami.alloc.ledger import Ledger, hold_of
from hami.alloc.place import place
from hami.alloc.quota import Quotas, read_quota
from hami.alloc.record import annotations, read_node, read_pod
from hami.alloc.request import RequestError, read_request
from hami.model.claim import Memory, Mib, Need, Percent, Placed, Refused
from hami.model.names import VendorWord
from hami.model.settings import read_device_config
from hami.model.vendor import Spot, Wanted
from hami.model.wire import pod as keys
from hami.vendors import metax_sgpu, registry

FAMILIES = registry(read_device_config({"metax": {"resourceCountName": "metax-tech.com/gpu"}}))
MEMORY = "metax-tech.com/vmemory"


def pod(name: str, notes: dict[str, str] | None = None, *inits: dict[str, str], **limits: str) -> dict[str, Any]:
    """A pod of one container; `limits` by the last word of their names."""

    def container(kind: str, asked: dict[str, str]) -> dict[str, Any]:
        return {"name": kind, "resources": {"limits": {f"metax-tech.com/{word}": text for word, text in asked.items()}}}

    return {
        "metadata": {"name": name, "namespace": "n", "uid": name, "annotations": notes or {}},
        "spec": {
            "initContainers": [container("init", asked) for asked in inits],
            "containers": [container("c", limits)],
        },
    }


def node(*cards: dict[str, Any]) -> dict[str, Any]:
    common = {"totalDevCount": 16, "totalCompute": 100, "totalVRam": 65536, "healthy": True}
    listed = [{"uuid": f"GPU-{i}", **common, **card} for i, card in enumerate(cards)]
    return {"metadata": {"name": "node", "annotations": {metax_sgpu.NODE: json.dumps(listed)}}, "status": {}}


class World:
    """One node, decided on as a scheduler does, which may also start anew."""

    def __init__(self, *cards: dict[str, Any]) -> None:
        self.document = node(*cards)
        self.bound: dict[str, dict[str, Any]] = {}
        self.restart()

    def restart(self) -> None:
        self.ledger = Ledger(FAMILIES)
        found, problems = read_node(self.document, FAMILIES)
        assert problems == ()
        self.ledger.put_node(found)
        for document in self.bound.values():
            self._tell(document)

    def _tell(self, document: dict[str, Any]) -> None:
        record, problems = read_pod(document, FAMILIES)
        assert record is not None
        assert problems == ()
        self.ledger.put_pod(record)
        self.ledger.check()

    def place(self, document: dict[str, Any]) -> str:
        """The allocation text, or the reason."""
        request = read_request(document, FAMILIES)
        verdict = place(self.ledger, request, None, node_policy="binpack", card_policy="binpack")
        if isinstance(verdict, Refused):
            return verdict.refusals[next(iter(verdict.refusals))].text
        assert isinstance(verdict, Placed)
        record = self.ledger.node(verdict.assignment.node)
        written = annotations(verdict.assignment, FAMILIES, now_unix=0, request=request, node=record)
        document["metadata"]["annotations"] |= written
        document["spec"]["nodeName"] = "node"
        self.bound[document["metadata"]["name"]] = document
        self._tell(document)
        return written["hami.io/metax-sgpu-devices-allocated"]

    def end_inits(self, name: str) -> None:
        ended = {"name": "init", "state": {"terminated": {"exitCode": 0}}}
        self.bound[name]["status"] = {"initContainerStatuses": [ended]}
        self._tell(self.bound[name])


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        pytest.param("4", Mib(4096), id="GiB"),
        pytest.param("1k", Mib(1024000), id="1000, as it is stored"),
        pytest.param("1500", Mib(1536000), id="1500"),
        pytest.param("4Gi", Mib(4096), id="bytes"),
        pytest.param("16G", Mib(15258), id="bytes, down to a MiB"),
        pytest.param("1Mi", Mib(1), id="the least with a unit"),
        pytest.param("2097151", Mib(2147482624), id="the most"),
        pytest.param("0", Percent(100), id="nothing is all"),
    ],
)
def test_memory_by_value(text: str, memory: Memory) -> None:
    (container,) = read_request(pod("p", sgpu="1", vmemory=text), FAMILIES).containers
    assert container.needs[0].memory == memory


@pytest.mark.parametrize("text", ["-1", "512Ki", "2097152", "4096Ti", "100u"])
def test_a_bad_amount_is_named(text: str) -> None:
    with pytest.raises(RequestError, match=r"spec\.containers\[0\]\.resources\.limits\[metax-tech\.com/vmemory\]"):
        read_request(pod("p", sgpu="1", vmemory=text), FAMILIES)


def links(zones: Sequence[int], spots: Sequence[int]) -> int:
    return sum(10 for a, b in combinations(spots, 2) if zones[a] == zones[b] > 0)


@pytest.mark.parametrize("seed", range(200))
def test_no_set_keeps_more_links(seed: int) -> None:
    rng = random.Random(seed)
    zones = [rng.randint(0, rng.choice([1, 2, 4])) for _ in range(rng.randint(1, 9))]
    idle = [spot for spot in range(len(zones)) if rng.random() < 0.8]
    order = rng.sample(idle, rng.randint(0, len(idle)))
    if not order:
        return
    want = rng.randint(1, len(order))
    spots = [Spot(index=i, facts={"LinkZone": zone}, idle=i in idle) for i, zone in enumerate(zones)]
    need = Need(
        vendor=VendorWord("Metax-SGPU"), count=want, memory=Percent(100), cores=100,
        leaves=metax_sgpu.UNCLASSED | metax_sgpu.RANKED,
    )  # fmt: skip

    def points(chosen: Sequence[int]) -> int:
        rest = [spot for spot in idle if spot not in chosen]
        lost = links(zones, idle) - links(zones, chosen) - links(zones, rest)
        return 10 * links(zones, chosen) - lost

    chosen = metax_sgpu.choose(spots, order, Wanted(need=need))
    assert len(set(chosen.places)) == want
    assert set(chosen.places) <= set(order)
    assert points(chosen.places) == max(map(points, combinations(order, want)))
    assert chosen.rank == 10_000 * points(chosen.places)


def test_many_zones_cost_little() -> None:
    spots = [Spot(index=i, facts={"LinkZone": i // 4}, idle=True) for i in range(64)]
    need = Need(vendor=VendorWord("Metax-SGPU"), count=33, memory=Percent(100), cores=100, leaves=metax_sgpu.UNCLASSED)
    chosen = metax_sgpu.choose(spots, range(64), Wanted(need=need)).places
    # Eight whole zones, and a card that has no links.
    assert sorted(sum(spot // 4 == zone for spot in chosen) for zone in range(16)) == [0] * 7 + [1] + [4] * 8
    assert sum(spot < 4 for spot in chosen) == 1


def test_who_is_on_a_card_is_known_after_a_restart() -> None:
    world = World({}, {})
    assert world.place(pod("a", {metax_sgpu.QOS: "fixed-share"}, sgpu="1", vmemory="4", vcore="20")) != ""
    assert world.place(pod("b", {metax_sgpu.CLASS: "online"}, sgpu="1", vmemory="4")).startswith("GPU-0,")
    for _ in range(2):
        best_effort = pod("c", {metax_sgpu.QOS: "best-effort"}, sgpu="1", vmemory="4", vcore="20")
        assert world.place(best_effort) == "1/2 CardAppClassMismatch, 1/2 CardQosPolicyMismatch"
        offline = pod("d", {metax_sgpu.CLASS: "offline"}, sgpu="1", vmemory="4", vcore="20")
        assert world.place(offline) == "2/2 CardAppClassMismatch"
        world.restart()
    assert world.place(pod("e", {metax_sgpu.QOS: "fixed-share"}, sgpu="1", vmemory="4", vcore="20")).startswith(
        "GPU-1,"
    )
    assert world.place(pod("f", {metax_sgpu.CLASS: "online"}, sgpu="1", vmemory="4")).startswith("GPU-0,")


def test_a_card_says_how_it_is_shared_where_its_pods_do_not() -> None:
    world = World({"qosPolicy": "fixed-share"})
    assert world.place(pod("a", sgpu="1", vmemory="4", vcore="20")).startswith("GPU-0,")
    refused = world.place(pod("b", {metax_sgpu.QOS: "best-effort"}, sgpu="1", vmemory="4", vcore="20"))
    assert refused == "1/1 CardQosPolicyMismatch"
    assert world.place(pod("c", {metax_sgpu.QOS: "fixed-share"}, sgpu="1", vmemory="4", vcore="20")).startswith(
        "GPU-0,"
    )


def test_an_init_container_that_has_ended_leaves_no_mark() -> None:
    world = World({}, {})
    asked = {"sgpu": "1", "vmemory": "4"}
    assert world.place(pod("a", {metax_sgpu.CLASS: "online"}, {**asked, "sgpu": "2"}, **asked)) != ""
    assert world.place(pod("b", {metax_sgpu.QOS: "best-effort"}, **asked)) == "2/2 CardAppClassMismatch"
    world.end_inits("a")
    assert world.place(pod("b", {metax_sgpu.QOS: "best-effort"}, **asked)) != "2/2 CardAppClassMismatch"


def test_a_card_described_wrongly_costs_only_itself() -> None:
    found, problems = read_node(node({}, {"totalVRam": -1}, {"uuid": "GPU-0"}, {}), FAMILIES)
    (inventory,) = found.inventories
    assert [(device.uuid, device.index) for device in inventory.devices] == [("GPU-0", 0), ("GPU-3", 3)]
    assert [error.field for error in problems] == [
        f"metadata.annotations[{metax_sgpu.NODE}][1].totalVRam", f"metadata.annotations[{metax_sgpu.NODE}]",
    ]  # fmt: skip


def test_a_policy_of_another_word_ranks_by_use_alone() -> None:
    document = {
        "metadata": {"name": "a", "annotations": {"metax-tech.com/gpu.topology.losses": '{"1": 100}'}},
        "status": {"capacity": {"metax-tech.com/gpu": "2"}},
    }
    ledger = Ledger(FAMILIES)
    ledger.put_node(read_node(document, FAMILIES)[0])
    asked = pod("p", {keys.NODE_POLICY: "other"}, gpu="1")
    for word, score in (("other", 0.0), ("binpack", 1900.0), ("spread", 0.0)):
        asked["metadata"]["annotations"][keys.NODE_POLICY] = word
        verdict = place(ledger, read_request(asked, FAMILIES), None, node_policy="spread", card_policy="spread")
        assert isinstance(verdict, Placed)
        assert list(verdict.scores) == [("a", score)]


@pytest.mark.parametrize(("hard", "mib"), [("8", 8192), ("8Gi", 8192), ("1k", 1024000), ("0", 0)])
def test_a_quota_is_read_as_pods_are(hard: str, mib: int) -> None:
    quota = {"metadata": {"namespace": "n", "name": "q"}, "spec": {"hard": {f"limits.{MEMORY}": hard}}}
    limits, problems = read_quota(quota, FAMILIES)
    assert problems == ()
    assert limits[VendorWord("Metax-SGPU")].memory_mib == mib


@pytest.mark.parametrize(
    ("word", "asked", "ranked"),
    [
        pytest.param("T", {}, True, id="on"),
        pytest.param("0", {}, False, id="off"),
        pytest.param("yes", {}, True, id="no word: as configured"),
        pytest.param("true", {"vcore": "50"}, False, id="shares have no links"),
    ],
)
def test_whether_nodes_rank_by_links(word: str, asked: dict[str, str], ranked: bool) -> None:
    families = registry(read_device_config({"metax": {"sgpuTopologyAware": True}}))
    request = read_request(pod("p", {metax_sgpu.AWARE: word}, sgpu="2", **asked), families)
    assert bool(request.containers[0].needs[0].leaves & metax_sgpu.RANKED) is ranked


@pytest.mark.parametrize("seed", range(40))
def test_the_short_cut_ranks_nodes_as_a_trial_does(seed: int) -> None:
    """A quota that limits nothing makes the engine try every node."""
    rng = random.Random(seed)
    ledger = Ledger(FAMILIES)
    for n in range(6):
        document = node(*({"totalVRam": rng.choice([8192, 65536])} for _ in range(rng.randint(1, 4))))
        document["metadata"]["name"] = f"node-{n}"
        ledger.put_node(read_node(document, FAMILIES)[0])
    plenty = Quotas(FAMILIES)
    plenty.put({"metadata": {"namespace": "n", "name": "q"}, "spec": {"hard": {f"limits.{MEMORY}": "1000000"}}})
    for i in range(30):
        kind = rng.choice(["online", "online", "offline", ""])
        asked = pod(f"p-{i}", {metax_sgpu.CLASS: kind} if kind else {}, sgpu="1", vmemory="3", vcore=rng.choice("15"))
        request = read_request(asked, FAMILIES)
        nodes, cards = rng.choice(["binpack", "spread"]), rng.choice(["binpack", "spread"])
        short = place(ledger, request, None, node_policy=nodes, card_policy=cards)
        assert place(ledger, request, None, node_policy=nodes, card_policy=cards, quota=plenty) == short
        if isinstance(short, Placed):
            ledger.put_pod(hold_of(request, short.assignment))
            ledger.check()


def test_two_containers_of_a_pod_have_gpus_of_their_own() -> None:
    losses = '{"1": 100, "2": 30}'
    document = {
        "metadata": {"name": "a", "annotations": {"metax-tech.com/gpu.topology.losses": losses}},
        "status": {"capacity": {"metax-tech.com/gpu": "2"}},
    }
    ledger = Ledger(FAMILIES)
    ledger.put_node(read_node(document, FAMILIES)[0])
    asked = pod("p", gpu="1")
    asked["spec"]["containers"] *= 2
    verdict = place(ledger, read_request(asked, FAMILIES), None, node_policy="binpack", card_policy="spread")
    assert isinstance(verdict, Placed)
    first, second = verdict.assignment.segments[VendorWord("Metax-GPU")]
    assert {first[0].uuid, second[0].uuid} == {"a-metax-0", "a-metax-1"}
    # The node's table is asked once, for both.
    assert list(verdict.scores) == [("a", 1970.0)]
