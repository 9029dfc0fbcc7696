"""A request in the engine's numbers: what holds of each kind of device, of each need, and in which order cards come."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from hami.alloc._ask import NUMBERS
from hami.alloc.policy import CardPolicy, SortKey
from hami.model.claim import Need, Percent, PodRequest, Role, Selection
from hami.model.device import MIG
from hami.model.names import VendorWord
from hami.model.vendor import Rule, Vendor, Wanted

LARGEST: Final = 2**40
"""Amounts are cut here. No device has as many MiB, and a million such shares still fit a 64-bit column."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What devices have in common for a selection: interned to a small number."""

    vendor: VendorWord
    model: str
    mode: str


def judge(kind: Kind, vendor: VendorWord, selection: Selection, request_scored: bool, rules: Rule) -> int:
    """One byte: whether devices of this kind count for the request, and what holds for them."""
    if kind.vendor != vendor:
        return 0
    model = kind.model.lower()
    fits = (
        (not selection.type_in or any(word.lower() in model for word in selection.type_in))
        and not any(word.lower() in model for word in selection.type_out)
        and (selection.mode is None or kind.mode in selection.mode)
    )
    wrong_mode = Rule.MODE_OF_NODE in rules and selection.mode is not None and kind.mode not in selection.mode
    # HAMi adds the request to a card's score only where the model is exactly the vendor word.
    scored = request_scored or kind.model == vendor
    verdict = NUMBERS["OF_FAMILY"]
    if fits:
        verdict |= NUMBERS["ELIGIBLE"]
    if wrong_mode:
        verdict |= NUMBERS["WRONG_MODE"]
    if kind.mode == MIG:
        verdict |= NUMBERS["IS_MIG"]
    if scored:
        verdict |= NUMBERS["SCORES_REQUEST"]
    return verdict


def amounts(need: Need) -> tuple[int, ...]:
    """What may differ between nodes, in the order of the engine's `Size`."""
    return need.count, min(need.memory.amount, LARGEST), need.cores, need.parts[0], need.no_class


def measured(verdict: int, size: Need | None) -> int:
    """A kind's verdict, where the family serves a need on no node of such devices."""
    if size is not None or not verdict & NUMBERS["OF_FAMILY"]:
        return verdict
    return verdict & ~NUMBERS["ELIGIBLE"] | NUMBERS["WRONG_MODE"]


def own_keys(vendor: Vendor, need: Need) -> tuple[SortKey, ...]:
    """What a family prefers before the card policy does."""
    near = (SortKey.TAKEN_UP,) if Rule.NEAR in vendor.rules else ()
    return (*near, SortKey.PULL_UP) if need.pulled else near


def single(request: PodRequest, need: Need, vendor: Vendor) -> Need:
    """A need as it is; one that may have any device where it is the family's only one in the pod, of such families."""
    if Rule.CHOOSES_FOR_SEVERAL not in vendor.rules:
        return need
    others = [other for asking in request.containers for other in asking.needs if other.vendor == need.vendor]
    return replace(need, apart=len(others) == 1)


def wanted_of(request: PodRequest, need: Need, container: int, policy: CardPolicy, spread: bool | None) -> Wanted:
    """A need beside the others of its family in the pod."""
    counts = [
        sum(other.count for other in asking.needs if other.vendor == need.vendor) for asking in request.containers
    ]
    later = tuple(
        other.count
        for asking in request.containers[container + 1 :]
        if asking.role is not Role.INIT
        for other in asking.needs
        if other.vendor == need.vendor and not other.apart
    )
    return Wanted(
        need=need,
        of_pod=sum(counts),
        first=not any(counts[:container]),
        later=() if request.containers[container].role is Role.INIT else later,
        most=max(counts),
        mutex=policy.mutex,
        spread=spread,
    )


def by_nibble(keys: Sequence[SortKey]) -> int:
    """Sort keys in one number, four bits each, the first one lowest."""
    return sum(key << 4 * place for place, key in enumerate(keys))


def rules_of(selection: Selection, vendor: Vendor, need: Need, policy: CardPolicy) -> int:
    """The engine's bits for what holds of one need: the family's rules, the pod's selection, the card policy."""
    rules = vendor.rules
    special = need.slots != 1 or any(need.parts) or need.full_cores or need.no_class or need.no_qos
    chosen = {
        "BY_PERCENT": isinstance(need.memory, Percent),
        "NUMA_BIND": selection.numa_bind,
        "ONLY_CHOSEN": bool(selection.uuid_in),
        "MUTEX": policy.mutex or Rule.SHARED not in rules,
        "LINKED": policy.linked,
        "JOINED": selection.link_bind,
        "BY_LOSS": policy.by_loss,
        "MARKED": bool(selection.uuid_in or selection.uuid_out),
        "FULL_IS_EXCLUSIVE": Rule.FULL_CORES_IS_EXCLUSIVE in rules,
        "CORES_AS_ASKED": Rule.CORES_AS_ASKED in rules,
        "CORES_OF_DEVICE": Rule.CORES_OF_DEVICE in rules,
        "CLOSELY": bool(special or vendor.choose or vendor.measure)
        or Rule.CORES_AS_ASKED in rules
        or Rule.CORES_OF_DEVICE in rules,
        "GROUPED": vendor.choose is not None and not need.apart,
        "MAY_BE_UNKNOWN": Rule.MEMORY_MAY_BE_UNKNOWN in rules,
    }
    return sum(NUMBERS[name] for name, holds in chosen.items() if holds)
