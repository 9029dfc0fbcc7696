"""Any family's pods, in any order: a scheduler that starts anew decides as one that has seen them all come and go.

The pods are those of the cases by hand, several of them at a time in one pod, too; each history is random.
"""

import random
from typing import Any

import pytest

from hami.alloc.admit import admit
from hami.alloc.place import place
from hami.alloc.request import RequestError, read_request
from hami.model.claim import Placed
from hami.model.settings import SchedulerSettings
from tests.alloc.jsonpatch import apply_patch
from tests.golden.test_cases import FAMILIES, FILES, described, vendor_of
from tests.golden.test_filter import World

Json = dict[str, Any]
HISTORIES = 6
STEPS = 14


def record_of(file: Json) -> Json:
    nodes = [described(name, one, vendor_of(file)) for name, one in file["nodes"].items()]
    return {
        "config": {"devices": {}, "flags": {}},
        "nodes": nodes,
        "existing": [],
        "pod": pod_of(file, {}, "nobody", []),
    }


def pod_of(file: Json, notes: Json, name: str, asked: list[Json], inits: int = 0) -> Json:
    containers = [
        {"name": f"c{i}", "resources": {"limits": {file["prefix"] + key: str(value) for key, value in asks.items()}}}
        for i, asks in enumerate(asked)
    ]
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": dict(notes)},
        "spec": {"initContainers": containers[:inits], "containers": containers[inits:]},
    }


def random_pod(rng: random.Random, file: Json, number: int) -> Json | None:
    """A pod as admission lets it through, or None."""
    case = rng.choice(file["cases"])
    asked = case["asks"] if isinstance(case["asks"], list) else [case["asks"]]
    asked = [rng.choice(asked) for _ in range(rng.choice((1, 1, 2, 3)))]
    notes = {key: str(text) for key, text in (case.get("notes") or {}).items()}
    notes["hami.io/gpu-scheduler-policy"] = rng.choice(("binpack", "spread"))
    pod = pod_of(file, notes, f"p{number}", asked, rng.randint(0, len(asked) - 1) if len(asked) > 1 else 0)
    verdict = admit(pod, registry=FAMILIES, settings=SchedulerSettings(), namespace="default", username="somebody")
    return apply_patch(pod, verdict.patch) if verdict.allowed else None


def decided(world: World, pod: Json) -> object:
    """Where a pod would go and with what, or why nowhere."""
    verdict = place(world.ledger, read_request(pod, FAMILIES), None, node_policy="binpack", card_policy="spread")
    if isinstance(verdict, Placed):
        return verdict.assignment, list(verdict.scores)
    return {name: refusal.text for name, refusal in verdict.refusals.items()}


def history(name: str, seed: int) -> int:
    """One history; how many pods were placed."""
    rng, file = random.Random(f"{name} {seed}"), FILES[name]
    world, placed = World(record_of(file), FAMILIES), 0
    for number in range(STEPS):
        pod = random_pod(rng, file, number)
        if pod is None:
            continue
        anew = World(record_of(file) | {"existing": list(world.pods.values())}, FAMILIES)
        assert not anew.problems
        try:
            expected = decided(world, pod)
        except RequestError:
            continue
        assert decided(anew, pod) == expected, f"{name}, seed {seed}, step {number}: {pod}"
        placed += world.filter(pod, list(file["nodes"])).nodes is not None
        if world.pods and rng.random() < 0.3:
            gone = world.pods.pop(rng.choice(list(world.pods)))
            world.ledger.drop_pod(read_request(gone, FAMILIES).uid)
    return placed


@pytest.mark.parametrize("name", FILES)
def test_a_restart_changes_no_decision(name: str) -> None:
    assert sum(history(name, seed) for seed in range(HISTORIES)) > HISTORIES
