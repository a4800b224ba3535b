"""What every driver does before it starts: names, files, keys, overrides and policy from arguments,
environment, `.env` and defaults.

    CONFIG_MANAGER_STATE_DIR   the instance's own directory; else systemd's STATE_DIRECTORY, else
                               XDG_STATE_HOME/config-manager, else ~/.local/state/config-manager
    CONFIG_MANAGER_MQTT_URL    the brokers; else mqtt://localhost:1883
    CONFIG_MANAGER_ROOT        the publisher's root.json, pinned if nothing is pinned yet
    CONFIG_MANAGER_INSTANCE    this instance's name; else the one made with its keys

A line of `.env` counts if the environment does not have the variable; one for the state directory only if
it has no STATE_DIRECTORY either.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypedDict, TypeVar, cast, get_args

from pydantic import BaseModel

from config_manager.client.drivers.background import Worker
from config_manager.client.drivers.callbacks import check_runs
from config_manager.client.drivers.misspelt import say_unknown
from config_manager.client.model.judging import DoesNotFit
from config_manager.client.model.overrides import prefix_of, read_overrides
from config_manager.client.model.precedence import Layers
from config_manager.client.model.published_schema import published_schema
from config_manager.client.model.validating import has_own_sources
from config_manager.client.rules.identity import Identity
from config_manager.client.rules.instance import InstanceRules
from config_manager.client.rules.kept import Kept
from config_manager.client.rules.root_chain import Link
from config_manager.client.rules.todo import BAKE_S, Change, OnStale, TrialPolicy
from config_manager.client.state import env_file
from config_manager.client.state.boots import Boots
from config_manager.client.state.cache import Cache, KeptBroken
from config_manager.client.state.claim import Claim
from config_manager.client.state.identity import (
    is_pinned,
    keep_root,
    load_identity,
    trust_init,
)
from config_manager.client.state.log import say
from config_manager.client.state.places import default_state_dir, expanded
from config_manager.config.brokers import Auto, BrokerAddress, parse_mqtt_urls
from config_manager.config.errors import NothingDelivered, SettingsInvalid
from config_manager.config.names import InstanceName, ServiceName, parse_instance, parse_service
from config_manager.config.world import World

M = TypeVar("M", bound=BaseModel)

Apply = Callable[[Change[M]], Awaitable[None] | None]
"""The service's say in a change: return to accept, raise to refuse, raise NotNow to be asked again."""

DEFAULT_MQTT_URL = "mqtt://localhost:1883"

FIRST_WAIT_S = 5.0
"""How long the very first start waits for a publisher before it runs on the model's defaults."""

REQUIRED_WAIT_S = 20.0
"""The same if the caller requires a configuration: longer than a first start waits for a floor."""

ABSENT_GRACE_S = 0.5
"""The snapshot is rewritten at most once a second: a first configuration may be ahead of it."""


@dataclass(frozen=True)
class Options:
    """What a service may say when it opens its configuration. Times in seconds.

    service: its name; None is the model's `SERVICE`. state_dir, mqtt_url, root, instance: None is "as the
    environment says" (`CONFIG_MANAGER_…`). root: the publisher's root.json, pinned if nothing is pinned.
    instance: this instance's name. prefix: of the overriding variables; None is `STT_WORKER_` for
    stt-worker, or a `BaseSettings`' own; "" takes the bare key. env_file: read once, at start, for these
    and for the client's own variables; None reads none; if nothing is said, `.env`, or what a `BaseSettings` names
    itself. require: raise NothingDelivered if nothing was ever delivered. first_wait_s: how long a start
    without a last-known-good file waits for a publisher; None is 5, or 20 with require. bake_s: how long it
    must live with a change before that counts as proved; 0 proves at once. restart_required: keys that only
    a restart changes. max_stale_s, on_stale: what to do (`report`, `warn`, `stop`) once nothing has proved
    for that long that what runs is current; None: never.
    """

    service: str | None = None
    state_dir: Path | str | None = None
    mqtt_url: str | None = None
    root: Path | str | None = None
    instance: str | None = None
    prefix: str | None = None
    env_file: Path | str | None = env_file.UNSAID
    require: bool = False
    first_wait_s: float | None = None
    bake_s: float = BAKE_S
    restart_required: Collection[str] = frozenset()
    max_stale_s: float | None = None
    on_stale: OnStale = "report"

    def check(self, model: type[BaseModel]) -> None:
        """Raises SettingsInvalid for an option that would have no effect, or another one than its caller expects."""
        if isinstance(self.restart_required, str):
            raise SettingsInvalid(
                f"restart_required: a collection of keys: {{{self.restart_required!r}}}"
            )
        takes_any = model.model_config.get("extra") == "allow"
        unknown = set(self.restart_required) - set(model.model_fields)
        if unknown and not takes_any:
            raise SettingsInvalid(
                f"restart_required: {model.__name__} has no {', '.join(sorted(map(str, unknown)))}; "
                f"it has {', '.join(model.model_fields)}"
            )
        if self.on_stale not in get_args(OnStale):
            raise SettingsInvalid(
                f"on_stale: {self.on_stale!r}; expected one of {', '.join(get_args(OnStale))}"
            )
        for name in ("first_wait_s", "bake_s", "max_stale_s"):
            seconds = getattr(self, name)
            if seconds is not None and not (isinstance(seconds, int | float) and seconds >= 0):
                raise SettingsInvalid(f"{name}: {seconds!r}; expected seconds, 0 or more")

    @property
    def wait_s(self) -> float:
        if self.first_wait_s is not None:
            return self.first_wait_s
        return REQUIRED_WAIT_S if self.require else FIRST_WAIT_S


class OptionArguments(TypedDict, total=False):
    """The same as keyword arguments, so that a type checker knows their names and types."""

    service: str | None
    state_dir: Path | str | None
    mqtt_url: str | None
    root: Path | str | None
    instance: str | None
    prefix: str | None
    env_file: Path | str | None
    require: bool
    first_wait_s: float | None
    bake_s: float
    restart_required: Collection[str]
    max_stale_s: float | None
    on_stale: OnStale


@dataclass(frozen=True)
class Prepared(Generic[M]):
    """Everything a driver needs; nothing was started yet."""

    options: Options
    apply: Apply[M] | None
    world: World
    service: ServiceName
    name: InstanceName
    identity: Identity
    instance: InstanceRules[M]
    cache: Cache
    keep_root: Callable[[Link], None]
    mqtt_url: str
    client_id: str
    has_kept: bool
    broken: str | None
    claim: Claim
    boots: Boots

    @contextmanager
    def disk_thread(self) -> Generator[Worker]:
        """The thread that writes. The claim ends after its last write: until then no other process may."""
        with ExitStack() as unless_it_starts:
            unless_it_starts.callback(self.claim.close)
            disk = Worker(f"disk {self.service}")
            unless_it_starts.pop_all()
        try:
            yield disk
        finally:
            if disk.is_at_work:
                disk.submit(self.claim.close, lambda _: None)
            else:
                self.claim.close()
            disk.close()

    def check_required(self) -> None:
        """Raises NothingDelivered if the service requires what did not come."""
        if self.options.require and self.instance.source == "defaults":
            raise NothingDelivered(
                f"{self.service} requires its configuration, and none was delivered within "
                f"{self.options.wait_s:g} s: is the broker reachable, does the server hold one, and "
                "does it fit the model?"
            )


def prepare(
    model: type[M],
    options: Options,
    *,
    apply: Apply[M] | None = None,
    world: World | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Prepared[M]:
    """Raises SettingsInvalid, InvalidName, KeyFileUnsafe, RootRefused; TypeError for what is no callback.

    What is returned holds a claim, which is its user's to close.
    """
    if apply is not None:
        check_runs(apply, "apply")
    world = world or World()
    options.check(model)
    service = _service_of(model, options)
    lines = env_file.read_for(model, options.env_file)
    said = env_file.ours_in(environment, lines)
    state_dir = expanded(options.state_dir or default_state_dir(said))
    identity = _identity(state_dir, options, said, world)
    named = options.instance or said.get("CONFIG_MANAGER_INSTANCE")
    name = parse_instance(named) if named else identity.instance
    layers = _layers(model, service, options.prefix, environment, lines)
    policy = _policy(model, options)
    claim = Claim(state_dir, service)
    with ExitStack() as unless_all_goes_well:
        unless_all_goes_well.callback(claim.close)
        _claim(claim, service)
        schema = published_schema(model, policy.restart_required).named
        cache = Cache(
            state_dir, service, identity.file_key, identity.roots, world, claim, schema=schema
        )
        kept, broken = _load(cache)
        boots = Boots(state_dir / f"{service}.boot", claim, world)
        with _in_words(model):
            instance = InstanceRules(
                service,
                name,
                identity,
                layers,
                kept,
                policy=policy,
                boot_seq=boots.number,
                asks=apply is not None,
                requires=options.require,
                world=world,
            )
        prepared = Prepared(
            options,
            apply,
            world,
            service,
            name,
            identity,
            instance,
            cache,
            partial(keep_root, state_dir, world=world),
            options.mqtt_url or said.get("CONFIG_MANAGER_MQTT_URL") or DEFAULT_MQTT_URL,
            _client_id(service, name, world),
            kept is not None and kept.to_start_with is not None,
            "; ".join(filter(None, (identity.broken, broken))) or None,
            claim,
            boots,
        )
        unless_all_goes_well.pop_all()
    return prepared


def _layers(
    model: type[M],
    service: ServiceName,
    prefix: str | None,
    environment: Mapping[str, str],
    lines: Mapping[str, str | None],
) -> Layers[M]:
    if prefix is None:
        prefix = prefix_of(model, service)
    layers = read_layers(model, prefix, environment=environment, env_file=lines)
    say_unknown(model, prefix, environment, lines)
    return layers


def read_layers(
    model: type[M],
    prefix: str,
    *,
    environment: Mapping[str, str],
    env_file: Mapping[str, str | None] | None = None,
) -> Layers[M]:
    """A model, and what this process was started with instead of what is delivered. Raises SettingsInvalid,
    naming the variable, if an override does not fit its key."""
    if not has_own_sources(model):
        return Layers(model, read_overrides(model, prefix, environment, env_file or {}))
    from config_manager.client.drivers.own_sources import read_own  # it needs pydantic-settings

    return Layers(model, *read_own(model, prefix, environment, env_file or {}))


def _claim(claim: Claim, service: str) -> None:
    if not claim.take() and not claim.is_barred:
        detail = "another process of this service writes it; this one reads it until that ends"
        say(logging.INFO, "kept file shared", service=service, detail=detail)


def _policy(model: type[BaseModel], options: Options) -> TrialPolicy:
    return TrialPolicy(
        options.bake_s,
        frozenset(options.restart_required) | _marked_restart_required(model),
        options.max_stale_s,
        options.on_stale,
    )


@contextmanager
def _in_words(model: type[BaseModel]) -> Generator[None]:
    """A model that does not fit its own defaults and overrides is SettingsInvalid."""
    try:
        yield
    except DoesNotFit as error:
        why = f"its own defaults and overrides do not fit together: {error}"
        if error.only_lacks:
            why = (
                f"{error}; give it a default, or open it with require=True, which waits for what is "
                "delivered"
            )
        raise SettingsInvalid(f"{model.__name__}: {why}") from None


def _client_id(service: ServiceName, name: InstanceName, world: World) -> str:
    """The same for as long as the process lives: a broker that sees it again says the will of the connection
    before at once, not after the receipts of the new one."""
    return f"cm-{service}-{name}-{world.randomness.token(3).hex()}"


def _service_of(model: type[BaseModel], options: Options) -> ServiceName:
    service = options.service or getattr(model, "SERVICE", None)
    if not isinstance(service, str):
        raise SettingsInvalid(
            f"which service is this? open_config({model.__name__}, service='stt-worker'), "
            f"or give {model.__name__} a SERVICE"
        )
    return parse_service(service)


def _identity(
    state_dir: Path, options: Options, environment: Mapping[str, str], world: World
) -> Identity:
    """What is pinned; else the root that was named is pinned now."""
    root = options.root or environment.get("CONFIG_MANAGER_ROOT")
    if root and not is_pinned(state_dir, world):
        return trust_init(state_dir, expanded(root), world)
    return load_identity(state_dir, world)


def _load(cache: Cache) -> tuple[Kept | None, str | None]:
    """What was kept, and why it can't be read."""
    try:
        kept = cache.load()
    except KeptBroken as error:
        return error.marks, str(error)
    except OSError as error:  # a sick disk costs the service what was kept, not its start
        return None, str(error)
    if kept is not None:
        cache.say_if_older(kept)
    return kept, None


def parse_addresses(mqtt_url: str) -> list[BrokerAddress]:
    """The brokers that a client is told of; none for `none:`. Raises SettingsInvalid, also for `auto:`, which
    is the server's."""
    places = parse_mqtt_urls(mqtt_url)
    if any(isinstance(place, Auto) for place in places):
        raise SettingsInvalid(
            "auto: is for the server; give its mqtt_url, such as mqtt://localhost"
        )
    return [place for place in places if isinstance(place, BrokerAddress)]


def _marked_restart_required(model: type[BaseModel]) -> frozenset[str]:
    def is_marked(extra: object) -> bool:
        return isinstance(extra, dict) and bool(
            cast("dict[str, object]", extra).get("x-restart-required")
        )

    fields = model.model_fields.items()
    return frozenset(key for key, field in fields if is_marked(field.json_schema_extra))
