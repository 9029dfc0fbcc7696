"""Hygon DCU."""

from tests.golden.right import INVALID, Denied, Family, Nowhere, Placed

DONE = "hami.io/dcu-devices-allocated"
COUNT = "spec.containers[0].resources.limits[hygon.com/dcunum]"

FAMILY = Family(
    file="hygon",
    right={
        "dcu-w-005": Denied(naming=COUNT),
        # The plug-in gives whole cards where there are several: shares of them would not hold.
        "dcu-w-007": Denied(naming=COUNT),
        # A value no node can serve is refused as such, never dropped.
        "dcu-f-025": INVALID,
        "dcufac-f-007": INVALID,
        # The annotation a card was registered in tells its family.
        "dcu-f-035": Placed(node="dcu-alien", written={DONE: "DCU-X0,DCU,16384,100:;"}),
        # NUMA binding holds for every family.
        "dcu-f-055": Nowhere(reason="1/4 AllocatedCardsInsufficientRequest, 1/4 NumaNotFit, 2/4 CardInsufficientCore"),
        # What can be read of a broken allocation counts: the slot and the cores.
        "dcu-f-070": Nowhere(reason="1/1 CardInsufficientCore"),
        # One segment a container, so that the position tells the container.
        "dcu-f-074": Placed(node="dcu-a", written={DONE: ";DCU-A3,DCU,1000,10:;"}),
        "dcu-f-075": Placed(node="dcu-a", written={DONE: "DCU-A3,DCU,1000,10:;;DCU-A2,DCU,2000,20:;"}),
        "dcu-f-076": Placed(node="dcu-a", written={DONE: "DCU-A3,DCU,1000,10:;;"}),
    },
    steps={
        "dcu-s-084": {
            0: Placed(node="dcu-one", written={DONE: ";DCU-O0,DCU,32752,100:;"}),
            3: Nowhere(reason="1/1 CardInsufficientMemory"),
        },
    },
)
