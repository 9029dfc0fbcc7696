"""Keeping the MPS daemon of a node whose sharers run side by side; while it does not answer, they take turns."""

import logging
from dataclasses import dataclass
from typing import Final

import anyio

from hami.node.mps import Mps, MpsError, MpsPaths

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
AGAIN_S: Final = 10.0
"""Pause after a daemon that could not be started."""


@dataclass(slots=True)
class Sharers:
    """The daemon, watched. New containers are sent to it only while it answers."""

    mps: Mps
    _ready: bool = False

    def ready(self) -> MpsPaths | None:
        """The daemon's directories, while it answers."""
        return self.mps.paths if self._ready else None

    async def run(self) -> None:
        """Have it running, for ever."""
        told = ""
        while True:
            try:
                self._ready = await anyio.to_thread.run_sync(self._have)
                told = ""
                await anyio.sleep(LOOK_EVERY_S)
            except MpsError as error:
                self._ready = False
                if str(error) != told:
                    told = str(error)
                    log.error("sharers take turns: %s", error)
                await anyio.sleep(AGAIN_S)

    def _have(self) -> bool:
        """Start the daemon unless it answers; whether it does. Raises MpsError, also for one that takes no programs."""
        if not self.mps.alive():
            self._ready = False
            self.mps.start()
        if fault := self.mps.fault():
            raise MpsError(fault)
        return self.mps.alive()
