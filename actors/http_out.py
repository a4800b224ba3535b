"""HTTP/1.1 from the server to others: one POST, one answer, one connection (h11 does the protocol).

What comes back is a value: an exception is a bug of ours. A redirect is an answer like any other, so nobody sends us
to a place that no administrator named. The variables of proxies (`https_proxy`) are not followed.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import cast

import h11
import trio

from config_manager.config.http_target import HttpTarget
from config_manager.config.names import OUR_ID
from config_manager.config.our_version import our_version

Connect = Callable[[HttpTarget], Awaitable[trio.abc.Stream]]
"""How a target is reached; raises OSError or trio.BrokenResourceError. Tests pass in another one."""

MAX_HEAD_BYTES = 32 * 1024
_READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Answered:
    """status: 200 to 599. headers: names in lower case. body: as much of it as was asked for."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004  RFC 9110, 15.3

    @property
    def why(self) -> str:
        """For people, if that is not what they wanted."""
        return f"the answer was {self.status}"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No answer came, or none that is HTTP. why: for people, without path or query of the URL. The request may have
    been acted upon all the same."""

    why: str
    ok: bool = field(default=False, init=False)


@cache
def system_trust() -> ssl.SSLContext:
    """The authorities that the system trusts, as they are at the first use; `SSL_CERT_FILE` names others."""
    return ssl.create_default_context()


async def connect(target: HttpTarget) -> trio.abc.Stream:
    """By name, to the first of its addresses that answers; in TLS if the target says so."""
    return await connect_with(target, trust=system_trust if target.tls else None)


async def connect_with(
    target: HttpTarget,
    *,
    trust: Callable[[], ssl.SSLContext] | None,
    address: tuple[str, int] | None = None,
) -> trio.abc.Stream:
    """address: to connect to instead of the target's own; its certificate is still checked for the target's host."""
    host, port = address or (target.host, target.port)
    stream = await trio.open_tcp_stream(host, port)
    if trust is None:
        return stream
    secured = trio.SSLStream(stream, trust(), server_hostname=target.host, https_compatible=True)
    try:
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secured)
        raise
    return secured


async def post(
    target: HttpTarget,
    body: bytes,
    *,
    headers: Sequence[tuple[str, str]],
    within_s: float,
    max_body_bytes: int = 0,
    connect: Connect = connect,
) -> Answered | Unanswered:
    """POST the body, and wait for the answer; all of it takes `within_s` seconds at most, looking up the name too.

    headers: beside Host, User-Agent, Content-Length, Connection; names and values in ASCII. max_body_bytes: of the
    answer's body, the rest is never read; 0 is done with the answer's head.
    """
    with trio.move_on_after(within_s) as scope:
        try:
            stream = await connect(target)
        except (OSError, UnicodeError, trio.BrokenResourceError) as error:
            return Unanswered(f"{target} can't be reached: {_words(error)}")
        try:
            return await _exchange(stream, _request(target, body, headers), body, max_body_bytes)
        except h11.RemoteProtocolError:
            # its words quote what came, which may be our own request, sent back
            return Unanswered(f"{target} gave no HTTP answer: what came is not HTTP/1.1")
        except (OSError, trio.BrokenResourceError) as error:
            return Unanswered(f"{target} gave no HTTP answer: {_words(error)}")
        finally:
            await trio.aclose_forcefully(stream)
    assert scope.cancelled_caught
    return Unanswered(f"{target} did not answer within {within_s:g} s")


def _request(target: HttpTarget, body: bytes, headers: Sequence[tuple[str, str]]) -> h11.Request:
    return h11.Request(
        method="POST",
        target=target.path,
        headers=[
            ("Host", target.authority),
            ("User-Agent", f"{OUR_ID}/{our_version()}"),
            *headers,
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ],
    )


async def _exchange(
    stream: trio.abc.Stream, request: h11.Request, body: bytes, max_body_bytes: int
) -> Answered:
    ours = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    head = ours.send(request) or b""
    content = ours.send(h11.Data(body)) or b""
    ending = ours.send(h11.EndOfMessage()) or b""
    with suppress(trio.BrokenResourceError):  # who refuses early has answered before it hung up
        await stream.send_all(head + content + ending)
    answer: h11.Response | None = None
    received = bytearray()
    while True:
        event = ours.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some(_READ_BYTES))
            if not data and answer is None:
                raise trio.BrokenResourceError("it hung up without an answer")
            ours.receive_data(data)
            continue
        if isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            received += event.data
        if answer is not None and (
            len(received) >= max_body_bytes or isinstance(event, h11.EndOfMessage)
        ):
            return Answered(
                answer.status_code, tuple(answer.headers), bytes(received[:max_body_bytes])
            )


def _words(error: BaseException) -> str:
    """The innermost cause: Trio wraps what TLS and the system say, and what each address said."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cast("BaseExceptionGroup[BaseException]", cause).exceptions[0]
        error, cause = cause, cause.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
