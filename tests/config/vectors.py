"""Makes docs/vectors.json: `python -m tests.config.vectors` writes it, the tests compare it.

The same bytes in every run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from config_manager.config import strict_json, wire
from config_manager.config.documents.root import Root
from config_manager.config.documents.sealed import Sealed
from config_manager.config.enrolment import Enrolment
from tests.config import vector_revocations, vector_starts
from tests.config.vector_contents import content_cases
from tests.config.vector_documents import (
    AFTER_OLD_KEY,
    AFTER_ROTATION,
    DIGEST,
    DOCUMENTS,
    INSTANCE,
    KEYS,
    NOW,
    OTHER_SEAL_KEY,
    ROOT,
    ROOT_2,
    ROOT_3,
    ROOT_4,
    SEAL_KEY,
    SEALED,
    SEALED_TOPIC,
    SECRETS,
    SERVICE,
    STOLEN,
    TOPIC,
    UPDATE,
    document,
    envelope,
    keyid,
    make_sealed,
    public,
    sealing,
    sign,
)
from tests.config.vector_edges import root_edges, sealed_edges, update_edges
from tests.config.vector_stories import (
    beacon_cases,
    marks,
    replay,
    timeline_messages,
    timelines,
)
from tests.config.vector_strictness import odd_updates

PATH = Path(__file__).resolve().parents[2] / "docs" / "vectors.json"
_SHORT = 100
TOKEN = "cm-example-one-time-token"


# ── whole messages ─────────────────────────────────────────────────────────────────────────────


def messages() -> dict[str, dict[str, Any]]:
    beacon = envelope("beacon").to_object()
    snapshot = {**envelope("snapshot").to_object(), "beacon": beacon}
    keepalive = {
        "id": "3f0c6f5e-0000-4000-8000-000000000001",
        "type": "health.keepalive",
        "ts": "2026-01-02T03:04:06.000Z",
        "source": "config-manager",
        "data": {"beacon": beacon},
    }
    return {
        "snapshot": {
            "topic": wire.SNAPSHOT_TOPIC,
            "message": strict_json.dumps(snapshot).decode(),
        },
        "keepalive": {
            "topic": wire.KEEPALIVE_TOPIC,
            "message": strict_json.dumps(keepalive).decode(),
        },
    }


# ── how messages are judged ────────────────────────────────────────────────────────────────────

SEEN = {"seen": {"epoch_seq": 1, "revision": 7, "digest": DIGEST}, "before": "config-update"}
BEHIND_A_THIEF = {
    "seen": {"epoch_seq": 1, "revision": 2**53 - 1, "digest": wire.digest(STOLEN.to_bytes())},
    "before": "stolen",
}


def update(*by: str, **fields: Any) -> str:
    payload = replace(UPDATE, **fields).to_bytes()
    return sign(wire.CONFIG_UPDATE, payload, *by).to_bytes().decode()


def flipped(name: str, member: str) -> str:
    """One bit of the payload's or the signature's base64, and base64 still."""
    made = json.loads(envelope(name).to_bytes())
    holder = made if member == "payload" else made["signatures"][0]
    text = holder[member]
    holder[member] = text[:7] + ("A" if text[7] != "A" else "B") + text[8:]
    return strict_json.dumps(made).decode()


def cases() -> list[dict[str, Any]]:
    good = envelope("config-update").to_bytes().decode()
    critical = json.loads(UPDATE.to_bytes()) | {"critical": ["rollout"], "rollout": "10%"}
    unknown = sign(wire.CONFIG_UPDATE, strict_json.dumps(critical), "config").to_bytes().decode()
    twice = json.loads(update("config", revision=9))
    twice["signatures"] *= 2

    def case(name: str, message: str, reason: str | None, **how: Any) -> dict[str, Any]:
        usual = {"service": SERVICE, "topic": TOPIC, "under": "root", "now": NOW,
                 "seen": None, "before": None}  # fmt: skip
        return {"name": name, **usual, **how, "message": message, "reason": reason}

    old_key, new_key = update("config", revision=9), update("config-2", revision=9)
    return [
        case("good, first", good, None),
        case("good, again: a duplicate, no error", good, None, **SEEN),
        case("empty: never a deletion", "", "malformed"),
        case("not JSON", "{", "malformed"),
        case("one bit of the payload", flipped("config-update", "payload"), "bad-signature"),
        case("one bit of the signature", flipped("config-update", "sig"), "bad-signature"),
        case("signed by nobody we know", update("instance"), "unknown-key"),
        case("the right key in the wrong role", update("beacon"), "unknown-key"),
        case("another kind of document", document("snapshot")["envelope"], "wrong-type"),
        case("another service's", update("config", service="router"), "wrong-service"),
        case(
            "moved to another topic", good, "wrong-topic", topic=wire.config_topic("tts-worker")
        ),
        case("older than what was seen", update("config", revision=6), "rolled-back", **SEEN),
        case(
            "the same revision with other content",
            update("config", config={}),
            "equivocation",
            **SEEN,
        ),
        case(
            "an older epoch, whatever its revision",
            update("config", epoch_seq=0, revision=99),
            "rolled-back",
            **SEEN,
        ),
        case("critical names what we do not know", unknown, "unsupported-critical"),
        case("a number of 2^53", update("config", revision=2**53), "malformed"),
        case("a new key before its root came", new_key, "unknown-key", **SEEN),
        case("a new key, rotated in", new_key, None, **SEEN, under="root-2", now=AFTER_ROTATION),
        case(
            "the old key before its not_after",
            old_key, None, **SEEN, under="root-2", now=AFTER_ROTATION,
        ),
        case(
            "the old key past its not_after",
            old_key, "unknown-key", **SEEN, under="root-2", now=AFTER_OLD_KEY,
        ),
        case(
            "the old key once it is revoked",
            old_key, "unknown-key", **SEEN, under="root-4", now=AFTER_ROTATION,
        ),
        case(
            "the old key signs twice", json.dumps(twice), None,
            **SEEN, under="root-2", now=AFTER_ROTATION,
        ),
        *(case(name, message, reason, **how) for name, message, reason, how in odd_updates()),
        case("behind a thief's mark, while his key is listed", old_key, "rolled-back", **BEHIND_A_THIEF),
        *(case(name, message, reason, **how) for name, message, reason, how in update_edges()),
    ]  # fmt: skip


def root_cases() -> list[dict[str, Any]]:
    """trusted: the newest version that is, with all before it; trusts: the newest one afterwards."""

    def signed(root: Root, *by: str) -> str:
        return sign(wire.ROOT, root.to_bytes(), *by).to_bytes().decode()

    def case(
        name: str, trusted: str, version: int, message: str, reason: str | None, **how: Any
    ) -> Any:
        before = int(trusted[-1]) if trusted[-1].isdigit() else 1
        usual = {
            "topic": wire.root_topic(version),
            "now": AFTER_ROTATION,
            "trusts": before if reason is not None else version,
        }
        return {
            "name": name, "trusted": trusted, **usual, **how, "message": message, "reason": reason
        }  # fmt: skip

    def odd(**changes: Any) -> str:
        value = json.loads(ROOT_2.to_bytes()) | changes
        return sign(wire.ROOT, strict_json.dumps(value), "root").to_bytes().decode()

    lonely = replace(ROOT_3, roles={**ROOT_3.roles, "root": ROOT.roles["root"]})
    twin = replace(ROOT_2, issued_at="2026-01-05T00:00:01.000Z")
    plain = json.loads(ROOT_2.to_bytes())
    dated_2 = document("root-dated-2")["envelope"]
    more_keys = {
        **plain["keys"],
        "a" * 64: {"keytype": "ml-dsa-44", "public": "", "not_after": None},
    }
    misnamed = {
        "b" * 64 if one == keyid("root") else one: key for one, key in plain["keys"].items()
    }
    no_beacon = {name: role for name, role in ROOT_2.roles.items() if name != "beacon"}
    return [
        case("a configuration key rotated", "root", 2, signed(ROOT_2, "root"), None),
        case("two of two root keys", "root-2", 3, signed(ROOT_3, "root", "root-2"), None),
        case("the old configuration key revoked", "root-3", 4,
             signed(ROOT_4, "root-2", "root"), None),
        case("enough for the version before, not for its own", "root-2", 3,
             signed(ROOT_3, "root"), "unknown-key"),
        case("enough for its own, not for the version before", "root", 2,
             signed(replace(ROOT_2, roles={**ROOT_2.roles, "root": replace(
                 ROOT_2.roles["root"], keyids=(keyid("config-2"),))}), "config-2"), "unknown-key"),
        case("one key twice is one key", "root-3", 4,
             json.dumps(_doubled(json.loads(signed(ROOT_4, "root")))), "unknown-key"),
        case("signed by a key of another role", "root", 2, signed(ROOT_2, "config"), "unknown-key"),
        case("not signed by who it says", "root", 2, flipped("root-2", "sig"), "bad-signature"),
        case("on another version's topic", "root", 3, signed(ROOT_2, "root"), "wrong-topic"),
        case("a version left out: held until its turn", "root", 3, signed(lonely, "root"), None,
             trusts=1),
        case("a version left out, not signed by enough of its own", "root", 3,
             signed(ROOT_3, "root"), "unknown-key"),
        case("the same version again", "root-2", 2, signed(ROOT_2, "root"), None),
        case("another root of a version that is trusted, signed as well", "root-2", 2,
             signed(twin, "root"), "equivocation"),
        case("another root of a version that is trusted, signed by nobody", "root-2", 2,
             signed(twin, "config"), "unknown-key"),
        case("before the date of the root key that signs", "root-dated", 2, dated_2, None),
        case("past the date of the root key that signs", "root-dated", 2, dated_2, "unknown-key",
             now=AFTER_OLD_KEY),
        case("a key of a type that nobody knows yet", "root", 2, odd(keys=more_keys), None),
        case("a role that nobody knows yet", "root", 2,
             odd(roles={**plain["roles"], "audit": plain["roles"]["config"]}), None),
        case("a key id that is not its key's digest", "root", 2, odd(keys=misnamed), "malformed"),
        case("a threshold of 0", "root", 2,
             odd(roles={**plain["roles"], "beacon": {**plain["roles"]["beacon"], "threshold": 0}}),
             "malformed"),
        case("a threshold that its keys can't reach", "root", 2,
             odd(roles={**plain["roles"], "beacon": {**plain["roles"]["beacon"], "threshold": 2}}),
             "malformed"),
        case("a public key of 31 bytes", "root", 2,
             odd(keys={**plain["keys"], "c" * 64: {"keytype": "ed25519", "public": "A" * 41 + "=",
                                                   "not_after": None}}), "malformed"),
        case("critical names what we do not know", "root", 2,
             odd(critical=["quorum"], quorum=2), "unsupported-critical"),
        case("a version that is written with a zero before it", "root", 2, signed(ROOT_2, "root"),
             "wrong-topic", topic=wire.ROOTS_PREFIX + "02"),
        case("256 KiB and a byte", "root", 2, signed(ROOT_2, "root"), "too-large",
             padded_to=wire.MAX_ENVELOPE_BYTES + 1),
        case("a role is missing", "root", 2,
             signed(replace(ROOT_2, roles=no_beacon), "root"), "malformed"),
        case("another kind of document", "root", 2, document("sealed")["envelope"], "wrong-type"),
        *(case(*edge[:5], **edge[5]) for edge in root_edges()),
    ]  # fmt: skip


def _doubled(made: Any) -> Any:
    return {**made, "signatures": made["signatures"] * 2}


def sealed_cases() -> list[dict[str, Any]]:
    """kept: the highest (epoch_seq, revision) that was delivered before."""
    good = envelope("sealed").to_bytes().decode()
    seven = {"epoch_seq": 1, "revision": 7}

    def signed(sealed: Sealed, by: str = "config", kind: str = wire.SEALED) -> str:
        return sign(kind, sealed.to_bytes(), by).to_bytes().decode()

    def case(name: str, message: str, reason: str | None, **how: Any) -> dict[str, Any]:
        usual = {
            "service": SERVICE, "instance": INSTANCE, "topic": SEALED_TOPIC,
            "under": "root", "now": NOW, "kept": seven, "before": "sealed",
        }  # fmt: skip
        opens = {} if reason is not None else {"opens": _opened(message)}
        return {"name": name, **usual, **how, "message": message, "reason": reason, **opens}

    swapped = replace(
        SEALED,
        secrets={
            "api_key": replace(SEALED.secrets["password"], version=2),
            "password": replace(SEALED.secrets["api_key"], version=1),
        },
    )
    relabelled = replace(
        SEALED,
        secrets={**SEALED.secrets, "password": replace(SEALED.secrets["password"], version=2)},
    )
    newer = {**SECRETS, "password": (2, "correct horse")}
    later = replace(SEALED, revision=9)  # its values say revision 7 inside
    return [
        case("good, first", good, None, kept=None, before=None),
        case("sealed anew for the same revision", good, None),
        case("a newer version of one", signed(make_sealed(9, newer)), None),
        case("none left", signed(make_sealed(9, {})), None),
        case("signed by the key rotated in", signed(make_sealed(9), "config-2"), None,
             under="root-2", now=AFTER_ROTATION),
        case("signed by a revoked key", signed(make_sealed(9)), "unknown-key",
             under="root-4", now=AFTER_ROTATION),
        case("older than what was delivered", signed(make_sealed(6)), "rolled-back"),
        case("for another instance", signed(make_sealed(instance="cellar")), "wrong-service"),
        case("sealed to another key", signed(make_sealed(to=OTHER_SEAL_KEY)), "malformed"),
        case("two secrets in each other's place", signed(swapped), "malformed"),
        case("another version than was sealed", signed(relabelled), "malformed"),
        case("moved to a later revision", signed(later), "malformed"),
        case("signed by the beacon's key", signed(SEALED, "beacon"), "unknown-key"),
        case("one bit of the payload", flipped("sealed", "payload"), "bad-signature"),
        case("another kind of document", signed(SEALED, kind=wire.CONFIG_UPDATE), "wrong-type"),
        case("not JSON", "{", "malformed"),
        *(case(name, message, reason, **how) for name, message, reason, how in sealed_edges()),
    ]  # fmt: skip


def _opened(message: str) -> dict[str, str]:
    sealed = Sealed.parse(wire.parse_envelope(message.encode()).payload)
    known = {**SECRETS, "password@2": (2, "correct horse")}
    return {
        name: known[f"{name}@{held.version}" if f"{name}@{held.version}" in known else name][1]
        for name, held in sealed.secrets.items()
    }


# ── enrolment ──────────────────────────────────────────────────────────────────────────────────


def enrolment() -> dict[str, Any]:
    made = Enrolment(
        hashlib.sha256(TOKEN.encode()).hexdigest(),
        SERVICE,
        INSTANCE,
        public("instance"),
        bytes(SEAL_KEY.public_key),
    )
    statement = strict_json.dumps(
        {
            "token_sha256": made.token_sha256,
            "service": SERVICE,
            "instance": INSTANCE,
            "sign_public": base64.b64encode(made.sign_public).decode(),
            "seal_public": base64.b64encode(made.seal_public).decode(),
        }
    )
    proof = made.prove(bytes(KEYS["instance"]))
    body = {
        "token": TOKEN,
        "service": SERVICE,
        "instance": INSTANCE,
        "sign_public": base64.b64encode(made.sign_public).decode(),
        "seal_public": base64.b64encode(made.seal_public).decode(),
        "proof": base64.b64encode(proof).decode(),
    }
    other = base64.b64encode(bytes(OTHER_SEAL_KEY.public_key)).decode()
    by_another = base64.b64encode(made.prove(bytes(KEYS["config-2"]))).decode()
    return {
        "token": TOKEN,
        "token_sha256": made.token_sha256,
        "statement": statement.decode(),
        "pae_hex": wire.signed_bytes(wire.ENROLMENT, statement).hex(),
        "proof_hex": proof.hex(),
        "body": body,
        "cases": [
            {"name": "good", "proved": True, "body": body},
            {
                "name": "another token than was proved",
                "proved": False,
                "body": {**body, "token": TOKEN + "x"},
            },
            {
                "name": "another service",
                "proved": False,
                "body": {**body, "service": "tts-worker"},
            },
            {"name": "another instance", "proved": False, "body": {**body, "instance": "cellar"}},
            {
                "name": "somebody else's sealing key",
                "proved": False,
                "body": {**body, "seal_public": other},
            },
            {
                "name": "proved by another key",
                "proved": False,
                "body": {**body, "proof": by_another},
            },
        ],
    }


def make() -> dict[str, Any]:
    return {
        "comment": "Test vectors of docs/wire.md, made by tests/config/vectors.py. Seeds are Ed25519 "
        "seeds (RFC 8032); every signature is deterministic.",
        "service": SERVICE,
        "instance": INSTANCE,
        "seeds_hex": {name: bytes(key).hex() for name, key in KEYS.items()},
        "public_hex": {name: public(name).hex() for name in KEYS},
        "keyids": {name: keyid(name) for name in KEYS},
        "seal": {
            "private_hex": bytes(SEAL_KEY).hex(),
            "public_hex": bytes(SEAL_KEY.public_key).hex(),
        },
        "documents": {name: document(name) for name in DOCUMENTS},
        "sealings": [
            sealing(SEALED, name, version, value) for name, (version, value) in SECRETS.items()
        ],
        "messages": messages(),
        "enrolment": enrolment(),
        "cases": cases(),
        "content_cases": content_cases(),
        "root_cases": root_cases(),
        "sealed_cases": sealed_cases(),
        "beacon_cases": beacon_cases(),
        "marks": marks(),
        "replay": replay(),
        "timeline_messages": {
            **timeline_messages(),
            **vector_starts.messages(),
            **vector_revocations.messages(),
        },
        "timelines": [
            *timelines(),
            *vector_starts.timelines(),
            *vector_revocations.timelines(),
        ],
    }


def to_text() -> str:
    return _laid_out(make()) + "\n"


def _laid_out(value: Any, indent: int = 0) -> str:
    """As JSON, with what is short on one line."""
    line = json.dumps(value)
    if len(line) <= _SHORT or not isinstance(value, dict | list):
        return line
    inner = "\n" + " " * (indent + 1)
    if isinstance(value, list):
        items = [_laid_out(item, indent + 1) for item in value]
        return f"[{inner}{f',{inner}'.join(items)}\n{' ' * indent}]"
    members = [f"{json.dumps(key)}: {_laid_out(item, indent + 1)}" for key, item in value.items()]
    return f"{{{inner}{f',{inner}'.join(members)}\n{' ' * indent}}}"


if __name__ == "__main__":
    PATH.write_text(to_text(), "utf-8")
