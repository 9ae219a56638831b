"""The double of a Redis server that the model stands on answers as a real server does, whatever it is asked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from proxy.stores import lease, redis
from tests.support.harness import HeldClock
from tests.support.redisdouble import RedisDouble, Word
from tests.support.redisserver import needs_redis, serving

pytestmark = needs_redis

TOKEN: Final = "fleet:{c}:token"
TURN: Final = "fleet:{c}:turn"
#: A lease that runs out at once, as far as a test can see, and one that does not.
SOON, LATE = 1, 600_000
durations: Final = st.sampled_from([SOON, LATE])
owners: Final = st.sampled_from(["one", "two", "", "-"])
tags: Final = st.sampled_from(["", "first", "second", "-third"])
sealed: Final = st.sampled_from([b"", b"\x00\xff", b"sealed"])
fields: Final = st.sampled_from(["tag", "sealed"])


def words(*parts: st.SearchStrategy[Any] | Word) -> st.SearchStrategy[tuple[Word, ...]]:
    """One command."""
    return st.tuples(*(part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts))


COMMANDS: Final = st.one_of(
    words("EVAL", redis._SAVE, 2, TOKEN, TURN, owners, tags, tags, sealed),
    words("EVAL", redis._FORGET, 1, TOKEN, tags),
    words("EVAL", lease._TAKE, 1, TURN, owners, durations),
    words("EVAL", lease._RENEW, 1, TURN, owners, durations),
    words("EVAL", lease._LET_GO, 1, TURN, owners),
    words("HMGET", TOKEN, "tag", "sealed"),
    words("EVAL", redis._LOAD, 1, TOKEN),
    words("TIME"),
    words("HGET", TOKEN, fields),
    words("HSET", TOKEN, fields, sealed),
    words("HDEL", TOKEN, fields),
    words("GET", TURN),
    words("SET", TURN, owners, "PX", durations),
    words("PEXPIRE", TURN, durations),
    words("DEL", st.sampled_from([TOKEN, TURN])),
)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """What a real server answers to one command."""
    folder: Path = tmp_path_factory.mktemp("redis")
    with serving(folder) as server, Redis(unix_socket_path=str(server.socket), protocol=2) as made:
        yield made.execute_command


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(COMMANDS, max_size=30))
def test_the_double_answers_as_a_real_server_does(
    ask: Callable[..., Any], commands: list[tuple[Word, ...]]
) -> None:
    """Each command and each script of the store, in any order; leases run out on both."""
    clock = HeldClock()
    double = RedisDouble(clock)
    ask("FLUSHALL")
    for each in commands:
        answer = double.execute(*each)
        if each[0] == "TIME":
            assert [len(answer), len(ask(*each))] == [2, 2]
        elif each[1] == redis._LOAD:
            # What time it is there is the test's to say.
            assert (len(answer[0]), answer[1]) == (2, ask(*each)[1])
        else:
            assert answer == ask(*each), each
        if each[-1] == SOON:
            while 0 <= ask("PTTL", TURN) <= SOON:
                pass
            clock.move(1.0)


def test_each_script_of_the_store_is_tried() -> None:
    """A new one would be in the model alone."""
    scripts = {text for module in (lease, redis) for text in vars(module).values() if "redis.call" in str(text)}
    assert scripts == {redis._SAVE, redis._LOAD, redis._FORGET, lease._TAKE, lease._RENEW, lease._LET_GO}
