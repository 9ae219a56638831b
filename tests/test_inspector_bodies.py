"""Bodies in the inspector: what can be unpacked is searched, and what cannot be searched is not kept."""

import base64
import gzip
import hashlib
import io
import json
import zipfile
import zlib
from typing import Any, Final

import pytest
from aiohttp import ClientSession, web

from proxy.admin.bodies import body
from proxy.admin.resend import NotKept, again
from proxy.body import Piece
from proxy.redact import Redactor, Secret
from tests.support.api import Seen, api
from tests.support.harness import Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import Keyed
from tests.test_inspector import ask, newest

MOST: Final = 65536
#: Brotli of a few words, since the standard library has none (RFC 7932): it is not looked into, whatever it says.
BROTLI: Final = bytes.fromhex("0b0280") + b"it says: "


@pytest.fixture
def token(canaries: Canaries) -> str:
    """A live token."""
    return canaries.mint("token")


@pytest.fixture
def redactor(token: str) -> Redactor:
    """It knows the token."""
    made = Redactor()
    made.register(Secret(token))
    return made


def kept(data: bytes, redactor: Redactor, *, kind: bytes = b"", encoding: bytes = b"", most: int = MOST) -> Any:
    """What is kept of `data`."""
    piece = Piece(most)
    piece.see(data)
    return body(piece, kind, encoding, redactor)


def noise(size: int, *, seed: int) -> bytes:
    """Bytes without any order, the same ones each time."""
    return hashlib.shake_256(bytes((seed,))).digest(size)


def zipped(data: bytes) -> bytes:
    """A zip with it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", data)
    return out.getvalue()


def png(pixels: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A grey picture of one line, with more chunks in it."""
    head = len(pixels).to_bytes(4) + (1).to_bytes(4) + bytes((8, 0, 0, 0, 0))
    chunks = [(b"IHDR", head), *more, (b"IDAT", zlib.compress(b"\0" + pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4) for name, data in chunks
    )


def raw_deflate(data: bytes) -> bytes:
    """Without the frame of zlib, as some servers send it."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.mark.threat(82)
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        (b"gzip", gzip.compress),
        (b"X-Gzip", gzip.compress),
        (b"gzip", lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:])),
        (b"deflate", zlib.compress),
        (b"deflate", raw_deflate),
    ],
    ids=["gzip", "x-gzip", "two members", "zlib", "deflate"],
)
def test_082_what_can_be_unpacked_is_shown_unpacked_and_masked(
    redactor: Redactor, token: str, encoding: bytes, pack: Any
) -> None:
    """Its text, as if it had come so."""
    packed = pack(json.dumps({"said": token, "n": 1}).encode())
    shown = kept(packed, redactor, kind=b"application/json", encoding=encoding)
    assert shown["text"] == '{"said": "***", "n": 1}'
    assert (shown["bytes"], shown["truncated"], shown["note"]) == (len(packed), False, None)
    cut = kept(packed, redactor, encoding=encoding, most=len(packed) - 9)
    assert cut["truncated"]
    assert token not in json.dumps(cut)


@pytest.mark.threat(82)
def test_082_a_small_body_does_not_grow_beyond_the_bound(redactor: Redactor) -> None:
    """However much it would be unpacked."""
    shown = kept(gzip.compress(b"x" * 10_000_000), redactor, encoding=b"gzip", most=20_000)
    assert (len(shown["text"]), shown["truncated"]) == (20_000, True)
    many = kept(gzip.compress(b"x") * 1000, redactor, encoding=b"gzip")
    assert (len(many["text"]), many["truncated"]) == (16, True)


@pytest.mark.threat(82)
@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"compress", b"gzip, gzip", b"aes128gcm", b"\xff"])
def test_082_of_what_cannot_be_unpacked_nothing_is_kept(redactor: Redactor, token: str, encoding: bytes) -> None:
    """Only that it came, how long it was, and why it is not there."""
    shown = kept(BROTLI + token.encode(), redactor, kind=b"text/plain", encoding=encoding)
    assert (shown["text"], shown["base64"]) == (None, None)
    assert shown["bytes"] == len(BROTLI) + len(token)
    assert "cannot be read here" in shown["note"]


@pytest.mark.threat(82)
def test_082_a_packed_file_is_not_kept_whatever_it_is_called(redactor: Redactor, token: str) -> None:
    """By what is in it, wherever in it: no type and no name is asked."""
    secret = f"the token is {token}, and it is a secret".encode()
    packed = {
        "zip": zipped(secret),
        "gzip": gzip.compress(secret),
        "zlib": zlib.compress(secret),
        "zstd": b"\x28\xb5\x2f\xfd" + secret[::-1],
        "pdf": b"%PDF-1.7\n\xff\xff\0" + secret[::-1],
        "dense": noise(400, seed=1),
        "dense and short": noise(80, seed=2),
        "UTF-16": b"\xff\xfe" + secret.decode().encode("utf-16-le"),
        "UTF-32": secret.decode().encode("utf-32-be"),
        "bytes": b"\0\xff" + secret,
        "pixels": png(secret),
        "cut": png(b"1234")[:-5],
        "broken": png(b"1234").replace(zlib.compress(b"\x001234"), b"y" * len(zlib.compress(b"\x001234"))),
        "large": png(bytes(2_000_000)),
    }
    for name, data in packed.items():
        for before in (b"", b"\0\x01" * 99):
            if before and name in {"pixels", "cut", "broken", "large"}:
                continue
            shown = kept(before + data, redactor, kind=b"image/png")
            assert (name, shown["text"], shown["base64"]) == (name, None, None)
            assert shown["note"].startswith("not kept: ")
    text = "as base64: " + base64.b64encode(gzip.compress(secret)).decode()
    assert kept(text.encode(), redactor)["text"] == "as base64: ***"


def test_bytes_in_which_nothing_hides_are_kept(redactor: Redactor) -> None:
    """Structures, pictures; of a PNG its picture alone."""
    plain = b"\0\0\0\x05\xff\xfe" * 100 + bytes(range(20))
    jpeg = b"\xff\xd8\xff\xe0" + noise(2000, seed=3)
    for data in (plain, jpeg, b"GIF89a\x01\0\x01\0\xff"):
        assert base64.b64decode(kept(data, redactor)["base64"]) == data
    comment = (b"zTXt", b"Comment\0\0" + zlib.compress(b"some words"))
    assert base64.b64decode(kept(png(b"1234", comment), redactor)["base64"]) == png(b"1234")


def test_random_bytes_are_dense_and_numbers_are_not(redactor: Redactor) -> None:
    """Whatever they are."""
    for size in (80, 300, 5000):
        assert kept(noise(size, seed=4), redactor)["base64"] is None
    numbers = b"".join(number.to_bytes(4) for number in range(60_000, 70_000))
    assert kept(numbers, redactor)["base64"] is not None


def test_a_body_that_is_shown_unpacked_goes_unpacked() -> None:
    """And one of which something was left out does not go."""
    asked: Any = {
        "fields": [["Content-Encoding", "gzip", None], ["Accept", "*/*", None]],
        "body": {"bytes": 30, "kept": 30, "truncated": False, "encoding": "gzip", "text": "said", "base64": None},
    }
    detail = {"method": "POST", "path": "/", "query": "", "bytes_in": 30, "request": asked}
    made = again(detail, {})
    assert (made.fields, made.body) == ((("Accept", "*/*"),), b"said")
    asked["body"] |= {"text": None, "base64": base64.b64encode(b"less").decode(), "encoding": None}
    with pytest.raises(NotKept):
        again(detail, {})


@pytest.mark.threat(82)
@pytest.mark.parametrize("coding", ["gzip", "br", "zip"])
async def test_082_no_way_of_showing_a_body_shows_the_token_in_it(
    proxying: StartProxy, canaries: Canaries, coding: str
) -> None:
    """In the detail, in HAR and as a command; the proxy itself passes the body on."""
    keyed = Keyed(canaries.mint("token"))
    said = f"the token is {keyed.token}".encode()
    packed = {"gzip": gzip.compress, "br": lambda data: BROTLI + data, "zip": zipped}[coding](said)
    fields = {} if coding == "zip" else {"Content-Encoding": coding}

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(body=packed, headers={**fields, "Content-Type": "application/octet-stream"})

    top = {"admin": {"listen": "127.0.0.1:0", "inspector": {"bodies": 1000}}}
    async with (
        api(answer) as upstream,
        proxying(keyed.config(upstream.url, top=top), environ=keyed.environ) as proxy,
    ):
        # This client keeps nothing: of the answer it gets the token as the upstream said it.
        # The upstream's own library knows no Brotli, so that goes one way only.
        sent: Any = {} if coding == "br" else {"data": packed, "headers": fields}
        async with ClientSession(auto_decompress=False) as client:
            got = await client.post(f"{proxy.url}/a", **sent)
            assert await got.read() == packed
        shown = await newest(proxy)
        for side in ("response",) if coding == "br" else ("request", "response"):
            assert shown[side]["body"]["base64"] is None
            assert (shown[side]["body"]["text"] == "the token is ***") == (coding == "gzip")
        for path in ("", "/curl"):
            _keep(proxy, (await ask(proxy, "GET", f"/api/exchanges/{shown['id']}{path}")).body)
        _keep(proxy, (await ask(proxy, "GET", "/api/exchanges.har")).body)


def _keep(proxy: Proxy, document: bytes) -> None:
    """All that is kept so is searched when the test ends."""
    proxy.artefacts.add("inspector", document)
