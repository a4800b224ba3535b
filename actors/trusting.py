"""The trust root while we run: which version counts, and how the next one comes about.

A change goes in this order: a key that it needs and the new version are staged on disk; the audit row is
committed; the new version takes its place on disk, then on every connected broker (read back, at most 5 s);
only then do the new keys sign and count. So a client has the root before it meets a signature of a new key.
If a root key that has to sign is not here, the change waits in `pending` until signatures that were made
elsewhere are brought (`TakeRoot`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import structlog
import trio

from config_manager.actors.actor import Actor, Context
from config_manager.actors.messages import (
    AddSigner,
    NotDoneYet,
    RevokeKey,
    RootChange,
    RotateRole,
    TakeRoot,
    Write,
)
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.signing import sign
from config_manager.config import roots, trust, wire
from config_manager.config.disk_errors import reason, refused
from config_manager.config.documents.root import Root
from config_manager.config.errors import (
    Conflict,
    DeadlineExceeded,
    DiskRefused,
    FieldError,
    InvalidValues,
    OutcomeUnknown,
    Refusal,
    StartError,
)
from config_manager.config.public_keys import can_sign
from config_manager.config.roots import Needs
from config_manager.config.strict_json import JsonObject
from config_manager.config.trust import Distrust
from config_manager.config.wire import Envelope
from config_manager.config.world import World, parse_rfc3339, rfc3339
from config_manager.storage.decisions.administration import administered
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.keys.root_files import RootFiles
from config_manager.storage.state import Committed

_ANNOUNCED_WITHIN_S = 5.0


class TrustView:
    """What the others see of the root: the current version, the bytes of each, who signs what.

    pending: what waits for signatures. changing: a new version is being announced. Until it counts nothing
    is signed: a client must not meet a signature of a key that it has just been told to drop.
    """

    def __init__(self, current: Root, data: dict[int, bytes], keys: KeyRing, world: World) -> None:
        self.current = current
        self.roots = data
        self.pending: PendingRoot | None = None
        self.changing = False
        self._keys = keys
        self._world = world

    def version(self, number: int) -> Root | None:
        """The root of this version, if it is one of ours."""
        data = self.roots.get(number)
        return None if data is None else Root.parse(wire.parse_envelope(data).payload)

    def key_for(self, role: str) -> str:
        """The id of the key that signs for a role: the first that the root lists and that is here; raises
        KeyError if none is."""
        now = self._world.clock.now()
        for one in self.current.roles[role].keyids:
            until = self.current.keys[one].not_after if one in self.current.keys else None
            if self._keys.holds(one) and (until is None or parse_rfc3339(until) > now):
                return one
        raise KeyError(role)


@dataclass(frozen=True, slots=True)
class PendingRoot:
    """A version that was proposed and is not signed by everybody yet."""

    root: Root
    envelope: Envelope
    needs: tuple[Needs, ...]


@dataclass(frozen=True, slots=True)
class NoteRoot:
    """The audit row of a change to the root."""

    action: str
    details: JsonObject

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        return administered(before, on, self.action, self.details, (), None)


@dataclass
class Trusting:
    """What the trusting actor works on, across its lives. changed: called once a new version counts."""

    view: TrustView
    files: RootFiles
    keys: KeyRing
    storing: Actor
    outlets: Sequence[Outlet]
    changed: Callable[[], None]
    world: World
    _made: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    """keys of the change in hand that nothing relies on yet"""

    def __post_init__(self) -> None:
        """Load what waits for signatures."""
        data = self.files.load_pending()
        if data is None:
            return
        with suppress(Distrust, wire.NotAnEnvelope):
            envelope = wire.parse_envelope(data, least_signatures=0)
            root = trust.parse_verified(envelope.payload, Root.parse)
            if root.version == self.view.current.version + 1:
                needs = roots.needs(envelope, self.view.current, root)
                self.view.pending = PendingRoot(root, envelope, needs)

    # ── what is asked ──────────────────────────────────────────────────────────────────────────

    async def handle(self, request: Any, context: Context) -> RootChange:
        self._made = []
        try:
            return await self._change(request, context)
        except OSError as error:
            self._drop_keys()
            structlog.get_logger().error("root not changed", error=str(error))
            raise refused(error) from None
        except StartError as error:  # a key file that can't be read, or that others can
            self._drop_keys()
            structlog.get_logger().error("root not changed", error=error.detail)
            raise DiskRefused(f"nothing was changed: {error.detail}") from None
        except (OutcomeUnknown, DeadlineExceeded):
            raise  # the change may be committed, and then needs its key
        except Refusal:
            self._drop_keys()
            raise

    def _add_key(self, role: str) -> bytes:
        public = self.keys.add(role, self.world)
        self._made.append((role, public))
        return public

    def _drop_keys(self) -> None:
        """A refused change leaves nothing behind."""
        for role, public in self._made:
            self.keys.drop(role, public)
        self.files.unstage()

    async def _change(self, request: Any, context: Context) -> RootChange:
        current, at = self.view.current, rfc3339(self.world.clock.now())
        idempotency = request.terms.idempotency
        if idempotency is not None:  # asked before a new key is written to disk
            await self.storing.ask(NotDoneYet(idempotency), context)
        match request:
            case RotateRole(role=role, overlap_s=overlap_s):
                proposed = self._rotated(current, role, overlap_s, at)
                details: JsonObject = {"role": role, "key": proposed.roles[role].keyids[0]}
                action = "trust.rotate"
            case AddSigner(public=public, threshold=threshold):
                proposed = roots.with_signer(current, public, threshold, at=at)
                details = {
                    "key": wire.keyid(public),
                    "threshold": proposed.roles["root"].threshold,
                }
                action = "trust.add-signer"
            case RevokeKey(key=key):
                proposed = self._revoked(current, key, at)
                details, action = {"key": key}, "trust.revoke"
            case TakeRoot(envelope=given):
                return await self._take(given, request, context)
            case _ as unreachable:
                assert_never(unreachable)
        envelope = self._sign(Envelope(wire.ROOT, proposed.to_bytes(), ()), current, proposed)
        details = {"version": proposed.version, **details}
        return await self._bring(proposed, envelope, action, details, request, context)

    def _rotated(self, current: Root, role: str, overlap_s: float, at: str) -> Root:
        if role not in current.roles:
            raise InvalidValues(
                "no such role", [FieldError("/role", "expected root, config or beacon")]
            )
        if role == "root":
            here = self.keys.root_seeds(self.world)
            old = next((one for one in current.roles["root"].keyids if one in here), None)
            if old is None:
                raise Conflict(
                    "the root key is not here: make its successor where it is kept "
                    "(config-manager trust make-key), `trust add-signer` it, then `trust revoke` the old"
                )
        else:
            old = self.view.key_for(role)
        until = rfc3339(self.world.clock.now() + overlap_s) if overlap_s > 0 else None
        new = self._add_key(role)
        return roots.rotated(current, role, old, new, at=at, old_until=until)

    def _revoked(self, current: Root, key: str, at: str) -> Root:
        matching = [one for one in current.keys if len(key) >= _SHORTEST_ID and one.startswith(key)]
        gone = matching[0] if len(matching) == 1 else key
        replacement = None
        for role in ("config", "beacon"):
            if current.roles[role].keyids[0] == gone:
                replacement = self._add_key(role)
        return roots.revoked(current, gone, replacement, at=at)

    async def _take(self, given: bytes, request: TakeRoot, context: Context) -> RootChange:
        """Signatures that were made elsewhere."""
        current, pending = self.view.current, self.view.pending
        try:
            envelope = trust.open_envelope(given)
            if envelope.payload_type != wire.ROOT:
                raise Distrust("wrong-type", f"expected {wire.ROOT}")
            proposed = trust.parse_verified(envelope.payload, Root.parse)
        except Distrust as verdict:
            raise InvalidValues(f"this is no trust root: {verdict}") from None
        if proposed.version != current.version + 1:
            raise Conflict(f"this is version {proposed.version}; {current.version} is current")
        if unfit := [one for one, key in proposed.keys.items() if not can_sign(key.public)]:
            raise InvalidValues(f"it lists {unfit[0][:16]}, which is no usable Ed25519 key")
        for role in ("config", "beacon"):
            if not any(self.keys.holds(one) for one in proposed.roles[role].keyids):
                raise Conflict(
                    f"it lists no {role} key that is here: nothing could be signed any more"
                )
        if pending is not None and pending.envelope.payload == envelope.payload:
            envelope = roots.merged(pending.envelope, envelope, current, proposed)
        else:
            envelope = roots.merged(envelope, envelope, current, proposed)
            if not envelope.signatures:
                raise Conflict("no root key of the current or the new version signed this")
        details: JsonObject = {"version": proposed.version, "digest": envelope.digest}
        return await self._bring(proposed, envelope, "trust.apply", details, request, context)

    # ── how it comes about ─────────────────────────────────────────────────────────────────────

    def _sign(self, envelope: Envelope, current: Root, proposed: Root) -> Envelope:
        """With every root key that is here and that either version asks for."""
        wanted = {*current.roles["root"].keyids, *proposed.roles["root"].keyids}
        signed = envelope
        for key_id, seed in self.keys.root_seeds(self.world).items():
            if key_id in wanted:
                signature = sign(seed, envelope.payload_type, envelope.payload)
                signed = replace(signed, signatures=(*signed.signatures, *signature.signatures))
        return roots.merged(signed, signed, current, proposed)

    async def _bring(
        self,
        proposed: Root,
        envelope: Envelope,
        action: str,
        details: JsonObject,
        request: Any,
        context: Context,
    ) -> RootChange:
        needs = roots.needs(envelope, self.view.current, proposed)
        details = {**details, "adopted": not needs}
        note = Write(NoteRoot(action, details), request.terms)
        # a full disk refuses before the audit has the change
        self.files.stage(envelope.to_bytes())
        await self.storing.ask(note, context)
        self._made = []  # the audit has the change, which relies on them
        try:
            if needs:
                self.files.keep_pending(envelope.to_bytes())
                self.view.pending = PendingRoot(proposed, envelope, needs)
                return RootChange(proposed, envelope, needs)
            with trio.CancelScope(shield=True):  # never leave a half-made root
                await self._adopt(proposed, envelope)
        except OSError as error:
            structlog.get_logger().error("root not changed", error=str(error))
            raise DiskRefused(
                f"the audit has the change, but its file could not be put in its place "
                f"({reason(error)}): the root is as it was; repair that and ask again"
            ) from None
        return RootChange(proposed, envelope, ())

    async def _adopt(self, root: Root, envelope: Envelope) -> None:
        data = envelope.to_bytes()
        # as every client will judge it
        trust.judge_root(data, self.view.current, self.world.clock.now())
        self.files.adopt(root.version, data)
        self.files.keep_pending(None)
        self.view.pending = None
        self.view.roots[root.version] = data
        topic = wire.root_topic(root.version)
        self.view.changing = True
        try:
            with trio.move_on_after(_ANNOUNCED_WITHIN_S):
                async with trio.open_nursery() as nursery:
                    for outlet in self.outlets:
                        outlet.set_retained(topic, data)
                        nursery.start_soon(outlet.until_held, topic)
        finally:
            self.view.current = root
            self.view.changing = False
            self.changed()
        structlog.get_logger().info("root adopted", version=root.version, digest=envelope.digest)


_SHORTEST_ID = 8
"""Digits of a key's id that name it, if only one begins so."""
