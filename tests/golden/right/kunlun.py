"""Kunlunxin XPU and vXPU."""

from tests.golden.right import Admitted, Denied, Family, Nowhere, Placed

DONE, INDEX = "hami.io/kunlun-allocated", "BAIDU_COM_DEVICE_IDX"
SHARES = "hami.io/xpu-devices-allocated"
LIMITS = "spec.containers[0].resources.limits"
NO_SET = "NumaNotFit"


def whole(node: str, *segments: str) -> dict[str, str]:
    """What is written of cards by index, one text a container."""
    shares = [
        "".join(f"{node}-kunlun-{index},kunlun,98304,100:" for index in segment.split(",") if index) + ";"
        for segment in segments
    ]
    named = ",".join(dict.fromkeys(index for segment in segments for index in segment.split(",") if index))
    return {DONE: "".join(shares), INDEX: named}


FAMILY = Family(
    file="kunlun",
    right={
        "kunlun-w-003": Denied(naming=f"{LIMITS}[kunlunxin.com/xpu]"),
        "kunlun-w-011": Denied(naming=f"{LIMITS}[kunlunxin.com/vxpu-memory]"),
        "kunlun-w-012": Admitted(),
        # Wings and links are those of the cards' indices.
        "kunlun-f-032": Placed(node="kl-8", written=whole("kl-8", "4")),
        "kunlun-f-035": Placed(node="kl-8", written=whole("kl-8", "2,3,6,7")),
        "kunlun-f-038": Nowhere(reason=f"1/8 {NO_SET}"),
        "kunlun-f-060": Placed(node="kl-6", written=whole("kl-6", "0,1,2,3")),
        "kunlun-f-062": Nowhere(reason=f"1/10 {NO_SET}"),
        # Its list of cards stands in the way, as in kunlun-f-050.
        "kunlun10-f-004": Nowhere(reason="6/10 CardUuidMismatch"),
        "kunlun10-f-005": Placed(node="kl-10", written=whole("kl-10", "8,9")),
        "kunlun10-f-007": Placed(node="kl-10", written=whole("kl-10", "0,1,2,3,4,5,6,7")),
        "kunlun-f-100": Placed(node="kv-8", written={SHARES: "kv-8-xpu-0,XPU,24576,25:kv-8-xpu-1,XPU,24576,25:;"}),
        # The index names the cards of all containers.
        "kunlun-f-064": Placed(node="kl-8", written=whole("kl-8", "0", "1")),
        "kunlun-f-067": Placed(node="kl-8", written=whole("kl-8", "0,1", "0")),
        # No memory is the whole card.
        "kunlun-f-078": Placed(node="kv-8", written={SHARES: "kv-8-xpu-0,XPU,98304,100:;"}),
        # Spread is the emptiest card.
        "kunlun-f-084": Placed(node="kv-8", written={SHARES: "kv-8-xpu-0,XPU,24576,25:;"}),
        "kunlun-f-102": Placed(node="kv-8", written={SHARES: "kv-8-xpu-0,XPU,24576,25:;kv-8-xpu-1,XPU,24576,25:;"}),
        "kunlun-f-105": Placed(node="kv-8b", written={SHARES: "kv-8b-xpu-1,XPU,24576,25:;"}),
    },
)
