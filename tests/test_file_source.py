"""A token in a file that somebody else writes: swapped, rewritten, broken and gone, on a real file system."""

import base64
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from proxy.credentials.file import LOOK_SECONDS, FileSource
from proxy.errors import CredentialUnavailable
from proxy.grants.expiry import jwt_expiry
from proxy.grants.reply import TOKEN_LIMIT
from proxy.lifecycle import Token
from proxy.redact import Secret
from tests.support.harness import HeldClock
from tests.support.leaks import Canaries

WAIT: Final = 30.0


@dataclass
class Bench:
    """A source and its file."""

    source: FileSource
    path: Path
    clock: HeldClock
    canaries: Canaries
    registered: list[str] = field(default_factory=list)

    def write(self, value: str | None = None) -> str:
        """Rewrite the file in place; a new canary unless told."""
        written = self.canaries.mint("token") if value is None else value
        self.path.write_text(f"{written}\n")
        return written

    async def token(self) -> Token:
        """What a request gets."""
        return await self.source.token(WAIT)

    async def value(self) -> str:
        """Its value."""
        return (await self.token()).value.reveal()

    async def failure(self) -> str:
        """The sentence with which a request fails."""
        with pytest.raises(CredentialUnavailable) as caught:
            await self.source.token(WAIT)
        assert caught.value.retry_after is None
        return caught.value.detail

    def pass_by(self) -> None:
        """Let so much time pass that the file is looked at again."""
        self.clock.move(LOOK_SECONDS)


@pytest.fixture
def bench(tmp_path: Path, clock: HeldClock, canaries: Canaries) -> Bench:
    """A credential called `c`, whose file is not there yet."""
    registered: list[str] = []

    def register(secrets: Iterable[Secret]) -> None:
        registered.extend(secret.reveal() for secret in secrets)

    path = tmp_path / "token"
    source = FileSource(
        "c", path, clock=clock, register=register, expiry=jwt_expiry, fits=lambda text: "FORBIDDEN" not in text
    )
    return Bench(source, path, clock, canaries, registered)


def jwt(exp: float, canary: str) -> str:
    """An unsigned token that ends at `exp`."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, {"exp": exp})]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), canary])


async def test_the_token_is_what_stands_in_the_file(bench: Bench) -> None:
    """Masked before anybody gets it; without the white space around it."""
    written = bench.write()
    token = await bench.token()
    assert (token.value.reveal(), token.generation, token.expires_at) == (written, 1, None)
    assert bench.registered == [written]
    assert await bench.token() is token
    assert bench.source.problem is None


@pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", "\n {}\t\n\n"])
async def test_white_space_around_a_token_is_none_of_it(bench: Bench, around: str) -> None:
    """Editors and `echo` leave some."""
    written = bench.canaries.mint("token")
    bench.path.write_bytes(around.format(written).encode())
    assert await bench.value() == written


@pytest.mark.threat(137)
async def test_a_swapped_link_is_noticed(bench: Bench, tmp_path: Path) -> None:
    """As Kubernetes does it: `token` leads to `..data/token`, and `..data` is put elsewhere in one move."""
    values = []
    for number in range(3):
        folder = tmp_path / f"..2026_{number}"
        folder.mkdir()
        values.append(bench.canaries.mint("token"))
        (folder / "token").write_text(values[-1])
    data = tmp_path / "..data"
    data.symlink_to(tmp_path / "..2026_0")
    bench.path.symlink_to(Path("..data") / "token")
    for number, value in enumerate(values):
        fresh = tmp_path / "..data_tmp"
        fresh.symlink_to(tmp_path / f"..2026_{number}")
        fresh.replace(data)
        bench.pass_by()
        token = await bench.token()
        assert (token.value.reveal(), token.generation) == (value, number + 1)
    assert bench.registered == values


async def test_a_rewritten_file_is_noticed_after_a_moment(bench: Bench) -> None:
    """In place, as a shell's `>` does it; the file is not looked at for every request."""
    first = bench.write()
    assert await bench.value() == first
    second = bench.write()
    bench.clock.move(LOOK_SECONDS / 2)
    assert await bench.value() == first
    bench.clock.move(LOOK_SECONDS / 2)
    token = await bench.token()
    assert (token.value.reveal(), token.generation) == (second, 2)


async def test_the_same_token_written_again_is_no_new_one(bench: Bench) -> None:
    """A refused one must not be tried again because somebody touched the file."""
    written = bench.write()
    token = await bench.token()
    os.utime(bench.path, ns=(1, 1))
    bench.write(written)
    bench.pass_by()
    assert await bench.token() is token
    assert await bench.source.newer_than(token, wait=WAIT, ask=True) is None


async def test_a_refused_token_is_read_again_at_once(bench: Bench) -> None:
    """Whoever writes it may have been quicker than the moment."""
    bench.write()
    token = await bench.token()
    assert await bench.source.newer_than(token, wait=WAIT, ask=True) is None
    second = bench.write()
    newer = await bench.source.newer_than(token, wait=WAIT, ask=True)
    assert newer is not None
    assert (newer.value.reveal(), newer.generation) == (second, 2)
    assert await bench.token() is newer


TROUBLE = {
    "gone": "cannot be read (No such file or directory)",
    "empty": "is empty, or holds something that is no token",
    "white": "is empty, or holds something that is no token",
    "two": "is empty, or holds something that is no token",
    "binary": "is empty, or holds something that is no token",
    "umlaut": "is empty, or holds something that is no token",
    "long": "is empty, or holds something that is no token",
    "much behind": "is empty, or holds something that is no token",
    "folder": "is no regular file",
    "pipe": "is no regular file",
    "loop": "cannot be read (Too many levels of symbolic links)",
}


def spoil(path: Path, how: str, canary: str) -> None:
    """Put something unusable where the token was."""
    contents = {
        "empty": b"",
        "white": b" \r\n\t",
        "two": f"{canary} {canary}".encode(),
        "binary": canary.encode() + bytes(range(256)),
        "umlaut": f"{canary}ü".encode(),
        "long": b"a" * (TOKEN_LIMIT + 1),
        "much behind": b"a" * TOKEN_LIMIT + b"\nand more",
    }
    path.unlink(missing_ok=True)
    if how in contents:
        path.write_bytes(contents[how])
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path)


@pytest.mark.parametrize("how", TROUBLE)
async def test_a_file_that_never_held_a_token_is_told_with_its_reason(bench: Bench, how: str) -> None:
    """503, which file and what is wrong with it; not what stands in it. Nothing waits for a pipe."""
    spoil(bench.path, how, bench.canaries.mint("token"))
    assert bench.source.problem is None
    detail = await bench.failure()
    assert detail == f"Credential 'c': {bench.path} {TROUBLE[how]}; nothing was sent upstream."
    assert bench.source.problem is not None
    assert bench.source.problem.detail == detail
    assert bench.source.report().last_error == f"{bench.path} {TROUBLE[how]}"
    assert bench.registered == []


@pytest.mark.threat(137)
@pytest.mark.parametrize("how", TROUBLE)
async def test_a_file_that_is_broken_for_a_while_keeps_the_token_in_use(
    bench: Bench, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log, however often it is looked at; and none of it is left when the file is back."""
    written = bench.write()
    token = await bench.token()
    aside = bench.path.with_name("aside")
    bench.path.rename(aside)
    spoil(bench.path, how, bench.canaries.mint("token"))
    with caplog.at_level(logging.WARNING, "proxy.credentials"):
        for _ in range(3):
            bench.pass_by()
            assert await bench.token() is token
    assert [record.getMessage() for record in caplog.records] == ["token_file_unusable"]
    assert bench.source.report().last_error == f"{bench.path} {TROUBLE[how]}"
    assert bench.source.problem is None
    with pytest.raises(CredentialUnavailable):
        await bench.source.refresh(WAIT)
    if how == "folder":
        bench.path.rmdir()
    else:
        bench.path.unlink(missing_ok=True)
    aside.rename(bench.path)
    bench.pass_by()
    assert (await bench.token()).value.reveal() == written
    assert bench.source.report().last_error is None


async def test_the_same_file_back_in_its_place_ends_the_trouble(bench: Bench) -> None:
    """It is not read again, since it is the one that was read; but the error is over."""
    bench.write()
    token = await bench.token()
    aside = bench.path.with_name("aside")
    bench.path.rename(aside)
    bench.pass_by()
    await bench.token()
    assert bench.source.report().last_error is not None
    aside.rename(bench.path)
    bench.pass_by()
    assert await bench.token() is token
    assert bench.source.report().last_error is None


async def test_a_token_that_comes_later_is_taken_by_the_next_request(bench: Bench) -> None:
    """Without a pause: nobody is hammered by reading a file."""
    await bench.failure()
    written = bench.write()
    assert await bench.value() == written


async def test_the_longest_token_is_taken(bench: Bench) -> None:
    """With the line end behind it."""
    bench.path.write_bytes(b"a" * TOKEN_LIMIT + b"\r\n")
    assert await bench.value() == "a" * TOKEN_LIMIT


async def test_the_expiry_is_the_tokens_own(bench: Bench) -> None:
    """Of a JWT; reckoned from the wall to the clock that counts suspend."""
    bench.write(jwt(bench.clock.wall() + 600, bench.canaries.mint("token")))
    token = await bench.token()
    assert token.expires_at == bench.clock.now() + 600
    report = bench.source.report()
    assert (report.name, report.state, report.generation) == ("c", "fresh", 1)


async def test_an_expired_token_stays_in_use_and_is_reported(bench: Bench) -> None:
    """Whether it is really over is for the upstream to say; that nobody writes a new one is for people to know."""
    bench.write(jwt(bench.clock.wall() + 600, bench.canaries.mint("token")))
    token = await bench.token()
    bench.clock.move(601)
    assert await bench.token() is token
    assert bench.source.report().state == "invalid"
    problem = bench.source.problem
    assert problem is not None
    assert "has expired" in problem.detail
    bench.write(jwt(bench.clock.wall() + 600, bench.canaries.mint("token")))
    bench.pass_by()
    assert (await bench.token()).generation == 2
    assert bench.source.problem is None


async def test_a_forced_refresh_reads_the_file_whatever_it_looks_like(bench: Bench) -> None:
    """Also one whose time and size are those of the one before."""
    first = bench.write()
    await bench.token()
    status = bench.path.stat()
    second = bench.write(first[::-1])
    os.utime(bench.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    bench.pass_by()
    assert await bench.value() == first
    await bench.source.refresh(WAIT)
    assert await bench.value() == second
    await bench.source.close(0.0)


async def test_a_token_that_does_not_fit_its_places_is_not_used(bench: Bench) -> None:
    """In a cookie a semicolon would begin another one; the one before stays in use."""
    bench.write()
    before = await bench.source.token(WAIT)
    bench.path.write_text("FORBIDDEN-0123456789")
    with pytest.raises(CredentialUnavailable, match="cannot be sent in its place"):
        await bench.source.refresh(WAIT)
    assert await bench.source.token(WAIT) is before
