"""NVIDIA GPUs, shared by software limits or cut into MIG instances."""

from dataclasses import replace
from typing import Final

from hami.model.names import VendorWord
from hami.model.settings import NvidiaConfig
from hami.model.vendor import Env, Resources, Rule, SelectKeys, Vendor
from hami.model.wire import pod as keys

NVIDIA: Final = Vendor(
    name=VendorWord("NVIDIA"),
    config_section="nvidia",
    resources=Resources(
        count="nvidia.com/gpu",
        memory="nvidia.com/gpumem",
        memory_percentage="nvidia.com/gpumem-percentage",
        cores="nvidia.com/gpucores",
        priority="nvidia.com/priority",
    ),
    node_key=keys.NVIDIA_NODE,
    pending_key=keys.NVIDIA_PENDING,
    done_key=keys.NVIDIA_DONE,
    # The first family there was: its handshake has no family in its name.
    handshake_key=keys.NVIDIA_HANDSHAKE,
    link_key=keys.NVIDIA_LINKS,
    select=SelectKeys(
        type_in=keys.NVIDIA_TYPE_IN,
        type_out=keys.NVIDIA_TYPE_OUT,
        uuid_in=keys.NVIDIA_UUID_IN,
        uuid_out=keys.NVIDIA_UUID_OUT,
        mode=keys.NVIDIA_MODE,
        numa_bind=keys.NVIDIA_NUMA_BIND,
    ),
    env=Env(
        priority="CUDA_TASK_PRIORITY",
        core_policy="GPU_CORE_UTILIZATION_POLICY",
        visible="NVIDIA_VISIBLE_DEVICES",
        memory_limit="CUDA_DEVICE_MEMORY_LIMIT_{i}",
        core_limit="CUDA_DEVICE_SM_LIMIT",
    ),
    rules=Rule.SHARED | Rule.FULL_CORES_IS_EXCLUSIVE | Rule.WHOLE_IS_EXCLUSIVE | Rule.MIG,
)


def configured(config: NvidiaConfig) -> Vendor:
    """The declaration with a cluster's names and defaults."""
    return replace(
        NVIDIA,
        resources=Resources(
            count=config.resource_count_name,
            memory=config.resource_memory_name,
            memory_percentage=config.resource_memory_percentage_name,
            cores=config.resource_core_name,
            priority=config.resource_priority_name,
        ),
        default_memory_mib=config.default_memory_mib,
        default_cores=config.default_cores,
        default_count=config.default_gpu_num,
        memory_factor=config.memory_factor,
        core_policy=config.gpu_core_policy,
        runtime_class=config.runtime_class_name,
        hide_unrequested=config.overwrite_env,
    )
