"""Pods as the webhook lets them in: what their authors left out is filled in by the production rules.

A pod that asks for a device and says no more gets it whole; one that asks for memory and no count gets one device. Pods
that went through a webhook already stay as they are, because the rules add nothing twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hami.alloc.admit import admit
from hami.alloc.request import RequestError
from hami.model.settings import SchedulerSettings
from hami.model.vendor import Registry

_SETTINGS: Final = SchedulerSettings(scheduler_name="hami-scheduler")
_SCHEDULER: Final = "scheduler"
"""Pods of a running cluster carry what a scheduler wrote on them, which nobody else may."""


def admitted(pod: Mapping[str, Any], registry: Registry) -> Mapping[str, Any]:
    """The pod after admission, bound to no node. RequestError where the webhook refuses it."""
    spec = pod.get("spec")
    if isinstance(spec, Mapping) and spec.get("nodeName"):
        pod = {**pod, "spec": {key: value for key, value in spec.items() if key != "nodeName"}}
    verdict = admit(
        pod,
        registry=registry,
        settings=_SETTINGS,
        namespace="",
        username=_SCHEDULER,
        scheduler_usernames=frozenset({_SCHEDULER}),
    )
    if not verdict.allowed:
        raise RequestError("webhook", f"a pod it lets in ({verdict.message})")
    for op in verdict.patch:
        pod = _added(
            pod, [part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:]], op["value"]
        )
    return pod


def _added(document: Any, path: Sequence[str], value: Any) -> Any:
    """A copy with a value at the path of a JSON patch; what does not lie on the path is shared with the original."""
    key, *rest = path
    if isinstance(document, Mapping):
        return {**document, key: _added(document[key], rest, value) if rest else value}
    place = len(document) if key == "-" else int(key)
    if not rest:
        return [*document[:place], value, *document[place:]]
    return [*document[:place], _added(document[place], rest, value), *document[place + 1 :]]
