"""Device families, one small module each. Importing this changes nothing anywhere."""

from typing import Final

from hami.model.settings import DEFAULT_DEVICE_CONFIG, DeviceConfig
from hami.model.vendor import Registry, Vendor
from hami.vendors import nvidia

ALL: Final[tuple[Vendor, ...]] = (nvidia.NVIDIA,)
"""Every declaration, with the chart's names and defaults."""


def registry(config: DeviceConfig = DEFAULT_DEVICE_CONFIG) -> Registry:
    """The families of a cluster, with the names and defaults that its device configuration gives them."""
    return Registry((nvidia.configured(config.nvidia),))
