"""Every family but the first, against all that the reference answered: admission, filters, whole sequences.

Equal: admitted or not, the pod afterwards, fits or not node by node, amounts, annotation keys and texts, scores. Where
the reference is wrong, or ours chooses better by a rule, the family's table in `right/` says what is right; a record
marked as defect that has no entry fails. Not covered: HTTP, events, and the node lock.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from hami.model.settings import read_device_config
from hami.model.vendor import Registry
from hami.vendors import registry
from tests.alloc.jsonpatch import apply_patch
from tests.golden import test_webhook as admission
from tests.golden.right import (
    Admitted,
    Amended,
    Booked,
    Cards,
    Denied,
    Family,
    Nowhere,
    OnlyAsked,
    Placed,
    Reasons,
    Right,
    Scored,
    Untouched,
    amd,
    ascend,
    awsneuron,
    biren,
    cambricon,
    enflame,
    hygon,
    iluvatar,
    kunlun,
    metax,
    mixed,
    mthreads,
    vastai,
)
from tests.golden.test_filter import DATA, Answer, World, differences, play

FAMILIES = [
    module.FAMILY
    for module in (
        ascend, hygon, cambricon, iluvatar, mthreads, metax, kunlun, enflame, biren, vastai, awsneuron, amd, mixed,
    )
]  # fmt: skip
TAKEN_OVER = {"op": "add", "path": "/spec/schedulerName", "value": "hami-scheduler"}


def lines(family: Family) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{family.file}.jsonl").read_text().splitlines()]


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(family, record, id=record["id"])
        for family in FAMILIES
        for record in lines(family)
        if record["kind"] == kind
    ]


def families_of(record: Mapping[str, Any]) -> Registry:
    flags = record["config"]["flags"]
    return registry(
        read_device_config(record["config"]["devices"]),
        ascend=flags.get("enable-ascend") == "true",
        iluvatar=flags.get("enable-iluvatar") == "true",
    )


@pytest.mark.parametrize(("family", "record"), cases("webhook"))
def test_admission(family: Family, record: dict[str, Any]) -> None:
    verdict = admission.judge_with(record, families_of(record))
    got, right = record["got"], family.right.get(record["id"])
    match right:
        case Admitted():
            assert verdict.allowed, verdict.message
            assert verdict.patch == [*right.patch, TAKEN_OVER]
        case Denied():
            assert (verdict.allowed, verdict.code, verdict.patch) == (False, right.code, [])
            assert right.naming in verdict.message
        case Reasons():
            assert (verdict.allowed, verdict.code) == (got["allowed"], got["code"]) == (False, 403)
            assert right.message in verdict.message
        case Untouched():
            assert verdict.allowed
            assert verdict.patch == []
        case None:
            assert "defect" not in record, "a defect without its right answer"
            assert (verdict.allowed, verdict.code) == (got["allowed"], got["code"]), verdict.message
            assert got["message"] in verdict.message
            if got["allowed"]:
                patched = apply_patch(record["pod"], verdict.patch)
                assert admission.by_value(patched) == admission.by_value(got["pod"])
        case _:
            raise AssertionError(f"{right} is no answer of the webhook")


@pytest.mark.parametrize(("family", "record"), cases("filter"))
def test_filter(family: Family, record: dict[str, Any]) -> None:
    answer = World(record, families_of(record)).filter(record["pod"], record["candidates"])
    right = family.right.get(record["id"])
    assert right is not None or "defect" not in record, "a defect without its right answer"
    compare(answer, [record["got"], *record.get("variants", ())], right)


@pytest.mark.parametrize(("family", "record"), cases("sequence"))
def test_sequence(family: Family, record: dict[str, Any]) -> None:
    world = World(record, families_of(record))
    right = family.steps.get(record["id"], {})
    assert right or "defect" not in record, "a defect without its right answer"
    for number, step in enumerate(record["got"]["steps"]):
        answer = play(world, step, record["candidates"])
        if answer is not None:
            compare(answer, [step["got"]], right.get(number))


def compare(answer: Answer, recorded: list[Mapping[str, Any]], right: Right | None) -> None:
    match right:
        case None:
            found = [list(differences(got, answer)) for got in recorded]
            assert [] in found, found[0]
        case Nowhere():
            assert answer.nodes is None
            assert set(answer.failed.values()) == {right.reason}
        case Placed():
            assert answer.nodes == [right.node], answer.failed
            assert {key: answer.written.get(key) for key in right.written} == right.written
            assert not answer.written.keys() & set(right.absent)
        case Cards():
            (key,) = [key for key in answer.written if key.startswith("hami.io/") and key.endswith("-allocated")]
            texts = answer.written[key], recorded[0]["annotations"][key]
            ours, theirs = ([card.split(",") for card in text.replace(";", "").split(":") if card] for text in texts)
            assert [card[0] for card in ours] == list(right.uuids)
            # The same amounts of other devices, on the same node, and nothing else is different.
            assert [card[1:] for card in ours] == [card[1:] for card in theirs]
            assert answer.nodes == recorded[0]["node_names"]
            assert set(recorded[0]["annotations"]) <= set(answer.written)
        case Booked():
            (key,) = [key for key in answer.written if key.startswith("hami.io/") and key.endswith("-allocated")]
            assert answer.written[key] == right.text
            assert answer.nodes == recorded[0]["node_names"]
        case Amended():
            amended = [with_other_texts(got, right) for got in recorded]
            found = [list(differences(got, answer)) for got in amended]
            assert [] in found, found[0]
            assert amended != recorded, "nothing is other than recorded"
        case Scored():
            found = [[each for each in differences(got, answer) if not each.startswith("scores ")] for got in recorded]
            assert [] in found, found[0]
            assert answer.scores == right.scores
        case OnlyAsked():
            asked = [without_empty(got) for got in recorded]
            found = [list(differences(got, answer)) for got in asked]
            assert [] in found, found[0]
            assert asked != recorded, "nothing was left out"
        case Reasons():
            assert answer.nodes is None
            assert not recorded[0]["node_names"]
            assert answer.failed == right.failed
        case _:
            raise AssertionError(f"{right} is no answer of a filter")


def with_other_texts(got: Mapping[str, Any], right: Amended) -> dict[str, Any]:
    """A recorded answer as it would be right."""
    assert {*right.absent, *right.texts} <= got["annotations"].keys(), "an annotation that nobody recorded"
    notes = {key: text for key, text in got["annotations"].items() if key not in right.absent}
    return {**got, "annotations": notes | right.texts}


def without_empty(got: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded answer without marks of families that were given nothing."""
    notes = got.get("annotations") or {}
    kept = {
        key: text for key, text in notes.items() if text.strip(";") or not key.endswith(("-allocated", "-allocate"))
    }
    return {**got, "annotations": kept}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.file)
def test_every_entry_belongs_to_a_record(family: Family) -> None:
    records = {record["id"]: record for record in lines(family)}
    assert family.right.keys() | family.steps.keys() <= records.keys()
    # A plain record may differ only in which devices are taken, in scores, or in the reason of a refusal.
    for name, right in family.right.items():
        plain = Amended | Cards | Booked | Reasons | Scored | Untouched
        assert "defect" in records[name] or isinstance(right, plain), name
