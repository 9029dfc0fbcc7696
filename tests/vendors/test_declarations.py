"""Every declaration is complete, and no two get in each other's way."""

from collections import Counter

import pytest

from hami.model.settings import DEFAULT_DEVICE_CONFIG, DeviceConfig, NvidiaConfig
from hami.model.vendor import Vendor
from hami.vendors import ALL, registry


@pytest.mark.parametrize("vendor", ALL, ids=lambda vendor: vendor.name)
def test_a_declaration_is_well_formed(vendor: Vendor) -> None:
    assert vendor.name
    assert vendor.config_section
    assert vendor.resources.count
    for key in (vendor.done_key, vendor.pending_key, vendor.handshake_key, vendor.link_key):
        assert not key or key.startswith("hami.io/")
    # Some plug-ins register under a name of their own.
    assert not vendor.node_key or vendor.node_key.partition("/")[0] in ("hami.io", vendor.resources.count.split("/")[0])
    assert vendor.done_key
    for name in vendor.resources.names():
        prefix, _, short = name.partition("/")
        assert prefix
        assert short
        assert len(short) <= 63


def test_no_key_or_resource_belongs_to_two() -> None:
    names = Counter(name for vendor in ALL for name in vendor.resources.names())
    keys = Counter(
        key
        for vendor in ALL
        for key in (vendor.node_key, vendor.done_key, vendor.pending_key, vendor.handshake_key)
        if key
    )
    assert set((names + keys).values()) == {1}
    assert len({vendor.name for vendor in ALL}) == len(ALL)


def test_the_default_configuration_gives_the_declarations_as_they_are() -> None:
    made = registry(DEFAULT_DEVICE_CONFIG, ascend=True, iluvatar=True)
    assert [vendor for vendor in ALL if vendor.name not in ("Ascend", "Iluvatar")] == [
        vendor for vendor in made if vendor in ALL
    ]


def test_a_configuration_changes_names_and_defaults_only() -> None:
    config = NvidiaConfig(
        resource_count_name="example.com/vgpu",
        resource_memory_name="example.com/vmem",
        resource_memory_percentage_name="example.com/pct",
        resource_core_name="example.com/vcore",
        resource_priority_name="example.com/prio",
        default_memory_mib=5000,
        default_cores=20,
        default_gpu_num=2,
        memory_factor=256,
        gpu_core_policy="force",
        runtime_class_name="nvidia",
        overwrite_env=True,
    )
    (vendor,) = registry(DeviceConfig(nvidia=config))
    assert vendor.resources.names() == tuple(f"example.com/{word}" for word in ("vgpu", "vmem", "pct", "vcore", "prio"))
    assert (vendor.default_memory_mib, vendor.default_cores, vendor.default_count) == (5000, 20, 2)
    assert (vendor.memory_factor, vendor.core_policy, vendor.runtime_class) == (256, "force", "nvidia")
    assert vendor.hide_unrequested
    assert (vendor.name, vendor.done_key, vendor.select) == (ALL[0].name, ALL[0].done_key, ALL[0].select)
