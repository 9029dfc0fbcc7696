"""Device families, one small module each. Importing this changes nothing anywhere."""

from collections.abc import Callable
from typing import Final

from hami.model.settings import DEFAULT_DEVICE_CONFIG, DeviceConfig
from hami.model.vendor import Registry, Vendor
from hami.vendors import (
    amd,
    ascend_chips,
    awsneuron,
    biren,
    cambricon,
    enflame,
    enflame_drs,
    hygon,
    iluvatar,
    kunlun,
    metax,
    metax_sgpu,
    mthreads,
    nvidia,
    vastai,
)

ALL: Final[tuple[Vendor, ...]] = (
    nvidia.NVIDIA,
    cambricon.MLU,
    hygon.DCU,
    iluvatar.ILUVATAR,
    mthreads.MTHREADS,
    ascend_chips.ASCEND,
    metax.GPU,
    metax_sgpu.SGPU,
    kunlun.XPU,
    kunlun.VXPU,
    enflame.GCU,
    enflame_drs.DRS,
    biren.BIREN,
    vastai.VASTAI,
    awsneuron.NEURON,
    amd.AMD,
)
"""Every declaration, with the chart's names and defaults; of families with several chips, what these have in common."""

_CONFIGURED: Final[tuple[tuple[str, Callable[[object], tuple[Vendor, ...]]], ...]] = (
    ("cambricon", cambricon.configured),
    ("hygon", hygon.configured),
    ("iluvatars", iluvatar.configured),
    ("mthreads", mthreads.configured),
    ("vnpus", ascend_chips.configured),
    ("metax", metax.configured),
    ("kunlun", kunlun.configured),
    ("enflame", enflame.configured),
    ("biren", biren.configured),
    ("vastai", vastai.configured),
    ("awsneuron", awsneuron.configured),
    ("amd", amd.configured),
)
"""What each section of the device configuration declares, beside `nvidia`."""


def registry(config: DeviceConfig = DEFAULT_DEVICE_CONFIG, *, ascend: bool = False, iluvatar: bool = False) -> Registry:
    """The families of a cluster, with the names and defaults that its device configuration gives them.

    A family without a section is not served; Ascend and Iluvatar are served where they are also switched on.
    Raises `WireError` that names the key.
    """
    off = {section for section, on in (("vnpus", ascend), ("iluvatars", iluvatar)) if not on}
    families = [nvidia.configured(config.nvidia)]
    for section, configured in _CONFIGURED:
        if section in config.sections - off:
            families += configured(config.other.get(section))
    return Registry(tuple(families))
