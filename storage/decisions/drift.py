"""Whether an instance runs what it should. Pure."""

from __future__ import annotations

from config_manager.config.documents.receipt import Running
from config_manager.storage.state import ServiceState


def is_in_sync(wanted: ServiceState | None, running: Running | None, *, gone: bool) -> bool:
    """Whether an instance is there and runs exactly what is wanted: nothing if nothing is wanted.

    wanted: the service's state; None if nobody wrote it or it is deleted. running: None if the instance runs
    on its defaults. gone: its broker says that it is not there any more.
    """
    if gone:
        return False
    if wanted is None or running is None:
        return wanted is None and running is None
    runs = (running.epoch_seq, running.revision, running.digest)
    return runs == (*wanted.mark, wanted.digest)
