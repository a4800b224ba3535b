"""What doctor finds, and what to do about what `/health` says.

The words of its reasons are those of actors/health.py, actors/storing/opening.py and actors/starting.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """level: how bad. check: a stable name. detail: what was seen. remedy: what to do, or empty."""

    level: Severity
    check: str
    detail: str
    remedy: str = ""


_CLIENT_IDS = (
    "let clients have ids as ours are: letters, digits and -, beginning with config-manager- (this server) or cm- "
    "(services); Mosquitto: clientid_prefixes"
)
_OF_BROKERS = {
    "keeps refusing": (
        "raise the broker's limit (message_size_limit, max_packet_size), write less there, or let "
        "config-manager's user write system/# (deploy/mosquitto-acl); it is tried again by itself"
    ),
    "somebody else writes": (
        "give every config-manager a broker of its own, and keep all others off its topics "
        "(deploy/mosquitto-acl)"
    ),
    "another config-manager is alive there": (
        "stop the one whose data directory is a copy or too old: docs/security.md"
    ),
    "Session taken over": (
        "another client has our client id: does the broker make it of the user's name "
        "(use_username_as_clientid)?"
    ),
    "Client identifier not valid": _CLIENT_IDS,
    "Not authorized": f"are user and password right? If they are: {_CLIENT_IDS}",
}
_OF_THE_SERVER = {
    "not-audited: ": (
        "somebody has edited the database past the server: `config-manager audit verify` says what. Who can "
        "read db.key? Stop the server; then put the newest backup back, or `config-manager restore --accept` "
        "(docs/security.md, What the audit vouches for)"
    ),
    "rollback-suspected: ": (
        "is a newer data directory somewhere, or a server that runs on a copy of this one? Then stop this "
        "server, and go on with the newer one. If there is none: stop this server, and `config-manager restore "
        "--accept --mqtt-url URL` (docs/security.md, An old data directory)"
    ),
    "instance.json was missing": (
        "if you know why, nothing: the next start does not say it any more. If not: is the database an old one "
        "that somebody put back? Compare it with an export that you kept (`config-manager audit verify "
        "--contains HASH`; docs/security.md, A lost witness)"
    ),
}


def remedy(reason: str) -> str:
    """What to do about a reason of `/health`; empty if there is nothing to add. What a broker says of itself is in
    the reasons about it, and calls for no cure of the server."""
    cures = _OF_BROKERS if reason.startswith("broker ") else _OF_THE_SERVER
    return next((cure for words, cure in cures.items() if words in reason), "")
