"""A Redis server in memory whose keys end on a held clock: the commands that the store uses, and its scripts.

The scripts are those of the store itself, read line by line. `tests/test_redis_double.py` holds it against a real
server.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from tests.support.harness import HeldClock

Word = str | bytes | int
Call = Callable[..., Any]
#: One line of a script, the same in Python, and how much deeper the next line is; nothing else may occur.
_LINES: Final = (
    (re.compile(r"local (\w+ = .+)"), r"\1", 0),
    (re.compile(r"if (.+) then return (.+) end"), r"if \1: return \2", 0),
    (re.compile(r"(if|elseif) (.+) then"), r"\1 \2:", 1),
    (re.compile(r"(else)"), r"\1:", 1),
    (re.compile(r"end"), "", 0),
    (re.compile(r"return \{(.+)\}"), r"return [\1]", 0),
    (re.compile(r"(return .+|redis\.call\(.+\))"), r"\1", 0),
)


class _Text(bytes):
    """In Lua every text is true."""

    def __bool__(self) -> bool:
        return True


class RedisDouble:
    """What one server holds. Each command is a method that takes and gives bytes, numbers and None."""

    def __init__(self, clock: HeldClock) -> None:
        self._clock = clock
        self._keys: dict[bytes, bytes | dict[bytes, bytes]] = {}
        self._ends_at: dict[bytes, float] = {}
        self._scripts: dict[bytes, Callable[[list[bytes], list[bytes], Call], Any]] = {}

    def execute(self, *words: Word) -> Any:
        """The answer to one command, as redis-py gives it."""
        name, *rest = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        for key in [key for key, ends_at in self._ends_at.items() if self._clock.now() >= ends_at]:
            self._del(key)
        return getattr(self, f"_{name.decode().lower()}")(*rest)

    def empty(self) -> None:
        """It is started anew, and had written nothing down."""
        self._keys.clear()
        self._ends_at.clear()

    def _time(self) -> list[bytes]:
        whole, millionths = divmod(round(self._clock.wall() * 1e6), 10**6)
        return [str(whole).encode(), str(millionths).encode()]

    def _get(self, key: bytes) -> bytes | None:
        found = self._keys.get(key)
        assert not isinstance(found, dict)
        return found

    def _set(self, key: bytes, value: bytes, px: bytes, milliseconds: bytes) -> bool:
        assert px == b"PX"
        self._keys[key] = value
        self._pexpire(key, milliseconds)
        return True

    def _del(self, key: bytes) -> int:
        self._ends_at.pop(key, None)
        return int(self._keys.pop(key, None) is not None)

    def _pexpire(self, key: bytes, milliseconds: bytes) -> int:
        if key not in self._keys:
            return 0
        self._ends_at[key] = self._clock.now() + int(milliseconds) / 1000
        return 1

    def _hash(self, key: bytes) -> dict[bytes, bytes]:
        found = self._keys.get(key, {})
        assert isinstance(found, dict)
        return found

    def _hget(self, key: bytes, field: bytes) -> bytes | None:
        return self._hash(key).get(field)

    def _hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        return [self._hash(key).get(field) for field in fields]

    def _hset(self, key: bytes, *pairs: bytes) -> int:
        before = self._hash(key)
        after = before | dict(zip(pairs[::2], pairs[1::2], strict=True))
        self._keys[key] = after
        return len(after) - len(before)

    def _hdel(self, key: bytes, field: bytes) -> int:
        found = self._hash(key)
        removed = found.pop(field, None) is not None
        if not found:
            self._del(key)
        return int(removed)

    def _eval(self, script: bytes, count: bytes, *words: bytes) -> Any:
        if script not in self._scripts:
            self._scripts[script] = _read(script.decode())
        keys, arguments = words[: int(count)], words[int(count) :]
        # Lua counts from one.
        return self._scripts[script]([b"", *keys], [b"", *arguments], self._call)

    def _call(self, name: bytes, *words: bytes) -> Any:
        answer = self.execute(name, *words)
        return _Text(answer) if isinstance(answer, bytes) else answer


def _read(script: str) -> Callable[[list[bytes], list[bytes], Call], Any]:
    """A script of the store as a function of its keys, its arguments and `redis.call`."""
    lines, depth = ["def run(KEYS, ARGV, call):"], 1
    for line in script.strip().splitlines():
        text = line.strip()
        [(found, python, deeper), *_] = [
            (found, python, deeper) for pattern, python, deeper in _LINES if (found := pattern.fullmatch(text))
        ]
        if text.startswith(("else", "end")):
            depth -= 1
        if python:
            read = found.expand(python).replace("elseif", "elif").replace("~=", "!=").replace("redis.call", "call")
            lines.append("    " * depth + re.sub(r"('[^']*')", r"b\1", read))
        depth += deeper
    namespace: dict[str, Any] = {}
    exec("\n".join(lines), namespace)  # noqa: S102  the store's own scripts, a line of which is one of Python
    run: Callable[[list[bytes], list[bytes], Call], Any] = namespace["run"]
    return run
