"""Finding a token by what a caller sent, in constant time however many there are."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from config_manager.storage import tokens
from config_manager.storage.state import Committed
from config_manager.storage.tokens import Token


class TokenIndex:
    """The committed tokens by their hash, made afresh when one of them changed."""

    def __init__(self) -> None:
        self._rows: Mapping[str, Any] | None = None
        self._by_hash: dict[str, Token] = {}

    def find(self, committed: Committed, token: str) -> Token | None:
        rows = committed.registered(tokens.KIND)
        if rows is not self._rows:
            self._by_hash = {known.hash: known for known in tokens.tokens(committed).values()}
            self._rows = rows
        token_hash = tokens.hash_of(token)
        known = self._by_hash.get(token_hash)
        if known is None or not hmac.compare_digest(token_hash, known.hash):
            return None
        return known
