"""JSON Patch as an API server applies it, as far as admission uses it: `add` only."""

import copy
from typing import Any


def apply_patch(document: Any, patch: list[dict[str, Any]]) -> Any:
    """The document after the patch. A path whose parent is missing is an error, as in the standard."""
    result = copy.deepcopy(document)
    for op in patch:
        assert op["op"] == "add", op
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:]]
        target = result
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        value = copy.deepcopy(op["value"])
        if isinstance(target, list):
            target.insert(len(target) if last == "-" else int(last), value)
        else:
            assert isinstance(target, dict), op
            target[last] = value
    return result
