"""Objects into tasks, and the order in which they come."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.model.claim import PodRequest
from hami.model.device import NodeRecord
from hami.model.names import NodeName, PodKey, PodUid, WireError
from hami.simulate import workload as module
from hami.simulate.fleet import More, enlarged
from hami.simulate.workload import Order, Task, Workload, arrivals
from tests.simulate.worlds import ALLOCATED, REGISTER, described, node, pod, table


@pytest.mark.parametrize(
    ("mem", "cores", "milli"),
    [(250, 0, 250), (250, 40, 400), (5000, 0, 1000), (500, 50, 500), (None, 0, 0)],
)
def test_a_task_counts_by_the_larger_of_memory_and_cores(mem: int | None, cores: int, milli: int) -> None:
    assert described([node()], [pod(mem=mem, cores=cores if mem else 0)]).tasks[0].milli == milli


def test_amounts_of_memory_count_against_the_usual_device() -> None:
    nodes = [node("a", mib=1000), node("b", mib=3000)]
    assert described(nodes, [pod(mem=500)]).tasks[0].milli == 250


def test_pods_no_scheduler_could_serve_are_told_apart() -> None:
    found = described([node()], [pod(mem="-5"), pod(mem="lots"), pod(mem=5)])
    assert [where for where, _ in found.refused] == ["p0", "p1"]
    assert all("nvidia.com/gpumem" in reason for _, reason in found.refused)
    assert [task.where for task in found.tasks] == ["p2"]


def test_what_a_cluster_would_leave_out_is_left_out_and_said() -> None:
    broken = node("b")
    broken["metadata"]["annotations"][REGISTER] = "{"
    found = described([node("a"), broken], [])
    assert found.devices == 1
    (problem,) = found.problems
    assert problem[0] == "n1: node b"
    assert REGISTER in problem[1]


@pytest.mark.parametrize(
    ("nodes", "field", "expected"),
    [
        ([node("a"), node("a")], "n1: metadata.name", "another name than that of n0"),
        ([node("")], "n0: metadata.name", "a name"),
        ([node("a", gpus=0)], "n0", "a registered device"),
    ],
)
def test_nodes_that_no_cluster_has_are_refused(nodes: list[dict[str, Any]], field: str, expected: str) -> None:
    with pytest.raises(WireError) as caught:
        described(nodes, [])
    assert caught.value.field == field
    assert expected in caught.value.expected


def test_bound_pods_keep_their_place_where_that_is_asked() -> None:
    bound = pod("b", nodeName="n", metadata={"annotations": ALLOCATED}, cpu="2")
    plain = pod("c", mem=None, nodeName="n", cpu="3")
    lost = pod("d", nodeName="elsewhere", metadata={"annotations": {**ALLOCATED, "hami.io/vgpu-node": "elsewhere"}})
    pods = [bound, plain, lost, pod("new")]
    assert [task.where for task in described([node()], pods).tasks] == ["p0", "p1", "p2", "p3"]
    found = described([node()], pods, keep_bound=True)
    assert [task.where for task in found.tasks] == ["p3"]
    assert [(each.where, each.record is not None, each.host.cpu_milli) for each in found.bound] == [
        ("p0", True, 2000),
        ("p1", False, 3000),
    ]
    assert found.problems == (("p2", "bound to elsewhere, which is not among the nodes"),)


def task(name: str, milli: int, **more: object) -> Task:
    request = PodRequest(uid=PodUid(name), key=PodKey("ns", name), containers=())
    return replace(Task(where=name, request=request, milli=milli), **more)  # type: ignore[arg-type]


def listed(*tasks: Task, devices: int = 10) -> Workload:
    none: tuple[NodeRecord, ...] = ()
    return Workload(nodes=none, sites=(), tasks=tasks, bound=(), refused=(), problems=(), devices=devices)


TASKS = [task(f"t{i}", milli) for i, milli in enumerate([1000, 500, 250, 0, 2000, 100])]


def test_the_lists_order_is_kept_and_nobody_leaves() -> None:
    timed = [replace(each, arrives=5.0, leaves=6.0) for each in TASKS]
    assert arrivals(listed(*timed), Order.FILE) == TASKS


@given(st.integers(min_value=0, max_value=2**32 - 1), st.floats(min_value=0.05, max_value=5))
def test_a_load_is_met_and_never_by_more_than_one_pod(seed: int, load: float) -> None:
    workload = listed(*TASKS)
    found = arrivals(workload, Order.SHUFFLE, seed=seed, load=load)
    assert found == arrivals(workload, Order.SHUFFLE, seed=seed, load=load)
    asked, goal = sum(each.milli for each in found), load * workload.milli
    # What is dropped beyond the load is made up for by copies, so the last pod always goes beyond it.
    assert goal <= asked <= goal + 2000
    if sum(each.milli for each in TASKS) < goal:
        assert not Counter(each.where for each in TASKS) - Counter(each.where for each in found)


def test_seeds_differ_and_no_seed_is_one_too() -> None:
    workload = listed(*(task(f"t{i}", 100) for i in range(50)))
    orders = [[each.where for each in arrivals(workload, Order.SHUFFLE, seed=seed)] for seed in (1, 2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert arrivals(workload, Order.FILE, load=1.5) == arrivals(workload, Order.FILE, load=1.5)


def test_finished_pods_come_only_by_their_times() -> None:
    over = task("over", 100, arrives=1.0, leaves=2.0, finished=True)
    live = task("live", 100, arrives=0.0)
    workload = listed(over, live)
    assert [each.where for each in arrivals(workload, Order.FILE)] == ["live"]
    assert [each.where for each in arrivals(workload, Order.TIME)] == ["live", "over"]


@pytest.mark.parametrize(
    ("tasks", "order", "load", "field"),
    [
        ([task("a", 0)], Order.FILE, 1.0, "load"),
        ([task("a", 1, arrives=0.0), task("b", 1)], Order.TIME, None, "b"),
        ([task("a", 1, arrives=0.0)], Order.TIME, 1.0, "load"),
    ],
)
def test_orders_a_list_cannot_have(tasks: list[Task], order: Order, load: float | None, field: str) -> None:
    with pytest.raises(WireError) as caught:
        arrivals(listed(*tasks), order, load=load)
    assert caught.value.field == field


def test_a_load_is_bounded_in_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PODS", 20)
    with pytest.raises(WireError, match="a load of at most 20 pods"):
        arrivals(listed(task("a", 1)), Order.FILE, load=1.0)


def test_more_nodes_are_copies_with_devices_of_their_own(tmp_path: Path) -> None:
    workload = enlarged(table(tmp_path, "a,1000,1,2,G2\nb,1000,1,1,T4\n", "p,0,0,1,500,,,\n"), More.parse("2:a"))
    assert [record.name for record in workload.nodes] == ["a", "b", "a+1", "a+2"]
    assert workload.devices == 7
    uuids = [d.uuid for record in workload.nodes for part in record.inventories for d in part.devices]
    assert len(set(uuids)) == 7
    assert len(workload.sites) == 4
    assert workload.sites[3].fields == {"metadata.name": "a+2"}


def test_copies_keep_their_links() -> None:
    original = node("a", gpus=2)
    original["metadata"]["annotations"]["hami.io/node-nvidia-score"] = (
        '[{"uuid":"a-0","score":{"a-1":100}},{"uuid":"a-1","score":{"a-0":100}}]'
    )
    workload = enlarged(described([original], []), More.parse("1:a"))
    links = workload.nodes[1].inventories[0].links
    assert links is not None
    first, second = (device.uuid for device in workload.nodes[1].inventories[0].devices)
    assert links.score(first, second) == 100


@pytest.mark.parametrize("text", ["", "10", "10:", ":a", "0:a", "-1:a", "99999:a", "x:a", "²:a"])
def test_a_wrong_number_of_more_nodes_is_named(text: str) -> None:
    with pytest.raises(WireError, match="--more: expected COUNT:NODE"):
        More.parse(text)


def test_more_of_a_node_that_is_not_there(tmp_path: Path) -> None:
    workload = table(tmp_path, "a,1000,1,2,G2\n", "p,0,0,1,500,,,\n")
    with pytest.raises(WireError, match="--more: expected one of the 1 nodes, as a, got 'b'"):
        enlarged(workload, More(count=1, node=NodeName("b")))
    with pytest.raises(WireError, match="--more: expected each node once"):
        enlarged(enlarged(workload, More.parse("1:a")), More.parse("2:a"))
