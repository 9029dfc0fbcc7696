"""What a pod asks of each family where it asks for a share of one device; of the others it asks for one, or a slot."""

from collections.abc import Mapping
from typing import Final

from hami.model.vendor import Vendor
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA

SHARES: Final[Mapping[str, Mapping[str, int]]] = {
    "MLU": {"cambricon.com/mlu.smlu.vmemory": 16, "cambricon.com/mlu.smlu.vcore": 20},
    "DCU": {"hygon.com/dcumem": 4096, "hygon.com/dcucores": 25},
    "Mthreads": {"mthreads.com/sgpu-memory": 32, "mthreads.com/sgpu-core": 4},
    "Ascend910B3": {"huawei.com/Ascend910B3-memory": 10000},
    "MR-V100": {"iluvatar.ai/MR-V100.vMem": 16, "iluvatar.ai/MR-V100.vCore": 20},
    "Metax-SGPU": {"metax-tech.com/vmemory": 8, "metax-tech.com/vcore": 20},
    "XPU": {"kunlunxin.com/vxpu-memory": 24576},
    "AMD": {"amd.com/gpumem": 4096, "amd.com/gpucores": 25},
}

EVERY: Final = tuple(vendor for vendor in registry(ascend=True, iluvatar=True) if vendor.name != NVIDIA.name)
"""Every family and chip with simulated devices."""


def limits(vendor: Vendor, count: int = 1) -> dict[str, str]:
    """The limits of a container that asks for a share of `count` devices."""
    shares = {name: str(amount) for name, amount in SHARES.get(vendor.name, {}).items()}
    return {vendor.resources.count: str(count), **shares}
