"""Who may do what: roles, the services a token is for, and the one check that asks for both.

    role      may
    read      look: configurations, history, status
    write     read, and change configurations
    secrets   read, and set, list, reveal and delete secrets
    admin     everything: tokens, devices, the trust root, the audit

A token may be narrowed to services (`tts-*`). What belongs to no service (tokens, the trust root, the
audit, devices of every service) needs an administrator of every service: otherwise a narrowed one could
create a token that is not narrowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from config_manager.config.errors import Forbidden

Role = Literal["read", "write", "secrets", "admin"]
Need = Literal["read", "write", "secrets", "admin"]
"""What a call needs; a role of the same name has it."""

_MAY: dict[Role, frozenset[Need]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "secrets": frozenset({"read", "secrets"}),
    "admin": frozenset({"read", "write", "secrets", "admin"}),
}
ROLES: tuple[Role, ...] = tuple(_MAY)
EVERY_SERVICE = ("*",)

_PATTERN = re.compile(r"[a-z0-9*-]{1,63}")


def able(need: Need) -> tuple[Role, ...]:
    """The roles that may do what needs this, the narrowest first."""
    return tuple(role for role in ROLES if need in _MAY[role])


@dataclass(frozen=True, slots=True)
class Grant:
    """What a known caller may do. services: patterns, in which `*` stands for any text."""

    name: str
    role: Role
    services: tuple[str, ...] = EVERY_SERVICE

    def covers(self, service: str) -> bool:
        """Whether the token is for this service."""
        return self.services == EVERY_SERVICE or any(
            # `*` is a pattern's only special character, and no text makes this slow
            fnmatchcase(service, pattern)
            for pattern in self.services
        )

    @property
    def is_narrowed(self) -> bool:
        return self.services != EVERY_SERVICE

    def among(self, services: Iterable[str]) -> Sequence[str] | None:
        """Those of these services that the token is for; None: it is for every service."""
        return [one for one in services if self.covers(one)] if self.is_narrowed else None

    def require(self, need: Need, service: str | None = None) -> None:
        """Raises Forbidden, which says what would be needed.

        service: None for what belongs to no service.
        """
        if need not in _MAY[self.role]:
            roles = ", ".join(able(need))
            raise Forbidden(f"{self.name!r} has the role {self.role}; this needs one of: {roles}")
        if service is not None and not self.covers(service):
            raise Forbidden(f"{self.name!r} is for {', '.join(self.services)}, not for {service}")
        if service is None and need == "admin":
            self.require_every_service()

    def require_every_service(self) -> None:
        """For what shows all services at once; raises Forbidden."""
        if self.is_narrowed:
            raise Forbidden(
                f"{self.name!r} is for {', '.join(self.services)}; this concerns every service"
            )


ANYBODY = Grant("anonymous", "read", ())
"""A caller without a token, on a call that needs none."""


def is_pattern(text: str) -> bool:
    """Whether this can stand in a token's list of services."""
    return _PATTERN.fullmatch(text) is not None
