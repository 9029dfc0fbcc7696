"""Pods of several families, and nodes of several."""

from tests.golden.right import Amended, Family, Nowhere, Placed

SEGMENTS = "one segment a container for every family asked for, empty ones included, and nothing for the others"


def both(word: str) -> tuple[str, str]:
    """The annotations of an allocation, which say the same."""
    return f"hami.io/{word}-devices-allocated", f"hami.io/{word}-devices-to-allocate"


MLU = (*both("cambricon-mlu"), "CAMBRICON_DSMLU_ASSIGNED")
OTHERS = (
    *both("BI-V150"),
    *both("metax-sgpu"),
    "hami.io/mthreads-vgpu-devices-allocated",
    "metax-tech.com/gpu-devices-allocated",
    "metax-tech.com/predicate-time",
)
"""Of the other families of a node."""


def right(*absent: str, **texts: str) -> Amended:
    """The allocation texts of families, as they should be."""
    whole = {key: text for word, text in texts.items() for key in both(word)}
    return Amended(rule=SEGMENTS, texts=whole, absent=absent)


def gpu(card: str, memory: int = 1024, cores: int = 10) -> str:
    return f"GPU-{card},NVIDIA,{memory},{cores}:"


def first_of_two(card: str, memory: int = 1024, cores: int = 10) -> Amended:
    """A GPU for the first of two containers."""
    return right(vgpu=f"{gpu(card, memory, cores)};;")


NONE_FOR_MLU = right(*MLU)

FAMILY = Family(
    file="mixed",
    right={
        "mix-f-013": first_of_two("mix-nm-1"),
        "mix-f-014": right(vgpu=f";{gpu('mix-nm-1')};"),
        "mix-f-016": NONE_FOR_MLU,
        "mix-f-024": first_of_two("mix-nm-1"),
        "mix-f-027": first_of_two("mix-nm-0", 40000),
        "mix-f-029": first_of_two("mix-nm-0"),
        "mix-f-030": first_of_two("mix-nm-0"),
        "mix-f-031": first_of_two("mix-nm-0"),
        "mix-f-032": NONE_FOR_MLU,
        "mix-f-036": right(vgpu=f"{gpu('mix-nm-1', 40960, 100)};;{gpu('mix-nm-1', 40960, 100)};"),
        "mix-f-037": right(vgpu=f"{gpu('mix-all-1')};;;;;;", dcu=";;DCU-mix-all-1,DCU,1024,10:;;;;"),
        "mix-f-038": right(vgpu=f";;;{gpu('mix-all-1')};;;", dcu=";DCU-mix-all-1,DCU,1024,10:;;;;;"),
        "mix-f-040": right(vgpu=f"{gpu('mix-nd-1', 20480, 30)};;", dcu=";DCU-mix-nd-1,DCU,32752,100:;"),
        "mix-f-047": NONE_FOR_MLU,
        "mix-f-048": right(vgpu=f"{gpu('mix-big-7')}{gpu('mix-big-6')};;"),
        "mixpol-f-005": Placed(node="mix-nm"),
    },
    steps={
        "mix-s-049": {
            0: first_of_two("mix-nm-1", 4096),
            1: first_of_two("mix-nm-0", 4096),
            3: NONE_FOR_MLU,
            5: first_of_two("mix-nm-1", 4096),
        },
        "mix-s-050": {0: NONE_FOR_MLU, 2: NONE_FOR_MLU, 7: NONE_FOR_MLU},
        "mix-s-051": {
            0: right(vgpu=f";{gpu('mix-nm-1', 40960, 100)};"),
            1: NONE_FOR_MLU,
            4: Nowhere(reason="2/2 CardInsufficientMemory"),
        },
        "mix-s-052": {0: first_of_two("mix-nm-1", 40960, 100), 1: NONE_FOR_MLU, 4: NONE_FOR_MLU},
        "mix-s-053": {
            0: first_of_two("mix-nm-1", cores=50),
            1: first_of_two("mix-nm-0", cores=50),
            2: first_of_two("mix-nm-1", cores=50),
            3: right(*OTHERS, vgpu=f"{gpu('mix-all-1', cores=50)};;"),
            4: right(*OTHERS, vgpu=f"{gpu('mix-all-0', cores=50)};;"),
            6: NONE_FOR_MLU,
        },
    },
)
