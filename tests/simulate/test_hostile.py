"""Whatever stands in a file, reading it ends with a workload or with an error that names a place."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hami.model.names import WireError
from hami.simulate import manifests, openb
from hami.simulate.replay import Policy, Replay
from hami.simulate.workload import Order, Workload, arrivals, read_workload
from hami.vendors import registry
from tests.simulate.worlds import ALLOCATED, NODES, PODS, node, pod

KNOWN = registry()
JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        3,
        10**30,
        1.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "-1",
        "1e99",
        "NaN",
        "\0",
        "é" * 300,
    ),
    *([], {}, [None], [[]], {"": ""}, {"a": {"b": []}}),
)
TOLERATION = {"key": "k", "operator": "Exists", "effect": "NoSchedule"}
TERM = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
FULL_NODE = node("n", gpus=2, labels={"zone": "a"}, taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
FULL_POD = pod(
    "p",
    cores=10,
    cpu="1",
    nodeName="n",
    nodeSelector={"zone": "a"},
    tolerations=[TOLERATION],
    affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}}},
    metadata={"annotations": ALLOCATED, "creationTimestamp": "2026-01-01T00:00:00Z"},
    status={
        "phase": "Succeeded",
        "containerStatuses": [{"name": "c", "state": {"terminated": {"finishedAt": "2026-01-01T00:01:00Z"}}}],
    },
)
JOB = {"kind": "Job", "metadata": {"name": "j"}, "spec": {"parallelism": 2, "template": {"spec": FULL_POD["spec"]}}}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from places(child, (*path, key))


def damaged(document: dict[str, Any], random: Random) -> Any:
    """The document with something else, or nothing, in one or two places."""
    result = copy.deepcopy(document)
    for _ in range(random.choice((1, 1, 2))):
        *parents, last = random.choice([path for path in places(result) if path] or [("kind",)])
        target = result
        for key in parents:
            target = target[key]
        if random.random() < 0.2:
            del target[last]
        else:
            target[last] = copy.deepcopy(random.choice(JUNK))
    return result


def placed(workload: Workload, policy: str) -> None:
    """Place what was read; whatever it says, that ends well."""
    run = Replay(workload, KNOWN, Policy.parse(policy))
    run.run(arrivals(workload, Order.FILE))
    run.ledger.check()


@given(seed=st.integers(min_value=0, max_value=2**32), keep_bound=st.booleans())
@example(seed=525, keep_bound=True)
@example(seed=858, keep_bound=False)
def test_damaged_manifests(seed: int, keep_bound: bool) -> None:
    random = Random(seed)
    nodes = [node("sound"), damaged(FULL_NODE, random) if random.random() < 0.5 else FULL_NODE]
    pods = [pod("sound"), damaged(random.choice((FULL_POD, JOB)), random)]
    wrong = ""
    try:
        workload = read_workload(
            manifests.read_nodes(json.dumps({"kind": "List", "items": nodes}), "n"),
            manifests.read_pods(json.dumps({"kind": "List", "items": pods}), "p"),
            KNOWN,
            keep_bound=keep_bound,
        )
    except WireError as error:
        wrong = error.field
    else:
        placed(workload, "fragmentation")
    assert not wrong or wrong.startswith(("n: items[", "p: items["))


SIGNS = [*"0123456789,.-\n\r\"'|eE+ \t\0\x0b\u2028é", "NaN", "inf", "1000"]


def scribbled(text: str, random: Random) -> str:
    """The text with something else in one place."""
    at = random.randrange(len(text))
    return f"{text[:at]}{random.choice(SIGNS)}{text[at + random.randrange(3) :]}"


@given(seed=st.integers(min_value=0, max_value=2**32))
def test_damaged_tables(seed: int) -> None:
    random = Random(seed)
    nodes, pods = NODES + "a,64000,1024,2,G2\nb,1,1,0,\n", PODS + "p,1000,512,1,500,G2|T4,1,2\nq,0,0,2,1000,,,\n"
    wrong = ""
    try:
        node_items = openb.read_nodes(scribbled(nodes, random) if random.random() < 0.5 else nodes, "n")
        workload = read_workload(
            node_items, openb.read_pods(scribbled(pods, random), "p", openb.models(node_items)), KNOWN
        )
    except WireError as error:
        wrong = error.field
    else:
        placed(workload, "binpack")
    assert not wrong or wrong.startswith(("n", "p"))


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    for read in (manifests.read_nodes, manifests.read_pods, openb.read_nodes):
        with pytest.raises(WireError) as caught:
            read(text, "f")
        assert caught.value.field.startswith("f")


def test_a_deep_document_is_refused_and_not_followed(tmp_path: Path) -> None:
    for text in ("[" * 100_000, "{a: " * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000):
        with pytest.raises(WireError, match="f"):
            manifests.read_pods(text, "f")
