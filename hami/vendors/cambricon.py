"""Cambricon MLU: cards counted from the node's capacity; the plug-in reads one profile a pod."""

from collections.abc import Mapping, Sequence
from typing import Final

from hami.model.claim import Mib, Need, Role
from hami.model.container import Container, RequestError
from hami.model.names import VendorWord
from hami.model.registration import shares_of_capacity
from hami.model.section import USUAL, named
from hami.model.vendor import Notes, Outcome, Resources, Rule, SelectKeys, Vendor

ASSIGNED: Final = "CAMBRICON_DSMLU_ASSIGNED"
PROFILE: Final = "CAMBRICON_DSMLU_PROFILE"


def one_share(need: Need, container: Container, notes: Notes, vendor: Vendor) -> Need:
    """The profile names one card with its cores and memory: several cards cannot be shares."""
    if need.count > 1 and (isinstance(need.memory, Mib) or need.cores < 100):
        where = f"{container.path}.resources.limits[{vendor.resources.count}]"
        raise RequestError(where, "1 beside a share of memory or cores: the profile names one card", need.count)
    return need


def one_reader(asking: Sequence[tuple[Container, Need]], vendor: Vendor) -> None:
    """There is one profile a pod, so of the containers that run together only one may have a share."""
    apps = [(container, need) for container, need in asking if container.role is Role.APP]
    for container, need in apps[1:]:
        if any(isinstance(other.memory, Mib) or other.cores < 100 for _, other in apps):
            where = f"{container.path}.resources.limits[{vendor.resources.count}]"
            raise RequestError(where, "absent: another container has a share, and the profile names one", need.count)


def profile(outcome: Outcome, vendor: Vendor) -> Mapping[str, str]:
    """`<index>_<cores>_<units of memory>` of the first card."""
    share = next(share for segment in outcome.segments for share in segment)
    index = outcome.devices[share.uuid].index
    return {ASSIGNED: "false", PROFILE: f"{index}_{share.cores}_{share.memory_mib // vendor.memory_factor}"}


MLU: Final = Vendor(
    name=VendorWord("MLU"),
    config_section="cambricon",
    resources=Resources(
        count="cambricon.com/vmlu", memory="cambricon.com/mlu.smlu.vmemory", cores="cambricon.com/mlu.smlu.vcore"
    ),
    node_key="",
    read=shares_of_capacity("cambricon-mlu", cores_each=100),
    pending_key="hami.io/cambricon-mlu-devices-to-allocate",
    done_key="hami.io/cambricon-mlu-devices-allocated",
    select=SelectKeys(uuid_in="cambricon.com/use-gpuuuid", uuid_out="cambricon.com/nouse-gpuuuid"),
    rules=Rule.SHARED | Rule.FULL_CORES_IS_EXCLUSIVE | Rule.CORES_AS_ASKED | Rule.MEMORY_MAY_BE_UNKNOWN,
    lock_key="cambricon.com/dsmlu.lock",
    default_count=0,
    default_cores=100,
    memory_factor=256,
    refine=one_share,
    together=one_reader,
    dress=profile,
    dress_keys=(ASSIGNED, PROFILE),
)


def configured(section: object) -> tuple[Vendor, ...]:
    """The declaration with a cluster's names."""
    return (named(MLU, section, USUAL),)
