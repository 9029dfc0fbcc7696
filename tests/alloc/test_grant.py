"""What a container is started with: HAMi's variables and mounts, and the grant file that our library obeys."""

from dataclasses import replace
from typing import Any

import pytest

from hami.alloc.grant import (
    GrantPaths,
    Mount,
    fixed_env,
    grant_file,
    mounts,
    mps_ceiling,
    mps_env,
    mps_most,
    mps_mounts,
    mps_own_limits,
    opts_out,
    owner_env,
)
from hami.alloc.request import containers
from hami.model.claim import Share
from hami.model.names import DeviceUuid
from hami.model.settings import NvidiaConfig
from hami.model.wire.grant import GrantDevice, GrantFile, read_grant, write_grant
from hami.vendors.nvidia import NVIDIA
from tests.alloc.pods import container, pod

PATHS = GrantPaths(
    hook="/usr/local/vgpu",
    etc="/usr/local/vgpu/grants/0a/etc",
    region="/usr/local/vgpu/grants/0a/region",
    region_name="0a.cache",
    library="/usr/local/vgpu/libvgpu.so.0.1.0-12345678",
    preload="/usr/local/vgpu/ld.so.preload",
)


def share(uuid: str, memory_mib: int, cores: int) -> Share:
    return Share(uuid=DeviceUuid(uuid), kind="NVIDIA", memory_mib=memory_mib, cores=cores)


ONE = (share("GPU-a", 3000, 30),)


def test_the_references_variables_and_mounts() -> None:
    assert {**fixed_env(NvidiaConfig(), PATHS), **owner_env(ONE, NVIDIA)} == {
        "CUDA_DEVICE_MEMORY_LIMIT_0": "3000m",
        "CUDA_DEVICE_SM_LIMIT": "30",
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": "/usr/local/vgpu/0a.cache",
        "LIBCUDA_LOG_LEVEL": "1",
        "NVIDIA_VISIBLE_DEVICES": "GPU-a",
        "HAMI_DEVICE_UUIDS": "GPU-a",
    }
    assert mounts(PATHS) == (
        Mount(container="/etc/hami", host="/usr/local/vgpu/grants/0a/etc"),
        Mount(container="/usr/local/vgpu", host="/usr/local/vgpu/grants/0a/region", read_only=False),
        Mount(container="/usr/local/vgpu/libvgpu.so", host="/usr/local/vgpu/libvgpu.so.0.1.0-12345678"),
        Mount(container="/tmp/vgpulock", host="/tmp/vgpulock", read_only=False),
        Mount(container="/etc/ld.so.preload", host="/usr/local/vgpu/ld.so.preload"),
    )


def test_the_host_pid_broker_where_it_is_served() -> None:
    paths = replace(PATHS, host_pid="/var/run/hami/hostpid")
    assert fixed_env(NvidiaConfig(), paths)["LIBVGPU_HOSTPID_BROKER"] == "1"
    places = [mount.container for mount in mounts(paths)]
    assert places.index("/tmp/vgpulock") < places.index("/tmp/vgpulock/hostpid")
    assert Mount(container="/tmp/vgpulock/hostpid", host="/var/run/hami/hostpid") in mounts(paths)
    assert "LIBVGPU_HOSTPID_BROKER" not in fixed_env(NvidiaConfig(), PATHS)


@pytest.mark.parametrize(
    ("shares", "percentage", "pinned"),
    [
        (ONE, "30", "GPU-a=3000M"),
        ((share("GPU-a", 3000, 60), share("GPU-b", 4000, 20)), "20", "GPU-a=3000M,GPU-b=4000M"),
        ((share("GPU-a", 3000, 100), share("GPU-b", 0, 0)), None, "GPU-a=3000M"),
        ((share("GPU-a", 0, 0),), None, None),
        ((), None, None),
    ],
)
def test_what_makes_programs_run_under_mps(
    shares: tuple[Share, ...], percentage: str | None, pinned: str | None
) -> None:
    env = mps_env(shares, cores=True, memory=True)
    assert env["CUDA_MPS_PIPE_DIRECTORY"] == "/run/hami/mps/pipe"
    assert env.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE") == percentage
    assert env.get("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT") == pinned
    wider = mps_env(shares, cores=True, memory=True, beside_mib=100).get("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT")
    assert wider == (pinned.replace("000M", "100M") if pinned else None)
    bare = mps_env(shares, cores=False, memory=False)
    assert set(bare) == {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"}
    places = [mount.container for mount in mps_mounts("/p", "/l", "/s")]
    assert places == ["/run/hami/mps/pipe", "/run/hami/mps/log", "/dev/shm"]
    assert len(mps_mounts("/p", "/l", "")) == 2


@pytest.mark.parametrize(
    ("shares", "named", "told"),
    [
        (ONE, False, True),
        (ONE, True, False),
        ((share("GPU-a", 3000, 60), share("GPU-b", 3000, 20)), True, False),
        ((share("GPU-a", 3000, 60), share("GPU-b", 4000, 20)), True, True),
    ],
)
def test_programs_are_told_limits_that_their_place_does_not_say(
    shares: tuple[Share, ...], named: bool, told: bool
) -> None:
    assert mps_own_limits(shares, named=named) == told


@pytest.mark.parametrize(
    ("shares", "ceiling", "most"),
    [
        (ONE, 30, 3100),
        ((share("GPU-a", 3000, 60), share("GPU-b", 4000, 20)), 20, 4100),
        ((share("GPU-a", 3000, 100), share("GPU-b", 0, 0)), 0, 0),
        ((), 0, 0),
    ],
)
def test_what_a_place_says(shares: tuple[Share, ...], ceiling: int, most: int) -> None:
    assert (mps_ceiling(shares), mps_most(shares, 100)) == (ceiling, most)


def test_nothing_is_mounted_over_what_it_needs() -> None:
    """A later mount may lie inside an earlier one, never the other way round."""
    found = [mount.container for mount in mounts(PATHS)]
    for i, path in enumerate(found):
        assert not any(earlier.startswith(f"{path}/") for earlier in found[:i])


def test_several_devices_in_the_containers_order() -> None:
    env = owner_env((share("GPU-b", 100, 30), share("GPU-a", 200, 60)), NVIDIA)
    assert env == {
        "CUDA_DEVICE_MEMORY_LIMIT_0": "100m",
        "CUDA_DEVICE_MEMORY_LIMIT_1": "200m",
        "CUDA_DEVICE_SM_LIMIT": "30",
        "CUDA_DEVICE_SM_LIMIT_0": "30",
        "CUDA_DEVICE_SM_LIMIT_1": "60",
        "NVIDIA_VISIBLE_DEVICES": "GPU-b,GPU-a",
        "HAMI_DEVICE_UUIDS": "GPU-b,GPU-a",
    }


@pytest.mark.parametrize(
    ("shares", "amount"),
    [
        (ONE, "3000"),
        ((share("GPU-a", 3000, 0), share("GPU-b", 3000, 0)), "3000"),
        ((share("GPU-a", 3000, 0), share("GPU-b", 4000, 0)), None),
        ((share("GPU-a", 0, 0),), None),
    ],
)
def test_the_drivers_own_cap(shares: tuple[Share, ...], amount: str | None) -> None:
    env = owner_env(shares, NVIDIA, driver_cap=True)
    assert env.get("NVIDIA_GPU_MEMORY_LIMIT") == amount
    assert env.get("NVIDIA_GPU_MEMORY_REQUEST") == (None if amount is None else "0")
    assert "NVIDIA_GPU_MEMORY_LIMIT" not in owner_env(shares, NVIDIA)


def test_with_a_device_file_the_environment_names_no_devices() -> None:
    assert "NVIDIA_VISIBLE_DEVICES" not in owner_env(ONE, NVIDIA, visible=False)
    assert owner_env(ONE, NVIDIA, visible=False)["HAMI_DEVICE_UUIDS"] == "GPU-a"


def test_what_is_answered_before_the_owner_is_certain_tells_nothing_of_it() -> None:
    assert owner_env((), NVIDIA) == {}
    text = f"{fixed_env(NvidiaConfig(), PATHS)}{mounts(PATHS)}"
    assert "GPU-" not in text
    assert "LIMIT" not in text


@pytest.mark.parametrize(
    ("config", "extra"),
    [
        ({"libcuda_log_level": ""}, {}),
        ({"libcuda_log_level": "4"}, {"LIBCUDA_LOG_LEVEL": "4"}),
        ({"device_memory_scaling": 1.5, "libcuda_log_level": ""}, {"CUDA_OVERSUBSCRIBE": "true"}),
        ({"device_memory_scaling": 0.5, "libcuda_log_level": ""}, {}),
        ({"disable_core_limit": True, "libcuda_log_level": ""}, {"GPU_CORE_UTILIZATION_POLICY": "disable"}),
        # The webhook has told the container already.
        ({"gpu_core_policy": "force", "libcuda_log_level": ""}, {}),
    ],
)
def test_settings(config: dict[str, Any], extra: dict[str, str]) -> None:
    cache = {"CUDA_DEVICE_MEMORY_SHARED_CACHE": "/usr/local/vgpu/0a.cache"}
    assert fixed_env(NvidiaConfig(**config), PATHS) == cache | extra


def test_a_container_may_opt_out_of_control() -> None:
    def asks(*values: str | None) -> bool:
        env = [{"name": "CUDA_DISABLE_CONTROL", **({} if value is None else {"value": value})} for value in values]
        (found,) = containers(pod(container(env=env)))
        return opts_out(found)

    assert [asks(), asks("true"), asks("1"), asks("false"), asks("yes"), asks(None)] == [False, True, True] + [
        False
    ] * 3
    assert asks("true", "false") is False
    assert all(mount.container != "/etc/ld.so.preload" for mount in mounts(PATHS, preload=False))


def test_the_grant_file() -> None:
    shares = (share("GPU-a", 3000, 30), share("GPU-b", 0, 150))
    config = NvidiaConfig(gpu_core_policy="force", device_memory_scaling=2.0, memory_accounting="strict")
    got = grant_file(shares, config, priority=7, paths=PATHS, enforced_by="driver")
    assert got == GrantFile(
        devices=(
            GrantDevice(uuid=DeviceUuid("GPU-a"), memory_mib=3000, cores=30, enforced_by="driver"),
            GrantDevice(uuid=DeviceUuid("GPU-b"), memory_mib=0, cores=100, enforced_by="driver"),
        ),
        policy="force",
        priority=1,
        oversubscribe=True,
        accounting="strict",
        region="/usr/local/vgpu/0a.cache",
    )
    assert read_grant(write_grant(got)) == got
    off = grant_file(ONE, NvidiaConfig(gpu_core_policy="force", disable_core_limit=True), priority=0, paths=PATHS)
    assert (off.policy, off.priority, off.oversubscribe, off.accounting) == ("disable", 0, False, "")
    with pytest.raises(ValueError, match="enforced_by"):
        grant_file(ONE, config, priority=0, paths=PATHS, enforced_by="nobody")
