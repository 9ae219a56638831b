"""Messages of a WebSocket (RFC 6455) and of server-sent events, as the inspector shows them: masked as they come.

Law: what passes is only read here. What cannot be read is counted, and ends nothing.
"""

import re
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from proxy.admin.bodies import part
from proxy.lines import timestamp
from proxy.redact import Redactor

#: So many messages of one exchange are kept: the newest.
KEPT: Final = 500
#: An empty line, whatever ends lines (HTML section 9.2.5).
_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
#: By opcode (RFC 6455 section 11.8).
_KINDS: Final = {1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
_CONTROL: Final = 8
_CONTROL_MOST: Final = 125
_FIN, _COMPRESSED, _UNUSED, _MASKED = 0x80, 0x40, 0x30, 0x80
_OPCODES: Final = frozenset({0, *_KINDS})
#: What permessage-deflate leaves off (RFC 7692 section 7.2.2).
_TAIL: Final = b"\0\0\xff\xff"
#: A message that becomes larger is not read any further, nor are those behind it.
_INFLATED_MOST: Final = 1 << 24


class Conversation:
    """The messages of one exchange: the newest, `most` bytes of them in all. `tell` gets each, masked."""

    def __init__(
        self, most: int, redactor: Redactor, wall: Callable[[], float], tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.most = most
        self._redactor = redactor
        self._wall = wall
        self._tell = tell
        self._kept: deque[Mapping[str, Any]] = deque()
        self._room = most
        self._count = 0

    def said(self, by: str, kind: str, data: bytes, size: int, note: str | None = None) -> None:
        """A message of `size` bytes, of which `data` is here; or the `note` why nothing of it is."""
        self._count += 1
        is_cut = size > len(data)
        shown = (
            part(data, self._redactor, cut=is_cut) if note is None else {"text": None, "base64": None, "note": note}
        )
        known = {"number": self._count, "at": timestamp(self._wall()), "from": by, "kind": kind, "bytes": size}
        message = {**known, "truncated": is_cut and note is None, **shown}
        self._kept.append(message)
        self._room -= _length(message)
        while len(self._kept) > 1 and (self._room < 0 or len(self._kept) > KEPT):
            self._room += _length(self._kept.popleft())
        self._tell(message)

    def shown(self) -> dict[str, Any]:
        """How many there were, and those that are kept."""
        return {"count": self._count, "kept": list(self._kept)}


def _length(message: Mapping[str, Any]) -> int:
    return len(message["text"] or message["base64"] or "")


class Events:
    """Sees a stream of server-sent events, and tells `conversation` of each."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._event = bytearray()
        self._size = 0
        #: Line ends that may be the beginning of an empty line.
        self._held = b""

    def see(self, data: bytes) -> None:
        """The next bytes."""
        data = self._held + data
        done = 0
        # A line end may be cut in two.
        for found in _END.finditer(data, 0, len(data) - data.endswith(b"\r")):
            self._add(data[done : found.start()])
            if self._size:
                self._conversation.said("upstream", "event", bytes(self._event), self._size)
            self._event.clear()
            self._size = 0
            done = found.end()
        rest = data[done:]
        end = len(rest.rstrip(b"\r\n"))
        self._add(rest[:end])
        self._held = rest[end:]

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._event += piece[: max(0, self._conversation.most - len(self._event))]


class Frames:
    """Sees one direction of a WebSocket, and tells `conversation` of each message, which came from `by`."""

    def __init__(self, conversation: Conversation, by: str) -> None:
        self._conversation = conversation
        self._by = by
        self._buffer = bytearray()
        #: What of the present frame's payload is to come, its key, and how much of it was seen.
        self._left = 0
        self._key = b""
        self._seen = 0
        self._is_last = True
        self._opcode = 0
        #: The message that frames make up, and a frame of control between them.
        self._message = _Message(0)
        self._control = _Message(0)
        self._inflater: Any = zlib.decompressobj(-15)
        #: Something came that is no frame: what stands behind it is none either.
        self._is_lost = False

    def see(self, data: bytes) -> None:
        """The next bytes."""
        if self._is_lost:
            return
        self._buffer += data
        while self._payload() if self._left else self._frame():
            pass

    def _frame(self) -> bool:
        """The beginning of a frame, once all of it is here (section 5.2)."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        first, second = buffer[0], buffer[1]
        if not self._is_frame(first, second):
            # A secret whose beginning was taken for a head would not be known by the rest.
            self._is_lost = True
            self._conversation.said(self._by, "other", b"", len(buffer), "not kept: this is no WebSocket frame")
            buffer.clear()
            return False
        size = second & 0x7F
        more = {126: 2, 127: 8}.get(size, 0)
        end = 2 + more + (4 if second & _MASKED else 0)
        if len(buffer) < end:
            return False
        self._left = int.from_bytes(buffer[2 : 2 + more]) if more else size
        self._key = bytes(buffer[2 + more : end])
        self._seen = 0
        self._is_last, self._opcode = bool(first & _FIN), first & 0x0F
        del buffer[:end]
        if self._opcode >= _CONTROL:
            self._control = _Message(self._opcode)
        elif self._opcode:
            self._message = _Message(self._opcode, is_compressed=bool(first & _COMPRESSED))
        if not self._left:
            self._ended()
        return True

    def _is_frame(self, first: int, second: int) -> bool:
        """By bits that nobody uses, opcodes, who masks, and what frames of control may be (section 5.2, 5.5)."""
        opcode, is_masked = first & 0x0F, bool(second & _MASKED)
        if first & _UNUSED or opcode not in _OPCODES or is_masked != (self._by == "client"):
            return False
        return opcode < _CONTROL or (
            bool(first & _FIN) and not first & _COMPRESSED and second & 0x7F <= _CONTROL_MOST
        )

    def _payload(self) -> bool:
        buffer = self._buffer
        if not buffer:
            return False
        piece = bytes(buffer[: self._left])
        del buffer[: len(piece)]
        message = self._control if self._opcode >= _CONTROL else self._message
        room = self._conversation.most - len(message.data)
        message.data += _unmasked(piece[: max(0, room)], self._key, self._seen)
        message.size += len(piece)
        self._seen += len(piece)
        self._left -= len(piece)
        if not self._left:
            self._ended()
        return True

    def _ended(self) -> None:
        """A frame did; and a message, if it was the last one of it."""
        if self._opcode >= _CONTROL:
            said = self._control
            data = bytes(said.data)
            if said.opcode == _CONTROL and len(data) >= 2:
                data = f"{int.from_bytes(data[:2])} ".encode() + data[2:]
            self._conversation.said(self._by, _KINDS.get(said.opcode, "other"), data, len(data))
        elif self._is_last:
            self._tell(self._message)

    def _tell(self, message: "_Message") -> None:
        kind = _KINDS.get(message.opcode, "other")
        data, size, note = bytes(message.data), message.size, None
        if message.is_compressed:
            unpacked = self._inflated(data, is_whole=size == len(data))
            if unpacked is None:
                data, note = b"", "not kept: compressed, in a way that cannot be read here, so not searched either"
            else:
                data, size = unpacked
        self._conversation.said(self._by, kind, data, size, note)

    def _inflated(self, data: bytes, *, is_whole: bool) -> tuple[bytes, int] | None:
        """What it says and how long that is; None: it cannot be known, nor of what refers back to it (RFC 7692)."""
        if self._inflater is None:
            return None
        rest, out, size = data + _TAIL, b"", 0
        try:
            while rest and size <= _INFLATED_MOST:
                made = self._inflater.decompress(rest, self._conversation.most)
                out, size = out or made, size + len(made)
                rest = self._inflater.unconsumed_tail
                if self._inflater.eof:
                    # A last block: what comes next refers to nothing in front of it.
                    self._inflater, rest = zlib.decompressobj(-15), b""
        except zlib.error:
            self._inflater = None
            return None
        if rest or not is_whole:
            self._inflater = None
        return (out, size) if is_whole else None


class _Message:
    """One that is on its way."""

    __slots__ = ("data", "is_compressed", "opcode", "size")

    def __init__(self, opcode: int, *, is_compressed: bool = False) -> None:
        self.opcode = opcode
        self.is_compressed = is_compressed
        self.data = bytearray()
        self.size = 0


def _unmasked(piece: bytes, key: bytes, at: int) -> bytes:
    """Section 5.3."""
    if not key or not piece:
        return piece
    turned = (key[at % 4 :] + key[: at % 4]) * (len(piece) // 4 + 1)
    mixed = int.from_bytes(piece) ^ int.from_bytes(turned[: len(piece)])
    return mixed.to_bytes(len(piece))
