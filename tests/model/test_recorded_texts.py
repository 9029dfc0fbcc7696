"""Texts of recorded nodes and pods: what plug-ins wrote comes out of our writer again, byte for byte.

A few recorded values are odd on purpose (blanks, capitals, no mode, broken); the codecs' own tests hold those. Here the
ordinary ones are counted, so that a codec that suddenly finds every text odd fails.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hami.model.claim import Role
from hami.model.names import WireError
from hami.model.wire import node, pod

RECORDS = Path(__file__).parents[1] / "golden" / "data"


def recorded(part: str, key: str) -> Iterator[tuple[Any, str]]:
    """Each recorded object of `nodes` or `existing` that has the annotation, with its text."""
    for path in sorted(RECORDS.glob("*.jsonl")):
        with path.open() as lines:
            for record in map(json.loads, lines):
                for entry in record.get(part) or ():
                    notes = entry.get("annotations") or (entry.get("metadata") or {}).get("annotations") or {}
                    if key in notes:
                        yield entry, notes[key]


def test_inventories() -> None:
    same, odd = 0, []
    for _, text in recorded("nodes", pod.NVIDIA_NODE):
        try:
            again = node.write_inventory(node.read_inventory(text, "x"), "json")
        except WireError:
            again = ""
        same += again == text
        odd += [text] * (again != text)
    assert same > 250
    # Everything that differs either does not say its mode, or was written with blanks or by hand.
    assert [text for text in odd if '"mode":' in text and '": ' not in text and "\\u" not in text] == []


def test_links() -> None:
    texts = [text for _, text in recorded("nodes", pod.NVIDIA_LINKS)]
    assert all(node.write_links(node.read_links(text, "x")) == text for text in texts if text.startswith("[{"))


def test_allocations() -> None:
    decoded, lost = 0, []
    for entry, text in recorded("existing", pod.NVIDIA_DONE):
        spec = entry["spec"]
        inits, apps = spec.get("initContainers") or [], spec.get("containers") or []
        roles = [Role.INIT] * len(inits) + [Role.APP] * len(apps)
        asked = [
            int((container.get("resources", {}).get("limits") or {}).get("nvidia.com/gpu", 0))
            for container in inits + apps
        ]
        result = pod.read_segments(text, "x", asked=asked, roles=roles)
        cards = sum(len(segment) for segment in result.segments)
        decoded += 1
        if cards != text.count(",NVIDIA,") and not result.problems:
            lost.append(text)
    assert decoded > 100
    assert lost == []
