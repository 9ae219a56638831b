"""No live secret survives in any form; a `Secret` shows itself to nobody but those who are listed."""

import ast
import base64
import copy
import json
import pickle
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from proxy import redact
from proxy.forms import forms
from proxy.lifecycle import Token
from proxy.literals import PREFIX
from proxy.patterns import PATTERNS, Pattern
from proxy.readings import LONGEST, readings
from proxy.redact import GENERATIONS_KEPT, MASK, RETIRED_KEPT_SECONDS, Redactor, Secret, printable
from tests.support.encodings import ENCODERS
from tests.support.leaks import SHAPES, Artefact, Canaries, Hit, search
from tests.support.longer import TIMES

PROXY: Final = Path(redact.__file__).parent

#: Who may see a value, and what for. Everybody else passes `Secret` objects around.
REVEALERS: Final = {
    "admin/entrance.py": "makes a cookie of the admin key, and hands it to whoever showed that",
    "admin/inspector.py": "shows the client key to the proxy when a request is repeated",
    "build/sources.py": "when does a static token expire",
    "cli/exec.py": "writes the client key into the URLs of the program that it starts",
    "cli/run.py": "writes the admin key into the run file, which is private",
    "config/credentialchecks.py": "does a static token fit a cookie",
    "config/credentials.py": "does a static token hold only what a header may",
    "config/model.py": "is the client key in its alphabet",
    "config/provided.py": "gives a program its environment",
    "config/store.py": "decodes the keys that seal stored tokens",
    "config/secrets.py": "looks for a member in a file of JSON",
    "config/anycredential.py": "digests what a token is got with, in memory",
    "credentials/borrowing.py": "does a lent token fit its places",
    "credentials/credential.py": "renders the token into the head of a request, and knows its echoes",
    "credentials/file.py": "does the token itself say when it ends",
    "credentials/signing.py": "signs with the key",
    "credentials/accepting.py": "does a granted token fit its places",
    "credentials/source.py": "does a stored token fit its places",
    "demo/transcript.py": "shows the inspector's key on a terminal",
    "doctor.py": "sends the client key, as any client does",
    "grants/github_app.py": "writes the installation into the URL",
    "grants/authorization.py": "shows the server the digest of its verifier, and the state",
    "grants/login.py": "writes the token request",
    "grants/oauth2.py": "writes the Basic scheme of a token request",
    "clientkeys.py": "compares what clients show with their keys",
    "stores/redeemed.py": "digests a refresh token of the configuration, slowly",
    "stores/records.py": "writes a record, which is then sealed",
    "stores/redisclient.py": "says who we are to the server",
    "upstream/tunnel.py": "writes who we are to an outbound proxy",
    "redact.py": "has to know what it masks",
}


@pytest.mark.threat(77)
def test_077_only_the_listed_modules_reveal_a_secret() -> None:
    """A new caller of `reveal` is a decision; its reason belongs into the table."""
    found = {
        str(path.relative_to(PROXY))
        for path in PROXY.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    }
    assert found == set(REVEALERS)


def test_077_only_the_class_itself_touches_the_value_inside() -> None:
    """The attribute behind `reveal` is nobody else's."""
    for path in PROXY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "_value" and path.name != "redact.py":
                assert isinstance(node.value, ast.Name), path
                assert node.value.id == "self", path


VALUE = "s3cret-canary-value"


@pytest.mark.threat(77)
@pytest.mark.parametrize(
    "show",
    [repr, str, format, "{}".format, "{!r:>30}".format, "%s".__mod__, lambda secret: f"{[secret]}", ascii],
)
def test_077_a_secret_shows_a_mask(show: Callable[[Secret], str]) -> None:
    """In every way of printing, alone and inside other objects."""
    shown = show(Secret(VALUE))
    assert VALUE not in shown
    assert MASK in shown
    assert VALUE not in repr(Token(Secret(VALUE), 1, 0.0, refresh_token=Secret(VALUE)))


@pytest.mark.threat(77)
@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, hash, vars, iter, bytes])
def test_077_a_secret_cannot_be_taken_out_by_machinery(take: Callable[[object], object]) -> None:
    """Not pickled, copied, hashed, put into JSON, looked into; and the refusal does not say it either."""
    with pytest.raises(TypeError) as refused:
        take(Secret(VALUE))
    assert VALUE not in str(refused.value)


def test_secrets_compare_by_value_and_with_nothing_else() -> None:
    """Any text is comparable, also what the environment could not decode."""
    odd = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != Secret(VALUE + "x")
    assert Secret(VALUE) != VALUE
    assert Secret(odd) == Secret(odd)
    assert Secret(odd) != Secret("\ud800")
    assert (len(Secret(VALUE)), bool(Secret(""))) == (len(VALUE), False)


secrets = st.text(
    st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters=MASK[0])
    | st.sampled_from('+/=%"\\ &~'),
    min_size=8,
    max_size=40,
)
surroundings = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


#: No form has more encodings one upon another.
LAYERS: Final = 2
#: So many secrets live at once, each in every form in one text.
LIVE: Final = 50
#: What stands beside a secret: nothing, what could be taken for a part of it, and what ends it.
NEIGHBOURS: Final = (
    *(
        "",
        " ",
        '"',
        "'",
        "=",
        "&",
        "?",
        "/",
        ":",
        ",",
        "\\",
        "%",
        "%2",
        "\\u",
        "&#",
        "&amp;",
        "\n",
        "\0",
        "***",
        "=",
    ),
    *(
        "a",
        "0",
        "f",
        "Zm9v",
        "AAAA",
        "deadbeef",
        "+",
        "-",
        "_",
        "token=",
        "Bearer ",
        '{"a":"',
        "b'",
        "\u00e9",
        "\u2028",
    ),
)


def live(number: int) -> tuple[Canaries, list[str]]:
    """The secrets of one text: tokens, keys and passwords of each shape, and any printable characters."""
    rng = random.Random(number)  # noqa: S311  the same each time
    canaries = Canaries(rng)
    values = [canaries.mint(rng.choice(list(SHAPES))) for _ in range(LIVE - LIVE // 5)]
    for _ in range(LIVE // 5):
        value = "".join(
            rng.choices(string.ascii_letters + string.digits + string.punctuation, k=rng.randrange(16, 48))
        )
        canaries.adopt(value, "characters")
        values.append(value)
    return canaries, values


def survivors(number: int, forms: int = len(ENCODERS)) -> list[Hit]:
    """What the independent searcher finds in a text that was masked, where each secret stood in some `forms`."""
    rng = random.Random(-1 - number)  # noqa: S311  same
    canaries, values = live(number)
    redactor = Redactor(patterns=())
    for at, value in enumerate(values):
        if at % 2:
            redactor.register(Secret(value))
        else:
            redactor.register_generation(str(at), [Secret(value)], 0.0)
    encoders = list(ENCODERS.values())
    planted = [(value, encode) for value in values for encode in rng.sample(encoders, forms)]
    rng.shuffle(planted)
    pieces = [
        piece
        for value, encode in planted
        for piece in (rng.choice(NEIGHBOURS), encode(value), rng.choice(NEIGHBOURS), rng.choice((" ", "\n", "|")))
    ]
    return search([Artefact("text", redactor.values("".join(pieces)))], canaries, LAYERS)


@pytest.mark.parametrize("form", ENCODERS)
def test_076_the_searcher_finds_each_form(form: str) -> None:
    """What it could not find would seem to be masked."""
    canaries, values = live(0)
    text = "\n".join(f"<{ENCODERS[form](value)}>" for value in values)
    assert {hit.number for hit in search([Artefact("text", text)], canaries, LAYERS)} == set(range(1, LIVE + 1))


@pytest.mark.threat(76)
@pytest.mark.unmeasured
@pytest.mark.parametrize("part", range(4))
def test_076_no_secret_survives_among_any_neighbours(part: int) -> None:
    """2,000 secrets, fifty of them live at once, each in a third of the forms."""
    assert [hit for number in range(10) for hit in survivors(10 * part + number, len(ENCODERS) // 3)] == []


@pytest.mark.threat(76)
@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_076_no_secret_of_twenty_thousand_survives(part: int) -> None:
    """The same with 20,000 others; in every form where there is time."""
    forms = len(ENCODERS) // 3 if TIMES == 1 else len(ENCODERS)
    assert [hit for number in range(50 * TIMES) for hit in survivors(1000 + part + 8 * number, forms)] == []


def _inner(encoded: str) -> str:
    """What must not survive: the encoded form without the ends that it shares with its neighbours."""
    return encoded.strip("'\"").removeprefix("b'").removeprefix('b"').rstrip("=")


@pytest.mark.threat(76)
@pytest.mark.parametrize("form", sorted(ENCODERS.keys() - {"basic"}))  # whose name of a client stays
@given(secret=secrets, before=surroundings, after=surroundings)
@pytest.mark.unmeasured
def test_076_no_form_of_a_secret_survives_in_any_text(form: str, secret: str, before: str, after: str) -> None:
    """Random values, random neighbours; of base64 only the first and last characters, which are the neighbours'."""
    redactor = Redactor()
    redactor.register(Secret(secret))
    encoded = ENCODERS[form](secret)
    assume(secret not in before + MASK + after)
    masked = redactor.values(before + encoded + after)
    assert secret not in masked
    assert MASK in masked
    longest_left = 5 if form.startswith("base64") else 2
    inner = _inner(encoded)
    for at in range(len(inner) - longest_left - 6):
        piece = inner[at : at + longest_left + 6]
        assert piece not in masked or piece in before + MASK + after


@pytest.mark.threat(76)
@given(secrets, st.integers(PREFIX, 60), surroundings)
def test_076_a_secret_that_was_cut_is_masked_up_to_the_cut(secret: str, length: int, after: str) -> None:
    """An HTTP library logs the first 100 bytes of a line (E1)."""
    assume(len(secret) > PREFIX and secret[:PREFIX] not in after)
    redactor = Redactor()
    redactor.register(Secret(secret))
    assert redactor.values(f"<{secret[:length]}") == f"<{MASK}"
    assert secret[:PREFIX] not in redactor.values(f"<{secret[:length]}{after}")


JWT_HEADER = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9."


@pytest.mark.threat(76)
def test_076_tokens_that_begin_alike_do_not_hide_each_other() -> None:
    """All JWTs of one issuer do: the longer one must not take only the shared beginning of the shorter."""
    short, long = JWT_HEADER + "short-payload.short-signature", JWT_HEADER + "a-much-longer-payload.and-signature"
    for order in ([short, long], [long, short]):
        redactor = Redactor(patterns=())
        for value in order:
            redactor.register(Secret(value))
        assert redactor.text(f"<{short}> <{long}> <{short[:-5]}>") == f"<{MASK}> <{MASK}> <{MASK}>"


def test_076_two_secrets_that_overlap_are_one_mask() -> None:
    """What is left of one would tell that there was another."""
    redactor = Redactor(patterns=())
    for value in ("first-half-and-middle", "and-middle-second-half"):
        redactor.register(Secret(value))
    assert redactor.text("<first-half-and-middle-second-half>") == f"<{MASK}>"


@given(st.text("ab", min_size=8, max_size=30), st.text("ab", min_size=8, max_size=30), st.text("ab", max_size=60))
def test_076_overlapping_and_repeating_secrets_do_not_survive(one: str, two: str, text: str) -> None:
    """Two letters make every kind of overlap, with itself too."""
    redactor = Redactor()
    redactor.register(Secret(one))
    redactor.register(Secret(two))
    for planted in (text, one + two, one[:5] + two, text + one[:-1] + two + text, one[0] + one):
        masked = redactor.values(planted)
        assert one not in masked
        assert two not in masked
    assert redactor.values(f"<{one}{one}>") == f"<{MASK}>"


@given(st.text("*a", min_size=8, max_size=20), surroundings)
def test_076_a_secret_made_of_masks_does_not_survive_either(secret: str, around: str) -> None:
    """Masking another value must not put it together."""
    redactor = Redactor()
    redactor.register(Secret(secret))
    redactor.register(Secret("another-value"))
    for text in (
        secret,
        f"**{secret}**{secret}*",
        secret.replace(MASK, "another-value"),
        f"{around}{secret}{around}",
    ):
        assert secret not in redactor.values(text)


def test_a_value_the_environment_could_not_decode_is_masked() -> None:
    """A password in Latin-1 arrives as surrogates; it must not break the start, nor go unmasked."""
    secret = b"pa\xdfwort-in-latin-1".decode("utf-8", "surrogateescape")
    redactor = Redactor()
    redactor.register(Secret(secret))
    assert redactor.values(f"a {secret} b") == "a *** b"
    assert redactor.values(r"a pa%DFwort-in-latin-1 b'pa\xdfwort-in-latin-1'") == "a *** b'***'"


def test_escapes_that_spell_a_secret_are_masked_in_a_line() -> None:
    """Its bytes, read as Latin-1, are no form of it; written as escapes they are one."""
    redactor = Redactor()
    redactor.register(Secret("pässwort-geheim-4711"))
    assert redactor.line("a pässwort-geheim-4711 b".encode().decode("latin-1")) == "a *** b"
    assert redactor.line("a é") == r"a \xe9"


#: Of one letter: as addresses, programs and pages escape it.
ESCAPES: Final[tuple[Callable[[str], str], ...]] = (
    lambda letter: f"%{ord(letter):02x}",
    lambda letter: f"%25{ord(letter):02X}",
    lambda letter: f"%2525{ord(letter):02X}",
    lambda letter: f"\\x{ord(letter):02x}",
    lambda letter: f"\\u00{ord(letter):02X}",
    lambda letter: f"\\\\u00{ord(letter):02x}",
    lambda letter: f"&#{ord(letter)};",
    lambda letter: f"&#x{ord(letter):X};",
    lambda letter: f"&#0{ord(letter)};",
)


@pytest.mark.threat(76)
@pytest.mark.parametrize("escape", ESCAPES)
@given(
    escaped=st.sets(st.integers(0, 23), min_size=1),
    before=st.sampled_from(["", "a b ", "/%20", "&#32;"]),
    after=st.text(),
)
@example(escaped=set(range(24)), before="", after="")
@example(escaped={0}, before="", after="")
def test_076_letters_that_need_no_escape_hide_no_secret(
    escape: Callable[[str], str], escaped: set[int], before: str, after: str
) -> None:
    """Whoever writes some of them as escapes, or all, writes the secret; what stands around it stays as it came."""
    secret = "Zq3240b73dfb783636d0kLmN"
    redactor = Redactor()
    redactor.register(Secret(secret))
    written = "".join(escape(letter) if at in escaped else letter for at, letter in enumerate(secret))
    masked = redactor.values(f"{before}{written} {after}")
    assert masked == f"{before}*** {after}"


@pytest.mark.threat(118)
@pytest.mark.parametrize(
    "piece", ["\\", "%", "%25", "&#", "&#0", "&#x0", "\\u", "\\u0", "%41", "\\\\u0041", "&#65;"]
)
def test_118_escapes_are_read_in_linear_time(piece: str) -> None:
    """As above: the square of so many would take minutes; no text as long as this is read."""
    long = piece * (2**18 // len(piece))
    assert all(len(reading) < len(long) for reading in readings(long))
    text = piece * (LONGEST // len(piece))
    redactor = Redactor()
    redactor.register(Secret("A" * 40))
    assert len(redactor.text(text)) <= len(text)


def test_escapes_of_something_else_stay_as_they_came() -> None:
    """Nothing is read that holds no secret; and what is too long is looked at as it is."""
    redactor = Redactor()
    redactor.register(Secret("Zq3240b73dfb783636d0kLmN"))
    for text in ("/a%20b%2Fc", "%25252520", r"a\u0041b\x41", "&#65;&#x41;&#999;", "%zz%4", "\\"):
        assert redactor.text(text) == text
    beyond = "%5aq3240b73dfb783636d0kLmN" + " " * LONGEST
    assert redactor.values(beyond) == beyond


def test_short_secrets_are_no_reason_to_mask_ordinary_words() -> None:
    """Under eight characters they are masked by field, not by value."""
    redactor = Redactor()
    redactor.register(Secret("seven77"))
    redactor.register_generation("c", [Secret("secret"), Secret("long-enough")], 0.0)
    assert redactor.values("seven77 secret long-enough") == "seven77 secret ***"
    assert forms("seven77") >= {base64.b64encode(b"seven77").decode().rstrip("=")[:9]}


def test_only_exact_values_are_masked_by_values() -> None:
    """The patterns are left to `text`."""
    redactor = Redactor()
    redactor.register(Secret("registered-value"))
    redactor.register(Secret("registered-value"))
    assert redactor.values("Bearer registered-value Bearer unknown-value") == "Bearer *** Bearer unknown-value"
    assert redactor.text("Bearer registered-value Bearer unknown-value") == "Bearer *** Bearer ***"
    assert redactor.knows("x registered%2Dvalue registered-value")
    assert not redactor.knows("registered-valu")


@pytest.mark.threat(76)
@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: bearer abc.DEF-123_~+/=", "Authorization: bearer ***"),
        ("Basic dXNlcjpwYXNz rest", "Basic *** rest"),
        ("Integrator 0123456789", "Integrator ***"),
        ("bearer short", "bearer short"),
        ("x eyJhbGciOiJub25lIn0.eyJhIjoxfQ. y", "x *** y"),
        ("?access_token=x&a=b", "?access_token=***&a=b"),
        ('{"password": "hunter2", "a": 1}', '{"password": "***", "a": 1}'),
        (r'{"a": "{\"password\": \"hunter2\"}"}', r'{"a": "{\"password\": \"***\"}"}'),
        (r'{"query": "in(password: \"hun\\ter2\")"}', r'{"query": "in(password: \"***\")"}'),
        ("client_secret : x", "client_secret : ***"),
        ("CLIENT_SECRET\n=x", "CLIENT_SECRET\n=***"),
        ("na\u00efve pas\u017fword=x", "na\u00efve pas\u017fword=***"),
        ("va.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.BBBBBB.CCCCCCC", "***"),
        ("ghp_0123456789abcdef glpat-0123456789", "*** ***"),
        ("/~0123456789abcdef/x", "/~***/x"),
        ("/~home/x", "/~home/x"),
        ("a passwordless token", "a passwordless token"),
    ],
)
def test_076_patterns_catch_what_never_was_ours(text: str, masked: str) -> None:
    """And leave ordinary words alone."""
    assert Redactor().text(text) == masked


ASCII: Final = st.characters(codec="ascii")


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.regex.pattern[:30])
@given(data=st.data())
def test_076_a_hint_stands_in_whatever_a_pattern_matches(pattern: Pattern, data: st.DataObject) -> None:
    """In ASCII, in lower case; other text is given to every pattern."""
    match = data.draw(st.from_regex(pattern.regex, fullmatch=True, alphabet=ASCII))
    assert any(hint in match.lower() for hint in pattern.hints)


#: What patterns are made of, in pieces that rarely make a whole.
PIECES: Final = (
    *(
        "bearer",
        "BASIC",
        "Integrator ",
        " ",
        "\t",
        "eyJ",
        "eyJhbGciOi",
        ".",
        "access_token",
        "password",
        "=",
        ":",
        '"',
    ),
    *(
        "va.",
        "A" * 32,
        ".BBBBBB.CCCCCCC",
        "gh",
        "ghp_",
        "glpat-",
        "hvs.",
        "xoxb-",
        "ya29.",
        "vnla_sys.",
        "/~",
        "0123456789",
    ),
    *("/v2/customers", "\u017f", "\u212a", "bea\u017fic ", "na\u00efve", "\n", "***"),
)


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=12).map("".join))
def test_076_hints_spare_work_and_change_nothing(text: str) -> None:
    """The same as every pattern one after another."""
    expected = text
    for pattern in PATTERNS:
        expected = pattern.regex.sub(r"\g<1>***", expected)
    assert Redactor().text(text) == expected


@given(st.lists(secrets, min_size=1, max_size=4), st.data())
def test_076_a_value_is_found_wherever_its_beginning_stands(values: list[str], data: st.DataObject) -> None:
    """At every offset, behind every text, in every form: exactly where looking for each of them would find it."""
    redactor = Redactor()
    for value in values:
        redactor.register(Secret(value))
    beginnings = sorted({form[:PREFIX] for value in values for form in forms(value)})
    piece = data.draw(st.sampled_from(beginnings))
    piece = piece[data.draw(st.integers(0, 1)) : len(piece) - data.draw(st.integers(0, 1))]
    text = data.draw(surroundings) + piece + data.draw(surroundings)
    assert (redactor.values(text) != text) is any(beginning in text for beginning in beginnings)


def test_the_edition_changes_with_what_is_known() -> None:
    """And only then: whoever keeps what was clean may rely on it."""
    redactor = Redactor()
    seen = [redactor.edition.number]
    redactor.register(Secret("a-lasting-value"))
    seen.append(redactor.edition.number)
    redactor.register(Secret("a-lasting-value"))
    redactor.text("a-lasting-value")
    assert redactor.edition.number == seen[-1]
    redactor.register_generation("c", [Secret("generation-one")], 0.0)
    seen.append(redactor.edition.number)
    assert len(set(seen)) == 3


@pytest.mark.threat(118)
@pytest.mark.parametrize(
    "piece", ["bearer ", "password", "password =", "eyJ-", "eyJaaaaaaaa.", "va.", "/~", "a", " "]
)
@pytest.mark.unmeasured
def test_118_a_long_line_takes_linear_time(piece: str) -> None:
    """A quadratic pattern would need an hour for these; a test that hangs is how it would show."""
    redactor = Redactor()
    redactor.register(Secret("a" * 40))
    line = piece * (2**18 // len(piece))
    assert len(redactor.text(line)) <= len(line)


def test_generations_are_masked_while_they_live_and_a_day_after() -> None:
    """An answer to an old request may still hold an old token."""
    redactor = Redactor()
    old, new = Secret("generation-one"), Secret("generation-two")
    redactor.register_generation("c", [old], 0.0)
    redactor.register_generation("c", [new], 1000.0)
    redactor.register_generation("other", [Secret("somebody-else")], 0.0)
    assert redactor.values("generation-one generation-two somebody-else") == "*** *** ***"
    redactor.register_generation("c", [Secret("generation-3!")], 1000.0 + RETIRED_KEPT_SECONDS)
    assert redactor.knows("generation-one")
    redactor.register_generation("c", [Secret("generation-4!")], 1000.1 + RETIRED_KEPT_SECONDS)
    assert [redactor.knows(text) for text in ("generation-one", "generation-two", "generation-3!")] == [
        False,
        True,
        True,
    ]
    assert redactor.knows("somebody-else")


def test_a_credential_keeps_its_last_generations_only() -> None:
    """A token that lives for seconds must not make every line slower; what is also registered for good stays."""
    redactor = Redactor()
    redactor.register(Secret("generation-0000"))
    for number in range(GENERATIONS_KEPT + 2):
        redactor.register_generation("c", [Secret(f"generation-{number:04}")], float(number))
    known = [redactor.knows(f"generation-{number:04}") for number in range(GENERATIONS_KEPT + 2)]
    assert known == [True, False, *[True] * GENERATIONS_KEPT]


def test_077_a_redactor_does_not_print_what_it_knows() -> None:
    """Neither itself nor what it keeps of a generation."""
    redactor = Redactor()
    redactor.register_generation("c", [Secret(VALUE)], 0.0)
    assert VALUE not in f"{redactor!r}{redactor._generations!r}"


@pytest.mark.threat(79)
@given(st.text())
def test_079_printable_text_is_one_line_of_ascii(text: str) -> None:
    """And says the same: nothing is lost, ordinary text is untouched."""
    line = printable(text)
    assert all(" " <= character <= "~" for character in line)
    if line != text:
        assert line.encode().decode("unicode_escape") == text


@pytest.mark.threat(79)
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain \\n text", "plain \\n text"),
        ("a\r\nFAKE", "a\\r\\nFAKE"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b", "\\x9b"),
        ("\u202e\u2028", "\\u202e\\u2028"),
        ("\x7f\t\0", "\\x7f\\t\\x00"),
        ("\udc80", "\\udc80"),
        ("", ""),
    ],
)
def test_079_what_terminals_and_readers_of_logs_obey_is_escaped(text: str, line: str) -> None:
    """Line ends, escape sequences, C1, bidi, line separators, surrogates."""
    assert printable(text) == line


@pytest.mark.slow
def test_118_redaction_does_not_depend_on_how_many_secrets_are_known_but_not_there() -> None:
    """Two hundred registered values, a line without any: the same text, the very same object."""
    redactor = Redactor()
    for number in range(200):
        redactor.register(Secret(f"{number:03}-registered-value"))
    text = "an ordinary line " * 10
    assert redactor.values(text) is text
