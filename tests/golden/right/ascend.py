"""Huawei Ascend, every chip."""

from tests.golden.right import INVALID, Admitted, Cards, Denied, Family, Nowhere, Placed

LIMITS = "/spec/containers/0/resources/limits"
REQUESTS = "/spec/containers/0/resources/requests"
P310, B3 = "huawei.com/Ascend310P", "huawei.com/Ascend910B3"
EXACT = "the smallest group that holds them, so that larger ones stay whole"

FAMILY = Family(
    file="ascend",
    right={
        # No memory, and 0 is none, means the whole card.
        "ascend-w-007": Admitted(
            patch=(
                {"op": "add", "path": f"{LIMITS}/huawei.com~1Ascend310P-memory", "value": "21527"},
                {"op": "add", "path": REQUESTS, "value": {f"{P310}-memory": "21527"}},
            )
        ),
        "ascend-w-025": Denied(naming=f"{B3}-memory 70000 is invalid", code=500),
        "ascend-w-034": Denied(naming="vNPU not supported for multiple devices", code=500),
        "ascend-w-047": Denied(naming=f"spec.containers[0].resources.limits[{B3}]"),
        # A container that uses any Ascend chip sees it. Units of the factor are rounded as MiB and written as units.
        "ascendset-w-006": Admitted(patch=({"op": "add", "path": REQUESTS, "value": {f"{P310}-memory": "3072"}},)),
        "ascendset-w-007": Admitted(
            patch=(
                {"op": "add", "path": f"{LIMITS}/huawei.com~1Ascend310P-memory", "value": "10763"},
                {"op": "add", "path": REQUESTS, "value": {f"{P310}-memory": "10763"}},
            )
        ),
        # What is booked is what the hardware cuts.
        "ascend-f-062": Placed(
            node="asc-310",
            written={
                "hami.io/Ascend310P-devices-allocated": "asc-310-3,Ascend310P,6144,0:;",
                P310: '[{"UUID":"asc-310-3","temp":"vir02","memory":6144}]',
            },
        ),
        "ascend-f-114": INVALID,
        "ascend-f-175": INVALID,
        # A better topology is better under every node policy.
        "ascend-f-133": Placed(node="asc-b3-2"),
        # AI CPUs are counted.
        "ascend-f-141": Nowhere(reason="1/8 CardInsufficientCore, 7/8 CardUuidMismatch"),
        # The annotation a card was registered in tells its chip, not a part of its name.
        "ascend-f-150": Placed(
            node="asc-b4both",
            written={"hami.io/Ascend910B4-devices-allocated": "asc-b4both-1,Ascend910B4,32768,0:;"},
            absent=("hami.io/Ascend910B4-1-devices-allocated", "huawei.com/Ascend910B4-1"),
        ),
        "ascend-f-082": Cards(
            rule="the best NUMA node, not the first one: the fullest card for binpack", uuids=("asc-310-numa-2",)
        ),
        "ascend-f-121": Cards(rule=EXACT, uuids=("asc-b3-3", "asc-b3-2")),
        "ascend-f-122": Cards(rule=EXACT, uuids=("asc-b3-7", "asc-b3-6", "asc-b3-4")),
    },
)
