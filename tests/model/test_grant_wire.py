"""The grant file: written, read back, and refused as a whole when any part of it is wrong."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hami.model.names import INT32_MAX, DeviceUuid, WireError
from hami.model.wire.grant import MAX_SIZE, GrantDevice, GrantFile, read_grant, write_grant

GRANT = GrantFile(
    devices=(
        GrantDevice(uuid=DeviceUuid("GPU-a"), memory_mib=3000, cores=30),
        GrantDevice(uuid=DeviceUuid("MIG-b"), memory_mib=0, cores=0, enforced_by="driver"),
    ),
    policy="force",
    priority=1,
    oversubscribe=True,
    region="/usr/local/vgpu/region.cache",
)
TEXT = """\
hami-grant=1
device.0.uuid=GPU-a
device.0.memory_mib=3000
device.0.cores=30
device.0.enforced_by=library
device.1.uuid=MIG-b
device.1.memory_mib=0
device.1.cores=0
device.1.enforced_by=driver
policy=force
priority=1
oversubscribe=true
region=/usr/local/vgpu/region.cache
"""


def test_both_ways() -> None:
    assert write_grant(GRANT) == TEXT
    assert read_grant(TEXT) == GRANT


@pytest.mark.parametrize("word", ["with-overhead", "requested", "strict"])
def test_accounting_is_written_where_it_is_said(word: str) -> None:
    said = replace(GRANT, accounting=word)
    assert write_grant(said) == TEXT.replace("region=", f"accounting={word}\nregion=")
    assert read_grant(write_grant(said)) == said


def test_defaults_and_unknown_keys() -> None:
    text = "hami-grant=1\nregion=/r\ndevice.0.uuid=GPU-a\ndevice.0.later=1\nlater.key=a=b\n"
    assert read_grant(text) == GrantFile(
        devices=(GrantDevice(uuid=DeviceUuid("GPU-a"), memory_mib=0, cores=0),), region="/r"
    )


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (("hami-grant=1", "hami-grant=2"), "grant"),
        (("hami-grant=1\n", ""), "grant"),
        (("policy=force", "policy=often"), "policy"),
        (("policy=force", "policy=force\npolicy=force"), "policy"),
        (("policy=force", "policy"), "grant line 10"),
        (("policy=force", "policy="), "grant line 10"),
        (("policy=force", "=force"), "grant line 10"),
        (("priority=1", "priority=2"), "priority"),
        (("priority=1", "accounting=loose"), "accounting"),
        (("priority=1", "priority=-1"), "priority"),
        (("oversubscribe=true", "oversubscribe=yes"), "oversubscribe"),
        (("region=/usr", "region=usr"), "region"),
        (("region=/usr/local/vgpu/region.cache\n", ""), "region"),
        (("memory_mib=3000", "memory_mib=lots"), "device.0.memory_mib"),
        (("memory_mib=3000", "memory_mib=-1"), "device.0.memory_mib"),
        (("memory_mib=3000", f"memory_mib={'9' * 5000}"), "device.0.memory_mib"),
        (("cores=30", "cores=3.5"), "device.0.cores"),
        (("enforced_by=driver", "enforced_by=hope"), "device.1.enforced_by"),
        (("device.0.uuid=GPU-a\n", ""), "device.0.uuid"),
        (("device.1.", "device.2."), "device"),
        (("policy=force", "x=" + "y" * MAX_SIZE), "grant"),
    ],
)
def test_broken_grants_name_the_key(change: tuple[str, str], path: str) -> None:
    with pytest.raises(WireError) as caught:
        read_grant(TEXT.replace(*change))
    assert caught.value.field == path


@pytest.mark.parametrize("uuid", ["", "a\nregion=/x", "a\n", "x" * MAX_SIZE], ids=["empty", "forged", "line", "giant"])
def test_what_cannot_be_read_back_is_not_written(uuid: str) -> None:
    with pytest.raises(WireError):
        write_grant(GrantFile(devices=(GrantDevice(uuid=DeviceUuid(uuid), memory_mib=1, cores=1),), region="/r"))


@given(
    st.lists(
        st.builds(
            GrantDevice,
            uuid=st.from_regex(r"(GPU|MIG)-[0-9a-f-]{1,36}", fullmatch=True).map(DeviceUuid),
            memory_mib=st.integers(0, INT32_MAX),
            cores=st.integers(0, INT32_MAX),
            enforced_by=st.sampled_from(["library", "driver", "mps"]),
        ),
        max_size=16,
    ).map(tuple),
    st.sampled_from(["default", "force", "disable"]),
    st.integers(0, 1),
    st.booleans(),
)
@settings(deadline=None)
def test_round_trip(devices: tuple[GrantDevice, ...], policy: str, priority: int, oversubscribe: bool) -> None:
    grant = GrantFile(
        devices=devices, policy=policy, priority=priority, oversubscribe=oversubscribe, region="/var/lib/r"
    )
    assert read_grant(write_grant(grant)) == grant
