"""Whole bodies of `/filter` against what the reference answered: the answer as kube-scheduler reads it, and the event.

Which node and which devices are right is compared in tests/golden; here it is the words around them.
"""

import json
import re
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from hami.cluster.picture import Kind, Picture
from hami.kube.client import Kube
from hami.kube.watch import Added, Listed
from hami.model.settings import SchedulerSettings, read_device_config
from hami.scheduler.clock import Clock
from hami.scheduler.counters import Counters
from hami.scheduler.events import Subject
from hami.scheduler.extender import Extender
from hami.scheduler.holds import Holds
from hami.scheduler.leader import Leadership
from hami.scheduler.waiting import Waiting
from hami.vendors import registry
from tests.fakes.apiserver import Json

DATA = Path(__file__).parent.parent / "golden" / "data" / "nvidia.jsonl"
HAMI = re.compile(
    r"find fit node\((?P<node>[^)]*)\), (?P<unfit>\d+) nodes not fit, (?P<fit>\d+) nodes fit\((?P<scores>.*)\)"
)

OURS = {
    "nvk-f-005": "devices that tie are tried in another order, so another one is the one too few",
    "nvk-f-006": "a node offered twice is one node that fits, not one of two",
}
"""Records that differ in words, and why."""


def records() -> list[Json]:
    found = [json.loads(line) for line in DATA.read_text().splitlines()]
    return [
        record
        for record in found
        # Other families are compared where they are declared; full node objects are another call here.
        if record["kind"] == "filter" and not record.get("defect") and not record.get("simulate")
        if not re.search("hygon|node-dcu", json.dumps([record["pod"], record["nodes"]])) and record["id"] not in OURS
    ]


class Notes:
    """Events as they are told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def tell(self, subject: Subject, reason: str, message: str, *, warning: bool = False) -> None:
        self.told.append((reason, message))


def answer(record: Json) -> tuple[Json, list[tuple[str, str]]]:
    """Our answer to the recorded request in the recorded cluster."""
    flags = record["config"]["flags"]
    settings = SchedulerSettings(
        scheduler_name=flags["scheduler-name"],
        node_policy=flags["node-scheduler-policy"],
        card_policy=flags["gpu-scheduler-policy"],
    )
    picture = Picture(registry(read_device_config(record["config"]["devices"])), needs=(Kind.NODES, Kind.PODS))
    for node in record["nodes"]:
        metadata = {"name": node["name"], "labels": node["labels"], "annotations": node["annotations"]}
        status = {"capacity": node["capacity"], "allocatable": node["capacity"]}
        picture.fold_node(Added({"metadata": metadata, "status": status}))
    for i, pod in enumerate(record["existing"]):
        pod["metadata"].setdefault("uid", f"existing-{i}")
        picture.fold_pod(Added(pod))
    for name, hard in (record.get("quotas") or {}).items():
        namespace = record["pod"]["metadata"]["namespace"]
        picture.fold_quota(Added({"metadata": {"namespace": namespace, "name": name}, "spec": {"hard": hard}}))
    picture.fold_node(Listed("1", 1, 0.0))
    picture.fold_pod(Listed("1", 1, 0.0))
    notes, clock = Notes(), Clock()
    extender = Extender(
        picture=picture,
        holds=Holds(picture.ledger),
        waiting=Waiting(picture, cast("Kube", None), settings, clock),
        events=notes,
        leadership=Leadership("", elect=False),
        counters=Counters(clock),
        settings=settings,
        clock=clock,
    )
    record["pod"]["metadata"].setdefault("uid", "new")
    body = {"Pod": record["pod"], "Nodes": None, "NodeNames": record["candidates"]}
    return orjson.loads(extender.filter(orjson.dumps(body))), notes.told


def reasons(failed: Json | None) -> dict[str, Any]:
    return failed or {}


SCORED_OTHERWISE = {"nvb-f-071"}
"""No card of the node has cores: the reference then scores nothing, ours what is known."""


@pytest.mark.parametrize("record", records(), ids=lambda record: record["id"])
def test_recorded_filter(record: Json) -> None:
    got = record["got"]
    ours, told = answer(record)
    if got["error"]:
        # Our words name the annotation's field; the sentence around them is the reference's.
        assert ours["Error"].startswith("calcScore failed ")
        assert ours["Error"].endswith(" for pod p")
        assert [reason for reason, _ in told] == ["FilteringFailed"]
        return
    assert ours["Error"] == ""
    assert bool(ours["NodeNames"]) is bool(got["node_names"])
    assert reasons(ours["FailedNodes"]) == reasons(got["failed_nodes"])
    assert ours["Nodes"] is None
    assert ours["FailedAndUnresolvableNodes"] is None
    for event in got["events"]:
        matching = [message for reason, message in told if reason == event["reason"]]
        if event["reason"] == "FilteringSucceed":
            theirs, mine = HAMI.fullmatch(event["message"]), HAMI.fullmatch(matching[0])
            assert theirs is not None
            assert mine is not None
            assert (mine["unfit"], mine["fit"]) == (theirs["unfit"], theirs["fit"])
            same = sorted(mine["scores"].split(",")) == sorted(theirs["scores"].split(","))
            assert same is (record["id"] not in SCORED_OTHERWISE)
        else:
            # Several events of theirs are one of ours, which holds each of their sentences' words and counts.
            (mine_text,) = matching
            head, _, _ = event["message"].partition("(")
            assert head in mine_text
