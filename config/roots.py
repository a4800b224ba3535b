"""The next version of the trust root, pure: who may sign what, and whose signatures it needs.

A reader that believes version n believes n+1 once the root keys of both have signed it, each up to their
threshold (The Update Framework, section 5.3). Nothing here holds a private key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from config_manager.config import wire
from config_manager.config.documents.root import ROLES, KeyRole, Root, RootKey
from config_manager.config.errors import Conflict, FieldError, InvalidValues, NotFound
from config_manager.config.public_keys import can_sign
from config_manager.config.wire import Envelope, Signature, keyid
from config_manager.config.world import parse_rfc3339

MOST_ROOT_KEYS = 16


@dataclass(frozen=True, slots=True)
class Needs:
    """What one version's root keys still owe: `missing` more signatures, by any of these keys."""

    version: int
    threshold: int
    missing: int
    keyids: tuple[str, ...]


def first(publics: Mapping[str, bytes], at: str) -> Root:
    """Version 1: one key for each role. publics: role → raw Ed25519 public key."""
    ids = {role: keyid(publics[role]) for role in ROLES}
    return Root(
        version=1,
        issued_at=at,
        keys={ids[role]: RootKey(publics[role]) for role in ROLES},
        roles={role: KeyRole((ids[role],), 1) for role in ROLES},
    )


def rotated(root: Root, role: str, old: str, new: bytes, *, at: str, old_until: str | None) -> Root:
    """The key `new` replaces `old` in a role, and is its first key.

    old_until (RFC 3339): signatures of the old key count until then. None drops it at once, as the root
    role always does.
    """
    _known(root, role)
    new_id = keyid(new)
    if new_id in root.keys:
        raise Conflict("this key is in the root already")
    others = [one for one in root.roles[role].keyids if one not in (old, new_id)]
    kept = [old] if old_until is not None and role != "root" else []
    keys = dict(root.keys)
    if kept:
        keys[old] = replace(keys[old], not_after=old_until)
    keys[new_id] = RootKey(new)
    roles = {**root.roles, role: KeyRole((new_id, *kept, *others), root.roles[role].threshold)}
    return _next(root, keys, roles, at)


def with_signer(root: Root, public: bytes, threshold: int | None, *, at: str) -> Root:
    """With one more root key. threshold: how many must sign from then on; None for as many as now."""
    if not can_sign(public):
        raise InvalidValues(
            "no signature of this key would ever count",
            [FieldError("/public", "expected an Ed25519 public key, not a point of low order")],
        )
    new_id = keyid(public)
    role = root.roles["root"]
    keyids = role.keyids if new_id in role.keyids else (*role.keyids, new_id)
    wanted = role.threshold if threshold is None else threshold
    # an envelope takes four signatures, and a key that is replaced signs beside those that stay
    most = min(len(keyids), wire.MAX_SIGNATURES - 1)
    if not 1 <= wanted <= most:
        raise InvalidValues(
            "that many signatures could never be given",
            [FieldError("/threshold", f"expected 1 to {most}")],
        )
    if len(keyids) > MOST_ROOT_KEYS:
        raise Conflict(f"a root has at most {MOST_ROOT_KEYS} root keys; revoke one first")
    if (keyids, wanted) == (role.keyids, role.threshold):
        raise Conflict("this key signs for the root already, and the threshold is that")
    keys = {**root.keys, new_id: root.keys.get(new_id, RootKey(public))}
    return _next(root, keys, {**root.roles, "root": KeyRole(keyids, wanted)}, at)


def revoked(root: Root, gone: str, replacement: bytes | None, *, at: str) -> Root:
    """Without the key. replacement: takes its place in a role (not root) whose first key it was."""
    if gone not in root.keys:
        raise NotFound(
            "no key of the current root has this id; `config-manager trust show` lists them"
        )
    keys = {k: v for k, v in root.keys.items() if k != gone}
    roles = dict(root.roles)
    for name, role in root.roles.items():
        if gone not in role.keyids:
            continue
        left = tuple(one for one in role.keyids if one != gone)
        if replacement is not None and name != "root" and role.keyids[0] == gone:
            keys[keyid(replacement)] = RootKey(replacement)
            left = (keyid(replacement), *left)
        if len(left) < role.threshold:
            raise Conflict(
                f"the role {name} would be left with {len(left)} keys and needs {role.threshold}: "
                + (
                    "add a signer first (config-manager trust add-signer)"
                    if name == "root"
                    else f"rotate it (config-manager trust rotate {name})"
                )
            )
        roles[name] = KeyRole(left, role.threshold)
    return _next(root, keys, roles, at)


def needs(envelope: Envelope, current: Root, proposed: Root) -> tuple[Needs, ...]:
    """Who still has to sign; empty once readers that believe `current` will believe `proposed`."""
    signed = valid_signers(envelope, {**current.keys, **proposed.keys})
    found: list[Needs] = []
    for root in (current, proposed):
        role = root.roles["root"]
        missing = role.threshold - len(signed & set(role.keyids))
        if missing > 0:
            open_ones = tuple(one for one in role.keyids if one not in signed)
            found.append(Needs(root.version, role.threshold, missing, open_ones))
    return tuple(found)


def valid_signers(envelope: Envelope, keys: Mapping[str, RootKey]) -> set[str]:
    """The ids of the keys whose signature over the envelope is valid."""
    message = wire.signed_bytes(envelope.payload_type, envelope.payload)
    good: set[str] = set()
    for key_id, signature in envelope.signatures:
        if key_id not in keys:
            continue
        try:
            VerifyKey(keys[key_id].public).verify(message, signature)
        except (BadSignatureError, ValueError):
            continue
        good.add(key_id)
    return good


def merged(one: Envelope, other: Envelope, current: Root, proposed: Root) -> Envelope:
    """Both envelopes' valid signatures over the same payload, at most four, those that both roots need first."""
    keys = {**current.keys, **proposed.keys}
    wanted = {*current.roles["root"].keyids, *proposed.roles["root"].keyids}
    found: dict[str, Signature] = {}
    for envelope in (one, other):
        for signature in envelope.signatures:
            if signature.keyid in wanted and signature.keyid in valid_signers(
                replace(envelope, signatures=(signature,)), keys
            ):
                found.setdefault(signature.keyid, signature)
    both = set(current.roles["root"].keyids) & set(proposed.roles["root"].keyids)
    ordered = sorted(found.values(), key=lambda s: s.keyid not in both)
    return replace(one, signatures=tuple(ordered[: wire.MAX_SIGNATURES]))


def _next(root: Root, keys: Mapping[str, RootKey], roles: Mapping[str, KeyRole], at: str) -> Root:
    """The next version, without keys that no role has any more or that are past their date."""
    now = parse_rfc3339(at)
    over = {
        one
        for one, key in keys.items()
        if key.not_after is not None and parse_rfc3339(key.not_after) < now
    }
    kept = {
        name: role
        if len(left := tuple(one for one in role.keyids if one not in over)) < role.threshold
        else KeyRole(left, role.threshold)
        for name, role in roles.items()
    }
    used = {one for role in kept.values() for one in role.keyids}
    return Root(root.version + 1, at, {k: v for k, v in keys.items() if k in used}, kept)


def _known(root: Root, role: str) -> None:
    if role not in root.roles:
        raise InvalidValues(
            "no such role", [FieldError("/role", f"expected one of: {', '.join(ROLES)}")]
        )
