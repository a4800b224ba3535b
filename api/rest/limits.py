"""What a request may cost. Times in seconds, sizes in bytes."""

from __future__ import annotations

MAX_BODY_BYTES = 1024 * 1024
MAX_PUBLIC_BODY_BYTES = 16 * 1024
"""Where no token is needed: anybody may send it."""
DRAIN_BYTES = 16 * 1024 * 1024
"""Of a body that is too large this much is read and thrown away, so that its sender gets to read
the 413 instead of a reset connection."""
MAX_HEAD_BYTES = 32 * 1024
ARRIVE_WITHIN_S = 15.0
"""From a request's first byte to its last: a slow sender is cut."""
ANSWER_WITHIN_S = 10.0
VERIFY_WITHIN_S = 60.0
"""For reading the whole audit: a million rows."""
MOST_BYTES_OF_EVIDENCE = 32 * 1024 * 1024
"""Of rows and receipts in one report, as they are kept."""
IDLE_S = 75.0
"""A kept-alive connection between two requests."""
STOP_WITHIN_S = 2.0
"""For requests in hand when the server stops."""

SEND_WITHIN_S = 15.0
"""An answer that its caller does not read."""

FIRST_BYTE_WITHIN_S = 10.0
"""A connection that never says anything."""

FAILED_LOGINS = 10
"""Unknown tokens in a minute from one address, before they are answered 429 instead of 401."""
MOST_ADDRESSES = 4_096
MOST_WRITERS = 4_096
"""Addresses whose failures, and callers whose writes, are counted at once."""

MOST_CONNECTIONS = 2_000
"""At once; past it, one that waits for its peer is closed (api/server/crowd.py)."""
MOST_TURNED_AWAY = 32
"""Callers, at once, that are told that there is no room; others past it are cut."""
TURN_AWAY_WITHIN_S = 1.0
MOST_BYTES_ARRIVING = 64 * 1024 * 1024
"""Of bodies, all callers together, until each is answered."""
MOST_BYTES_SENDING = 128 * 1024 * 1024
"""Of answers that their callers have not read yet, all together."""
MOST_STREAMS = 64
"""Answers that go on (`api.rest.streams`), at once, pages' included."""
MOST_STREAMS_OF_ONE = 4
"""Of them, of one token."""
BEAT_S = 15.0
"""A stream says at least a comment that often, so that both sides notice a dead connection."""
GONE_WITHIN_S = 30.0
"""What a stream sent and nobody acknowledged: its caller has vanished without a word, as a laptop does. Without this the
kernel would try for a quarter of an hour, and the stream would keep its place."""
MOST_REPLAYED = 1_000
"""Revisions that a stream is told because it missed them."""
MOST_HEADERS = 200
MOST_BYTES_OF_A_PAGE = 4 * 1024 * 1024
"""Of entries in one answer, or in memory at once; a single entry may be larger than that."""
