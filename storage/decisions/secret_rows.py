"""What the registry keeps about secrets, by `service/name`; never a value.

secret-mark      it should be set anew, and why: a device that could read it was revoked
secret-retired   the last version of a deleted secret, so that no number is used twice
secret-floor     `accepted`: every earlier version, here and in what was lost, is at most this one
secrets-key      `rotation`: the change of the key that secrets are sealed under
"""

from __future__ import annotations

from collections.abc import Mapping

from config_manager.config.strict_json import JsonObject
from config_manager.storage.state import Committed, RegistryRow

MARK = "secret-mark"
RETIRED = "secret-retired"
FLOOR = "secret-floor"
KEY = "secrets-key"
ACCEPTED = "accepted"


def key_of(service: str, name: str) -> str:
    return f"{service}/{name}"


def marks(committed: Committed) -> Mapping[str, JsonObject]:
    """`service/name` → why it should be set anew."""
    return committed.registered(MARK)


def last_version(committed: Committed, service: str, name: str) -> int:
    """The highest version that this secret ever had, deleted ones included, or may have had in what an operator
    gave up (`restore --accept`); 0 if there never was one."""
    known = committed.services.get(service)
    none = {"version": 0}
    retired = committed.registered(RETIRED).get(key_of(service, name), none)
    floor = committed.registered(FLOOR).get(ACCEPTED, none)
    held = known.secrets.get(name, 0) if known else 0
    return max(held, int(retired["version"]), int(floor["version"]))


def floor_at(revision: int) -> RegistryRow:
    """The row after `restore --accept`. Each version is made by a revision of its own, so none is above this one."""
    return RegistryRow(FLOOR, ACCEPTED, {"version": revision})


def rows_after_set(committed: Committed, service: str, name: str) -> tuple[RegistryRow, ...]:
    """A new value ends the mark, and the service itself keeps its number."""
    key = key_of(service, name)
    return tuple(
        RegistryRow(kind, key, None)
        for kind in (MARK, RETIRED)
        if key in committed.registered(kind)
    )


def rows_after_delete(
    committed: Committed, service: str, name: str, *, at: str
) -> tuple[RegistryRow, ...]:
    key = key_of(service, name)
    retired = RegistryRow(
        RETIRED, key, {"version": last_version(committed, service, name), "at": at}
    )
    marked = key in committed.registered(MARK)
    return (retired, *((RegistryRow(MARK, key, None),) if marked else ()))
