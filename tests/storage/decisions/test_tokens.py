"""Tokens in the registry: what each administration comes to, on the committed state alone."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest

from config_manager.config.access import Role
from config_manager.config.errors import Conflict, NotFound
from config_manager.config.world import SystemRandomness, rfc3339
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.tokens import (
    AcceptAdminToken,
    CreateToken,
    NoteTokenUses,
    RevokeToken,
    hash_of,
    is_token_name,
    make_token,
    tokens,
)
from config_manager.storage.state import Commit, Committed
from tests.kit.stores import START, Counting, empty, equipped


def change(state: Committed, what: Decidable[Any], now: float = START) -> Commit:
    return what.decide(state, equipped(now=now)).change


def done(state: Committed, *all_of_it: Decidable[Any]) -> Committed:
    for what in all_of_it:
        state = change(state, what).after
    return state


def made(name: str = "ci", role: str = "write", **fields: Any) -> CreateToken:
    values: dict[str, Any] = {"services": ("*",), "expires_at": None}
    return CreateToken(
        name=name,
        token_hash=hash_of(name.encode()),
        role=cast("Role", role),
        **{**values, **fields},
    )


ROOT = AcceptAdminToken("bootstrap", hash_of(b"root"))


def test_a_token_is_256_random_bits_behind_a_prefix_that_scanners_know() -> None:
    texts = [make_token(SystemRandomness()).reveal() for _ in range(100)]
    assert all(re.fullmatch(r"cfgmgr_[0-9a-f]{72}", text) for text in texts)
    assert len({text[7:71] for text in texts}) == 100
    drawn: list[int] = []

    class Noting(Counting):
        def token(self, size: int) -> bytes:
            drawn.append(size)
            return super().token(size)

    make_token(Noting())
    assert drawn == [32]


def test_what_is_kept_and_audited_of_a_token_is_its_hash_and_its_terms() -> None:
    text = "cfgmgr_secret"
    what = made(services=("tts-*",), expires_at=rfc3339(START + 60))
    what = CreateToken("ci", hash_of(text.encode()), "write", what.services, what.expires_at)
    after = change(empty(), what)
    token = tokens(after.after)["ci"]
    assert (token.role, token.services, token.created_by) == ("write", ("tts-*",), "ada")
    assert (token.created_at, token.expires_at) == (rfc3339(START), rfc3339(START + 60))
    assert after.audit is not None
    body = json.loads(after.audit.body)
    assert (body["action"], body["by"]) == ("token.create", "ada")
    assert body["details"] == {
        "name": "ci",
        "role": "write",
        "services": ["tts-*"],
        "expires_at": rfc3339(START + 60),
    }
    assert text not in repr(after)
    assert token.hash not in json.dumps(body)


def test_a_name_is_given_once_at_a_time() -> None:
    state = done(empty(), ROOT, made("ci"))
    with pytest.raises(Conflict, match="revoke it first"):
        change(state, made("ci", "read"))
    assert tokens(done(state, RevokeToken("ci"), made("ci", "read")))["ci"].role == "read"


def test_revoking_needs_a_token_of_that_name() -> None:
    with pytest.raises(NotFound, match="no token 'ci'"):
        change(done(empty(), ROOT), RevokeToken("ci"))


@pytest.mark.parametrize(
    "other",
    [made("b", "write"), made("b", "admin", services=("tts-*",))]
    + [made("b", "admin", expires_at=rfc3339(START))],
)
def test_the_last_who_may_make_tokens_stays(other: CreateToken) -> None:
    state = done(empty(), ROOT, other)
    with pytest.raises(Conflict, match="make another one first"):
        change(state, RevokeToken("bootstrap"))
    assert "b" not in tokens(done(state, RevokeToken("b")))
    state = done(state, made("c", "admin"), RevokeToken("bootstrap"))
    assert set(tokens(state)) == {"b", "c"}


def test_a_use_is_noted_by_hash_without_an_audit_row_and_revives_nothing() -> None:
    state = done(empty(), ROOT, made("ci"))
    uses = {hash_of(b"ci"): rfc3339(START + 5), hash_of(b"gone"): rfc3339(START)}
    noted = change(state, NoteTokenUses(uses))
    assert noted.audit is None
    assert (noted.after.audit_seq, noted.after.audit_head) == (state.audit_seq, state.audit_head)
    assert tokens(noted.after)["ci"].last_used_at == rfc3339(START + 5)
    assert tokens(noted.after)["bootstrap"].last_used_at is None
    revoked = done(state, RevokeToken("ci"))
    assert "ci" not in tokens(done(revoked, NoteTokenUses(uses)))
    again = done(revoked, CreateToken("ci", hash_of(b"new"), "read", ("*",), None))
    assert tokens(done(again, NoteTokenUses(uses)))["ci"].last_used_at is None


@pytest.mark.parametrize("name", ["ci", "a", "9", "ci-deploy-2", "a" * 63])
def test_what_a_token_may_be_called(name: str) -> None:
    assert is_token_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "-a", "A", "a_b", "a b", "a\n", "a" * 64, "ä"]
    + ["anonymous", "dev", "settings", "admin", "bootstrap", "config-manager"],
)
def test_what_it_may_not(name: str) -> None:
    assert not is_token_name(name)
