"""The searcher for canaries finds what it must: each encoding, each sink, and nothing where there is nothing.

A gate that cannot fail is no gate: every test here plants a leak and sees it caught.
"""

import base64
import gzip
import html
import json
import random
import re
import subprocess
import sys
import urllib.parse
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.leaks import FRAGMENT, SHAPES, Artefact, Artefacts, Canaries, search

ROOT: Final = Path(__file__).parent.parent


def percent_all(text: str) -> str:
    """Every character escaped, in lower case, as no library does it."""
    return "".join(f"%{ord(char):02x}" for char in text)


def percent_some(text: str) -> str:
    """Every third character escaped, and the percent sign always."""
    return "".join(f"%{ord(char):02X}" if at % 3 == 0 or char == "%" else char for at, char in enumerate(text))


def escape_all(text: str) -> str:
    """JSON as a careful server writes it: nothing but escapes."""
    return "".join(f"\\u{ord(char):04x}" for char in text)


def coloured(text: str) -> str:
    """A terminal colour before each fourth character."""
    return "".join(f"\x1b[3{at % 8};1m{char}" if at % 4 == 0 else char for at, char in enumerate(text))


def wrapped(text: str) -> str:
    """A line break and an indentation after each ninth character."""
    return "\n    ".join(text[at : at + 9] for at in range(0, len(text), 9))


def latin(data: bytes) -> str:
    """Bytes as text, one to one, so that encodings can be stacked."""
    return data.decode("latin-1")


ENCODINGS: Final[dict[str, Callable[[str], str]]] = {
    "raw": str,
    "percent": lambda text: urllib.parse.quote(text, safe=""),
    "percent, slash kept": urllib.parse.quote,
    "percent, plus for space": urllib.parse.quote_plus,
    "percent, everything": percent_all,
    "percent, in part": percent_some,
    "json": json.dumps,
    "json, everything": escape_all,
    "json, slash escaped": lambda text: json.dumps(text).replace("/", "\\/"),
    "javascript": lambda text: "".join(f"\\u{{{ord(char):x}}}" for char in text),
    "octal": lambda text: "".join(f"\\{ord(char):03o}" for char in text),
    "python repr": repr,
    "python bytes repr": lambda text: repr(text.encode()),
    "python escapes": lambda text: "".join(f"\\x{ord(char):02x}" for char in text),
    "html": html.escape,
    "html, decimal": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "html, hexadecimal": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "base64": lambda text: latin(base64.b64encode(text.encode("latin-1"))),
    "base64url": lambda text: latin(base64.urlsafe_b64encode(text.encode("latin-1"))).rstrip("="),
    "base64 in lines": lambda text: latin(base64.encodebytes(text.encode("latin-1") * 3)),
    "basic": lambda text: "Basic " + latin(base64.b64encode(f"user:{text}".encode("latin-1"))),
    "base64, shifted by one": lambda text: latin(base64.b64encode(b"." + text.encode("latin-1") + b".")),
    "base64, shifted by two": lambda text: latin(base64.b64encode(b".." + text.encode("latin-1") + b"..")),
    "hex": lambda text: text.encode("latin-1").hex(),
    "hex, upper case": lambda text: text.encode("latin-1").hex().upper(),
    "hex, colons": lambda text: text.encode("latin-1").hex(":"),
    "hex, spaces": lambda text: text.encode("latin-1").hex(" ", 2),
    "utf-16": lambda text: latin(text.encode("utf-16")),
    "utf-16, big end first": lambda text: latin(text.encode("utf-16-be")),
    "utf-32": lambda text: latin(text.encode("utf-32")),
    "gzip": lambda text: latin(gzip.compress(text.encode("latin-1"))),
    "zlib": lambda text: latin(zlib.compress(text.encode("latin-1"), 9)),
    "gzip, cut short": lambda text: latin(gzip.compress(text.encode("latin-1"))[:-6]),
    "coloured": coloured,
    "wrapped": wrapped,
    "first characters": lambda text: text[: FRAGMENT + text[:FRAGMENT].count(" ")],
    "last characters": lambda text: text[-FRAGMENT - text[-FRAGMENT:].count(" ") :],
}
#: Two that are often met together; the order is innermost first.
STACKS: Final = (
    ("percent", "percent"),
    ("percent, in part", "json"),
    ("json", "json"),
    ("json", "gzip"),
    ("basic", "json"),
    ("base64", "percent"),
    ("base64", "base64url"),
    ("utf-16", "base64"),
    ("gzip", "base64"),
    ("gzip", "hex"),
    ("hex", "wrapped"),
    ("json, everything", "wrapped"),
    ("percent, everything", "coloured"),
    ("coloured", "json"),
    ("python bytes repr", "json", "gzip"),
    ("percent", "json", "basic"),
    ("json", "gzip", "base64"),
)


def names_of(stack: tuple[str, ...]) -> str:
    """The id of a row of the table."""
    return " in ".join(stack)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("stack", [*((name,) for name in ENCODINGS), *STACKS], ids=names_of)
def test_a_canary_of_any_shape_is_found_in_any_encoding(kind: str, stack: tuple[str, ...]) -> None:
    """The leak is reported once, under the artefact's name, and the report does not repeat it."""
    canaries = Canaries()
    secret, _other = canaries.mint(kind), canaries.mint(kind)
    text = secret
    if kind == "jwt" and stack == ("first characters",):
        text = text[len("eyJhbGciOiJSUzI1NiIsImtpZCI6I") :]
    for name in stack:
        text = ENCODINGS[name](text)
    for data in (text.encode("latin-1"), b'{"a": "' + text.encode("latin-1") + b'", "b": "c"}'):
        [hit] = search([Artefact("log", data)], canaries)
        assert (hit.kind, hit.number, hit.artefact) == (kind, 1, "log")
        assert hit.length >= FRAGMENT
        assert secret not in repr(hit) + str(hit)
        assert not search([Artefact("report", repr(hit) + str(hit))], canaries)


TEXT_LAYERS: Final = sorted(ENCODINGS.keys() - {"first characters", "last characters", "utf-16", "utf-32"})
SURROUNDINGS: Final = st.text(st.characters(max_codepoint=255), max_size=60)


@given(
    rng=st.randoms(use_true_random=False),
    kind=st.sampled_from(sorted(SHAPES)),
    layer=st.sampled_from(TEXT_LAYERS),
    before=SURROUNDINGS,
    after=SURROUNDINGS,
)
def test_a_canary_is_found_in_any_surroundings(
    rng: random.Random, kind: str, layer: str, before: str, after: str
) -> None:
    """Whatever stands before and after it, and however its own characters fall."""
    canaries = Canaries(rng)
    text = before + ENCODINGS[layer](canaries.mint(kind)) + after
    assert [hit.number for hit in search([Artefact("log", text.encode("latin-1"))], canaries)] == [1]


@given(
    rng=st.randoms(use_true_random=False),
    data=st.one_of(st.text(), st.binary()),
    layer=st.sampled_from(TEXT_LAYERS),
)
def test_text_without_a_canary_gives_no_hit(rng: random.Random, data: str | bytes, layer: str) -> None:
    """Nor do secrets that are no canaries of this collection, however they are encoded."""
    canaries, others = Canaries(), Canaries(rng)
    for kind in SHAPES:
        canaries.mint(kind)
    stranger = "".join(ENCODINGS[layer](others.mint(kind)) for kind in SHAPES)
    assert search([Artefact("a", data), Artefact("b", stranger)], canaries) == []


def test_a_fragment_that_is_too_short_to_tell_anything_is_no_hit() -> None:
    """One character less than the bound, at either end and in the middle."""
    canaries = Canaries()
    secret = canaries.mint("token")
    pieces = [secret[: FRAGMENT - 1], secret[15 : 14 + FRAGMENT], secret[1 - FRAGMENT :]]
    assert search([Artefact("log", "|".join(pieces))], canaries) == []


def test_the_common_head_of_signed_tokens_is_no_hit() -> None:
    """Every token of an issuer begins alike; only what is its own counts."""
    canaries = Canaries()
    secret = canaries.mint("jwt")
    assert search([Artefact("log", secret[:29])], canaries) == []
    assert search([Artefact("log", secret[: 29 + FRAGMENT])], canaries)


def test_each_leaked_canary_is_reported_in_its_shallowest_encoding() -> None:
    """Three secrets in one artefact, one of them twice: three hits."""
    canaries = Canaries()
    first, second, third = (canaries.mint(kind) for kind in ("token", "password", "uuid"))
    text = f"{percent_all(first)} {json.dumps(second)} {first} {third}"
    found = {hit.number: hit.encoding for hit in search([Artefact("log", text)], canaries)}
    assert found.keys() == {1, 2, 3}
    assert (found[1], found[3]) == ("raw", "raw")


def test_an_adopted_secret_is_searched_like_a_minted_one() -> None:
    """A double's own token counts, from where it is its own; one too short to search for is refused."""
    canaries = Canaries()
    canaries.adopt("vnla_sys.a8Sd7fG6hJ5kL4", "token", fixed=len("vnla_sys."))
    assert search([Artefact("log", "token=vnla_sys.somethingElse0")], canaries) == []
    assert search([Artefact("log", "token=vnla_sys.a8Sd7fG6hJ5kL4")], canaries)
    with pytest.raises(ValueError, match="at least 12 characters"):
        canaries.adopt("vnla_sys.short", "token", fixed=len("vnla_sys."))


def test_artefacts_are_read_when_the_search_runs(tmp_path: Path) -> None:
    """A stream and a folder are registered first and written later; names of files count too."""
    canaries = Canaries()
    artefacts = Artefacts()
    lines: list[str] = []
    artefacts.watch("stream", lambda: "".join(lines))
    artefacts.watch_tree(tmp_path)
    assert search(artefacts.collect(), canaries) == []
    lines.append(canaries.mint("token"))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / canaries.mint("uuid")).write_bytes(gzip.compress(canaries.mint("key").encode()))
    hits = search(artefacts.collect(), canaries)
    assert {(hit.artefact, hit.number) for hit in hits} == {("stream", 1), (tmp_path.name, 2), (tmp_path.name, 3)}


def test_what_holds_secrets_does_not_print_them() -> None:
    """The machinery of the search is not itself a leak."""
    canaries = Canaries()
    artefact = Artefact("log", canaries.mint("token"))
    assert search([Artefact("repr", repr(artefact) + repr(canaries))], canaries) == []


def test_random_sources_are_a_parameter() -> None:
    """The same source gives the same secrets; by default nobody can foresee them."""
    assert Canaries(random.Random(7)).mint() == Canaries(random.Random(7)).mint()  # noqa: S311  that is the point
    assert Canaries().mint() != Canaries().mint()


SINKS: Final = """
import io, logging, os, subprocess, sys
import pytest

def test_clean(canaries, artefacts):
    print("nothing but", canaries.mint()[:6])
    artefacts.add("answer", "ok")

def test_print(canaries):
    print(canaries.mint("password"))

def test_descriptor_2(canaries):
    os.write(2, canaries.mint().encode())

def test_child(canaries):
    subprocess.run([sys.executable, "-c", "import sys; print(sys.argv[1])", canaries.mint()], check=True)

def test_traceback_by_a_handler_of_the_product(canaries, monkeypatch):
    logger = logging.Logger("product", logging.DEBUG)
    logger.addHandler(logging.StreamHandler(sys.stderr))
    try:
        raise ValueError(canaries.mint("jwt"))
    except ValueError:
        logger.debug("failed", exc_info=True)

def test_raw_record_is_no_sink(canaries):
    logging.getLogger("library").warning("a record that no handler of the product has printed %s", canaries.mint())

def test_answer(canaries, artefacts):
    artefacts.add("answer", canaries.mint().encode().hex())

def test_stream(canaries, artefacts):
    stream = io.StringIO()
    artefacts.watch("stream", stream.getvalue)
    stream.write(canaries.mint("uuid"))

def test_file(canaries, artefacts, tmp_path):
    artefacts.watch_tree(tmp_path)
    (tmp_path / "x.log").write_text(canaries.mint())

def test_read_through_capfd(canaries, capfd):
    os.write(1, canaries.mint().encode())
    assert capfd.readouterr().out

def test_read_through_capsys(canaries, capsys):
    print(canaries.mint(), file=sys.stderr)
    assert capsys.readouterr().err

@pytest.fixture
def noisy(canaries):
    yield
    print(canaries.mint())

def test_teardown_of_a_fixture(noisy):
    pass

@pytest.fixture(scope="module")
def secret_of_the_module(canaries):
    return canaries.mint()

def test_holds(secret_of_the_module):
    pass

def test_shows_the_secret_of_an_earlier_test(secret_of_the_module):
    print(secret_of_the_module)

@pytest.mark.leaks_on_purpose
def test_on_purpose(canaries):
    print(canaries.mint())

@pytest.mark.leaks_on_purpose
def test_on_purpose_but_silent(canaries):
    canaries.mint()

def test_fails_and_leaks(canaries):
    print(canaries.mint())
    assert False

def test_skipped():
    pytest.skip("this machine cannot")
"""
HARMLESS: Final = {"test_clean", "test_raw_record_is_no_sink", "test_holds", "test_on_purpose", "test_skipped"}


def test_a_leak_in_each_sink_fails_the_test_that_shows_it(tmp_path: Path) -> None:
    """One real run of pytest with a leak planted in each sink: exactly those tests fail, and say why."""
    (tmp_path / "test_sinks.py").write_text(SINKS)
    report = tmp_path / "report.xml"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.support.canary_plugin", "-p", "no:cacheprovider"),
            *("--strict-markers", f"--rootdir={tmp_path}", f"--junitxml={report}", "test_sinks.py"),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    cases = [(case.get("name"), case) for case in ET.parse(report).getroot().iter("testcase")]  # noqa: S314  our own
    broken = {name for name, case in cases if case.find("error") is not None or case.find("failure") is not None}
    assert broken == {name for name, _case in cases} - HARMLESS
    assert re.search(r"Canaries came out:\n  stdout call: 3\d characters of canary \d+ \(password\) at", run.stdout)
    assert "no canary was found" in run.stdout
