"""What to do about what `/health` says of a broker; the words are those of actors/health.py."""

from __future__ import annotations

_REMEDIES = {
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
}


def remedy(reason: str) -> str:
    """Empty where there is nothing to add."""
    return next((cure for words, cure in _REMEDIES.items() if words in reason), "")
