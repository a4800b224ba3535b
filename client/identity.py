"""An instance's state directory: the root it trusts, its own keys, its name.

root.json            the pinned trust root, the envelope's bytes; written last, so it means ready
instance             the instance's name
keys/sign.key        Ed25519 seed, 64 hex digits; so are
keys/seal.key        the X25519 private key that secrets get sealed to, and
keys/file.key        what the last-known-good files are sealed under
<service>.lkg        `config_manager.client.cache`
"""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

from config_manager.config import trust
from config_manager.config.documents import Root
from config_manager.config.errors import InvalidName, KeyFileUnsafe, RootRefused, SettingsInvalid
from config_manager.config.names import InstanceName, parse_instance
from config_manager.config.wire import parse_envelope
from config_manager.config.world import World

_KEYS = ("sign", "seal", "file")
_KEY_BYTES = 32
_HOST_LENGTH = 48  # leaves room for the suffix within the 63 of a name
_BEFORE_ANY_DATE = float("-inf")


@dataclass(frozen=True, slots=True)
class Identity:
    """What `trust init` made. The keys are raw bytes and never shown."""

    state_dir: Path
    instance: InstanceName
    root: Root
    sign_key: bytes = field(repr=False)
    seal_key: bytes = field(repr=False)
    file_key: bytes = field(repr=False)


def trust_init(state_dir: Path, root_file: Path, world: World | None = None) -> Identity:
    """Pin the root and make the instance's keys; again with the same root, nothing changes.

    Raises RootRefused (does not verify, or another one is pinned), SettingsInvalid, KeyFileUnsafe.
    """
    world = world or World()
    try:
        data = world.disk.read(root_file)
    except OSError as error:
        raise SettingsInvalid(f"--root {root_file}: {error.strerror or error}") from None
    try:
        trust.judge_root(data, None, world.clock.now())
    except trust.Distrust as verdict:
        raise RootRefused(f"{root_file} is no trust root to pin: {verdict}") from None
    pinned = state_dir / "root.json"
    if world.disk.exists(pinned):
        if not _same_root(world.disk.read(pinned), data):
            raise RootRefused(
                f"{state_dir} trusts another root already; "
                "to follow a new publisher, use a new state directory"
            )
        return load_identity(state_dir, world)
    try:
        _make(state_dir, world)
        world.disk.write_atomic(pinned, data)
    except OSError as error:
        raise SettingsInvalid(f"--state {state_dir}: {error.strerror or error}") from None
    return load_identity(state_dir, world)


def load_identity(state_dir: Path, world: World | None = None) -> Identity:
    """Read a state directory; raises SettingsInvalid (none there), RootRefused, KeyFileUnsafe."""
    world = world or World()
    try:
        data = world.disk.read(state_dir / "root.json")
    except OSError:
        raise SettingsInvalid(
            f"{state_dir} holds no trust root; first run: "
            f"config-manager client trust init --state {state_dir} --root FILE"
        ) from None
    try:
        # pinned is pinned: a date that passed since, or a clock that lost its battery, must not
        # keep a service from starting with what it has
        root = trust.judge_root(data, None, _BEFORE_ANY_DATE)
    except trust.Distrust as verdict:
        raise RootRefused(f"the root pinned in {state_dir} is damaged: {verdict}") from None
    sign_key, seal_key, file_key = (_read_key(_key_path(state_dir, k), world) for k in _KEYS)
    return Identity(state_dir, _read_instance(state_dir, world), root, sign_key, seal_key, file_key)


def make_instance_name(host: str, world: World) -> InstanceName:
    """The host's name forced into the grammar, and a suffix that tells twins apart."""
    base = re.sub(r"[^a-z0-9]+", "-", host.lower())[:_HOST_LENGTH].strip("-") or "instance"
    return parse_instance(f"{base}-{world.randomness.token(4).hex()}")


def _make(state_dir: Path, world: World) -> None:
    keys = state_dir / "keys"
    for directory in (state_dir, keys):
        if not directory.is_dir():  # one that is there is somebody's; its keys are checked below
            directory.mkdir(mode=0o700, parents=True)
            directory.chmod(0o700)
    for name in _KEYS:
        path = _key_path(state_dir, name)
        if not world.disk.exists(path):  # an earlier init may have been cut short
            world.disk.write_atomic(path, world.randomness.token(_KEY_BYTES).hex().encode() + b"\n")
    name_file = state_dir / "instance"
    if not world.disk.exists(name_file):
        name = make_instance_name(socket.gethostname(), world)
        world.disk.write_atomic(name_file, name.encode() + b"\n")


def _key_path(state_dir: Path, name: str) -> Path:
    return state_dir / "keys" / f"{name}.key"


def _read_key(path: Path, world: World) -> bytes:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116  beside the seam: modes are real
        if mode & 0o077:
            raise KeyFileUnsafe(f"others can read {path} (mode {mode:04o}); run: chmod 600 {path}")
        key = bytes.fromhex(world.disk.read(path).decode("ascii"))
    except OSError as error:
        raise SettingsInvalid(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise SettingsInvalid(f"{path} is no key file: expected 64 hex digits") from None
    if len(key) != _KEY_BYTES:
        raise SettingsInvalid(f"{path} is no key file: expected 64 hex digits")
    return key


def _read_instance(state_dir: Path, world: World) -> InstanceName:
    path = state_dir / "instance"
    try:
        return parse_instance(world.disk.read(path).decode("ascii").strip())
    except (OSError, ValueError, InvalidName) as error:
        raise SettingsInvalid(f"{path} holds no instance name: {error}") from None


def _same_root(one: bytes, other: bytes) -> bool:
    """The same signed bytes, however the envelope around them is spelled."""
    try:
        return one == other or parse_envelope(one).digest == parse_envelope(other).digest
    except ValueError:
        return False
