"""Runs over clusters small enough to be worked out by hand."""

from pathlib import Path
from random import Random

import pytest

from hami.model.claim import Why
from hami.model.device import MIG, Device
from hami.model.mig import identify
from hami.model.names import DeviceUuid, NodeName
from hami.model.wire.node import write_inventory
from hami.simulate.replay import Policy, Replay
from hami.simulate.unplaced import HOST_FULL, NOT_SELECTED, WORDS
from hami.simulate.workload import Order, arrivals
from hami.vendors import registry
from tests.simulate.worlds import ALLOCATED, REGISTER, described, node, pod, replayed, table


def test_shares_fill_a_device_and_then_the_next_pod_is_turned_away(tmp_path: Path) -> None:
    outcome = replayed(table(tmp_path, "a,64000,9999,1,G2\n", "p,1000,1,1,400,,,\n" * 3))
    assert (outcome.arrived, outcome.placed, outcome.refused) == (3, 2, 1)
    assert outcome.allocated == pytest.approx(80)
    assert outcome.peak == pytest.approx(80)
    assert outcome.mean is None
    assert [sample.offered for sample in outcome.curve] == pytest.approx([0, 40, 80, 120])
    assert [sample.allocated for sample in outcome.curve] == pytest.approx([0, 40, 80, 80])
    assert [sample.unplaced for sample in outcome.curve] == [0, 0, 0, 1]
    (lost,) = outcome.unplaced
    assert (lost.count, lost.milli) == (1, 400)
    assert lost.load == pytest.approx(120)
    assert lost.nodes == {Why.NO_MEMORY.word: 1}
    assert lost.asks == "1 NVIDIA with 400 MiB; 1 CPU, 0.0009766 GiB"
    assert lost.reason == "1 node too little device memory left"


def test_whole_devices_are_taken_alone_and_on_one_node(tmp_path: Path) -> None:
    outcome = replayed(
        table(tmp_path, "a,1,1,2,G2\nb,1,1,2,G2\n", "one,0,0,1,1000,,,\ntwo,0,0,2,1000,,,\ntwo,0,0,2,1000,,,\n")
    )
    assert outcome.placed == 2
    assert outcome.allocated == pytest.approx(75)
    assert outcome.unplaced[0].milli == 2000


@pytest.mark.parametrize(
    ("rows", "placed", "reason"),
    [
        ("p,3000,1,1,100,,,\n" * 3, 2, {HOST_FULL: 1}),
        ("p,1,400,1,100,,,\n" * 3, 2, {HOST_FULL: 1}),
        ("p,1,1,1,100,T4,,\n", 0, {Why.TYPE_MISMATCH.word: 1}),
        ("p,8000,1,0,0,,,\n", 0, {HOST_FULL: 1}),
    ],
)
def test_why_a_pod_found_no_place(tmp_path: Path, rows: str, placed: int, reason: dict[str, int]) -> None:
    outcome = replayed(table(tmp_path, "a,6000,900,1,G2\n", rows))
    assert outcome.placed == placed
    assert outcome.unplaced[0].nodes == reason


def test_selectors_and_taints_hold() -> None:
    nodes = [node("a", labels={"pool": "x"}), node("b", labels={"pool": "y"}), node("c", unschedulable=True)]
    outcome = replayed(described(nodes, [pod(str(i), mem=900, nodeSelector={"pool": "x"}) for i in range(2)]))
    assert outcome.placed == 1
    assert outcome.unplaced[0].nodes == {NOT_SELECTED: 2, Why.NO_MEMORY.word: 1}


def test_pods_without_devices_use_plain_nodes_first() -> None:
    workload = described(
        [node("a", cpu="4"), node("plain", gpus=0, cpu="2")], [pod(str(i), mem=None, cpu="2") for i in range(4)]
    )
    run = Replay(workload, registry(), Policy.parse("binpack"))
    outcome = run.run(arrivals(workload, Order.FILE))
    assert (outcome.placed, outcome.refused) == (3, 1)
    left = run.ledger.host_left(workload.nodes[0].name)
    assert left is not None
    assert left.cpu_milli == 0
    run.ledger.check()


def test_bound_pods_hold_what_they_hold() -> None:
    bound = pod("b", nodeName="n", metadata={"annotations": ALLOCATED}, cpu="3")
    plain = pod("c", mem=None, nodeName="n", cpu="4")
    workload = described(
        [node(cpu="8")], [bound, plain, pod("1", mem=600, cpu="1"), pod("2", mem=50, cpu="1")], keep_bound=True
    )
    outcome = replayed(workload)
    assert outcome.bound == 2
    assert [sample.allocated for sample in outcome.curve] == pytest.approx([30, 90, 90])
    assert [sample.offered for sample in outcome.curve] == pytest.approx([30, 90, 95])
    assert outcome.unplaced[0].nodes == {HOST_FULL: 1}


TIMED = """\
early,0,0,1,600,,0,50
blocked,0,0,1,600,,10,90
short,0,0,1,400,,20,20
late,0,0,1,1000,,50,
last,0,0,1,100,,100,
"""


def test_pods_leave_by_their_times(tmp_path: Path) -> None:
    outcome = replayed(table(tmp_path, "a,1,1,1,G2\n", TIMED), order=Order.TIME)
    # `blocked` finds no room beside `early`; `short` is there for no time; `late` comes the moment `early` leaves.
    assert (outcome.placed, outcome.refused) == (3, 2)
    assert outcome.allocated == pytest.approx(100)
    assert outcome.peak == pytest.approx(100)
    assert outcome.mean == pytest.approx((50 * 60 + 50 * 100) / 100)
    at = {sample.at: [sample.allocated, sample.offered] for sample in outcome.curve if sample.at is not None}
    assert at[5.0] == pytest.approx([60, 60])
    assert at[30.0] == pytest.approx([60, 120])
    assert at[60.0] == pytest.approx([100, 160])
    assert at[95.0] == pytest.approx([100, 100])
    assert [sample.at for sample in outcome.curve] == sorted(at)


def test_equal_pods_that_fail_are_one_kind(tmp_path: Path) -> None:
    rows = "p,0,0,1,1000,,,\n" * 3 + "q,0,0,1,500,,,\n" + "r,7,0,1,500,,,\n"
    outcome = replayed(table(tmp_path, "a,10,1,1,G2\n", rows))
    assert [(lost.milli, lost.count) for lost in outcome.unplaced] == [(1000, 2), (500, 1), (500, 1)]
    assert outcome.unplaced[0].name == "default/p"
    assert outcome.unplaced[0].where.endswith("pods.csv:3")


@pytest.mark.parametrize("policy", ["binpack", "spread", "fragmentation", "binpack/spread", "spread/binpack"])
def test_random_runs_end_as_the_ledger_says(tmp_path: Path, policy: str) -> None:
    random = Random(7)
    nodes = "".join(f"n{i},8000,8000,{random.choice((1, 2, 4))},{random.choice(('G2', 'T4'))}\n" for i in range(8))
    rows = []
    for i in range(150):
        gpus = random.choice((0, 1, 1, 1, 2))
        milli = 0 if not gpus else random.choice((250, 500, 1000)) if gpus == 1 else 1000
        start = random.randrange(100)
        model = random.choice(("", "G2"))
        rows.append(
            f"p{i},{random.choice((100, 2000))},100,{gpus},{milli},{model},{start},{start + random.randrange(60)}\n"
        )
    workload = table(tmp_path, nodes, "".join(rows))
    run = Replay(workload, registry(), Policy.parse(policy))
    outcome = run.run(arrivals(workload, Order.TIME))
    run.ledger.check()
    held = [usage for name in run.ledger.nodes for usage in run.ledger.usage(name)]
    whole = sum(usage.used_memory_mib for usage in held) / sum(usage.device.memory_mib for usage in held)
    assert outcome.allocated == pytest.approx(100 * whole, abs=1e-9)
    assert outcome.refused == sum(lost.count for lost in outcome.unplaced) == outcome.curve[-1].unplaced > 0
    assert all(0 <= s.fragments <= 100 - s.allocated + 1e-6 for s in outcome.curve)
    by_model = sum(use.allocated * use.devices for use in outcome.models.values()) / workload.devices
    assert by_model == pytest.approx(outcome.allocated)


def test_equal_runs_are_equal(tmp_path: Path) -> None:
    workload = table(tmp_path, "a,9000,9,4,G2\nb,9000,9,4,G2\n", "".join(f"p{i},1,0,1,300,,,\n" for i in range(30)))
    first, second = (
        Replay(workload, registry(), Policy.parse("fragmentation")).run(arrivals(workload, Order.SHUFFLE, seed=3))
        for _ in range(2)
    )
    assert first == second


def test_every_reason_has_words() -> None:
    assert {why.word for why in Why} | {HOST_FULL, NOT_SELECTED} == set(WORDS)


def test_cards_in_mig_mode_are_cut_as_in_a_cluster() -> None:
    model = identify("NVIDIA A100-SXM4-40GB", 40960)
    assert model is not None
    card = Device(
        uuid=DeviceUuid("GPU-m"),
        index=0,
        slots=7,
        memory_mib=40960,
        cores=100,
        model="NVIDIA-A100-SXM4-40GB",
        mode=MIG,
        mig_profiles=model.offered(),
    )
    cut = node("n")
    cut["metadata"]["annotations"] = {REGISTER: write_inventory([card], "json")}
    workload = described([cut], [pod(str(i), mem=9000) for i in range(5)])
    run = Replay(workload, registry(), Policy.parse("fragmentation"))
    outcome = run.run(arrivals(workload, Order.FILE))
    # An instance with two slices of memory and one of compute is enough for each, and four of them fill the card.
    assert outcome.placed == 4
    assert outcome.unplaced[0].nodes == {Why.NO_MEMORY.word: 1}
    profiles = [held.profile for pod in run.ledger.pods.values() for held in pod.reservations]
    assert profiles == ["1g.10gb"] * 4
    memory = sum(usage.used_memory_mib for usage in run.ledger.usage(NodeName("n")))
    assert 4 * 9000 <= memory <= 40960
    assert outcome.allocated == pytest.approx(100 * memory / 40960)
