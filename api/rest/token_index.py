"""Finding a token by what a caller sent, as fast for a thousand tokens as for one."""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from config_manager.config.access import Grant
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions import tokens
from config_manager.storage.decisions.tokens import Token
from config_manager.storage.state import Committed


class Known(NamedTuple):
    """A token that is valid here. expires_at: Unix seconds, infinite if it never expires."""

    token: Token
    grant: Grant
    expires_at: float


class TokenIndex:
    """The committed tokens by their hash, made afresh when one of them changed."""

    def __init__(self) -> None:
        self._rows: Mapping[str, Any] | None = None
        self._by_hash: dict[str, Known] = {}

    def find(self, committed: Committed, token_hash: str) -> Known | None:
        rows = committed.registered(tokens.KIND)
        if rows is not self._rows:
            self._by_hash = {one.hash: _known(one) for one in tokens.tokens(committed).values()}
            self._rows = rows
        known = self._by_hash.get(token_hash)
        # the lookup's time tells nothing: Python's hash of the text is keyed, and what is compared
        # is the hash of 256 random bits
        if known is None or not hmac.compare_digest(token_hash, known.token.hash):
            return None
        return known


def _known(token: Token) -> Known:
    until = math.inf if token.expires_at is None else parse_rfc3339(token.expires_at)
    return Known(token, token.grant, until)
