"""Which nodes a pod may go to at all: node selector, required node affinity, taints, unschedulable nodes.

In a cluster kube-scheduler decides this before it asks for devices. Read is what of it depends on node and pod alone;
affinity between pods, topology spread and preferences are left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hami.model.names import WireError

_OPERATORS: Final = frozenset({"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"})
_REPELLING: Final = frozenset({"NoSchedule", "NoExecute"})
"""Effects of a taint that keep pods away; `PreferNoSchedule` only asks."""
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"


@dataclass(frozen=True, slots=True)
class Rule:
    """One expression over labels, or over the node's name."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels satisfy it."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        bound, number = (_number(text) for text in (self.values[0] if self.values else None, value))
        if bound is None or number is None:
            return False
        return number > bound if self.operator == "Gt" else number < bound


@dataclass(frozen=True, slots=True)
class Taint:
    """A mark of a node that pods must tolerate; and a pod's toleration, where an empty field matches everything."""

    key: str
    value: str
    effect: str
    any_value: bool = False
    """Of a toleration: the operator `Exists`."""

    def tolerates(self, taint: "Taint") -> bool:
        """Whether this toleration covers that taint."""
        return (
            self.effect in ("", taint.effect)
            and (self.key == taint.key or (not self.key and self.any_value))
            and (self.any_value or self.value == taint.value)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What of a node these rules look at."""

    labels: Mapping[str, str]
    fields: Mapping[str, str]
    taints: tuple[Taint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One term of an affinity; every rule must hold, and a term without rules matches nothing."""

    labels: tuple[Rule, ...]
    fields: tuple[Rule, ...]

    def holds(self, site: Site) -> bool:
        return bool(self.labels or self.fields) and (
            all(rule.holds(site.labels) for rule in self.labels)
            and all(rule.holds(site.fields) for rule in self.fields)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a pod says about nodes; equal wishes allow equal nodes."""

    selector: tuple[Rule, ...] = ()
    terms: tuple[Term, ...] | None = None
    """Terms of the affinity, one of which must hold. None = no affinity."""
    tolerations: tuple[Taint, ...] = ()

    def allows(self, site: Site) -> bool:
        """Whether the pod may go there."""
        return (
            all(rule.holds(site.labels) for rule in self.selector)
            and (self.terms is None or any(term.holds(site) for term in self.terms))
            and all(any(mine.tolerates(taint) for mine in self.tolerations) for taint in site.taints)
        )


ANY_NODE: Final = Wish()


def read_site(node: Mapping[str, Any], where: str) -> Site:
    """A node's labels and taints. WireError names what has not the shape of a node."""
    metadata, spec = _part(node, "metadata", f"{where}: metadata"), _part(node, "spec", f"{where}: spec")
    taints = [
        Taint(_text(taint, "key"), _text(taint, "value"), effect)
        for taint in _listed(spec, "taints", f"{where}: spec.taints")
        if (effect := _text(taint, "effect")) in _REPELLING
    ]
    if spec.get("unschedulable") is True:
        taints.append(Taint(_UNSCHEDULABLE, "", "NoSchedule"))
    labels = _part(metadata, "labels", f"{where}: metadata.labels")
    return Site(
        labels={str(key): str(value) for key, value in labels.items()},
        fields={"metadata.name": _text(metadata, "name")},
        taints=tuple(dict.fromkeys(taints)),
    )


def read_wish(pod: Mapping[str, Any], where: str) -> Wish:
    """A pod's selector, required node affinity and tolerations. WireError names what cannot be meant."""
    spec = _part(pod, "spec", f"{where}: spec")
    selector = _part(spec, "nodeSelector", f"{where}: spec.nodeSelector")
    tolerations = tuple(
        Taint(_text(one, "key"), _text(one, "value"), _text(one, "effect"), _text(one, "operator") == "Exists")
        for one in _listed(spec, "tolerations", f"{where}: spec.tolerations")
    )
    terms = _terms(_part(spec, "affinity", f"{where}: spec.affinity"), f"{where}: spec.affinity.nodeAffinity")
    if not selector and terms is None and not tolerations:
        return ANY_NODE
    rules = [Rule(str(key), "In", (str(value),)) for key, value in selector.items()]
    return Wish(selector=tuple(sorted(rules, key=lambda rule: rule.key)), terms=terms, tolerations=tolerations)


def _terms(affinity: Mapping[str, Any], where: str) -> tuple[Term, ...] | None:
    node = _part(affinity, "nodeAffinity", where)
    if node.get(_REQUIRED) is None:
        return None
    where = f"{where}.{_REQUIRED}"
    listed = _listed(_part(node, _REQUIRED, where), "nodeSelectorTerms", f"{where}.nodeSelectorTerms")
    return tuple(
        Term(
            labels=_rules(term, "matchExpressions", f"{where}.nodeSelectorTerms[{i}]"),
            fields=_rules(term, "matchFields", f"{where}.nodeSelectorTerms[{i}]"),
        )
        for i, term in enumerate(listed)
    )


def _rules(term: Mapping[str, Any], key: str, where: str) -> tuple[Rule, ...]:
    found = []
    for i, entry in enumerate(_listed(term, key, f"{where}.{key}")):
        operator = _text(entry, "operator")
        if operator not in _OPERATORS:
            raise WireError(f"{where}.{key}[{i}].operator", f"one of {', '.join(sorted(_OPERATORS))}", operator)
        values = entry.get("values")
        found.append(Rule(_text(entry, "key"), operator, tuple(map(str, values if isinstance(values, list) else ()))))
    return tuple(found)


def _number(text: str | None) -> int | None:
    digits = (text or "").removeprefix("-")
    return int(text or "") if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return "" if value is None else str(value)


def _part(document: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise WireError(path, "an object", value)
    return value


def _listed(document: Mapping[str, Any], key: str, path: str) -> Sequence[Mapping[str, Any]]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise WireError(path, "a list of objects", value)
    return value


def allowed(wish: Wish, sites: Iterable[Site]) -> tuple[int, ...]:
    """The places of the sites that a pod with this wish may go to."""
    return tuple(place for place, site in enumerate(sites) if wish.allows(site))
