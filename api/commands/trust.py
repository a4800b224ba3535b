"""`config-manager trust`: the trust root shown, changed, and signed where its keys are kept."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import click

from config_manager.api.commands.remote import Server, asks_a_server, clean, print_json, print_table
from config_manager.config.errors import InvalidValues, RootRefused, SettingsInvalid

_PATH = ("api", "v1", "trust")
_HEADER = ("ROLE", "KEY", "UNTIL", "THRESHOLD")
_SEED_BYTES = 32
_CHANGE = "version adopted"
_FILE = click.Path(path_type=Path, dir_okay=False)
_CLIENTS = (
    "clients take the new root from the broker (each walks from the one it pinned); nothing has to be "
    "done there"
)


@click.group()
def trust() -> None:
    """The trust root: which keys sign what. Everything that services believe begins there.

    \b
      config-manager trust show
      config-manager trust rotate config          # a new key; the old one is good for another day
      config-manager trust revoke 3fa9c01b        # a key that leaked: refused from now on
    Take the root key offline (see docs/security.md):
      config-manager trust export-root --data-dir DATA --to /media/stick
    """


@trust.command()
@asks_a_server
def show(server: Server, as_json: bool) -> None:
    """Show the current root: its version, and which keys sign for each role."""
    envelope = server.get(*_PATH, "root", holds="payload")
    root = json.loads(base64.b64decode(envelope["payload"]))
    if as_json:
        print_json(root)
        return
    click.echo(f"root version {root['version']}, issued {clean(root['issued_at'])}\n")
    print_table(
        _HEADER,
        [
            (
                role,
                key[:16],
                root["keys"].get(key, {}).get("not_after") or "no end",
                f"{known['threshold']} of {len(known['keyids'])}",
            )
            for role, known in root["roles"].items()
            for key in known["keyids"]
        ],
    )


@trust.command()
@asks_a_server
@click.argument("role", type=click.Choice(["root", "config", "beacon"]))
@click.option(
    "--overlap", metavar="TIME", default="24h", show_default=True,
    help="How long the old key stays good; 0 drops it at once.",
)  # fmt: skip
@click.option("--reason", help="Why, for the audit.")
def rotate(server: Server, as_json: bool, role: str, overlap: str, reason: str | None) -> None:
    """Sign with a new key from now on."""
    body = {"role": role, "overlap": overlap}
    change = server.ask(
        "POST", *_PATH, "rotate", holds=_CHANGE, body=body, query={"reason": reason}
    ).value
    what = f"{role} is signed by the new key {change['roles'][role]['keyids'][0][:16]}"
    if role != "root":
        what += f"; the old one is good for {overlap}" if overlap != "0" else "; the old one is not"
    _say(change, what, as_json)


@trust.command("add-signer")
@asks_a_server
@click.option("--public", required=True, type=_FILE, help="The file that make-key wrote: KEY.pub.")
@click.option(
    "--threshold", type=int, help="How many root keys have to sign then. [as many as now]"
)
@click.option("--reason", help="Why, for the audit.")
def add_signer(
    server: Server, as_json: bool, public: Path, threshold: int | None, reason: str | None
) -> None:
    """Let one more key sign for the root."""
    body = {"public": _read(public).strip(), "threshold": threshold}
    change = server.ask(
        "POST", *_PATH, "signers", holds=_CHANGE, body=body, query={"reason": reason}
    ).value
    role = change["roles"]["root"]
    _say(change, f"{role['threshold']} of {len(role['keyids'])} root keys have to sign", as_json)


@trust.command()
@asks_a_server
@click.argument("keyid")
@click.option("--reason", help="Why, for the audit.")
def revoke(server: Server, as_json: bool, keyid: str, reason: str | None) -> None:
    """Drop a key at once. KEYID: as `trust show` prints it, at least its first 8 digits."""
    body = {"keyid": keyid}
    change = server.ask(
        "POST", *_PATH, "revoke", holds=_CHANGE, body=body, query={"reason": reason}
    ).value
    _say(
        change,
        f"{clean(keyid)} is refused by every client that has seen a beacon since; what it signed was "
        "signed again",
        as_json,
    )


@trust.command()
@asks_a_server
@click.option("--out", type=_FILE, help="Write what is to be signed to this file.")
def pending(server: Server, as_json: bool, out: Path | None) -> None:
    """Show the root version that waits for signatures, and whose."""
    waits = server.get(*_PATH, "pending", holds="pending")["pending"]
    if out is not None and waits is not None:
        out.write_text(json.dumps(waits["envelope"]) + "\n")
    if as_json:
        print_json({"pending": waits})
    elif waits is None:
        click.echo("nothing waits for signatures")
    else:
        _say_pending(waits, out)


@trust.command()
@asks_a_server
@click.argument("file", type=_FILE)
@click.option("--reason", help="Why, for the audit.")
def apply(server: Server, as_json: bool, file: Path, reason: str | None) -> None:
    """Bring FILE, a root version that was signed elsewhere (`trust sign`)."""
    body = _envelope(file).to_object()
    change = server.ask(
        "POST", *_PATH, "roots", holds=_CHANGE, body=body, query={"reason": reason}
    ).value
    _say(change, "it is the root now", as_json)


# ── without a server ───────────────────────────────────────────────────────────────────────────


@trust.command("make-key")
@click.option(
    "--out", required=True, type=_FILE, help="The private key; KEY.pub gets the public one."
)
def make_key(out: Path) -> None:
    """Make a root key where it will be kept. Needs no server and no network."""
    from nacl.signing import SigningKey

    from config_manager.config.wire import keyid

    seed = os.urandom(_SEED_BYTES)
    public = SigningKey(seed).verify_key.encode()
    _write_new(out, seed.hex() + "\n", 0o600)
    beside = out.with_name(out.name + ".pub")
    _write_new(beside, base64.b64encode(public).decode() + "\n", 0o644)
    click.echo(f"made {out} (keep it) and {beside} (hand it out); its id is {keyid(public)}")
    click.echo(f"next: config-manager trust add-signer --public {beside}")


@trust.command("sign")
@click.option("--key", required=True, type=_FILE, help="The root key, 64 hex digits.")
@click.option("--in", "given", required=True, type=_FILE, help="What is to be signed.")
@click.option("--out", required=True, type=_FILE, help="Where the signed one goes.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def sign_root(key: Path, given: Path, out: Path, yes: bool) -> None:
    """Sign a root version where the root key is kept. Needs no server and no network.

    Shows what the version says before it asks: read it, for this is what every client will believe.
    """
    from dataclasses import replace

    from nacl.signing import SigningKey

    from config_manager.config import wire
    from config_manager.config.documents.fields import NotADocument, UnknownCritical
    from config_manager.config.documents.root import Root
    from config_manager.config.wire import Signature
    from config_manager.config.world import World
    from config_manager.storage.keys.key_file import read_key

    envelope = _envelope(given)
    try:
        root = Root.parse(envelope.payload)
    except (NotADocument, UnknownCritical) as error:
        raise RootRefused(f"{given} is no trust root: {error}") from None
    signing_key = SigningKey(read_key(key, World()))
    key_id = wire.keyid(signing_key.verify_key.encode())
    click.echo(f"root version {root.version}, issued {clean(root.issued_at)}")
    for name, role in root.roles.items():
        click.echo(f"  {name}: {role.threshold} of {', '.join(one[:16] for one in role.keyids)}")
    if not yes:
        click.confirm(f"sign this with {key_id[:16]}?", abort=True)
    message = wire.signed_bytes(wire.ROOT, envelope.payload)
    signature = Signature(key_id, signing_key.sign(message).signature)
    others = tuple(one for one in envelope.signatures if one.keyid != key_id)
    signed = replace(envelope, signatures=(*others, signature))
    out.write_bytes(signed.to_bytes() + b"\n")
    click.echo(
        f"signed by {key_id[:16]}; next, where the server is: config-manager trust apply {out}"
    )


@trust.command("export-root")
@click.option(
    "--data-dir", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The server's data directory; the server may run.",
)  # fmt: skip
@click.option(
    "--to", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Where the root key goes: a medium that is taken away afterwards.",
)  # fmt: skip
def export_root(data_dir: Path, to: Path) -> None:
    """Take the root key offline: moves it out of the data directory.

    From then on `trust rotate`, `add-signer` and `revoke` answer what has to be signed where the key
    is. Everything else, and every client, goes on as before.
    """
    from config_manager.config.files import make_directory, replacing
    from config_manager.storage.keys.key_file import check_private

    keys = data_dir / "keys"
    if not keys.is_dir():
        raise SettingsInvalid(f"{data_dir} has no keys/: it is no data directory of ours")
    check_private(keys)
    found = sorted(
        one for one in keys.iterdir() if re.fullmatch(r"root(-[0-9a-f]{16})?\.key", one.name)
    )
    if not found:
        raise SettingsInvalid(f"no root key lies in {keys}: it was exported before")
    make_directory(to)
    for one in found:  # all copies are safe before the first original goes
        _write_new(to / one.name, one.read_text("ascii"), 0o600)
    for one in found:
        one.unlink()
    _sync(keys)
    with replacing(to / "root.json", mode=0o644) as file:
        file.write((data_dir / "trust" / "root.json").read_bytes())
    names = ", ".join(one.name for one in found)
    click.echo(f"moved {names} to {to}; the server can't change the root by itself any more")
    click.echo("make a second copy, and keep both apart from the server. To change the root later:")
    click.echo("  config-manager trust rotate config       # answers what has to be signed")
    click.echo("  config-manager trust pending --out next.json")
    click.echo(
        f"  config-manager trust sign --key {to / found[0].name} --in next.json --out signed.json"
    )
    click.echo("  config-manager trust apply signed.json")


# ── what they have in common ───────────────────────────────────────────────────────────────────


def _say(change: dict[str, Any], what: str, as_json: bool) -> None:
    if as_json:
        print_json(change)
    elif change["adopted"]:
        click.echo(f"root version {change['version']}: {what}")
        click.echo(_CLIENTS)
    else:
        click.echo(f"root version {change['version']} is made, and counts once it is signed:")
        _say_pending(change["pending"], None)


def _say_pending(waits: dict[str, Any], out: Path | None) -> None:
    for one in waits["needs"]:
        keys = ", ".join(key[:16] for key in one["keyids"])
        click.echo(
            f"  version {one['version']} wants {one['missing']} more signature(s) by: {keys}"
        )
    file = out or "next.json"
    if out is None:
        click.echo("  config-manager trust pending --out next.json")
    click.echo(
        f"  config-manager trust sign --key ROOT.key --in {file} --out signed.json   # where the key is"
    )
    click.echo("  config-manager trust apply signed.json")


def _envelope(file: Path) -> Any:
    from config_manager.config.wire import NotAnEnvelope, parse_envelope

    try:
        return parse_envelope(_read(file).encode(), least_signatures=0)
    except NotAnEnvelope as error:
        raise InvalidValues(f"{file} is no envelope: {error}") from None


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{file} is not text") from None


def _write_new(path: Path, text: str, mode: int) -> None:
    """Durable; never over what is there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)
    except OSError as error:
        raise SettingsInvalid(f"{path}: {error.strerror}") from None


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
