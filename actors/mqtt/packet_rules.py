"""What a broker may send to a client of ours, by the bytes of one packet. Pure.

The sender decides how much there is of everything: packets, bytes, topics, properties, unfinished packets. Each
of these is bounded here, before a library keeps or computes anything for it.
"""

from __future__ import annotations

_KIND, _QOS, _QOS_2 = 0xF0, 0x06, 0x04
CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP, DISCONNECT = 0x20, 0x30, 0x40, 0x90, 0xD0, 0xE0
_ANSWERS = {
    CONNACK: "CONNACK",
    PUBACK: "PUBACK",
    SUBACK: "SUBACK",
    PINGRESP: "PINGRESP",
    DISCONNECT: "DISCONNECT",
}

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Our largest message is a snapshot of 40,000 services; a larger message is dropped."""
MAX_PACKET_BYTES = MAX_MESSAGE_BYTES + 128 * 1024
"""With its topic (64 KiB) and its properties."""
MAX_ANSWER_BYTES = 4 * 1024
"""Of any other packet: an answer has a few bytes, and maybe a sentence for people."""
MAX_TOPIC_BYTES = 256
"""The longest of ours has 148: system/config-sealed/, a service, an instance."""


def refuse(first: int, length: int, *, is_greeted: bool) -> str | None:
    """Why the connection ends at the first bytes of a packet (its type and its length), or None.

    is_greeted: whether the broker's CONNACK has come.
    """
    kind = first & _KIND
    if length > MAX_PACKET_BYTES:
        return f"the broker announced a packet of {length} bytes; the limit is {MAX_PACKET_BYTES}"
    if kind == PUBLISH and is_greeted:
        # paho keeps a message of QoS 2 until the broker releases it
        return "the broker sent QoS 2, to which nothing subscribes" if first & _QOS_2 else None
    if kind not in _ANSWERS and kind != PUBLISH:
        return f"the broker sent a packet of type {kind >> 4}, for which nothing asked"
    if is_greeted == (kind == CONNACK):
        return f"the broker sent {'a second' if is_greeted else 'something before its'} CONNACK"
    if length > MAX_ANSWER_BYTES:
        return (
            f"the broker sent a {_ANSWERS[kind]} of {length} bytes; the limit is {MAX_ANSWER_BYTES}"
        )
    return None


def cut_properties(first: int, body: bytearray) -> None:
    """Take the properties out of a packet of MQTT 5, in place; raises ValueError if the packet is malformed.

    Nothing of ours reads them. paho copies the rest for each, so the time grows by the square of their number,
    and keeps over a hundred bytes for one of seven. A CONNACK keeps its own: it comes once, it is small, and
    paho obeys them.
    """
    kind = first & _KIND
    if kind == PUBLISH:
        _cut(body, 2 + int.from_bytes(body[:2]) + (2 if first & _QOS else 0))
    elif kind == SUBACK:
        _cut(body, 2)
    elif kind == PUBACK:
        del body[3:]
    elif kind == DISCONNECT:
        del body[1:]


def _cut(body: bytearray, at: int) -> None:
    """at: where their length stands, as a variable byte integer (OASIS MQTT 5, 1.5.5)."""
    length = 0
    for digit in range(4):
        if at + digit >= len(body):
            break
        length |= (body[at + digit] & 0x7F) << (7 * digit)
        if not body[at + digit] & 0x80:
            end = at + digit + 1 + length
            if end > len(body):
                break
            body[at:end] = b"\0"
            return
    raise ValueError("the broker sent properties that end beyond their packet")
