"""Cambricon MLU."""

from tests.golden.right import INVALID, Denied, Family, Nowhere, Reasons

COUNT = "spec.containers[0].resources.limits[cambricon.com/vmlu]"
ONE_PROFILE = "several cards with shares are refused before any node is looked at: the profile names one card"

FAMILY = Family(
    file="cambricon",
    right={
        "mlu-w-005": Denied(naming=COUNT),
        "mlu-w-007": Denied(naming=COUNT),
        "mlu-w-015": Reasons(rule=ONE_PROFILE, message=COUNT),
        "mlu-f-026": INVALID,
        "mlu-f-043": INVALID,
        "mlu-f-051": INVALID,
        "mlu-f-040": Reasons(
            rule=ONE_PROFILE,
            failed=dict.fromkeys(("mlu-b", "mlu-c", "no-such-node"), "InvalidDeviceRequest"),
        ),
        "mlu-f-044": Reasons(rule=ONE_PROFILE, failed={"mlu-a": "InvalidDeviceRequest"}),
        # What is left of the capacity makes a smaller card.
        "mlu-f-032": Nowhere(reason="1/3 CardInsufficientCore, 2/3 AllocatedCardsInsufficientRequest"),
        # The plug-in reads one profile a pod.
        "mlu-f-079": INVALID,
        "mlu-f-080": INVALID,
        # A sidecar runs beside the app containers.
        "mlu-f-110": Nowhere(reason="1/1 CardInsufficientMemory"),
    },
    steps={"mlu-s-111": {1: Nowhere(reason="1/1 CardInsufficientMemory")}},
)
