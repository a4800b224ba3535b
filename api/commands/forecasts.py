"""What a change would do, as commands print it: keys, and what each instance would make of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from config_manager.api.commands.changes import side
from config_manager.api.commands.output import clean

_MOST_KEYS = 40
_MOST_INSTANCES = 40
_FIRST = ("refuses", "restart", "unknown", "hot", "same")
"""What somebody has to look at comes first."""


def service_lines(
    service: Mapping[str, Any], instances: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """service: as a plan answers it."""
    rows = [*key_rows(service), *instance_rows(instances)]
    if not rows:
        yield clean(f"{service['service']}  nothing")
        return
    width = max(len(one) for one, _ in rows)
    left = service["service"]
    for name, told in rows:
        yield clean(f"{left}  {name.ljust(width)}  {told}".rstrip())
        left = " " * len(service["service"])


def key_rows(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, what becomes of it), by effective values; a key that is only stored otherwise says so."""
    effective = {one["key"]: one for one in service["effective"]}
    written = {one["key"] for one in service["changes"]}
    is_first = not service["unchanged"] and all(side(o, "old") == "-" for o in effective.values())
    rows = [
        (key, f"{side(one, 'old')} → {side(one, 'new')}")
        for key, one in effective.items()
        if key in written or not is_first
    ]
    for one in service["changes"]:
        if one["key"] not in effective:
            is_set = one["new"] is not None or "new" in one.get("nulls", ())
            told = "the value stays, and is set" if is_set else "the value stays, as its default"
            rows.append((one["key"], told))
    if not rows:
        return []
    more = len(rows) - _MOST_KEYS
    if more > 0:
        rows[_MOST_KEYS:] = [("…", f"and {more} more keys")]
    stay = len(effective) - len(written) if is_first else len(service["unchanged"])
    size = f"{service['bytes'] / 1024:.1f} of 256 KiB"
    kept = (
        ("has its default" if stay == 1 else "have their defaults")
        if is_first
        else ("stays" if stay == 1 else "stay")
    )
    return [*rows, (f"{stay} {'key' if stay == 1 else 'keys'} {kept}", size)]


def instance_rows(instances: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(instance, verdict and why), those that refuse first."""
    ordered = sorted(instances, key=_urgency)
    rows = [(one["instance"], instance_told(one)) for one in ordered[:_MOST_INSTANCES]]
    more = len(ordered) - _MOST_INSTANCES
    return [*rows, ("…", f"and {more} more instances")] if more > 0 else rows


def instance_told(one: Mapping[str, Any]) -> str:
    """Such as `hot, its environment decides vad_threshold`."""
    claim = "" if one["enrolled"] else ", not enrolled"
    if one["verdict"] == "refuses":
        return f"refuses{claim}: {one['why']} (runs {one['library']})"
    return ", ".join(filter(None, (one["verdict"] + claim, one["why"])))


def _urgency(one: Mapping[str, Any]) -> int:
    return _FIRST.index(one["verdict"]) if one["verdict"] in _FIRST else 0
