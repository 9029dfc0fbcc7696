"""What programs are placed on: this machine's devices, as the engine sees them, and what makes a program use them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hami.alloc.ledger import Ledger
from hami.alloc.place import place_on
from hami.local.ask import Ask
from hami.local.entries import Entry
from hami.model.claim import Assignment, ContainerNeed, Need, NodeRefusal, PodRecord, PodRequest, Role
from hami.model.device import NodeInventory, NodeRecord
from hami.model.names import NodeName, PodKey, PodUid
from hami.model.vendor import Registry, Vendor

THIS_MACHINE: Final = NodeName("local")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What programs are placed on, and what they are given to run there."""

    inventory: NodeInventory
    vendor: Vendor
    directory: Path
    library: Path
    """The interposer."""
    additions: Mapping[str, str]
    """Environment that a simulated driver needs."""
    simulated: bool

    def place(self, ask: Ask, running: Sequence[Entry], me: str) -> Assignment | NodeRefusal:
        """Where shares would lie beside those running, by the same engine that places pods."""
        registry = Registry((self.vendor,))
        ledger = Ledger(registry)
        ledger.put_node(NodeRecord(name=THIS_MACHINE, inventories=(self.inventory,)))
        for entry in running:
            ledger.put_pod(
                PodRecord(
                    uid=PodUid(entry.name),
                    key=PodKey("local", entry.name),
                    node=THIS_MACHINE,
                    roles=(Role.APP,),
                    segments={self.inventory.vendor: (entry.shares,)},
                )
            )
        need = Need(vendor=self.inventory.vendor, count=ask.gpus, memory=ask.memory, cores=ask.cores)
        request = PodRequest(
            uid=PodUid(me),
            key=PodKey("local", me),
            containers=(ContainerNeed(name="program", role=Role.APP, needs=(need,)),),
        )
        return place_on(ledger, request, THIS_MACHINE, card_policy=ask.policy)

    def could_ever_run(self, ask: Ask) -> bool:
        """Whether the request fits an empty machine."""
        return not isinstance(self.place(ask, (), "any"), NodeRefusal)
