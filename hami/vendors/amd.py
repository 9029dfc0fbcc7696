"""AMD GPUs: memory in MiB, compute units asked in percent."""

from typing import Final

from hami.model.container import Container, amount
from hami.model.names import VendorWord
from hami.model.quantity import whole
from hami.model.section import USUAL, named
from hami.model.vendor import Notes, Resources, Rule, SelectKeys, Shaped, ShapeError, Vendor


def check_cores(container: Container, notes: Notes, vendor: Vendor) -> Shaped:
    """A percentage of the compute units, at least 1."""
    cores = vendor.resources.cores
    found = amount(container, cores, ("limits",))
    if found is not None and (whole(found[0]) is None or not 1 <= found[0] <= 100):
        raise ShapeError(found[1], f"{cores} must be an integer percentage between 1 and 100")
    return Shaped()


AMD: Final = Vendor(
    name=VendorWord("AMD"),
    config_section="amd",
    resources=Resources(count="amd.com/gpu", memory="amd.com/gpumem", cores="amd.com/gpucores"),
    node_key="hami.io/node-amd-register",
    pending_key="hami.io/amd-devices-to-allocate",
    done_key="hami.io/amd-devices-allocated",
    select=SelectKeys(
        type_in="amd.com/use-gputype",
        type_out="amd.com/nouse-gputype",
        uuid_in="amd.com/use-gpu-uuid",
        uuid_out="amd.com/nouse-gpu-uuid",
    ),
    rules=Rule.SHARED | Rule.CORES_OF_DEVICE | Rule.KIND_IS_MODEL | Rule.LIMITS_ONLY | Rule.COUNT_IMPLIED,
    default_cores=100,
    shape=check_cores,
)


def configured(section: object) -> tuple[Vendor, ...]:
    """The declaration with a cluster's names."""
    return (named(AMD, section, USUAL),)
