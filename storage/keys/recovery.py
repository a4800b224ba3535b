"""The way back when the keys are lost: every key, sealed to one that a person keeps.

`<data>/recovery.sealed` lies beside the data and goes into backups. It is worth nothing without the recovery
key, which is shown once and not kept here. Sealing needs only its public half (libsodium's sealed boxes:
X25519, XSalsa20-Poly1305), so keys are sealed anew whenever they change. The public half is authenticated by
the instance's key: a thief who can write beside the data, but not read `keys/`, can't have the keys sealed to
a key of their own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from config_manager.config import strict_json
from config_manager.config.errors import Conflict, DatabaseUnopenable, RecoveryRefused
from config_manager.config.files import make_directory
from config_manager.config.sealed_file import derive_key
from config_manager.config.secret import Secret
from config_manager.config.world import World
from config_manager.storage.keys.key_file import KEY_BYTES
from config_manager.storage.keys.key_ring import KeyRing

FILE = "recovery.sealed"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no two digits are taken for each other when read aloud or typed."""
_READ_AS = str.maketrans(
    {"O": "0", "I": "1", "L": "1", "-": None, " ": None, "\n": None, "\r": None}
)
_GROUP = 4
_KEY_DIGITS = 52
_CHECK_DIGITS = 4
"""20 bits of a hash: a mistyped key is told from a wrong one."""


class _Record(NamedTuple):
    """recovery.sealed. of: a fingerprint of the sealed keys, which tells whether keys have changed since."""

    public: bytes
    mac: bytes
    of: str
    sealed: bytes


class Recovery:
    """`recovery.sealed` of a data directory whose keys are here."""

    def __init__(self, keys: KeyRing, world: World) -> None:
        self.path = keys.data_dir / FILE
        self._keys = keys
        self._world = world

    @property
    def exists(self) -> bool:
        return self._world.disk.exists(self.path)

    def begin(self) -> Secret:
        """Make a new recovery key, to be shown once. An earlier one opens nothing that is sealed from now on.
        Raises OSError."""
        private = PrivateKey(self._world.randomness.token(KEY_BYTES))
        public = private.public_key.encode()
        self._seal(public, self._mac(public))
        return Secret(_in_words(private.encode()))

    def refresh(self) -> None:
        """Seal anew if keys have changed since. Does nothing if no recovery key was ever made.

        Raises OSError, and RecoveryRefused if the file was altered or belongs to other keys.
        """
        if not self.exists:
            return
        record = _parse(self._world.disk.read(self.path))
        if not hmac.compare_digest(record.mac, self._mac(record.public)):
            raise RecoveryRefused(
                f"{FILE} was altered, or belongs to other keys: nothing is sealed to it; make a new "
                "recovery key with config-manager init --new-recovery-key"
            )
        if record.of != _fingerprint(self._keys.contents(self._world)):
            self._seal(record.public, record.mac)

    def _seal(self, public: bytes, mac: bytes) -> None:
        contents = self._keys.contents(self._world)
        keys = {name: key.hex() for name, key in contents.items()}
        plain = strict_json.dumps({"format": 1, "keys": keys})
        value = {
            "format": 1,
            "public": _text(public),
            "mac": _text(mac),
            "of": _fingerprint(contents),
            "sealed": _text(SealedBox(PublicKey(public)).encrypt(plain)),
        }
        self._world.disk.write_atomic(self.path, strict_json.dumps(value) + b"\n")

    def _mac(self, public: bytes) -> bytes:
        key = derive_key(self._keys.instance_key, "recovery-public-key")
        return hmac.digest(key, public, "sha256")


def open_sealed(data: bytes, recovery_key: str) -> Mapping[str, bytes]:
    """File name → key, from the content of `recovery.sealed`.

    recovery_key: as it was shown; spaces, dashes and case don't matter. Raises RecoveryRefused.
    """
    private = PrivateKey(_from_words(recovery_key))
    record = _parse(data)
    if private.public_key.encode() != record.public:
        raise RecoveryRefused(
            f"this recovery key is not the one that {FILE} is sealed to: a newer one was made, or it "
            "belongs to another data directory"
        )
    try:
        value = strict_json.loads_object(SealedBox(private).decrypt(record.sealed))
        return {name: bytes.fromhex(key) for name, key in value["keys"].items()}
    except (CryptoError, ValueError, KeyError, TypeError, AttributeError):
        raise RecoveryRefused(f"{FILE} is damaged; take it from another backup") from None


def put_back(contents: Mapping[str, bytes], directory: Path, world: World) -> list[str]:
    """Write the key files that are missing (0600), and answer their names. Raises Conflict if one is there and
    holds another key (then none is written), DatabaseUnopenable for a strange name, and OSError."""
    missing: list[str] = []
    for name, key in contents.items():
        if Path(name).name != name or ".key" not in name:
            raise DatabaseUnopenable(f"{name[:64]!r} is no key file's name")
        path = directory / name
        if not world.disk.exists(path):
            missing.append(name)
        elif world.disk.read(path).decode("ascii", "replace").strip().lower() != key.hex():
            raise Conflict(f"{path} is there and holds another key; move it away first")
    make_directory(directory)
    for name in missing:
        world.disk.write_atomic(directory / name, contents[name].hex().encode())
    return missing


def _parse(data: bytes) -> _Record:
    try:
        value = strict_json.loads_object(data)
        return _Record(
            base64.b64decode(value["public"], validate=True),
            base64.b64decode(value["mac"], validate=True),
            str(value["of"]),
            base64.b64decode(value["sealed"], validate=True),
        )
    except (ValueError, KeyError, TypeError):
        raise RecoveryRefused(f"{FILE} is damaged; take it from another backup") from None


def _fingerprint(contents: Mapping[str, bytes]) -> str:
    """A hash of names and keys. It says nothing of the keys, which are random."""
    digest = hashlib.sha256(b"recovery fingerprint")
    for name, key in sorted(contents.items()):
        digest.update(strict_json.dumps([name, key.hex()]))
    return digest.hexdigest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ── for people ─────────────────────────────────────────────────────────────────────────────────


def _in_words(key: bytes) -> str:
    """52 digits of the key and 4 of its hash, in groups of four."""
    digits = _base32(int.from_bytes(key), _KEY_DIGITS) + _check(key)
    return "-".join(digits[i : i + _GROUP] for i in range(0, len(digits), _GROUP))


def _from_words(text: str) -> bytes:
    """The inverse. Raises RecoveryRefused for a key that was mistyped."""
    digits = text.upper().translate(_READ_AS)
    number = 0
    try:
        if len(digits) != _KEY_DIGITS + _CHECK_DIGITS:
            raise ValueError
        for digit in digits[:_KEY_DIGITS]:
            number = number * len(_ALPHABET) + _ALPHABET.index(digit)
        key = number.to_bytes(KEY_BYTES)
        if digits[_KEY_DIGITS:] != _check(key):
            raise ValueError
    except (ValueError, OverflowError):
        raise RecoveryRefused(
            "this is no recovery key, or was mistyped: 14 groups of 4 letters and digits"
        ) from None
    return key


def _check(key: bytes) -> str:
    digest = hashlib.sha256(b"recovery key check" + key).digest()
    return _base32(int.from_bytes(digest[:4]) >> 12, _CHECK_DIGITS)


def _base32(number: int, digits: int) -> str:
    return "".join(_ALPHABET[number >> 5 * i & 31] for i in reversed(range(digits)))
