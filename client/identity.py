"""An instance's state directory: the root it trusts, its own keys, its name.

enrolled             `service/instance` of each enrolment that a server took
root.json            the pinned trust root, the envelope's bytes; written last, so it means ready
roots/<n>.json       the versions that followed it, each verified by the one before, at each start
instance             the instance's name
keys/sign.key        Ed25519 seed, 64 hex digits; so are
keys/seal.key        the X25519 private key that secrets get sealed to, and
keys/file.key        what the last-known-good files are sealed under
<service>.lkg        `config_manager.client.cache`; with <service>.lock, `config_manager.client.claim`
"""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

from config_manager.client import root_chain
from config_manager.client.root_chain import Link
from config_manager.config import trust
from config_manager.config.documents import Root
from config_manager.config.errors import InvalidName, KeyFileUnsafe, RootRefused, SettingsInvalid
from config_manager.config.names import InstanceName, parse_instance
from config_manager.config.world import World

_KEYS = ("sign", "seal", "file")
_KEY_BYTES = 32
_HOST_LENGTH = 48  # leaves room for the suffix within the 63 of a name


@dataclass(frozen=True, slots=True)
class Identity:
    """What `trust init` made, and the roots that were trusted since. The keys are raw bytes and
    never shown.

    chain: from the pinned root to the newest. enrolled: the `service/instance` of each enrolment that
    a server took. broken: why a kept root was left out, for the log.
    """

    state_dir: Path
    instance: InstanceName
    chain: tuple[Link, ...]
    sign_key: bytes = field(repr=False)
    seal_key: bytes = field(repr=False)
    file_key: bytes = field(repr=False)
    broken: str | None = None
    enrolled: frozenset[str] = frozenset()

    @property
    def root(self) -> Root:
        """The newest that is trusted."""
        return self.chain[-1].root

    @property
    def roots(self) -> tuple[Root, ...]:
        return tuple(link.root for link in self.chain)


def trust_init(state_dir: Path, root_file: Path, world: World | None = None) -> Identity:
    """Pin the root and make the instance's keys; again with the same root, nothing changes.

    A root that follows the newest one trusted here is trusted too: for who brings it by hand. Raises
    RootRefused (does not verify, or belongs to another chain), SettingsInvalid, KeyFileUnsafe.
    """
    world = world or World()
    try:
        data = world.disk.read(root_file)
    except OSError as error:
        raise SettingsInvalid(f"--root {root_file}: {error.strerror or error}") from None
    try:
        link = root_chain.pin(data, world.clock.now())
    except trust.Distrust as verdict:
        raise RootRefused(f"{root_file} is no trust root to pin: {verdict}") from None
    pinned = state_dir / "root.json"
    if world.disk.exists(pinned):
        return _join(load_identity(state_dir, world), link, world)
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
        pinned = root_chain.pin(data)
    except trust.Distrust as verdict:
        raise RootRefused(f"the root pinned in {state_dir} is damaged: {verdict}") from None
    chain, broken = _load_chain(state_dir, pinned, world)
    sign_key, seal_key, file_key = (_read_key(_key_path(state_dir, k), world) for k in _KEYS)
    return Identity(
        state_dir,
        _read_instance(state_dir, world),
        chain,
        sign_key,
        seal_key,
        file_key,
        broken,
        _read_enrolled(state_dir, world),
    )


def note_enrolled(state_dir: Path, service: str, instance: str, world: World) -> None:
    """From now on this instance waits for the secrets that a configuration names. Raises OSError."""
    known = _read_enrolled(state_dir, world) | {f"{service}/{instance}"}
    text = "".join(f"{one}\n" for one in sorted(known))
    world.disk.write_atomic(state_dir / "enrolled", text.encode())


def _read_enrolled(state_dir: Path, world: World) -> frozenset[str]:
    try:
        return frozenset(world.disk.read(state_dir / "enrolled").decode("ascii").split())
    except (OSError, UnicodeDecodeError):
        return frozenset()


def keep_root(state_dir: Path, link: Link, world: World) -> None:
    """Durable on return, before anything is believed because of it. Raises OSError."""
    path = _root_path(state_dir, link.root.version)
    if not world.disk.exists(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    world.disk.write_atomic(path, link.data)


def _load_chain(state_dir: Path, pinned: Link, world: World) -> tuple[tuple[Link, ...], str | None]:
    """As far as it verifies; the brokers have the rest. And why it ends early, where it does."""
    chain = [pinned]
    while True:
        path = _root_path(state_dir, chain[-1].root.version + 1)
        try:
            chain.append(root_chain.follow_on(chain[-1], world.disk.read(path)))
        except FileNotFoundError:
            return tuple(chain), None
        except (OSError, trust.Distrust) as error:
            return tuple(chain), f"{path.name} of the trusted roots: {error}"


def _join(identity: Identity, link: Link, world: World) -> Identity:
    """The root of a state directory that has one already."""
    for known in identity.chain:
        if known.digest == link.digest:
            return identity
    if link.root.version > identity.root.version:
        try:
            link = root_chain.follow_on(identity.chain[-1], link.data, world.clock.now())
            keep_root(identity.state_dir, link, world)
        except trust.Distrust as verdict:
            raise RootRefused(
                f"root {link.root.version} does not follow root {identity.root.version}, which "
                f"{identity.state_dir} trusts ({verdict.detail}); to follow a new publisher, use a "
                "new state directory"
            ) from None
        except OSError as error:
            raise SettingsInvalid(f"--state {identity.state_dir}: {error.strerror}") from None
        return load_identity(identity.state_dir, world)
    raise RootRefused(
        f"{identity.state_dir} trusts another root already; "
        "to follow a new publisher, use a new state directory"
    )


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


def _root_path(state_dir: Path, version: int) -> Path:
    return state_dir / "roots" / f"{version}.json"


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
