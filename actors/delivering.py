"""Secrets on their way: each enrolled device gets those of its service, sealed to its key.

Follows the committed state and makes good what is missing, so a crash in between costs nothing. If a device's
delivery lacks versions that its service names, storing is asked to seal them. A sealed delivery is signed and
given to every broker, retained; that of a revoked device is cleared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
import trio

from config_manager.actors.actor import Actor, Context, Full, Gone, Life, follower
from config_manager.actors.messages import Sign, Write
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.views import Believed, CommittedView
from config_manager.config import wire
from config_manager.config.errors import KeyUnusable, Refusal
from config_manager.config.world import World
from config_manager.storage.decisions.devices import Delivery, Device, delivery, devices
from config_manager.storage.decisions.secret_values import Deliver
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.state import Committed

_AGAIN_S = 5.0
_TERMS = Terms("delivering")


@dataclass
class Deliverer:
    """What the delivering actor works with, across its lives."""

    view: CommittedView
    storing: Actor
    signing: Actor
    outlets: Sequence[Outlet]
    believed: Believed
    world: World
    _laid: dict[str, tuple[bytes, str]] = field(default_factory=dict[str, tuple[bytes, str]])
    """topic → the payload that the outlets have, and the id of the key that signed it"""
    _unusable: set[Device] = field(default_factory=set[Device])
    """their keys are invalid: nothing can be sealed to them"""

    async def make_good(self) -> bool:
        """Deliver what is missing. Returns whether everything is as it should be; if not, call it again later."""
        committed = self.view.committed
        if not self.view.publishable or self.believed.changing:
            return True  # a change of these wakes us
        good = True
        for device in devices(committed):
            if device.revoked_at is not None:
                self._lay(wire.sealed_topic(device.service, device.instance), b"", "")
                continue
            if device in self._unusable:
                continue
            held = delivery(committed, device)
            if _is_due(committed, device, held) and self.view.mode == "normal":
                good = await self._ask_for(device) and good
            elif held is not None:
                good = await self._sign_and_lay(device, held) and good
        return good

    async def _ask_for(self, device: Device) -> bool:
        """Ask storing for it. Returns whether that is settled: either a commit follows, which wakes us, or the device's
        key is unusable. If not, trying again may help."""
        try:
            await self.storing.ask(Write(Deliver(device), _TERMS), self._context())
        except (Gone, Full, Refusal) as error:
            structlog.get_logger().error(
                "not delivered",
                service=device.service,
                instance=device.instance,
                error=getattr(error, "detail", str(error)),
            )
            if isinstance(error, KeyUnusable):
                self._unusable.add(device)
                return True
            return False
        return True

    async def _sign_and_lay(self, device: Device, held: Delivery) -> bool:
        topic = wire.sealed_topic(device.service, device.instance)
        key_id = self.believed.key_for("config")
        if self._laid.get(topic) == (held.payload, key_id):
            return True
        try:
            envelope = await self.signing.ask(
                Sign("config", wire.SEALED, held.payload), self._context()
            )
        except (Gone, Full):
            return False
        self._lay(topic, envelope.to_bytes(), key_id, held.payload)
        structlog.get_logger().info(
            "sealed",
            service=device.service,
            instance=device.instance,
            secrets=len(held.versions),
        )
        return True

    def _lay(self, topic: str, message: bytes, key_id: str, payload: bytes = b"") -> None:
        if self._laid.get(topic) == (payload, key_id):
            return
        self._laid[topic] = (payload, key_id)
        for outlet in self.outlets:
            outlet.set_retained(topic, message)

    def _context(self) -> Context:
        return Context(self.world.randomness.uuid())


def _is_due(committed: Committed, device: Device, held: Delivery | None) -> bool:
    state = committed.live(device.service)
    wanted = dict(state.secrets) if state is not None else {}
    if held is None:
        return bool(wanted)
    return dict(held.versions) != wanted and bool(wanted or held.versions)


def delivering(work: Deliverer) -> Life:
    async def follow() -> None:
        while True:
            seen = work.view.committed
            good = await work.make_good()
            if work.view.committed is not seen:
                continue
            with trio.move_on_after(float("inf") if good else _AGAIN_S):
                await work.view.changed()

    return follower(follow)
