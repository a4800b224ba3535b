"""A new key for the secrets while everything goes on: `storage.decisions.secret_rotation` says the steps.

Works a page at a time through the storing actor and leaves the others at least half of its time. Resumes
after a crash. Obstacles are logged and retried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import structlog
import trio

from config_manager.actors.actor import Actor, Context, Full, Gone
from config_manager.actors.messages import NotDoneYet, ResealSecrets, RotateSecretsKey, Write
from config_manager.actors.storing.reading import Reading
from config_manager.actors.views import CommittedView
from config_manager.config.disk_errors import refused
from config_manager.config.errors import Conflict, RecoveryRefused, Refusal, StartError
from config_manager.storage.decisions.secret_rotation import (
    BeginRotation,
    FinishRotation,
    Rotation,
    newest,
    under_way,
)
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.keys.key_file import KeyFile
from config_manager.storage.keys.recovery import Recovery
from config_manager.storage.keys.secret_box import SecretBoxes, key_id_of

_PAGE = 100
_AGAIN_S = 5.0
_IN_OUR_OWN_NAME = Terms("config-manager")

RotationState = Literal["idle", "running", "blocked"]


@dataclass(frozen=True, slots=True)
class RotationReport:
    """done, total: versions under the new key, and all. unreadable: those that no key here opens.
    rotation: the one under way, else the last one. key_id: of the key that seals now. to_do: what an operator
    has to do, if anything."""

    state: RotationState
    done: int
    total: int
    unreadable: int
    rotation: Rotation | None
    key_id: str
    to_do: str | None


@dataclass
class SecretsRotation:
    """What the rotating actor works on, across its lives, and what others see of it."""

    view: CommittedView
    file: KeyFile
    boxes: SecretBoxes
    storing: Actor
    reading: Reading
    recovery: Recovery
    _done: int = 0
    _total: int = 0
    _unreadable: int = 0
    _blocked: str | None = None
    _left_to_do: str | None = None
    _wanted: trio.Event = field(default_factory=trio.Event)
    _keys: trio.Lock = field(default_factory=trio.Lock)
    """Held while a rotation begins and while an ended one's keys are tidied up: that would forget the new
    key of the one that begins."""

    def __post_init__(self) -> None:
        rotation = newest(self.view.committed)
        if rotation is not None:
            self._done = rotation.total if rotation.finished_at is not None else 0
            self._total = rotation.total

    def report(self) -> RotationReport:
        committed = self.view.committed
        state: RotationState = "idle"
        if under_way(committed) is not None:
            state = "running" if self._blocked is None else "blocked"
        return RotationReport(
            state=state,
            done=self._done,
            total=self._total,
            unreadable=self._unreadable,
            rotation=newest(committed),
            key_id=self.boxes.sealing(committed).key_id,
            to_do=self._blocked if state == "blocked" else self._left_to_do,
        )

    # ── beginning ──────────────────────────────────────────────────────────────────────────────

    async def handle(self, request: RotateSecretsKey, context: Context) -> None:
        try:
            async with self._keys:
                if under_way(self.view.committed) is None:
                    await self._begin(request, context)
        finally:
            self._wanted.set()  # also if the outcome is unknown

    async def _begin(self, request: RotateSecretsKey, context: Context) -> None:
        terms = request.terms
        if terms.idempotency is not None:  # asked before the new key is written to disk
            await self.storing.ask(NotDoneYet(terms.idempotency), context)
        old = self.boxes.sealing(self.view.committed).key_id
        new = self.boxes.add(await trio.to_thread.run_sync(self._next_key, old))
        under_old, every = await self.reading.count_secrets(old, context)
        await self.storing.ask(Write(BeginRotation(old, new, every), terms), context)
        self._done, self._total, self._unreadable = 0, every, every - under_old
        self._left_to_do = None
        self._unblock()

    def _next_key(self, old: str) -> bytes:
        """The new key, durable and in the recovery copy. old: the id of the one in use. Raises Conflict,
        StorageFull, DiskRefused."""
        file = self.file
        try:
            if _id(file.read_successor()) == old and (file.given or not file.finish()):
                raise Conflict(_put_in_place(file))
            if file.given and file.read_successor() is None:
                raise Conflict(
                    f"{file.path.name} comes from elsewhere and is not ours to write: put the next "
                    f"key beside it as {file.successor.name} (64 hex digits, readable by this service "
                    "alone), start the server again where what is mounted is copied at its start "
                    "(systemd), and ask again"
                )
            key = file.begin()
            self.recovery.refresh()
        except StartError as error:
            raise Conflict(f"no new key: {error.detail}") from None
        except OSError as error:
            raise refused(error) from None
        if _id(key) == old:
            raise Conflict(f"{file.successor.name} holds the key that is in use; put another there")
        return key

    # ── going on ───────────────────────────────────────────────────────────────────────────────

    async def work(self) -> None:
        """For as long as the actor lives."""
        while True:
            self._wanted = trio.Event()
            waiting_s = math.inf
            rotation = newest(self.view.committed)
            if rotation is not None:
                try:
                    waiting_s = await self._bring_to_its_end(rotation)
                except (Refusal, Gone, Full, StartError, OSError) as error:
                    self._block(getattr(error, "detail", None) or f"interrupted: {error!r}")
                    waiting_s = _AGAIN_S
            if self.view.mode != "normal":  # a rotation whose begin was unsure may show up later
                waiting_s = _AGAIN_S
            with trio.move_on_after(waiting_s):
                await self._wanted.wait()

    async def _bring_to_its_end(self, rotation: Rotation) -> float:
        """How long to wait before it is worth looking again, in seconds."""
        if rotation.finished_at is not None:  # a power cut may have undone the change of its file
            async with self._keys:
                if newest(self.view.committed) == rotation:
                    await trio.to_thread.run_sync(self._replace_file, rotation)
            return math.inf
        file = self.file
        if rotation.new not in self.boxes:
            self._block(
                f"the new key is not here: put {file.successor.name} back beside {file.path.name} "
                "(config-manager recover, where there is a recovery key), and start again"
            )
            return math.inf
        context = Context(rotation.correlation_id)
        if self._blocked is None:
            structlog.get_logger().info("rotating the secrets key", **_ids(rotation))
        await self._reseal_all(rotation, context)
        under_old, _ = await self.reading.count_secrets(rotation.old, context)
        if under_old:
            self._block(self._what_does_not_open(rotation, under_old))
            return math.inf
        await trio.to_thread.run_sync(self._replace_file, rotation)
        finish = FinishRotation(rotation, self._unreadable)
        await self.storing.ask(Write(finish, _IN_OUR_OWN_NAME), context)
        self._unblock()
        structlog.get_logger().info(
            "secrets key rotated", secrets=self._done, unreadable=self._unreadable, **_ids(rotation)
        )
        return 0

    async def _reseal_all(self, rotation: Rotation, context: Context) -> None:
        """Secrets that are set meanwhile are sealed under the new key already, so once through is enough."""
        self._done, self._total = await self.reading.count_secrets(rotation.new, context)
        self._unreadable = 0
        self._unblock()
        after = ("", "", 0)
        while True:
            began = trio.current_time()
            page = await self.storing.ask(ResealSecrets(after, _PAGE), context)
            if page is None:
                break
            after = page.last
            self._done += page.done
            self._unreadable += page.unreadable
            await trio.sleep(trio.current_time() - began)
        self._done, self._total = await self.reading.count_secrets(rotation.new, context)

    def _what_does_not_open(self, rotation: Rotation, under_old: int) -> str:
        if rotation.old not in self.boxes:
            return (
                f"{under_old} stored versions lie under the old key, which is not here: put it back as "
                f"{self.file.path.name}, with the new one beside it as {self.file.successor.name} "
                "(config-manager recover does, where there is a recovery key), and start again"
            )
        return (
            f"{under_old} stored versions don't open with the key that sealed them: they were altered. "
            "Revealing says which; delete those secrets and set them anew, then ask for the rotation "
            "again. Until then both keys stay"
        )

    def _replace_file(self, rotation: Rotation) -> None:
        """Put the new key's file in the old one's place, if that is not done already. Raises OSError, and
        StartError if a key file can't be read."""
        file = self.file
        if _id(file.read_successor()) == rotation.new and _id(file.read()) != rotation.new:
            if file.given or not file.finish():
                self._left_to_do = _put_in_place(file)
                return
            try:
                self.recovery.refresh()
            except (OSError, RecoveryRefused) as error:
                # the copy from before has the new key already, as the successor
                structlog.get_logger().error("recovery not sealed", error=str(error))
        if rotation.new in self.boxes:
            self.boxes.keep_only(rotation.new)

    def _block(self, why: str) -> None:
        if self._blocked != why:
            structlog.get_logger().error("the secrets key is not rotated yet", error=why)
        self._blocked = why
        self.view.notices[_NOTICE] = f"the secrets key is not rotated yet: {why}"

    def _unblock(self) -> None:
        self._blocked = None
        self.view.notices.pop(_NOTICE, None)


_NOTICE = "secrets-key"


def _put_in_place(file: KeyFile) -> str:
    return (
        f"secrets lie under the key in {file.successor.name}, but {file.path.name} is not ours to "
        "replace: put the new one in the place of the old one where both come from"
    )


def _ids(rotation: Rotation) -> dict[str, str]:
    return {"correlation_id": rotation.correlation_id, "old": rotation.old, "new": rotation.new}


def _id(key: bytes | None) -> str | None:
    return None if key is None else key_id_of(key)
