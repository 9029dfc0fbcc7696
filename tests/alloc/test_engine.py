"""The engine against the slow allocator of `oracle.py`, on many small random clusters.

Compared on every node: fits or not, the assignment, the reasons with their counts and numbers, the score and the rank.
Not covered here: the ledger's bookkeeping over time (`test_ledger.py`).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hami.alloc import _ask
from hami.alloc.ledger import Ledger
from hami.alloc.place import place, place_on
from hami.alloc.policy import SortKey
from hami.alloc.quota import Quotas
from hami.model.claim import NodeRefusal, Placed, PodRequest, Refused, Role, Why
from hami.model.names import NodeName, PodKey, PodUid, VendorWord
from tests.alloc import oracle, worlds

CASES = int(os.environ.get("HAMI_ENGINE_CASES", "50000"))
REQUESTS_A_WORLD = 8
SHARDS = 10


def quotas(limits: Mapping[VendorWord, tuple[int | None, int | None]], namespace: str) -> Quotas:
    hard = {}
    for family, (memory, cores) in limits.items():
        resources = worlds.REGISTRY[family].resources
        if memory is not None:
            hard[f"limits.{resources.memory}"] = str(memory)
        if cores is not None:
            hard[f"limits.{resources.cores}"] = str(cores)
    found = Quotas(worlds.REGISTRY)
    found.put({"metadata": {"namespace": namespace, "name": "q"}, "spec": {"hard": hard}})
    return found


def compare(rng: Random, label: str) -> int:
    """One random cluster, several requests; answers the number of cases compared."""
    nodes = [worlds.node(rng, f"n{i}") for i in range(rng.randint(1, 4))]
    pods = [worlds.record(rng, f"p{i}", nodes) for i in range(rng.randint(0, 6))]
    ledger = Ledger(worlds.REGISTRY)
    tellings: list[Callable[[], bool]] = [
        *[partial(ledger.put_node, node) for node in nodes],
        *[partial(ledger.put_pod, pod) for pod in pods],
    ]
    rng.shuffle(tellings)
    for tell in tellings:
        tell()
    for number in range(REQUESTS_A_WORLD):
        request = worlds.request(rng, f"u{number}", nodes)
        exclude = rng.choice((None, None, PodUid("p0"), PodUid("nobody")))
        limits = {
            family: (rng.choice((None, 0, 3000, 8000)), rng.choice((None, None, 0, 100)))
            for family in (worlds.NVIDIA, worlds.OTHER)
            if rng.random() < 0.3
        }
        policies = {"node_policy": rng.choice(worlds.NODE_POLICIES), "card_policy": rng.choice(worlds.CARD_POLICIES)}
        scored = rng.random() < 0.2
        told_label = f"{label}, request {number}"
        expected = oracle.decide(
            nodes, pods, request, worlds.REGISTRY, limits=limits, exclude=exclude, request_scored=scored, **policies
        )
        quota = quotas(limits, request.key.namespace) if limits else None
        names = rng.choice((None, [record.name for record in nodes]))
        verdict = place(ledger, request, names, quota=quota, exclude=exclude, request_scored=scored, **policies)
        if limits:
            # A quota may refuse the one way that was found.
            expected = settled(verdict, expected)
        agree(verdict, expected, told_label, all_named=names is not None)
        for record in nodes:
            answer = place_on(
                ledger,
                request,
                record.name,
                card_policy=policies["card_policy"],
                quota=quota,
                exclude=exclude,
                request_scored=scored,
            )
            if record.name in expected.otherwise:
                assert not isinstance(answer, NodeRefusal), (
                    f"{told_label}: {record.name} fits in another way; {request}"
                )
                assert expected.trial.is_right(expected.nodes[record.name], answer), (
                    f"{told_label}: {answer}; {request}"
                )
                continue
            want = expected.refusals.get(record.name) or expected.assignments[record.name]
            assert answer == want, f"{told_label}: {record.name} answers {answer}, should be {want}; {request}"
        ledger.check()
    return REQUESTS_A_WORLD


def settled(verdict: Placed | Refused, expected: oracle.Verdict) -> oracle.Verdict:
    """Nodes that fit in another way, but refuse: as they would without that way."""
    refusing = {name: why for name, why in expected.otherwise.items() if name in verdict.refusals}
    return replace(
        expected,
        refusals={**expected.refusals, **refusing},
        otherwise={name: why for name, why in expected.otherwise.items() if name not in refusing},
        ranking=[(name, score) for name, score in expected.ranking if name not in refusing],
    )


def agree(verdict: Placed | Refused, expected: oracle.Verdict, label: str, *, all_named: bool) -> None:
    refusals = {
        name: refusal
        for name, refusal in expected.refusals.items()
        # Without names, every registered node is a candidate.
        if all_named or Why.UNREGISTERED not in refusal.counts
    }
    assert dict(verdict.refusals) == refusals, f"{label}: refusals differ"
    if isinstance(verdict, Refused):
        assert not expected.ranking, f"{label}: refused, but {expected.ranking} fit"
        return
    if expected.otherwise:
        # Links of a set found in another way are whatever they are.
        assert sorted(verdict.scores) == sorted(expected.ranking), f"{label}: fitting nodes differ"
    else:
        assert list(verdict.scores) == expected.ranking, f"{label}: ranking differs"
    best = verdict.scores[0][0]
    if best in expected.otherwise:
        assert expected.trial.is_right(expected.nodes[best], verdict.assignment), f"{label}: {verdict.assignment}"
        return
    assert verdict.assignment == expected.assignments[best], f"{label}: assignment differs"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_agrees_with_the_slow_allocator(shard: int) -> None:
    compared = 0
    seed = shard * 1_000_003
    while compared < CASES // SHARDS:
        compared += compare(Random(seed), f"seed {seed}")
        seed += 1
    assert compared >= CASES // SHARDS


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.randoms(use_true_random=False))
def test_agrees_on_cases_that_shrink(rng: Random) -> None:
    assert compare(rng, "drawn") == REQUESTS_A_WORLD


@pytest.mark.parametrize("seed", range(100))
def test_permuting_nodes_permutes_the_answer(seed: int) -> None:
    rng = Random(seed)
    nodes = [worlds.node(rng, f"n{i}") for i in range(6)]
    pods = [worlds.record(rng, f"p{i}", nodes) for i in range(6)]
    request = worlds.request(rng, "u", nodes)
    answers: list[object] = []
    for _ in range(4):
        rng.shuffle(nodes)
        rng.shuffle(pods)
        ledger = Ledger(worlds.REGISTRY)
        for record in nodes:
            ledger.put_node(record)
        for pod in pods:
            ledger.put_pod(pod)
        names = rng.choice((None, [record.name for record in nodes if record.inventories]))
        verdict = place(ledger, request, names, node_policy="binpack", card_policy="spread")
        known = {name: refusal for name, refusal in verdict.refusals.items() if Why.UNREGISTERED not in refusal.counts}
        answers.append((getattr(verdict, "assignment", None), getattr(verdict, "scores", None), known))
    assert all(answer == answers[0] for answer in answers), f"seed {seed}"


def test_numbers_in_step() -> None:
    """The C enums and the Python ones are the same, name by name."""
    whys = {name: number for name, number in _ask.NUMBERS.items() if name in Why.__members__}
    assert whys == {why.name: int(why) for why in Why}
    assert _ask.NUMBERS["WHYS"] == len(Why)
    assert {key.name: int(key) for key in SortKey}.items() <= _ask.NUMBERS.items()
    assert {role.name for role in Role} <= set(_ask.NUMBERS)


def test_a_name_given_twice_counts_once_and_unknown_names_refuse() -> None:
    rng = Random(3)
    record = worlds.node(rng, "n")
    ledger = Ledger(worlds.REGISTRY)
    ledger.put_node(record)
    request = PodRequest(uid=PodUid("u"), key=PodKey("a", "u"), containers=())
    verdict = place(ledger, request, ["n", "n", "x", "x"], node_policy="binpack", card_policy="spread")
    assert isinstance(verdict, Placed)
    assert [name for name, _ in verdict.scores] == ["n"]
    assert dict(verdict.refusals) == {NodeName("x"): NodeRefusal(counts={Why.UNREGISTERED: 1})}
    assert verdict.refusals[NodeName("x")].text == "node unregistered"
    with pytest.raises(KeyError):
        verdict.refusals[NodeName("n")]
