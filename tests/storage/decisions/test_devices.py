"""Enrolment: once, in time, for the right service, by who holds the key; and what revoking leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from config_manager.config.catalogue import Catalogue
from config_manager.config.documents.sealed import Sealed
from config_manager.config.enrolment import Enrolment
from config_manager.config.errors import (
    ConfigManagerError,
    Conflict,
    Forbidden,
    NotAuthenticated,
    NotFound,
)
from config_manager.config.names import ServiceName
from config_manager.config.sealing import NotSealedForThis, open_sealed, seal
from config_manager.config.secret import Secret
from config_manager.config.world import rfc3339
from config_manager.storage.decisions import secret_rows
from config_manager.storage.decisions.devices import (
    AllowEnrolment,
    Delivery,
    Enrol,
    KeepDelivery,
    RevokeDevice,
    could_read,
    delivery,
    devices,
    enrolled,
)
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.intents import Delete, DeleteSecret, Intent, SetSecret
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.state import Committed
from tests.kit import stores as m

NOW = 1_800_000_000.0
SIGN = [SigningKey(bytes([n]) * 32) for n in (1, 2)]
SEAL = [PrivateKey(bytes([n]) * 32) for n in (3, 4)]
TOKEN = "ab" * 32
ON = m.equipped(now=NOW)


def enrolment(**how: Any) -> Enrolment:
    made = Enrolment(
        TOKEN, "door", "kitchen", SIGN[0].verify_key.encode(), bytes(SEAL[0].public_key)
    )
    return replace(made, **how)


def enrol(what: Enrolment, key: SigningKey = SIGN[0]) -> Enrol:
    return Enrol(what, what.prove(bytes(key)))


def done(state: Committed, what: Decidable[Any], now: float = NOW) -> Committed:
    return what.decide(state, m.equipped(now=now)).change.after


def allowed(instance: str | None = None, service: str = "door") -> Committed:
    what = AllowEnrolment(TOKEN, service, instance, rfc3339(NOW + 3600))
    return done(m.empty(), what)


def test_who_shows_the_token_and_proves_his_key_is_a_device() -> None:
    state = done(allowed(), enrol(enrolment()))
    [device] = devices(state)
    assert enrolled(state, "door", "kitchen") == device
    assert (device.enrolled_by, device.revoked_at) == ("ada", None)
    assert device.sign_public == SIGN[0].verify_key.encode()


@pytest.mark.parametrize(
    ("state", "what", "now", "error"),
    [
        (allowed(), enrol(enrolment()), NOW + 3600, NotAuthenticated),
        (allowed(), enrol(enrolment(token_sha256="cd" * 32)), NOW, NotAuthenticated),
        (done(allowed(), enrol(enrolment())), enrol(enrolment()), NOW, NotAuthenticated),
        (allowed(service="window"), enrol(enrolment()), NOW, Forbidden),
        (allowed(instance="hall"), enrol(enrolment()), NOW, Forbidden),
        (allowed(), enrol(enrolment(), SIGN[1]), NOW, NotAuthenticated),
        (allowed(), Enrol(enrolment(), bytes(64)), NOW, NotAuthenticated),
        (allowed(), Enrol(enrolment(instance="hall"), enrol(enrolment()).proof), NOW, NotAuthenticated),
        (allowed(), Enrol(enrolment(seal_public=bytes(SEAL[1].public_key)), enrol(enrolment()).proof), NOW, NotAuthenticated),
    ],
    ids=["its time is over", "an unknown token", "used before", "another service's", "another instance's",
         "a key that he does not hold", "no signature", "a proof for another name", "another sealing key put in"],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    state: Committed, what: Enrol, now: float, error: type[ConfigManagerError]
) -> None:
    with pytest.raises(error):
        what.decide(state, m.equipped(now=now))


def again(state: Committed) -> Committed:
    return done(state, AllowEnrolment(TOKEN, "door", None, rfc3339(NOW + 3600)))


def test_a_name_stays_with_its_key_until_it_is_revoked() -> None:
    state = again(done(allowed(), enrol(enrolment())))
    other = enrolment(sign_public=SIGN[1].verify_key.encode())
    with pytest.raises(Conflict, match="revoke"):
        enrol(other, SIGN[1]).decide(state, ON)
    assert done(state, enrol(enrolment())).registered("enrolment") == {}, "the same key may again"
    state = done(state, RevokeDevice("door", "kitchen"))
    device = enrolled(done(state, enrol(other, SIGN[1])), "door", "kitchen")
    assert device is not None
    assert device.sign_public == SIGN[1].verify_key.encode()


def test_revoking_names_and_marks_what_it_could_read_and_forgets_the_delivery() -> None:
    state = done(allowed(), enrol(enrolment()))
    [device] = devices(state)
    state = sent(with_secrets(state, pin=3, key=1), pin=3, key=1)
    assert delivery(state, device) is not None
    revoke = RevokeDevice("door", "kitchen")
    assert revoke.decide(state, ON).answer == ["key", "pin"]
    state = done(state, revoke)
    assert delivery(state, device) is None
    assert set(secret_rows.marks(state)) == {"door/pin", "door/key"}
    assert enrolled(state, "door", "kitchen") is None
    with pytest.raises(NotFound):
        revoke.decide(state, ON)
    with pytest.raises(NotFound):  # sealed while it was being revoked
        KeepDelivery(device, Delivery(b"{}", {}, "")).decide(state, ON)


def with_secrets(state: Committed, **versions: int) -> Committed:
    """door, whose secrets are written until they stand at these versions."""
    for name, version in versions.items():
        while secret_rows.last_version(state, "door", name) < version:
            state = write(state, SetSecret(service=DOOR, name=name, value=Secret("x")))
    return state


def write(state: Committed, intent: Intent) -> Committed:
    return m.decide(state, intent, shapes=Shapes(Catalogue())).change.after


def sent(state: Committed, **versions: int) -> Committed:
    [device] = devices(state)
    return done(state, KeepDelivery(device, Delivery(b"{}", versions, device.sign_keyid)))


DOOR = ServiceName("door")
REVOKE = RevokeDevice("door", "kitchen")


def test_what_it_was_ever_sent_is_named_also_once_nothing_is_delivered_any_more() -> None:
    enrolled_once = done(allowed(), enrol(enrolment()))
    knows = sent(with_secrets(enrolled_once, pin=3), pin=3)
    deleted = sent(write(knows, Delete(service=DOOR)))
    for gone in (deleted, done(again(knows), enrol(enrolment()))):
        assert REVOKE.decide(gone, ON).answer == ["pin"]
        after = done(gone, REVOKE)
        assert set(secret_rows.marks(after)) == {"door/pin"}
        [device] = devices(after)
        assert dict(could_read(after, device)) == {"pin": 3}, "and a list still says so"


def test_what_was_set_anew_since_is_not_named_and_what_was_deleted_is_but_not_marked() -> None:
    state = sent(with_secrets(done(allowed(), enrol(enrolment())), pin=3, key=1, old=2),
                 pin=3, key=1, old=2)  # fmt: skip
    state = write(with_secrets(state, pin=4), DeleteSecret(service=DOOR, name="old"))
    assert REVOKE.decide(state, ON).answer == ["key", "old"]
    assert set(secret_rows.marks(done(state, REVOKE))) == {"door/key"}


def test_a_new_device_of_a_revoked_ones_name_was_sent_nothing() -> None:
    state = sent(with_secrets(done(allowed(), enrol(enrolment())), pin=3), pin=3)
    other = enrolment(sign_public=SIGN[1].verify_key.encode())
    state = done(again(done(state, REVOKE)), enrol(other, SIGN[1]))
    assert REVOKE.decide(state, ON).answer == []
    assert set(secret_rows.marks(state)) == {"door/pin"}, "it still is to be set anew"


def test_tokens_that_nobody_used_in_time_are_forgotten_with_the_next() -> None:
    state = allowed()
    late = AllowEnrolment("cd" * 32, "door", None, rfc3339(NOW + 9000))
    assert set(done(state, late, NOW + 4000).registered("enrolment")) == {"cd" * 32}


# ── sealing ────────────────────────────────────────────────────────────────────────────────────

EMPTY = Sealed("door", "kitchen", 1, 7, {})


def sealed(**how: Any) -> Sealed:
    value = seal(
        Secret("hunter2"), sealed=EMPTY, name="pin", version=3, public=bytes(SEAL[0].public_key)
    )
    return replace(EMPTY, secrets={"pin": value}, **how)


def test_what_is_sealed_opens_with_the_instances_key_and_survives_the_wire() -> None:
    back = Sealed.parse(sealed().to_bytes())
    assert open_sealed(back, "pin", bytes(SEAL[0])).reveal() == "hunter2"
    assert b"hunter2" not in back.to_bytes()


@pytest.mark.parametrize(
    "how",
    [{"service": "window"}, {"instance": "hall"}, {"epoch_seq": 2}, {"revision": 8}],
    ids=str,
)
def test_a_value_moved_elsewhere_does_not_open(how: dict[str, Any]) -> None:
    with pytest.raises(NotSealedForThis):
        open_sealed(sealed(**how), "pin", bytes(SEAL[0]))


def test_nor_under_another_name_version_or_key() -> None:
    document = sealed()
    value = document.secrets["pin"]
    for moved in (
        replace(document, secrets={"key": value}),
        replace(document, secrets={"pin": replace(value, version=4)}),
        replace(document, secrets={"pin": replace(value, ciphertext=value.ciphertext[:-1])}),
        replace(document, secrets={"pin": replace(value, ciphertext=b"")}),
    ):
        with pytest.raises(NotSealedForThis):
            open_sealed(moved, next(iter(moved.secrets)), bytes(SEAL[0]))
    with pytest.raises(NotSealedForThis):
        open_sealed(document, "pin", bytes(SEAL[1]))
