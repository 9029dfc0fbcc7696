"""What the reference wrote on pods of every family, as a plug-in of ours reads and consumes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from hami.agent.family import pieces, waiting, without
from hami.alloc.record import read_pod
from hami.alloc.request import containers
from hami.model.settings import read_device_config
from hami.vendors import registry

RECORDED = Path(__file__).parents[1] / "golden" / "data"
FILES = ("amd", "hygon", "ascend", "cambricon", "iluvatar", "biren", "vastai", "metax", "mixed")
"""Families whose plug-ins take pieces out of a pending annotation, and pods of several of them."""


def answers() -> list[Any]:
    """Each pod that was placed, with what was written on it."""
    found = []
    for name in FILES:
        for line in (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            notes = (record.get("got") or {}).get("annotations") or {}
            if record["kind"] == "filter" and any(key.endswith("-allocated") for key in notes):
                found.append(pytest.param(record, notes, id=record["id"]))
    return found


@pytest.mark.parametrize(("record", "notes"), answers())
def test_every_container_gets_its_piece(record: dict[str, Any], notes: dict[str, str]) -> None:
    flags = record["config"]["flags"]
    known = registry(
        read_device_config(record["config"]["devices"]),
        ascend=flags.get("enable-ascend") == "true",
        iluvatar=flags.get("enable-iluvatar") == "true",
    )
    node = notes["hami.io/vgpu-node"]
    metadata = {"namespace": "default", "uid": "u", **record["pod"]["metadata"]}
    metadata["annotations"] = {**metadata.get("annotations", {}), **notes}
    pod = {**record["pod"], "metadata": metadata, "status": {"phase": "Pending"}}
    pod["spec"] = {**pod["spec"], "nodeName": node}
    held, _ = read_pod(pod, known)
    assert held is not None
    wanted = {
        (vendor, position)
        for vendor, segments in held.segments.items()
        for position, segment in enumerate(segments)
        if segment
    }
    assert waiting(pod, known, ()).keys() == wanted
    every = list(containers(pod))
    for vendor, position in sorted(wanted):
        resources = every[position].document["resources"]
        named = {*resources.get("limits", {}), *resources.get("requests", {})}
        assert named & set(known[vendor].resources.names()), every[position].name
        key = known[vendor].pending_key
        if key:
            number = pieces(notes[known[vendor].done_key], held.segments[vendor])[position]
            metadata["annotations"][key] = without(metadata["annotations"][key], number)
            assert (vendor, position) not in waiting(pod, known, ())
    for vendor, _ in wanted:
        assert not metadata["annotations"].get(known[vendor].pending_key, "").strip(";")
