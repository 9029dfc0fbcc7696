"""Tables in openb's columns: what they become, and where a mistake is said to be."""

import pytest

from hami.model.claim import Mib, Percent
from hami.model.names import WireError
from hami.simulate import openb
from hami.simulate.workload import read_workload
from hami.vendors import registry
from tests.simulate.worlds import NODES, PODS

ONE_NODE = NODES + "a,64000,1024,2,G2\n"
ONE_POD = PODS + "p,1000,512,1,500,,,\n"


def test_rows_become_nodes_and_requests() -> None:
    nodes = openb.read_nodes(NODES + "a,64000,1024,2,G2\nb,32000,512,0,\n", "n")
    pods = openb.read_pods(
        PODS + "share,1500,512,1,250,,0,60\nwhole,0,0,4,1000,G2|T4,5,\nplain,100,1,0,0,,,\n", "p", ["G2"]
    )
    workload = read_workload(nodes, pods, registry())
    assert [len(node.inventories) for node in workload.nodes] == [1, 0]
    assert workload.devices == 2
    share, whole, plain = workload.tasks
    assert (share.milli, whole.milli, plain.milli) == (250, 4000, 0)
    assert (share.arrives, share.leaves, whole.leaves) == (0.0, 60.0, None)
    need = share.request.containers[0].needs[0]
    assert (need.count, need.memory, need.cores) == (1, Mib(250), 0)
    need = whole.request.containers[0].needs[0]
    assert (need.count, need.memory, need.cores) == (4, Percent(100), 100)
    assert whole.request.selections[need.vendor].type_in == ("G2", "T4")
    assert share.request.host.cpu_milli == 1500
    assert not plain.request.vendors


def test_allowed_models_are_whole_names() -> None:
    nodes = openb.read_nodes(NODES + "a,1,1,1,V100\nb,1,1,1,V100M32\n", "n")
    (pod,) = openb.read_pods(PODS + "p,0,0,1,1000,V100,,\n", "p", openb.models(nodes))
    workload = read_workload(nodes, [pod], registry())
    (selection,) = workload.tasks[0].request.selections.values()
    assert (selection.type_in, selection.type_out) == (("V100",), ("V100M32",))


@pytest.mark.parametrize(
    ("row", "place", "expected", "got"),
    [
        ("p,x,512,1,500,,,", ":2: column cpu_milli", "a whole number", "'x'"),
        ("p,-1,512,1,500,,,", ":2: column cpu_milli", "a whole number from 0", "'-1'"),
        ("p,NaN,512,1,500,,,", ":2: column cpu_milli", "a whole number", "'NaN'"),
        ("p,inf,512,1,500,,,", ":2: column cpu_milli", "a whole number", "'inf'"),
        ("p,1.5,512,1,500,,,", ":2: column cpu_milli", "a whole number", "'1.5'"),
        ("p,1,-512,1,500,,,", ":2: column memory_mib", "a whole number", "'-512'"),
        ("p,9999999999999999,512,1,500,,,", ":2: column cpu_milli", "to 1000000000000", "'9999999999999999'"),
        ("p,1,512,9999,1000,,,", ":2: column num_gpu", "from 0 to 1024", "'9999'"),
        ("p,1,512,1,0,,,", ":2: column gpu_milli", "from 1 to 1000", "'0'"),
        ("p,1,512,1,1001,,,", ":2: column gpu_milli", "from 1 to 1000", "'1001'"),
        ("p,1,512,2,500,,,", ":2: column gpu_milli", "1000, because several GPUs are whole ones", "500"),
        ("p,1,512,1,500,,soon,", ":2: column creation_time", "a whole number", "'soon'"),
        ("p,1,512,1,500,,10,9", ":2: column deletion_time", "from the creation_time 10 on", "9.0"),
        ("p,1,512,1,500", ":2", "8 columns", "'5 columns'"),
        ("p,1,512,1,500,,,,", ":2", "8 columns", "'9 columns'"),
        ('p,1,512,1,500,"G2,,', ":2", "comma-separated values", None),
        (f"{'p' * 200_000},1,512,1,500,,,", ":2", "comma-separated values (field larger", None),
    ],
)
def test_a_bad_pod_row_is_named(row: str, place: str, expected: str, got: str | None) -> None:
    with pytest.raises(WireError) as caught:
        openb.read_pods(f"{PODS}{row}\n", "list.csv", ["G2"])
    assert caught.value.field == f"list.csv{place}"
    assert expected in caught.value.expected
    if got is not None:
        assert str(caught.value).endswith(f"got {got}")


@pytest.mark.parametrize(
    ("row", "place", "expected"),
    [
        ("a,1,1,-1,G2", ":3: column gpu", "a whole number from 0 to 1024"),
        ("a,1,1,2000,G2", ":3: column gpu", "a whole number from 0 to 1024"),
        ("a,1,1,1,", ":3: column model", "the model of the node's GPUs"),
        ("a,1,,1,G2", ":3: column memory_mib", "a whole number"),
    ],
)
def test_a_bad_node_row_is_named(row: str, place: str, expected: str) -> None:
    with pytest.raises(WireError) as caught:
        openb.read_nodes(f"{NODES}\n{row}\n", "nodes.csv")
    assert caught.value.field == f"nodes.csv{place}"
    assert expected in caught.value.expected


def test_the_line_is_the_files_even_after_a_quoted_line_break() -> None:
    with pytest.raises(WireError, match=r"list.csv:4: column gpu_milli"):
        openb.read_pods(f'{PODS}"two\nlines",1,1,1,500,,,\np,1,1,1,x,,,\n', "list.csv", [])


def test_columns_are_found_by_name_in_any_order() -> None:
    (pod,) = openb.read_pods("gpu_milli,extra,num_gpu,memory_mib,cpu_milli\n500,?,1,2,3\n", "p", [])
    assert pod.document["metadata"]["name"] == "p:2"


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("cpu_milli,memory_mib,num_gpu\n1,1,1\n", "gpu_milli"),
        ("cpu_milli,cpu_milli,memory_mib,num_gpu,gpu_milli\n1,1,1,1,1\n", "cpu_milli"),
    ],
)
def test_a_missing_or_doubled_column_is_named(text: str, column: str) -> None:
    with pytest.raises(WireError, match=f"p.csv:1: column {column}: expected one column of this name"):
        openb.read_pods(text, "p.csv", [])


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(WireError, match=r"p.csv: expected at least one row"):
        openb.read_pods(PODS, "p.csv", [])


def test_the_devices_of_all_nodes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openb, "MOST_DEVICES", 3)
    with pytest.raises(WireError, match=r"n.csv:3: column gpu: expected at most 3 GPUs in all"):
        openb.read_nodes(NODES + "a,1,1,2,G2\nb,1,1,2,G2\n", "n.csv")


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openb, "MOST_PODS", 2)
    with pytest.raises(WireError, match=r"p.csv:4: expected at most 2 rows"):
        openb.read_pods(PODS + "p,1,1,1,500,,,\n" * 3, "p.csv", [])


@pytest.mark.parametrize(
    ("text", "want"),
    [(ONE_NODE, True), (ONE_POD, True), ("kind: Node\n", False), ("", False), ("{}", False)],
)
def test_a_table_is_known_by_its_first_line(text: str, want: bool) -> None:
    assert openb.is_table(text) is want
