"""Biren, alone and beside other families."""

from tests.golden.right import INVALID, Cards, Denied, Family, Nowhere, OnlyAsked, Placed

DONE = "hami.io/Biren-devices-allocated"
COUNT = "spec.containers[0].resources.limits[birentech.com/gpu]"

FAMILY = Family(
    file="biren",
    right={
        "biren-w-002": Denied(naming=COUNT),
        "biren-w-004": Denied(naming=COUNT),
        "biren-f-031": Cards(
            rule="the best NUMA node, not the first one: the fullest card for binpack", uuids=("br-numa-3",)
        ),
        # NUMA binding holds for every family.
        "biren-f-032": Nowhere(
            reason="1/4 AllocatedCardsInsufficientRequest, 1/4 NumaNotFit, 2/4 CardTimeSlicingExhausted"
        ),
        # Without known memory the slots say how full a card is.
        "biren-f-034": Placed(node="br-nomem", written={DONE: "br-nomem-0,Biren,0,0:;"}),
        # One segment a container, whatever model is registered.
        "biren-f-043": Placed(node="br-model", written={DONE: ";br-model-1,Biren,0,0:;"}),
        "biren-f-049": INVALID,
        "biren-f-050": INVALID,
        "birenmix-f-003": OnlyAsked(),
        "birenmix-f-004": OnlyAsked(),
        "birenmix-f-010": OnlyAsked(),
        "birenmix-f-011": OnlyAsked(),
        "birenmix-f-013": OnlyAsked(),
    },
)
