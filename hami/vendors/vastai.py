"""Vastai: whole dies of cards, or slots of devices that say nothing of dies."""

from collections.abc import Sequence
from typing import Final

from hami.model.claim import Why
from hami.model.groups import dealt, largest_share
from hami.model.names import VendorWord
from hami.model.section import USUAL, named
from hami.model.vendor import Chosen, Resources, SelectKeys, Spot, Vendor, Wanted
from hami.vendors.biren import read, slot_only


def choose(spots: Sequence[Spot], order: Sequence[int], wanted: Wanted) -> Chosen | None:
    """Dies of as few cards (AIC) as can be; alone on a card means that no die of it is in use."""
    want = wanted.need.count
    if spots[0].facts.get("DeviceStrategy") != "die":
        return Chosen(places=tuple(order[:want]))
    cards = [spot.facts.get("AIC") for spot in spots]
    if wanted.mutex:
        busy = {card for card, spot in zip(cards, spots, strict=True) if not spot.idle and card is not None}
        order = [i for i in order if cards[i] not in busy]
    # A die whose card is not known is a card of its own. No two containers that want to be alone share a card.
    wants = (want,) if wanted.mutex else (want, *wanted.later)
    own = [i for i, spot in enumerate(spots) if spot.own and not spot.idle]
    places = dealt(len(spots), order, wants, lambda i: i if cards[i] is None else f"card {cards[i]}", own)
    if wanted.most == 1 and order:
        places = (order[0],)
    if places is None:
        return None
    known = all(cards[i] is not None for i in places)
    return Chosen(places=places, rank=largest_share([cards[i] for i in places]) if known else 0.0)


VASTAI: Final = Vendor(
    name=VendorWord("Vastai"),
    config_section="vastai",
    resources=Resources(count="vastaitech.com/va"),
    node_key="hami.io/node-va-register",
    pending_key="hami.io/Vastai-devices-to-allocate",
    done_key="hami.io/Vastai-devices-allocated",
    handshake_key="hami.io/node-handshake-va",
    select=SelectKeys(uuid_in="vastaitech.com/use-gpuuuid", uuid_out="vastaitech.com/nouse-gpuuuid"),
    default_count=0,
    read=read,
    refine=slot_only,
    choose=choose,
    misfit=Why.TOO_FEW_PICKED,
    misfit_alone=Why.EXCLUSIVE_CONFLICT,
)


def configured(section: object) -> tuple[Vendor, ...]:
    """The declaration with a cluster's names."""
    return (named(VASTAI, section, {"count": USUAL["count"]}),)
