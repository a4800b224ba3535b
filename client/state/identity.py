"""An instance's state directory: the root it trusts, its own keys, its name.

enrolled             `service/instance` of each enrolment that a server took
root.json            the pinned trust root, the envelope's bytes; written last, so it means ready
roots/<n>.json       the versions that followed it, each verified by the one before, at each start
instance             the instance's name
keys/sign.key        Ed25519 seed, 64 hex digits; so are
keys/seal.key        the X25519 private key that secrets get sealed to, and
keys/file.key        what the last-known-good files are sealed under
<service>.lkg        `config_manager.client.state.cache`; with <service>.lock, `config_manager.client.state.claim`
.lock                locked while something of this is made or changed

Several processes may start at once in an empty directory. Each makes a file only if there is none, and
uses what it reads afterwards. So they all have the same keys. If one dies in between, the next goes on with
the files that it left.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from contextlib import suppress
from pathlib import Path

from config_manager.client.rules import root_chain
from config_manager.client.rules.identity import Identity
from config_manager.client.rules.root_chain import Link
from config_manager.client.state import places
from config_manager.config import trust
from config_manager.config.errors import InvalidName, KeyFileUnsafe, RootRefused, SettingsInvalid
from config_manager.config.names import InstanceName, parse_instance
from config_manager.config.world import World

_KEYS = ("sign", "seal", "file")
_KEY_BYTES = 32
_HOST_LENGTH = 48  # leaves room for the suffix within the 63 of a name


def trust_init(state_dir: Path, root_file: Path, world: World | None = None) -> Identity:
    """Pin the root and make the instance's keys; again with the same root, nothing changes.

    A root that follows the newest one trusted here is trusted too, so that it may be brought by hand. Raises
    RootRefused (does not verify, or belongs to another chain), SettingsInvalid, KeyFileUnsafe.
    """
    world = world or World()
    try:
        data = world.disk.read(root_file)
    except OSError as error:
        raise places.unreadable_root(root_file, error) from None
    try:
        link = root_chain.pin(data, world.clock.now())
    except trust.Distrust as verdict:
        raise RootRefused(f"{root_file} is no trust root to pin: {verdict}") from None
    if not is_pinned(state_dir, world):
        try:
            _make(state_dir, data, world)
        except OSError as error:
            raise places.unwritable(_made(state_dir), state_dir, error) from None
    # what another process pinned meanwhile is judged like what was there before
    return _join(load_identity(state_dir, world), link, world)


def is_pinned(state_dir: Path, world: World) -> bool:
    """Whether it holds a root already; raises SettingsInvalid if that can't be found out."""
    pinned = _pinned_path(state_dir)
    try:
        return world.disk.exists(pinned)
    except OSError as error:
        raise places.unreadable(pinned, state_dir, error) from None


def load_identity(state_dir: Path, world: World | None = None) -> Identity:
    """Read a state directory; raises SettingsInvalid (none there), RootRefused, KeyFileUnsafe."""
    world = world or World()
    pinned_path = _pinned_path(state_dir)
    try:
        data = world.disk.read(pinned_path)
    except FileNotFoundError:
        raise places.no_root(state_dir) from None
    except OSError as error:
        raise places.unreadable(pinned_path, state_dir, error) from None
    try:
        # a pinned root stays trusted: a date that passed since, or a clock that lost its battery, must not
        # keep a service from starting with what it has
        pinned = root_chain.pin(data)
    except trust.Distrust as verdict:
        raise RootRefused(f"the root pinned in {state_dir} is damaged: {verdict}") from None
    chain, broken = _load_chain(state_dir, pinned, world)
    sign_key, seal_key, file_key = (_read_key(state_dir, name, world) for name in _KEYS)
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
    """From now on this instance waits for the secrets that a configuration names. Raises
    SettingsInvalid."""
    _add_enrolled(state_dir, frozenset({f"{service}/{instance}"}), world)


def check_enrollable(state_dir: Path, world: World) -> None:
    """Whether `note_enrolled` will be able to: a token is good for once. Raises SettingsInvalid."""
    _add_enrolled(state_dir, frozenset(), world)


def _add_enrolled(state_dir: Path, more: frozenset[str], world: World) -> None:
    path = state_dir / "enrolled"
    with world.disk.lock(state_dir):
        known = _read_enrolled(state_dir, world) | more
        text = "".join(f"{one}\n" for one in sorted(known))
        try:
            world.disk.write_atomic(path, text.encode())
        except OSError as error:
            raise places.unwritable([path], state_dir, error) from None


def _read_enrolled(state_dir: Path, world: World) -> frozenset[str]:
    path = state_dir / "enrolled"
    try:
        return frozenset(world.disk.read(path).decode("ascii").split())
    except (FileNotFoundError, UnicodeDecodeError):
        return frozenset()
    except OSError as error:  # without it the service would run on without its secrets
        raise places.unreadable(path, state_dir, error) from None


def keep_root(state_dir: Path, link: Link, world: World) -> None:
    """Durable on return, before anything is believed because of it. Raises OSError."""
    path = _root_path(state_dir, link.root.version)
    _make_within(path.parent, world)
    world.disk.write_atomic(path, link.data)


def _load_chain(state_dir: Path, pinned: Link, world: World) -> tuple[tuple[Link, ...], str | None]:
    """The chain as far as it verifies (the brokers have the rest), and why it ends early, else None."""
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
            kept = _root_path(identity.state_dir, link.root.version)
            raise places.unwritable([kept], identity.state_dir, error) from None
        return load_identity(identity.state_dir, world)
    raise RootRefused(
        f"{identity.state_dir} trusts another root already; "
        "to follow a new publisher, use a new state directory"
    )


def make_instance_name(host: str, world: World) -> InstanceName:
    """The host's name forced into the grammar, and a suffix that tells twins apart."""
    base = re.sub(r"[^a-z0-9]+", "-", host.lower())[:_HOST_LENGTH].strip("-") or "instance"
    return parse_instance(f"{base}-{world.randomness.token(4).hex()}")


def _make(state_dir: Path, root: bytes, world: World) -> None:
    """Whatever is not there yet; `root.json` last. Raises OSError."""
    # those above are for their owner alone, too, whatever the umask
    for place in reversed([state_dir, *state_dir.parents]):
        world.disk.make_directory(place)
    with world.disk.lock(state_dir):
        _make_within(state_dir / "keys", world)
        for name in _KEYS:
            key = world.randomness.token(_KEY_BYTES).hex().encode() + b"\n"
            _create_once(_key_path(state_dir, name), key, world)
        instance = make_instance_name(socket.gethostname(), world)
        _create_once(_name_path(state_dir), instance.encode() + b"\n", world)
        _create_once(_pinned_path(state_dir), root, world)


def _make_within(directory: Path, world: World) -> None:
    """In a state directory. Its owner may plant a link there to where only root may write. Raises OSError."""
    if os.geteuid() == 0:
        with suppress(FileNotFoundError):
            there = os.lstat(directory)
            if stat.S_ISLNK(there.st_mode) and there.st_uid != 0:
                told = f"{directory} is a link of uid {there.st_uid}'s, which root does not follow"
                raise OSError(errno.ELOOP, told)
    world.disk.make_directory(directory)


def _create_once(path: Path, data: bytes, world: World) -> None:
    """Does nothing if the file exists: made by an earlier start, or by another process."""
    if not world.disk.exists(path):
        with suppress(FileExistsError):
            world.disk.create(path, data)


def _made(state_dir: Path) -> list[Path]:
    keys = [_key_path(state_dir, name) for name in _KEYS]
    return [*keys, _name_path(state_dir), _pinned_path(state_dir)]


def _pinned_path(state_dir: Path) -> Path:
    return state_dir / "root.json"


def _name_path(state_dir: Path) -> Path:
    return state_dir / "instance"


def _root_path(state_dir: Path, version: int) -> Path:
    return state_dir / "roots" / f"{version}.json"


def _key_path(state_dir: Path, name: str) -> Path:
    return state_dir / "keys" / f"{name}.key"


def _read_key(state_dir: Path, name: str, world: World) -> bytes:
    path = _key_path(state_dir, name)
    try:
        with suppress(FileNotFoundError):  # a disk that is not the system's has no modes
            _check_private(path)
        key = bytes.fromhex(world.disk.read(path).decode("ascii"))
    except OSError as error:
        raise places.unreadable(path, state_dir, error) from None
    except ValueError:
        raise SettingsInvalid(f"{path} is no key file: expected 64 hex digits") from None
    if len(key) != _KEY_BYTES:
        raise SettingsInvalid(f"{path} is no key file: expected 64 hex digits")
    return key


def _check_private(path: Path) -> None:
    mode = stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116  beside the seam: modes are real
    if mode & 0o077:
        raise KeyFileUnsafe(f"others can read {path} (mode {mode:04o}); run: chmod 600 {path}")


def _read_instance(state_dir: Path, world: World) -> InstanceName:
    path = _name_path(state_dir)
    try:
        return parse_instance(world.disk.read(path).decode("ascii").strip())
    except OSError as error:
        raise places.unreadable(path, state_dir, error) from None
    except (ValueError, InvalidName) as error:
        raise SettingsInvalid(f"{path} holds no instance name: {error}") from None
