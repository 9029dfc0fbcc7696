"""Bodies of the scheduler extender: what kube-scheduler asks, and the answers in its words.

Keys are Go field names; some kube-scheduler releases send them in lower case. Every answer is complete: a key that has
nothing to say is `null`. These are hot: a filter body names every node of the cluster.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from hami.model.names import NodeName, PodUid, WireError
from hami.model.wire import gojson

Pod = dict[str, Any]
Node = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterCall:
    """`/filter` and `/prioritize`: one pod, and the candidates by name, as full objects, or both."""

    pod: Pod
    node_names: tuple[NodeName, ...] | None
    nodes: tuple[Node, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BindCall:
    """`/bind`: the pod that kube-scheduler has decided to put on `node`."""

    namespace: str
    name: str
    uid: PodUid
    node: NodeName


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """Pods that kube-scheduler would evict from one node."""

    uids: tuple[PodUid, ...]
    pdb_violations: int = 0
    """How many of the evictions a PodDisruptionBudget speaks against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptCall:
    """`/preempt`: the pod that wants room, and the victims proposed by node."""

    pod: Pod
    victims: Mapping[NodeName, Victims]


def read_filter(body: bytes) -> FilterCall:
    """ExtenderArgs. Raises `WireError` when there is no pod, or no candidates in either form are well formed."""
    call = gojson.folded(gojson.decode(body, "body"), "body")
    names = call.get("nodenames")
    nodes = call.get("nodes")
    return FilterCall(
        pod=_pod(call),
        node_names=None if names is None else _names(names),
        nodes=None if nodes is None else _nodes(nodes),
    )


def write_filter_result(
    *,
    node_names: Sequence[str] | None,
    failed: Mapping[NodeName, str] | None,
    error: str,
    nodes: Sequence[Node] | None = None,
    unresolvable: Mapping[NodeName, str] | None = None,
) -> bytes:
    """ExtenderFilterResult. An empty mapping of refusals is `null`, as HAMi writes it; `failed` keeps its order."""
    return orjson.dumps(
        {
            "Nodes": None if nodes is None else {"metadata": {}, "items": nodes},
            "NodeNames": node_names,
            "FailedNodes": failed or None,
            "FailedAndUnresolvableNodes": unresolvable or None,
            "Error": error,
        }
    )


def read_bind(body: bytes) -> BindCall:
    """ExtenderBindingArgs. Raises `WireError` where pod or node is not named."""
    call = gojson.folded(gojson.decode(body, "body"), "body")
    return BindCall(
        namespace=_named(call, "PodNamespace"),
        name=_named(call, "PodName"),
        uid=PodUid(_named(call, "PodUID")),
        node=NodeName(_named(call, "Node")),
    )


def write_bind_result(error: str) -> bytes:
    """ExtenderBindingResult; empty text means bound."""
    return orjson.dumps({"Error": error})


def write_priorities(scores: Iterable[tuple[str, int]]) -> bytes:
    """HostPriorityList; a score is 0..10."""
    return orjson.dumps([{"Host": host, "Score": score} for host, score in scores])


def read_preempt(body: bytes) -> PreemptCall:
    """ExtenderPreemptionArgs, with victims as full pods or, from a scheduler that knows us to cache nodes, by UID."""
    call = gojson.folded(gojson.decode(body, "body"), "body")
    key, victims = "NodeNameToMetaVictims", call.get("nodenametometavictims")
    if victims is None:
        key, victims = "NodeNameToVictims", call.get("nodenametovictims")
    if victims is not None and not isinstance(victims, dict):
        raise WireError(key, "an object", victims)
    by_node = {NodeName(node): _read_victims(entry, f"{key}[{node}]") for node, entry in (victims or {}).items()}
    return PreemptCall(pod=_pod(call), victims=by_node)


def write_preempt(victims: Mapping[NodeName, Victims]) -> bytes:
    """ExtenderPreemptionResult: the nodes where preemption helps, with everyone who must go."""
    return orjson.dumps(
        {
            "NodeNameToMetaVictims": {
                node: {"Pods": [{"UID": uid} for uid in entry.uids], "NumPDBViolations": entry.pdb_violations}
                for node, entry in victims.items()
            }
        }
    )


def _pod(call: gojson.Object) -> Pod:
    pod = call.get("pod")
    if not isinstance(pod, dict):
        raise WireError("Pod", "a pod (extender args missing pod)", pod)
    return pod


def _names(names: object) -> tuple[NodeName, ...]:
    if not isinstance(names, list):
        raise WireError("NodeNames", "a list of names", names)
    try:
        "".join(names)  # a type check of thousands of entries without a Python loop
    except TypeError:
        i = next(i for i, name in enumerate(names) if not isinstance(name, str))
        raise WireError(f"NodeNames[{i}]", "a name", names[i]) from None
    return tuple(names)


def _nodes(nodes: object) -> tuple[Node, ...]:
    entries = gojson.items(gojson.folded(nodes, "Nodes").get("items"), "Nodes.items")
    for i, node in enumerate(entries):
        metadata = node.get("metadata") if isinstance(node, dict) else None
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise WireError(f"Nodes.items[{i}].metadata.name", "a named node")
    return tuple(entries)


def _named(call: gojson.Object, key: str) -> str:
    text = gojson.text_of(call.get(key.lower()), key)
    if not text:
        raise WireError(key, "a name", text)
    return text


def _read_victims(entry: object, field: str) -> Victims:
    if entry is None:
        return Victims(uids=())
    victims = gojson.folded(entry, field)
    pods = gojson.items(victims.get("pods"), f"{field}.pods")
    return Victims(
        uids=tuple(_victim_uid(pod, f"{field}.pods[{i}]") for i, pod in enumerate(pods)),
        pdb_violations=gojson.integer(victims.get("numpdbviolations"), f"{field}.numPDBViolations"),
    )


def _victim_uid(entry: object, field: str) -> PodUid:
    pod = gojson.folded(entry, field)
    uid = pod.get("uid")
    if uid is None:
        uid = gojson.folded(pod.get("metadata"), f"{field}.metadata").get("uid")
    if not isinstance(uid, str) or not uid:
        raise WireError(f"{field}.uid", "a UID", uid)
    return PodUid(uid)
