"""Placement against what the reference answered to `/filter`: fits or not, node by node; where, which cards, how much.

Covers reading of nodes and pods, quotas, placement, the ledger over whole sequences, and the annotations a binding
carries. Not covered: the extender's HTTP, events, and the node lock.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hami.alloc.ledger import Ledger, hold_of
from hami.alloc.place import place
from hami.alloc.quota import Quotas
from hami.alloc.record import annotations, labels, read_node, read_pod
from hami.alloc.request import RequestError, WeightsError, read_request
from hami.model.claim import Placed, PodRequest, Refused, Why
from hami.model.names import NodeName, PodUid
from hami.model.settings import read_device_config
from hami.model.vendor import Registry
from hami.model.wire import pod as keys
from hami.vendors import registry

DATA = Path(__file__).parent / "data"
FILES = ("nvidia", "nvidia-topology")


def records(kind: str, files: Sequence[str] = FILES) -> list[dict[str, Any]]:
    lines = [line for name in files for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


class World:
    """A cluster as one record describes it, and what filters do to it."""

    def __init__(self, record: Mapping[str, Any], families: Registry | None = None) -> None:
        self.registry = families or registry(read_device_config(record["config"]["devices"]))
        self.flags = record["config"]["flags"]
        self.ledger = Ledger(self.registry)
        self.quotas = Quotas(self.registry)
        self.pods: dict[str, dict[str, Any]] = {}
        """As the watch last showed them."""
        self.asked: dict[str, dict[str, Any]] = {}
        """As they were first filtered."""
        self.problems: list[str] = []
        self.namespace = namespace_of(record)
        for name, hard in (record.get("quotas") or {}).items():
            self.quota(name, hard)
        for node in record["nodes"]:
            self.node(node["name"], node)
        for pod in record["existing"]:
            self.tell(pod)

    def quota(self, name: str, hard: Mapping[str, str] | None) -> None:
        if hard is None:
            self.quotas.drop(self.namespace, name)
        else:
            self.quotas.put({"metadata": {"namespace": self.namespace, "name": name}, "spec": {"hard": hard}})

    def node(self, name: str, node: Mapping[str, Any] | None) -> None:
        if node is None:
            self.ledger.drop_node(NodeName(name))
            return
        document = {"metadata": node, "status": {"capacity": node["capacity"], "allocatable": node["capacity"]}}
        found, problems = read_node(document, self.registry)
        self.problems += map(str, problems)
        self.ledger.put_node(found)
        self.ledger.check()

    def tell(self, pod: dict[str, Any]) -> None:
        """A pod as the watch shows it now."""
        self.pods[pod["metadata"]["name"]] = pod
        found, problems = read_pod(pod, self.registry)
        self.problems += map(str, problems)
        if found is None:
            self.ledger.drop_pod(read_request(pod, self.registry).uid)
        else:
            self.ledger.put_pod(found)
        self.ledger.check()

    def filter(self, pod: Mapping[str, Any], candidates: list[str]) -> "Answer":
        """One `/filter`, bound at once when it fits."""
        try:
            request = read_request(pod, self.registry)
        except WeightsError as error:
            return Answer(error=str(error))
        except RequestError:
            return Answer(failed=dict.fromkeys(candidates, Why.INVALID_REQUEST.word))
        if not request.vendors:
            return Answer(nodes=candidates)
        verdict = place(
            self.ledger,
            request,
            candidates,
            node_policy=self.flags.get("node-scheduler-policy", "binpack"),
            card_policy=self.flags.get("gpu-scheduler-policy", "spread"),
            quota=self.quotas,
            exclude=request.uid,
        )
        self.ledger.check()
        if isinstance(verdict, Refused):
            self.ledger.drop_pod(request.uid)
            return Answer(failed={name: refusal.text for name, refusal in verdict.refusals.items()})
        return self._bind(pod, request, verdict)

    def _bind(self, pod: Mapping[str, Any], request: PodRequest, verdict: Placed) -> "Answer":
        self.ledger.put_pod(hold_of(request, verdict.assignment))
        held = self.ledger.held_by(request.uid)
        bound = copy.deepcopy(dict(pod))
        written = annotations(
            verdict.assignment,
            self.registry,
            now_unix=1_787_299_200,
            request=request,
            node=self.ledger.node(verdict.assignment.node),
        )
        bound["metadata"].setdefault("annotations", {}).update(written)
        bound["spec"]["nodeName"] = verdict.assignment.node
        self.tell(bound)
        assert self.ledger.held_by(request.uid) == held, "the bound pod holds something else than was decided"
        return Answer(
            nodes=[verdict.assignment.node],
            fitting=[name for name, _ in verdict.scores],
            scores={name: f"{score:.2f}" for name, score in verdict.scores},
            written=written,
            labels=labels(verdict.assignment),
        )


class Answer:
    """A filter's answer, in the terms of the records."""

    def __init__(
        self,
        *,
        nodes: list[str] | None = None,
        failed: Mapping[str, str] | None = None,
        error: str = "",
        fitting: list[str] | None = None,
        scores: Mapping[str, str] | None = None,
        written: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.nodes = nodes
        self.failed = dict(failed or {})
        self.error = error
        self.fitting = fitting or []
        self.scores = dict(scores or {})
        self.written = dict(written or {})
        self.labels = dict(labels or {})


def namespace_of(record: Mapping[str, Any]) -> str:
    """The one namespace of a record's pods."""
    steps = (record.get("got") or {}).get("steps", ())
    pod = record.get("pod") or next(step["pod"] for step in steps if "pod" in step)
    return str(pod["metadata"]["namespace"])


def judge(record: Mapping[str, Any]) -> tuple[Answer, World]:
    world = World(record)
    return world.filter(record["pod"], record["candidates"]), world


def scores_told(got: Mapping[str, Any]) -> dict[str, str] | None:
    """Scores by node from the recorded success event."""
    for event in got.get("events", ()):
        if event["reason"] == "FilteringSucceed":
            listed = event["message"].rpartition("fit(")[2].removesuffix(")")
            return dict(part.split(":") for part in listed.split(","))
    return None


def differences(got: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    """Where an answer is not what was recorded. Reason texts, amounts, devices, keys and scores are all compared."""
    if bool(got.get("error")) != bool(answer.error):
        yield f"error {answer.error!r}, recorded {got.get('error')!r}"
    nodes = got.get("nodes", got["node_names"])
    if sorted(nodes or ()) != sorted(answer.nodes or ()):
        yield f"nodes {answer.nodes}, recorded {nodes}"
    if not answer.nodes and got["failed_nodes"] != answer.failed:
        yield f"failed {answer.failed}, recorded {got['failed_nodes']}"
    if not got.get("annotations") or not answer.written:
        return
    # Ours are written by the binding, so they carry what the reference adds at its bind.
    if set(got["annotations"]) != set(answer.written) - {keys.BIND_TIME, keys.BIND_PHASE}:
        yield f"keys {sorted(answer.written)}, recorded {sorted(got['annotations'])}"
    for key, value in got["annotations"].items():
        if not value.startswith("<") and answer.written.get(key) != value:
            yield f"{key} {answer.written.get(key)!r}, recorded {value!r}"
    if got["labels"] != answer.labels:
        yield f"labels {answer.labels}, recorded {got['labels']}"
    scores = scores_told(got)
    if scores is not None and scores != answer.scores:
        yield f"scores {answer.scores}, recorded {scores}"


def done(text: str) -> dict[str, str]:
    return {keys.NVIDIA_DONE: text}


INVALID = "InvalidDeviceRequest"
NO_ROOM = "1/1 CardInsufficientMemory"
OVER_QUOTA = "1/1 ResourceQuotaNotFit"
# Record -> what the one candidate answers, or (nodes that are right, annotations that must be written).
Right = str | tuple[set[str], dict[str, str]]
DEFECTS: dict[str, Right] = {
    # A value that no node can serve is refused as such, never dropped.
    "nvb-f-023": INVALID,
    "nvb-f-024": INVALID,
    "nvb-f-025": INVALID,
    "nvb-f-026": INVALID,
    "nvb-f-028": INVALID,
    "nvb-f-030": INVALID,
    "nvb-f-035": INVALID,
    "nvb-f-036": INVALID,
    # One segment a container, so that the position tells the container.
    "nvb-f-049": ({"nv-t4"}, done("GPU-nv-t4-1,NVIDIA,3000,0:;;")),
    "nvb-f-050": ({"nv-t4"}, done(";GPU-nv-t4-1,NVIDIA,3000,0:;")),
    "nvi-f-007": ({"nv-one"}, done(";GPU-nv-one-0,NVIDIA,4000,0:;")),
    "nvi-f-008": ({"nv-one"}, done(";GPU-nv-one-0,NVIDIA,4000,0:;GPU-nv-one-0,NVIDIA,5000,0:;")),
    "nvx-f-005": (
        {"nv-duo"},
        {**done("GPU-nv-duo-1,NVIDIA,1000,0:;;"), "hami.io/dcu-devices-allocated": ";DCU-nv-duo-1,DCU,2000,10:;"},
    ),
    "nvx-f-007": (
        {"nv-duo"},
        {**done(";GPU-nv-duo-1,NVIDIA,1000,0:;"), "hami.io/dcu-devices-allocated": "DCU-nv-duo-1,DCU,2000,10:;;"},
    ),
    # The annotation a card was registered in tells its family.
    "nvb-f-055": ({"nv-noword"}, {}),
    # No mode means shared by software, and the pod wants MIG.
    "nvb-f-102": "1/1 CardTypeMismatch",
    # Unreadable scores are no scores, and both inventory forms are read.
    "nvb-f-103": ({"nv-badscore", "nv-colon"}, {}),
    "nvb-f-104": ({"nv-one", "nv-colon"}, {}),
    # A pod that runs elsewhere holds nothing here, whatever its annotation says.
    "nve-f-010": ({"nv-one"}, {}),
    # What can be read of a broken allocation counts.
    "nve-f-030": NO_ROOM,
    "nve-f-033": NO_ROOM,
    "nve-f-034": NO_ROOM,
    "nve-f-035": NO_ROOM,
    "nve-f-036": NO_ROOM,
    "nve-f-037": NO_ROOM,
    # A simulation answers every node that fits, and knows the pods that are there.
    "nvz-f-007": ({"nv-eight", "nv-t4"}, {}),
    "nvz-f-008": NO_ROOM,
    # A node name that is too long for a label is only annotated.
    "nvk-f-001": ({"nv-long-long-long-long-long-long-long-long-long-long-long-long-name"}, {}),
    # Policy words are trimmed.
    "nvk-f-012": ({"nv-four"}, done("GPU-nv-four-1,NVIDIA,1000,0:;")),
    # With NUMA binding and links, the group that fits is used, whichever was looked at last.
    "nvn-f-030": (
        {"nv-topo"},
        done("GPU-nv-topo-7,NVIDIA,1000,0:GPU-nv-topo-6,NVIDIA,1000,0:GPU-nv-topo-5,NVIDIA,1000,0:;"),
    ),
    # Init containers and apps are told apart, and every quota object holds.
    "nvq-f-028": OVER_QUOTA,
    "nvq-f-029": OVER_QUOTA,
    "nvq-f-032": OVER_QUOTA,
}
# Record -> the differences that are ours by a rule.
DEVIATIONS: dict[str, list[str]] = {
    # What no card of a node is known to have says nothing about its use; the rest still does.
    "nvb-f-071": ["scores {'nv-core0': '1.01'}, recorded {'nv-core0': '0.00'}"],
    # A percentage books at least 1 MiB, because the library reads 0 as no limit: a card without memory has no room.
    "nvk-f-005": [
        "failed {'nv-zero': '1/3 AllocatedCardsInsufficientRequest, 1/3 CardInsufficientMemory, "
        "1/3 CardTimeSlicingExhausted'}, "
        "recorded {'nv-zero': '1/3 CardTimeSlicingExhausted, 2/3 AllocatedCardsInsufficientRequest'}"
    ],
}
# Record -> the cards that are ours by a rule; everything else is as recorded.
CARDS: dict[str, tuple[str, ...]] = {
    # Of idle cards the best connected ones are taken, also where no policy asks for it.
    "nvd-f-018": ("GPU-nv-line-2", "GPU-nv-line-1"),
    "nvt-f-028": ("GPU-nv-line-2", "GPU-nv-line-1"),
    # The best NUMA node, not the first one: the fullest card for binpack.
    "nvn-f-016": ("GPU-nv-numa-6",),
    # Of equally connected pairs the one that leaves the better rest.
    "nvt-f-017": ("GPU-nv-topo-2", "GPU-nv-topo-1"),
    # Instances have no links to each other: both halves of one card leave two whole cards.
    "nvt-f-034": ("GPU-nv-miglink-2", "GPU-nv-miglink-2"),
}


def cards_of(written: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(card.split(",")[0] for card in re.split("[:;]", written[keys.NVIDIA_DONE]) if card)


def amounts(written: Mapping[str, str]) -> list[list[str]]:
    return [card.split(",")[1:] for card in re.split("[:;]", written[keys.NVIDIA_DONE])]


@pytest.mark.parametrize("record", [r for r in records("filter") if "defect" not in r], ids=lambda r: f"{r['id']}")
def test_same_answer(record: dict[str, Any]) -> None:
    answer, _ = judge(record)
    if record["id"] in DEVIATIONS:
        assert list(differences(record["got"], answer)) == DEVIATIONS[record["id"]]
        return
    recorded = [record["got"], *record.get("variants", ())]
    found = [list(differences(got, answer)) for got in recorded]
    if record["id"] in CARDS:
        assert cards_of(answer.written) == CARDS[record["id"]]
        assert amounts(answer.written) == amounts(record["got"]["annotations"])
        assert all(difference.startswith("hami.io/vgpu-") for difference in found[0])
        assert found[0]
        return
    assert [] in found, found


@pytest.mark.parametrize("record", [r for r in records("filter") if "defect" in r], ids=lambda r: f"{r['id']}")
def test_right_where_the_reference_is_wrong(record: dict[str, Any]) -> None:
    answer, world = judge(record)
    right = DEFECTS[record["id"]]
    if isinstance(right, str):
        assert answer.nodes is None
        assert answer.failed == dict.fromkeys(record["candidates"], right)
    else:
        nodes, written = right
        assert answer.nodes is not None
        assert set(answer.nodes) <= nodes <= set(answer.fitting)
        assert written.items() <= answer.written.items()
    if "an event names the pod" in record["defect"]:
        assert any(keys.NVIDIA_DONE in problem for problem in world.problems)
    if record["id"] == "nvk-f-001":
        assert answer.labels == {}


def test_every_entry_is_used() -> None:
    every = records("filter")
    assert set(DEFECTS) == {record["id"] for record in every if "defect" in record}
    assert DEVIATIONS.keys() | CARDS.keys() <= {record["id"] for record in every if "defect" not in record}
    assert set(SEQUENCE_DEFECTS) == {r["id"] for r in records("sequence") if "defect" in r} - LOCKS_ONLY


LOCKS_ONLY = {"nvy-s-004", "nvy-s-006"}
"""The reference is wrong about its node lock there; where the pods go is as recorded."""
# Record -> step -> what is right there; the other steps are as recorded.
SEQUENCE_DEFECTS: dict[str, dict[int, Right]] = {
    # The recorded cluster has a second node that the record does not list: here it is unknown. The booking is gone.
    "nvb-s-121": {1: "node unregistered"},
    "nvi-s-018": {0: ({"nv-one"}, done(";GPU-nv-one-0,NVIDIA,15000,0:;")), 2: NO_ROOM},
    # 8000 and 8000 run together on 15360; without that pod the next two meet an emptier card.
    "nvk-s-007": {
        0: NO_ROOM,
        1: ({"nv-one"}, done("GPU-nv-one-0,NVIDIA,7360,0:;")),
        2: ({"nv-one"}, done("GPU-nv-one-0,NVIDIA,1,0:;")),
    },
    "nvk-s-008": {2: ({"nv-one"}, done("GPU-nv-one-0,NVIDIA,9000,0:;"))},
}


def play(world: World, step: Mapping[str, Any], candidates: list[str]) -> Answer | None:
    """One step of a sequence; only filters answer."""
    match step["op"]:
        case "place":
            world.asked[step["pod"]["metadata"]["name"]] = step["pod"]
            return world.filter(step["pod"], step.get("candidates", candidates))
        case "refilter":
            return world.filter(world.asked[step["name"]], step.get("candidates", candidates))
        case "delete":
            world.ledger.drop_pod(PodUid(f"{world.namespace}/{step['name']}"))
        case "status":
            world.tell({**world.pods[step["name"]], "status": step["status"]})
        case "terminate":
            pod = copy.deepcopy(world.pods[step["name"]])
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            world.tell(pod)
        case "quota":
            world.quota(step["name"], step["hard"])
        case "node":
            world.node(step["name"], step["node"])
        case "bind" | "unlock":
            assert step["name"] in world.pods
        case other:
            raise AssertionError(f"a step of a new kind: {other}")
    world.ledger.check()
    return None


@pytest.mark.parametrize("record", records("sequence"), ids=lambda r: f"{r['id']}")
def test_sequences(record: dict[str, Any]) -> None:
    world = World(record)
    elsewhere = 0
    for number, step in enumerate(record["got"]["steps"]):
        answer = play(world, step, record["candidates"])
        if answer is None:
            continue
        right = SEQUENCE_DEFECTS.get(record["id"], {}).get(number)
        if isinstance(right, str):
            assert set(answer.failed.values()) == {right}, f"step {number}"
        elif right is not None:
            assert set(answer.nodes or ()) == right[0], f"step {number}"
            assert right[1].items() <= answer.written.items(), f"step {number}"
        elif answer.nodes and answer.nodes != step["got"]["node_names"] and "note" in record:
            # Equal nodes may be taken in either order; what is booked on them stays the same.
            assert answer.nodes[0] in answer.fitting
            elsewhere += 1
            assert elsewhere <= 2, f"step {number}: {answer.nodes}"
        else:
            assert list(differences(step["got"], answer)) == [], f"step {number}"


def test_records_are_there() -> None:
    assert len(records("filter")) > 150
    assert len(records("sequence")) > 30
