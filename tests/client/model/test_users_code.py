"""Code of the user's inside our judging may raise anything: it is refused, and what runs goes on."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import signal
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    Secret,
    SecretStr,
    WrapValidator,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from config_manager.client import NotNow
from config_manager.client.drivers.opening import read_layers
from config_manager.client.model import words
from config_manager.client.model.freezing import freeze
from config_manager.client.model.judging import DoesNotFit
from config_manager.client.model.words import Secrets
from config_manager.client.testing import FakePublisher
from config_manager.config.secret import MASK
from tests.kit import documents as m
from tests.kit.client_drivers import KITS, Kit
from tests.kit.client_story import Settings, Story, disk_with, read_receipt

SECRET = "correct-horse-battery"


class Mute(Exception):
    """Even asking what it says goes wrong."""

    def __str__(self) -> str:
        raise LookupError("no words")

    __repr__ = __str__


class Odd(BaseException):
    """Somebody's own, outside the usual tree."""


ERRORS: list[BaseException] = [
    KeyError("en"),
    TypeError("x"),
    ZeroDivisionError(),
    OSError(2, "No such file"),
    StopIteration(),
    StopAsyncIteration(),
    RecursionError(),
    MemoryError(),
    NotImplementedError(),
    GeneratorExit(),
    asyncio.CancelledError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ExceptionGroup("several", [KeyError("a"), ValueError("b")]),
    NotNow(5),
    Mute(),
    Odd(),
    ValueError(Mute()),
]


def fails_if_6(error: BaseException) -> Callable[..., Any]:
    """For 6, which is what each test delivers; 5 runs before, and 7 comes after."""

    def check(value: Any) -> Any:
        if value == 6:
            raise error
        return value

    return check


def fields_validator(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: int = 0

        @field_validator("n")
        @classmethod
        def known(cls, n: int) -> Any:
            return fails_if_6(error)(n)

    return Model


def before(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: Annotated[int, BeforeValidator(fails_if_6(error))] = 0

    return Model


def after(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: Annotated[int, AfterValidator(fails_if_6(error))] = 0

    return Model


def wraps(error: BaseException) -> Callable[..., Any]:
    def check(value: Any, goes_on: Callable[[Any], Any]) -> Any:
        return goes_on(fails_if_6(error)(value))

    return check


def wrapped(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: Annotated[int, WrapValidator(wraps(error))] = 0

    return Model


def whole_before(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: int = 0

        @model_validator(mode="before")
        @classmethod
        def check(cls, data: dict[str, Any]) -> Any:
            fails_if_6(error)(data.get("n"))
            return data

    return Model


def whole_after(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: int = 0

        @model_validator(mode="after")
        def check(self) -> Any:
            fails_if_6(error)(self.n)
            return self

    return Model


def post_init(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: int = 0

        def model_post_init(self, _: Any) -> None:
            fails_if_6(error)(self.n)

    return Model


def own_init(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: int = 0

        def __init__(self, **given: Any) -> None:
            fails_if_6(error)(given.get("n"))
            super().__init__(**given)

    return Model


def factory(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: int = 0
        doubled: int = Field(default_factory=lambda data: fails_if_6(error)(data["n"]) * 2)

    return Model


def nested(error: BaseException) -> type[BaseModel]:
    class Model(BaseModel):
        n: int = 0
        inner: list[fields_validator(error)] = []  # type: ignore[valid-type]

        @model_validator(mode="before")
        @classmethod
        def fill(cls, data: dict[str, Any]) -> Any:
            return {**data, "inner": [{"n": data.get("n", 0)}]}

    return Model


KINDS = [
    fields_validator, before, after, wrapped, whole_before, whole_after, post_init, own_init,
    factory, nested,
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_whatever_the_models_code_raises_the_revision_is_refused_and_the_next_one_runs(
    kind: Callable[[BaseException], type[BaseModel]], error: BaseException
) -> None:
    story = Story(disk_with(5), model=kind(error))
    story.gets(6)
    assert (story.n, story.stage, story.refused()) == (5, "refused 6", ["model"])
    assert story.gets(7).says().lives(10).stage == "healthy 7"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_start_from_what_was_kept_goes_on_with_the_next_and_then_the_defaults(
    error: BaseException,
) -> None:
    """A new release judges what an older one applied."""
    strict = fields_validator(error)
    proved = Story(disk_with(6), model=strict)
    assert (proved.n, proved.instance.source) == (0, "defaults")
    assert (proved.stage, proved.refused()) == ("refused 6", ["model"])
    assert proved.gets(7).says().n == 7  # the operator's repair
    tried = Story(disk_with(5), model=Loose).gets(6).says().ended(model=strict)
    assert (tried.n, tried.stage, tried.refused()) == (5, "refused 6", ["model"])


class Loose(BaseModel):
    n: int = 0


def test_the_key_is_named_and_only_the_errors_type_for_its_words_may_hold_values() -> None:
    for kind in (fields_validator, before, after, wrapped, nested):
        model = kind(KeyError(SECRET))
        with pytest.raises(DoesNotFit) as caught:
            read_layers(model, "P_", environment={}).merge(m.make_update(6, config={"n": 6}))
        key = "inner" if kind is nested else "n"
        assert str(caught.value) == f"{key}: KeyError"


class Wild:
    """A value with which hardly anything can be done."""

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __ne__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        raise ZeroDivisionError

    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("it can't be copied")

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    def __repr__(self) -> str:
        raise OSError("it can't be shown")


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    n: int = 0
    wild: Any = Field(default_factory=Wild)
    shared: ClassVar[int] = 1


def test_values_that_can_be_neither_compared_nor_copied_nor_shown_end_nothing() -> None:
    story = Story(disk_with(5), model=Holder).gets(6).says().lives(10)
    assert (story.n, story.stage) == (6, "healthy 6")
    assert "n" in story.calls[0].keys


# ── in the drivers ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=KITS, ids=lambda kit: kit.name)
def it(request: pytest.FixtureRequest, tmp_path: Any) -> Kit:
    kit: Kit = request.param(tmp_path)
    return kit


@pytest.mark.parametrize("kind", [fields_validator, post_init, factory])
def test_the_driver_lives_on_after_a_validator_that_raises(
    it: Kit, kind: Callable[[BaseException], type[BaseModel]]
) -> None:
    async def story() -> None:
        it.a.configures(5)
        it.a.vouches(5, 1)
        async with it.open(model=kind(KeyError("en"))) as config:
            assert config.current.n == 5
            it.a.configures(6)
            await it.until(lambda: it.a.stage == "refused 6")
            it.a.configures(7)
            await it.until(lambda: config.current.n == 7)

    it.run(story)


@pytest.mark.parametrize(
    "error", [*ERRORS, SystemExit(1), KeyboardInterrupt()], ids=lambda error: type(error).__name__
)
def test_in_threads_too_whatever_it_raises(error: BaseException) -> None:
    publisher = FakePublisher("voice")
    with publisher.open_in_threads(fields_validator(error), first_wait_s=0) as config:
        outcome = publisher.deliver_and_wait(n=6)
        assert (outcome.stage, config.current) == ("refused", config.current)
        assert publisher.deliver_and_wait(n=7).applied


def test_a_validator_that_exits_is_refused_and_a_signals_handler_in_one_ends_the_program() -> None:
    """argparse in a validator exits; signal.signal(SIGTERM, lambda *_: sys.exit(0)) raises wherever the
    main thread happens to be."""
    story = Story(disk_with(5), model=fields_validator(SystemExit(2))).gets(6)
    assert (story.n, story.stage) == (5, "refused 6")

    class Stopped(BaseModel):
        n: int = 0

        @field_validator("n")
        @classmethod
        def stop(cls, n: int) -> int:
            if n == 6:
                signal.raise_signal(signal.SIGTERM)
            return n

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with pytest.raises(SystemExit):
            Story(disk_with(5), model=Stopped).gets(6)
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(KeyboardInterrupt):
        Story(disk_with(5), model=fields_validator(KeyboardInterrupt())).gets(6)


# ── the user's model stays the user's own ──────────────────────────────────────────────────────


class Assigning(BaseModel):
    """pydantic's documented way to derive a field, in each place where one may assign."""

    model_config = ConfigDict(validate_assignment=True)

    host: str = "localhost"
    port: int = 5432
    url: str | None = None
    made: str = ""
    _seen: int = PrivateAttr(0)

    @model_validator(mode="after")
    def assemble(self) -> Any:
        if self.url is None:
            self.url = f"postgresql://{self.host}:{self.port}"
        return self

    def model_post_init(self, _: Any) -> None:
        if not self.made:
            self.made = self.host.upper()

    @property
    def seen(self) -> int:
        return self._seen

    @seen.setter
    def seen(self, value: int) -> None:
        self._seen = value


def effective(model: type[BaseModel], **config: Any) -> Any:
    return read_layers(model, "P_", environment={}).merge(m.make_update(6, config=config)).values


def test_validators_that_assign_work_and_what_comes_out_is_immutable() -> None:
    values = effective(Assigning, host="db")
    assert (values.url, values.made, type(values)) == ("postgresql://db:5432", "DB", Assigning)
    for change in (
        lambda: setattr(values, "port", 1),
        lambda: delattr(values, "port"),
        lambda: values.__setattr__("host", "x"),
    ):
        with pytest.raises(ValueError, match="frozen"):
            change()
    assert (values.port, values.host) == (5432, "db")
    values.seen = 3  # a private attribute is the service's own
    assert values.seen == 3
    mine = Assigning()
    mine.port = 1
    assert mine.port == 1


class Registered(BaseModel):
    registry: ClassVar[list[str]] = []

    def __init_subclass__(cls, **_: Any) -> None:
        raise TypeError("final")

    a: int = 1

    def __hash__(self) -> int:
        return 17


class Slotted(BaseModel):
    __slots__ = ("cache",)

    a: int = 1


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")

    a: int = 1


def test_the_class_is_the_users_own_whatever_is_special_about_it() -> None:
    values = effective(Registered, a=2)
    assert (type(values), hash(values), values) == (Registered, 17, Registered(a=2))
    assert effective(Slotted, a=2).a == 2
    extra = effective(Extra, a=2, other=[1])
    assert (extra.other, extra == Extra(a=2, other=[1])) == ([1], True)  # type: ignore[call-arg]
    for name in ("a", "other", "new"):
        with pytest.raises(ValueError, match="frozen"):
            setattr(extra, name, 3)
    with pytest.raises(ValueError, match="frozen"):
        del extra.other


def test_a_copy_of_what_was_delivered_is_immutable_too_and_a_loop_within_ends() -> None:
    values = effective(Assigning, host="db")
    for copied in (values.model_copy(), values.model_copy(deep=True), values.model_copy(update={})):
        assert copied == values
        with pytest.raises(ValueError, match="frozen"):
            copied.host = "x"
    mine = Extra(self_made=[])  # type: ignore[call-arg]
    mine.self_made.append(mine)  # type: ignore[attr-defined]
    assert freeze(mine) is mine


class Plain(BaseModel):
    host: str = "h"


class Tls(Plain):
    cert: str = "c"


class Listens(BaseModel):
    listener: Plain | Tls = Plain()
    several: list[Plain | Tls] = []


def test_a_dump_holds_what_a_derived_model_in_a_union_adds() -> None:
    config = {"listener": {"host": "x", "cert": "p"}, "several": [{"host": "y", "cert": "q"}]}
    values = effective(Listens, **config)
    assert values.model_dump() == config
    assert values.model_dump_json() == Listens.model_validate(config).model_dump_json()
    with pytest.raises(ValueError, match="frozen"):
        values.several[0].cert = "r"


def test_keys_that_only_extra_takes_are_explained_and_named_in_a_change() -> None:
    story = Story(disk_with(5, config={"a": 1, "other": 2}), model=Extra)
    assert story.current.explanations["other"].origin == "delivered"
    story.gets(6, config={"a": 1, "other": 3, "more": 4})
    assert [change.keys for change in story.calls] == [{"other", "more"}]
    story.says().gets(7, config={"a": 1})
    assert story.calls[-1].keys == {"other", "more"}


def test_a_factory_that_makes_another_value_each_time_is_asked_once_in_a_process() -> None:
    class Session(BaseModel):
        n: int = 0
        id: float = Field(default_factory=time.perf_counter)
        called: str = Field(default_factory=lambda data: f"session {data['id']}")
        tags: list[str] = Field(default_factory=list)

    story = Story(disk_with(5), model=Session)
    began = story.current.values
    story.gets(6)
    assert story.calls[0].keys == {"n"}
    new = story.calls[0].new
    assert (new.id, new.called) == (began.id, f"session {began.id}")
    assert "id" not in new.model_fields_set


class Rebuilds(BaseModel):
    """An after-validator that assigns each time, and a class whose instances are validated again."""

    model_config = ConfigDict(revalidate_instances="always")

    host: str = "h"
    url: str = ""

    @model_validator(mode="after")
    def derive(self) -> Any:
        self.url = f"http://{self.host}"
        return self


class App(BaseModel):
    settings: Rebuilds


def test_what_was_delivered_may_be_given_on_to_models_and_responses() -> None:
    current = effective(Rebuilds, host="db")
    again = Rebuilds.model_validate(current)
    assert again == App(settings=current).settings == current
    again.host = "mine"  # it was not delivered
    with pytest.raises(ValueError, match="frozen"):
        current.host = "x"
    current.host = "db"  # as a validator does that derives what is there already
    assert repr(current.model_fields_set) == repr(set(current.model_fields_set))


class Calls(BaseModel):
    seen: ClassVar[list[str]] = []

    def __setattr__(self, name: str, value: Any) -> None:
        self.seen.append(name)
        super().__setattr__(name, value)

    def __hash__(self) -> int:
        return 7


class Delivered(BaseModel):
    a: int = 1


class Mixed(Delivered, Calls):
    """Never delivered itself."""


class Equals(BaseModel):
    name: str = "A"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equals) and self.name.lower() == other.name.lower()


def test_a_class_that_was_delivered_leaves_those_derived_from_it_as_they_were() -> None:
    values = effective(Delivered, a=2)
    assert hash(values) == hash(effective(Delivered, a=2))
    mixed = Mixed()
    mixed.a = 3
    del mixed.a
    assert (mixed.seen, hash(Mixed())) == (["a"], 7)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Delivered())
    with pytest.raises(TypeError, match="unhashable"):  # ours would contradict its own ==
        hash(effective(Equals, name="a"))


@dataclasses.dataclass
class Holds:
    inner: Plain


class WithDataclass(BaseModel):
    held: Holds = Holds(inner=Plain())


def test_a_model_within_a_dataclass_is_immutable_too() -> None:
    with pytest.raises(ValueError, match="frozen"):
        effective(WithDataclass).held.inner.host = "x"


class Prefers(BaseModel):
    """A validator that runs before looks for the keys that pydantic takes."""

    hosts: list[str] = Field(default_factory=list, alias="host_list")

    @model_validator(mode="before")
    @classmethod
    def split(cls, data: dict[str, Any]) -> Any:
        given = data.get("host_list")
        return {**data, "host_list": given.split(",")} if isinstance(given, str) else data


def test_a_validator_that_runs_before_finds_the_alias_and_errors_name_the_field() -> None:
    for key in ("hosts", "host_list"):
        assert effective(Prefers, **{key: "a,b"}).hosts == ["a", "b"]
    with pytest.raises(DoesNotFit, match="^hosts: "):
        effective(Prefers, host_list=5)


class Item(BaseModel):
    name: str = ""
    id: float = Field(default_factory=time.perf_counter)


class Makes(BaseModel):
    n: int = 0
    key: SecretStr = Field(default_factory=lambda: SecretStr(str(time.perf_counter())))
    hidden: float = Field(default_factory=time.perf_counter, exclude=True)
    raw: bytes = Field(default_factory=lambda: b"\xff%r" % time.perf_counter())
    items: list[Item] = []
    title: str = Field(default_factory=lambda data: f"title {data['n']}")


def test_what_factories_make_within_or_of_what_cannot_be_shown_is_no_change() -> None:
    items = [{"name": "a"}]
    story = Story(disk_with(5, config={"n": 5, "items": items}), model=Makes)
    began = story.current.values
    story.gets(6, config={"n": 5, "items": items, "not_mine": 1}).says()
    story.gets(7, config={"n": 7, "items": items}).says()
    story.gets(8, config={"n": 7, "items": [*items, {"name": "b"}]}).says()
    assert [change.keys for change in story.calls] == [set(), {"n", "title"}, {"items"}]
    now = story.current.values
    assert (now.key, now.hidden) == (began.key, began.hidden)
    assert now.title == "title 7"  # it follows what it is made of


# ── secrets and spelling ───────────────────────────────────────────────────────────────────────


class Guarded(BaseModel):
    n: int = 0
    password: SecretStr = SecretStr("")
    deep: list[dict[str, SecretStr]] = []

    @model_validator(mode="after")
    def check(self) -> Any:
        if self.n == 6:
            raise ValueError(f"bad password {self.password.get_secret_value()}")
        return self


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"cannot reach postgresql://robot:{SECRET}@db/x"),
        OSError(2, "No such file", f"/run/{SECRET}"),
        KeyError(SECRET),
        ExceptionGroup("several", [ValueError(SECRET), ExceptionGroup("in", [OSError(SECRET)])]),
        ValueError("cut: correct-horse-bat...rse-battery"),
        ValueError(repr({"password": SECRET.encode()})),
    ],
    ids=repr,
)
def test_no_secret_is_in_a_receipt_or_a_line_whatever_exception_carries_it(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    story = Story(
        disk_with(5),
        model=Guarded,
        environment={"STT_WORKER_PASSWORD": SECRET, "STT_WORKER_DEEP": f'[{{"a": "{SECRET}"}}]'},
    )
    story.gets(6)
    assert story.stage == "refused 6"
    assert SECRET not in f"{story.why} {story.events}"
    story.gets(7).says(error)
    assert story.stage == "refused 7"
    said = f"{story.why} {story.events} {story.receipts}"
    assert not any(SECRET[at : at + 10] in said for at in range(len(SECRET) - 10))
    assert story.why is not None
    assert MASK in story.why


@dataclasses.dataclass(slots=True)
class Slots:
    pw: SecretStr = SecretStr("")


class Typed(TypedDict, total=False):
    pw: SecretStr


class Structures(BaseModel):
    slots: Slots = Slots()
    typed: Typed = {}
    listed: list[Slots] = []


def test_secrets_are_hidden_in_whatever_structure_they_are() -> None:
    environment = {f"STT_WORKER_{key}": text for key, text in (("TYPED", "{}"), ("LISTED", "[]"))}
    hidden = {"pw": SECRET}
    story = Story(disk_with(5, config={}), model=Structures, environment=environment)
    story.gets(6, config={"slots": hidden, "typed": hidden, "listed": [hidden]})
    story.says(ValueError(f"login failed with {SECRET}"))
    assert story.why == f"callback: ValueError: login failed with {MASK}"
    story.gets(7, config={"slots": {}, "typed": hidden, "listed": [hidden]}).says()
    for explanation in story.current.explanations.values():
        assert SECRET not in f"{explanation} {explanation!r}"
    assert story.current.explanations["typed"].shadowed == MASK


def test_explain_shows_no_secret_that_an_override_shadows() -> None:
    layers = read_layers(Guarded, "P_", environment={"P_PASSWORD": SECRET, "P_DEEP": "[]"})
    update = m.make_update(6, config={"password": "hunter2plain", "deep": [{"a": "hunter3"}]})
    explanations = layers.merge(update).explanations
    for key in ("password", "deep"):
        assert explanations[key].shadowed == MASK
        assert "hunter" not in f"{explanations[key]} {explanations[key]!r}"


@pytest.mark.parametrize(
    "words", ["caf\udce9.onnx", "a\x00b", "\x1b[31mred", "\ud800", "x" * 100_000], ids=ascii
)
def test_words_that_cannot_be_spelt_are_made_fit_and_end_nothing(words: str) -> None:
    story = Story(disk_with(5)).gets(6).says(ValueError(words))
    assert story.stage == "refused 6"
    assert story.why is not None
    assert len(story.why) <= 600
    story.why.encode()
    assert not set("\x00\x1b") & set(story.why)
    assert story.gets(7).says().stage == "applied 7"


def test_an_exception_without_words_is_said_by_its_type() -> None:
    story = Story(disk_with(5)).gets(6).says(Mute())
    assert (story.stage, story.refused()) == ("refused 6", ["callback"])
    assert story.why is not None
    assert story.why.startswith("callback: Mute: ")


class Unwalkable(BaseExceptionGroup[Exception]):
    @property
    def exceptions(self) -> Any:
        raise KeyError("exceptions")


def deep(levels: int) -> BaseException:
    error: Exception = LookupError("at the bottom")
    for _ in range(levels):
        error = ExceptionGroup("in", [error])
    return error


def test_a_group_that_cannot_be_walked_or_is_very_deep_is_a_refusal() -> None:
    story = Story(disk_with(5)).gets(6).says(Unwalkable("odd", [ValueError("x")]))
    assert (story.stage, story.why) == ("refused 6", "callback: Unwalkable")
    assert story.gets(7).says(deep(3_000)).why == "callback: LookupError: at the bottom"


def test_no_words_begin_a_line_of_the_log_or_turn_one(caplog: pytest.LogCaptureFixture) -> None:
    from config_manager.client.state.log import say

    say(logging.ERROR, "refused", detail="x\nERROR config_manager.client applied revision=99\r")
    assert [line for line in caplog.messages[0].split("\n") if line.startswith("ERROR")] == []
    story = Story(disk_with(5)).gets(6).says(ValueError("\u202egnirts\u2028line"))
    assert story.why == "callback: ValueError: \ufffdgnirts\ufffdline"


class Factory(logging.LogRecord):
    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.fields = "the service's own"


def test_the_services_own_logging_may_raise(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("config_manager.client")

    def refuses(_: logging.LogRecord) -> bool:
        raise TypeError("a filter's bug")

    publisher = FakePublisher("voice")
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Factory)
    try:
        with publisher.open_in_threads(Settings, first_wait_s=0) as config:
            assert publisher.deliver_and_wait(n=-1).stage == "refused"
            assert "refused service=voice" in caplog.text
            logger.addFilter(refuses)
            assert publisher.deliver_and_wait(n=-2).stage == "refused"
            assert publisher.deliver_and_wait(n=7).applied
            assert config.current.n == 7
    finally:
        logger.removeFilter(refuses)
        logging.setLogRecordFactory(before)


def test_a_group_of_one_is_its_member_and_a_not_now_counts_in_whatever_group_it_comes() -> None:
    story = Story(disk_with(5)).gets(6).says(ExceptionGroup("tasks", [LookupError("no model")]))
    assert story.why == "callback: LookupError: no model"
    several = ExceptionGroup("tasks", [LookupError("no model"), OSError("no disk")])
    assert story.gets(7).says(several).why == "callback: LookupError: no model; OSError: no disk"
    story.gets(8).says(ExceptionGroup("a", [ExceptionGroup("b", [NotNow(3)])]))
    assert (story.stage, story.asked) == ("deferred 8", [6, 7, 8])
    assert story.lives(3).asked == [6, 7, 8, 8]


@pytest.mark.parametrize(
    "seconds",
    ["soon", None, float("nan"), -5, Mute()],
    ids=["word", "none", "nan", "negative", "mute"],
)
def test_a_not_now_with_any_number_is_asked_again(seconds: Any) -> None:
    later = NotNow()
    later.seconds = seconds
    story = Story(disk_with(5)).gets(6).says(later).lives(2)
    assert story.asked[:2] == [6, 6]


def test_a_clock_beside_every_calendar_ends_nothing() -> None:
    story = Story(disk_with(5))
    for time_now in (float("inf"), float("nan"), 1e18, -1e18):
        story.clock.time = time_now
        receipt = story.instance.receipt()
        assert read_receipt(receipt.topic, receipt.payload).at


# ── small things that hide secrets ─────────────────────────────────────────────────────────────


def test_secrets_are_found_in_other_spellings_and_short_ones_whole() -> None:
    secrets = Secrets(["p@ss/wörd#1", b"\xffbytes", "x1"])
    for spelling in (
        "p%40ss%2Fw%C3%B6rd%231",
        "p%40ss/w%C3%B6rd%231",
        "p%40ss%2fw%c3%b6rd%231",
        "'p@ss/wörd#1'",
        '"p@ss/w\\u00f6rd#1"',
        "x1",
    ):
        assert MASK in secrets.without(f"a {spelling} z")
    assert secrets.without("nothing of it") == "nothing of it"
    dsn = Secrets(["postgres://robot:s3cr3t@db/x"])
    assert dsn.without("password s3cr3t is wrong") == f"password {MASK} is wrong"
    binary = b"\xff\xfe\x00\x01secret"
    assert "secret" not in Secrets([binary]).without(repr(binary))
    assert Secrets([""]).without("an empty secret hides nothing") == "an empty secret hides nothing"


@pytest.mark.parametrize("secret", ["sk-live-abcdef-0123456789", "\xff\xfe???>>>\xfb\xef", "pwd4"])
@pytest.mark.parametrize("user", ["", "u", "us", "use", "user"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_found_within_base64_wherever_it_stands(
    secret: str, user: str, encode: Any
) -> None:
    for after in (b"", b"\n", b"}}"):
        said = encode(f"{user}:{secret}".encode() + after).decode()
        masked = Secrets([secret]).without(f"401 for Basic {said}")
        shown = masked.removeprefix("401 for Basic ")
        assert MASK in shown
        # beside the user there is at most a character at each end that holds a few bits of it
        assert len(shown.replace(MASK, "").rstrip("=")) <= (len(user) + 1) * 4 // 3 + 1 + 4


def test_what_a_very_short_secret_is_within_base64_hides_no_other_words() -> None:
    assert (
        Secrets(["abc"]).without("FiYw is a word, and so is YW") == "FiYw is a word, and so is YW"
    )


def test_whatever_a_secret_type_holds_is_hidden() -> None:
    class Login(BaseModel):
        user: str
        words: list[SecretStr]

    class Model(BaseModel):
        pair: Secret[dict[str, Any]] = Secret({"name": "rob", "pw": ["hunter2", 4711], "on": True})
        login: Secret[Login] = Secret(Login(user="mallory", words=[SecretStr("open sesame")]))
        number: Secret[int] = Secret(987654)

    loop: list[Any] = ["endless"]
    loop.append(loop)
    hidden = Secrets.of(Model(), Secret(loop))
    for text in ("rob", "hunter2", "4711", "mallory", "open sesame", "987654", "endless"):
        assert hidden.without(f"<{text}>") == f"<{MASK}>"
    assert hidden.without("True name: pw") == "True name: pw"


def test_many_secrets_are_spelt_once_and_merged_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spelt: list[object] = []
    spellings = words._spellings

    def counting(value: str | bytes) -> Any:
        spelt.append(value)
        return spellings(value)

    monkeypatch.setattr(words, "_spellings", counting)
    one = Secrets(f"sk-{i:032d}" for i in range(300))
    other = Secrets(["hunter2"])
    both = one | other | one
    assert spelt == []
    for _ in range(3):
        assert both.without(f"no sk-{299:032d} and hunter2") == f"no {MASK} and {MASK}"
        assert (other | both).without("nothing") == "nothing"
    assert len(spelt) == 301
    # a text is scanned once for each of these sizes
    assert sum(len(lot.pieces) for lot in both._lots) <= 2 * words._WINDOW
