"""What people read: HAMi's sentences unchanged, then counts, within the length that the API takes."""

import pytest

from hami.model.claim import Assignment, NodeRefusal, Placed, Why
from hami.model.names import NodeName
from hami.model.vendor import Registry
from hami.scheduler import verdicts
from hami.scheduler.extender import priorities
from hami.vendors.cambricon import MLU


def placed(scores: dict[str, float], *, refused: int = 0) -> Placed:
    ranked = tuple((NodeName(name), score) for name, score in scores.items())
    refusals = {NodeName(f"r{i}"): NodeRefusal(counts={Why.UNREGISTERED: 1}) for i in range(refused)}
    return Placed(assignment=Assignment(node=ranked[0][0], segments={}), scores=ranked, refusals=refusals)


def test_success_reads_as_hami_writes_it() -> None:
    text = verdicts.found(placed({"n2": 2.976, "n1": 0.0}, refused=1))
    assert text == "find fit node(n2), 1 nodes not fit, 2 nodes fit(n1:0.00,n2:2.98)"


def test_success_among_thousands_stays_short() -> None:
    text = verdicts.found(placed({f"node-with-a-long-name-{i:05d}": 1.0 for i in range(5000)}))
    assert text.startswith("find fit node(node-with-a-long-name-00000), 0 nodes not fit, 5000 nodes fit(4980 more ...")
    assert len(text.encode()) <= 1024


def test_refusal_counts_devices_and_names_nodes() -> None:
    refusals = {
        NodeName("n1"): NodeRefusal(counts={Why.NO_MEMORY: 2}, devices=2, largest_free_mib=2048),
        NodeName("n2"): NodeRefusal(counts={Why.NO_MEMORY: 1, Why.UNHEALTHY: 1}, devices=2, largest_free_mib=512),
        NodeName("n3"): NodeRefusal(counts={Why.UNREGISTERED: 1}),
    }
    text = verdicts.refused(refusals)
    assert text.startswith("no available node, 3 nodes do not meet: ")
    assert "3 devices short of memory (largest free 2,048 MiB), 1 unhealthy" in text
    assert "; 2 nodes CardInsufficientMemory(n1,n2); " in text
    assert "1 nodes node unregistered(n3)" in text
    hinted = verdicts.refused(refusals, "3g.20gb would fit GPU-a of n1 without ns/p (may be moved)")
    assert "1 unhealthy" in hinted.partition("; 3g.20gb would fit GPU-a of n1 without ns/p (may be moved); ")[0]
    assert verdicts.texts(refusals) == {name: refusal.text for name, refusal in refusals.items()}


def test_amounts_are_told_in_the_units_that_the_pod_asks_in() -> None:
    refusal = NodeRefusal(counts={Why.NO_MEMORY: 1}, devices=1, largest_free_mib=4096, vendor=MLU.name)
    text = verdicts.refused({NodeName("n1"): refusal}, "", Registry((MLU,)), "1 device")
    assert "largest free 4,096 MiB (16 units of 256 MiB)); asked: 1 device; 1 nodes" in text


def test_refusal_by_thousands_stays_short() -> None:
    refusals = {
        NodeName(f"node-{i}"): NodeRefusal(counts=dict.fromkeys(list(Why)[:13], 1), devices=8) for i in range(5000)
    }
    text = verdicts.refused(refusals)
    assert "... and 4995 more" in text
    assert len(text.encode()) <= 1024


@pytest.mark.parametrize("limit", range(3, 12))
def test_cut_never_splits_a_character(limit: int) -> None:
    short = verdicts.cut("aüöä漢字", limit)
    assert len(short.encode()) <= limit
    assert short.rstrip(".") in "aüöä漢字"


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"a": 5.0}, {"a": 10}),
        ({"a": 5.0, "b": 5.0}, {"a": 10, "b": 10}),
        ({"a": 9.0, "b": 3.0, "c": 1.0}, {"a": 10, "b": 5, "c": 0}),
        # Spread ranks the lowest score first: the order counts, not the number.
        ({"a": 0.0, "b": 0.0, "c": 7.0}, {"a": 10, "b": 10, "c": 0}),
        ({}, {}),
    ],
)
def test_priorities_follow_the_ranking(scores: dict[str, float], expected: dict[str, int]) -> None:
    assert priorities(tuple((NodeName(name), score) for name, score in scores.items())) == expected
