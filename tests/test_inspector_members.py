"""What names call a secret in a body that is kept: masked, in whatever form it comes."""

import json
from collections.abc import Callable
from html import escape
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.bodies import part
from proxy.admin.effort import Effort, TooMuchError
from proxy.admin.members import without_members
from proxy.redact import Redactor, Secret

SECRET = "zz-secret-4711"
KEPT = "kept-as-it-is"
FORM = "application/x-www-form-urlencoded"
ONE = json.dumps({"password": f'{SECRET}"\\', "page": KEPT})


def parts(*given: tuple[str, str], end: str = "\r\n") -> str:
    """Parts between boundaries "B": head and value of each."""
    return "".join(f"--B{end}{head}{end}{end}{value}{end}" for head, value in given) + f"--B--{end}"


def named(name: str) -> str:
    """The head of a part with this name."""
    return f'Content-Disposition: form-data; name="{name}"'


PARTS = parts((named("password"), f"{SECRET}\r\n--x{SECRET}"), (named("page"), KEPT))
XML = (
    f'<a><w:Password t="{KEPT}">{SECRET}</w:Password><token><![CDATA[{SECRET}]]></token><u apiKey="{SECRET}"/></a>'
)
ELEMENT = f"<a><u>{KEPT}</u><password>{SECRET}</password></a>"
BODIES = {
    "json": ("application/json", ONE),
    "json in json": ("application/json", json.dumps({"body": ONE})),
    "json in json in json": ("application/json", json.dumps({"body": json.dumps({"body": ONE})})),
    "json after a quote": ("", f'5" {ONE}'),
    "an escaped name": ("application/json", f'{{"pass\\u0077ord": "{SECRET}", "page": "{KEPT}"}}'),
    "an escaped slash": ("application/json", f'{{"oauth\\/token": "{SECRET}", "page": "{KEPT}"}}'),
    "an object": ("application/json", json.dumps({"credentials": {"user": "me", "v": [SECRET]}, "page": KEPT})),
    "a list with brackets": ("application/json", json.dumps({"tokens": ["a]b", [SECRET]], "page": KEPT})),
    "an object in json in json": (
        "",
        json.dumps({"a": json.dumps({"token": {"v": "}", "w": SECRET}}), "page": KEPT}),
    ),
    "a name beside its value": (
        "application/json",
        json.dumps([{"value": SECRET, "key": "api_key"}, {"name": "x", "value": KEPT}]),
    ),
    "graphql": (
        "application/json",
        json.dumps({"query": f'mutation {{ in(a: "{KEPT}", password: "{SECRET} x") }}'}),
    ),
    "a list": ("application/json", json.dumps({"tokens": [SECRET, SECRET], "page": KEPT})),
    "cut": ("application/json", f'{{"page": "{KEPT}", "access_token": "{SECRET}'),
    "too deep": (
        "application/json",
        json.dumps({"page": KEPT, "a": quote(quote(quote(quote(quote(quote(f"password={SECRET}&a=b"))))))}),
    ),
    "a form": (FORM, f"page={KEPT}&pass%77ord={SECRET}"),
    "another word": (FORM, f"page={KEPT}&user=a&pass={SECRET}"),
    "json in a form": (FORM, f"page={KEPT}&data={quote(ONE)}"),
    "json without a name in a form": (FORM, f"page={KEPT}&{quote(ONE)}"),
    "json called a form": (FORM, json.dumps({"password": f"a=b&{SECRET}", "page": KEPT})),
    "a form in a form in a form": (FORM, f"page={KEPT}&x=" + quote("y=" + quote(f"a=1&pass%77ord={SECRET}"))),
    "xml in a form": (FORM, f"page={KEPT}&x={quote(ELEMENT)}"),
    "parts": ('multipart/form-data; boundary="B"', PARTS),
    "parts without a boundary": ("multipart/form-data", PARTS),
    "parts with another parameter": ("multipart/form-data; myboundary=Q; boundary=B", PARTS),
    "parts of short lines": (
        "multipart/form-data; boundary=B",
        parts((named("password"), SECRET), ("", KEPT), end="\n"),
    ),
    "parts in parts": (
        "multipart/mixed; boundary=A",
        f"--A\r\nContent-Type: multipart/form-data; boundary=B\r\n\r\n{PARTS}\r\n--A--",
    ),
    "a part with a name in other words": (
        "multipart/form-data; boundary=B",
        parts((named("pass%77ord"), SECRET), (named("page"), KEPT)),
    ),
    "a part with a name in a charset": (
        "multipart/form-data; boundary=B",
        parts((named("=?utf-8?B?cGFzc3dvcmQ=?="), SECRET), (named("page"), KEPT)),
    ),
    "a part that is encoded": (
        "multipart/form-data; boundary=B",
        parts((f"{named('x')}\r\nContent-Transfer-Encoding: base64", SECRET), (named("page"), KEPT)),
    ),
    "xml in a part": ("multipart/form-data; boundary=B", parts((named("x"), ELEMENT))),
    "xml": ("text/xml", XML),
    "xml of no type": ("", XML),
    "xml with a mark before": ("", f"\ufeff{ELEMENT}"),
    "xml that is cut": ("text/xml", f"<a><u>{KEPT}</u><credentials><x>{SECRET}"),
    "elements in one": (
        "text/xml",
        f"<a><credentials><pin>1</pin><b>{SECRET}</b></credentials><u>{KEPT}</u></a>",
    ),
    "the same element in one": ("text/xml", f"<a><token><token>1</token>{SECRET}</token><u>{KEPT}</u></a>"),
    "comments and two texts": (
        "text/xml",
        f"<a><token><!-- x -->{SECRET}<![CDATA[</token>{SECRET}]]><![CDATA[{SECRET}]]></token><u>{KEPT}</u></a>",
    ),
    "an attribute beside its value": (
        "text/html",
        f'<p><input type="hidden" name="csrf" value="{SECRET}"><input name="a" value="{KEPT}"></p>',
    ),
    "a property": ("text/xml", f'<a><p name="db.password">{SECRET}</p><p name="u">{KEPT}</p></a>'),
    "an element beside its value": (
        "text/xml",
        f"<a><m><name>password</name><value><string>{SECRET}</string></value></m><name>u</name><v>{KEPT}</v></a>",
    ),
    "an attribute in json": (
        "application/json",
        json.dumps({"page": KEPT, "x": f'<user name="x" password="{SECRET}"/>'}),
    ),
    "xml in json": ("application/json", json.dumps({"x": ELEMENT})),
    "json in xml": ("text/xml", f"<a><u>{KEPT}</u><p>{escape(json.dumps({'token': SECRET}))}</p></a>"),
    "yaml": ("text/yaml", f"user: {KEPT}\npassword: {SECRET} {SECRET}\nnext: 1\n"),
    "yaml in lines": (
        "text/yaml",
        f"user: {KEPT}\nprivate_key: |\n  {SECRET}\n\n  {SECRET}\nnext: 1\n",
    ),
    "a key file": (
        "text/plain",
        f"a={KEPT} secret=-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    ),
    "a request": ("application/http", f"GET / HTTP/1.1\r\nAuthorization: A b, {SECRET}\r\nX: {KEPT}\r\n\r\n"),
    "a scheme": ("text/plain", f"{{a: {KEPT}, authorization: Basic {SECRET}}}"),
    "python": ("text/plain", str({"password": f"{SECRET} {SECRET}", "page": KEPT})),
    "an object of a program": ("", f"in({{token: {{a: [{SECRET}]}}, page: '{KEPT}'}})"),
    "a line of a log": ("", f"{KEPT} user[password]={SECRET} 200"),
    "an address in a text": ("", f"{KEPT}\nhttps://x/cb?u=https%3A%2F%2Fy%3Ftoken%3D{SECRET}"),
}


@pytest.mark.threat(82)
@pytest.mark.parametrize(("content_type", "text"), BODIES.values(), ids=BODIES)
def test_082_what_names_call_a_secret_is_masked_in_whatever_form(content_type: str, text: str) -> None:
    """And the rest stays as it is."""
    masked = without_members(text, content_type.encode())
    assert SECRET not in masked
    assert KEPT in masked
    assert "***" in masked


#: Ways to put a text into another one, with the type of the whole.
LAYERS: dict[str, tuple[str, Callable[[str], str]]] = {
    "json": ("application/json", lambda text: json.dumps({"page": KEPT, "x": text})),
    "ascii json": (
        "application/json",
        lambda text: '{"x":"' + "".join(f"\\u{ord(letter):04x}" for letter in text) + '"}',
    ),
    "form": (FORM, lambda text: f"page={KEPT}&x={quote(text)}"),
    "plain form": (FORM, quote),
    "xml": ("text/xml", lambda text: f"<a><page>{KEPT}</page><x>{escape(text)}</x></a>"),
    "attribute": ("text/html", lambda text: f'<a page="{KEPT}" x="{escape(text)}"></a>'),
    "parts": ("multipart/form-data; boundary=B", lambda text: parts((named("page"), KEPT), (named("x"), text))),
    "lines": ("text/plain", lambda text: f"page {KEPT}\n{text}\n"),
}
CORES = [
    json.dumps({"page": KEPT, "access_token": SECRET}),
    f"page={KEPT}&password={SECRET}",
    f"<a><page>{KEPT}</page><secret>{SECRET}</secret></a>",
    parts((named("page"), KEPT), (named("password"), SECRET)),
    f"page: {KEPT}\npassword: {SECRET}",
]


@pytest.mark.threat(82)
@given(st.sampled_from(CORES), st.lists(st.sampled_from(list(LAYERS)), min_size=1, max_size=4))
def test_082_a_secret_with_a_name_is_masked_in_a_text_in_a_text(core: str, layers: list[str]) -> None:
    """Whatever they are."""
    text, content_type = core, ""
    for layer in layers:
        content_type, put = LAYERS[layer]
        text = put(text)
    assert SECRET not in without_members(text, content_type.encode())


@given(
    st.lists(st.sampled_from([*"\"\\{}[]<>=&%:'/ \n\t\r-;é", "token", "a", "%2", "\\u00", "&#", "--B", "\ud800"])),
    st.sampled_from(["", FORM, "text/xml", "multipart/form-data; boundary=B", "multipart/x; boundary*0*=%"]),
)
def test_no_text_is_too_odd(pieces: list[str], content_type: str) -> None:
    """Nothing is raised."""
    without_members("".join(pieces), content_type.encode())


@pytest.mark.threat(82)
def test_082_a_token_that_holds_a_name_is_masked_whole() -> None:
    """A name in the middle of what is known does not make the first half something that is not."""
    redactor = Redactor()
    redactor.register(Secret("first-half/pass=second-half"))
    shown = part(b"see first-half/pass=second-half", redactor, cut=False)
    assert shown["text"] == "see ***"


@pytest.mark.threat(82)
@pytest.mark.parametrize("secret", ["pässwort-geheim-4711", "€uro-geheim-4711"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("before", [b"\0", b"\xff", b"\0\xff\0"])
def test_082_a_token_beyond_ascii_is_known_in_bytes_that_are_no_text(
    secret: str, encoding: str, before: bytes
) -> None:
    """Whatever stands in front of it, and in whatever encoding it is."""
    redactor = Redactor()
    redactor.register(Secret(secret))
    shown = part(before + secret.encode(encoding), redactor, cut=False)
    assert (shown["text"], shown["base64"]) == (None, None)


@pytest.mark.threat(82)
@pytest.mark.parametrize(
    "text", ["Bearer H4sIAAAAAAAAAAAAAAAA.rest-of-it-4711", "ya29.eJaaaaaaaaaaaaaaaa.rest-of-it-4711"]
)
def test_082_a_credential_that_looks_packed_is_masked_whole(text: str) -> None:
    """What is packed is cut out of the rest, and is not the beginning of a token alone."""
    assert "rest-of-it" not in part(text.encode(), Redactor(), cut=False)["text"]


@pytest.mark.threat(82)
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/xml", f"<u>José</u><password>{SECRET}</password>"),
        ("application/json", f'{{"u": "José", "api_key": "{SECRET}"}}'),
        (FORM, f"u=José&otp={SECRET}"),
    ],
)
def test_082_bytes_that_are_no_text_are_looked_through_as_well(content_type: str, text: str, encoding: str) -> None:
    """Nothing of them is kept, since it would be shown as it came."""
    shown = part(text.encode(encoding), Redactor(), cut=False, content_type=content_type.encode())
    assert (shown["text"], shown["base64"]) == (None, None)
    assert shown["note"] == "not kept: these bytes hold something that is masked"


@pytest.mark.parametrize("text", [ONE, json.dumps({"body": ONE, "page": [1, {"token": SECRET}]})])
def test_what_is_masked_is_still_json(text: str) -> None:
    """The page indents it."""
    shown = part(text.encode(), Redactor(), cut=False, content_type=b"application/json")["text"]
    assert json.loads(shown).keys() == json.loads(text).keys()


@pytest.mark.parametrize("content_type", ["application/json", "text/html", FORM])
@pytest.mark.parametrize(
    "text",
    [
        'page=1&size="a\\"&<b class="x">y</b>\\\\"{"a": "b"}&=&',
        '{"token": null, "password": true, "author": "a", "path": "https://x/y%20z?a=b&c=d"}',
        "<p>Your password:</p><p>it's <b and the token</p>",
        '{"token_type": "Bearer", "token_endpoint": "https://x/", "total_tokens": 3}',
        '<body id="session"><p>kept</p></body>',
        '{"tokenize": "a", "tokenType": "Bearer", "totalTokens": "3", "userPassed": "a", "oAuth": "a"}',
        "secret_scanning: enabled\ncompass: north\nsecretary: Ann",
        '{"type": "session.updated", "data": {"page": 1}}',
        "mail me@example.com, see https://x/@me or git@h:a/b",
        "- name: X\n  valueFrom:\n- name: U\n  value: a",
    ],
)
def test_what_holds_no_secret_stays_byte_for_byte(content_type: str, text: str) -> None:
    """Also where it is nearly something else."""
    assert without_members(text, content_type.encode()) == text


@pytest.mark.threat(82)
@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("", json.dumps({"userPass": SECRET, "page": KEPT})),
        ("", json.dumps({"dbPin": SECRET, "page": KEPT})),
        (FORM, f"clientAuth={SECRET}&page={KEPT}"),
        ("text/xml", f"<a><cardCvv>{SECRET}</cardCvv><page>{KEPT}</page></a>"),
        ("", f"of {KEPT} userPass={SECRET} 1"),
        (FORM, f"page={KEPT}&u=https%3A%2F%2Fa%3A{SECRET}%40h"),
        ("", f"go to https://a:{SECRET}@h/ {KEPT}"),
        ("", f"redis://:{SECRET}@h {KEPT}"),
        ("", f"https://{SECRET}@h/ {KEPT}"),
        ("", json.dumps({"url": f"postgres://a:{SECRET}@h/b", "page": KEPT}).replace("/", "\\/")),
        ("", f"<a href='https://a:{SECRET}@h'>{KEPT}</a>"),
        (FORM, f"name=password&value={SECRET}&page={KEPT}"),
        (FORM, f"a%5Bvalue%5D={SECRET}&a%5Bname%5D=password&page={KEPT}"),
        (
            "",
            json.dumps(
                [{"value": {"data": [SECRET]}, "meta": {}, "name": "DB_PASSWORD"}, {"name": "u", "value": KEPT}]
            ),
        ),
        ("", f"f({{name: 'password', value: '{SECRET}'}}, {{name: 'u', value: '{KEPT}'}})"),
        ("", f"env:\n- name: DB_PASSWORD\n  value: {SECRET} {SECRET}\n- name: U\n  value: {KEPT}\n"),
        ("", f"env:\n- value: {SECRET}\n  name: DB_PASSWORD\n- value: {KEPT}\n  name: U\n"),
        ("", f"a:\n  credentials:\n    user: me\n    v:\n\n    - {SECRET}\n  page: {KEPT}\n"),
        ("", f"tokens:\n- a\n- {SECRET}\npage: {KEPT}\n"),
        ("", f"- password: one\n    {SECRET}\n  page: {KEPT}\n"),
    ],
)
def test_082_a_secret_is_known_by_a_part_of_its_name_a_name_beside_it_and_its_place(
    content_type: str, text: str
) -> None:
    """In camel case, in pairs of a name and a value, in addresses, and in what YAML puts below a name."""
    masked = without_members(text, content_type.encode())
    assert SECRET not in masked
    assert KEPT in masked
    assert "***" in masked


@pytest.mark.threat(82)
def test_082_a_value_that_is_no_text_is_masked_beside_its_name() -> None:
    """And stays JSON."""
    shown = without_members(json.dumps([{"name": "pin", "meta": {}, "value": value} for value in (4711, [4711])]))
    assert json.loads(shown) == [{"name": "pin", "meta": {}, "value": "***"}] * 2


#: Texts that are made to be looked at many times, or in many pieces.
HOSTILE = {
    "strings in strings": '"\\"token\\":1," ' * 8000,
    "elements in elements": "<a>&lt;token&gt;" * 8000,
    "forms in forms": "a=b%26token%3Da&" * 8000,
    "quotes": '"":' * 40_000,
    "names": "token=" * 20_000,
    "brackets": '{"value":' * 15_000,
    "tags": "<a b=c>" * 20_000,
    "parts": "--B\r\ncontent-a: b\r\n\r\n" * 5000,
}


@pytest.mark.threat(82)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("content_type", [FORM, "text/plain", "multipart/form-data; boundary=B"])
def test_082_work_is_counted_and_what_makes_too_much_of_it_is_not_shown(text: str, content_type: str) -> None:
    """Each string, tag and name counts: nothing that is cut into many pieces is looked through for nothing."""
    with pytest.raises(TooMuchError):
        without_members(text, content_type.encode(), Effort(len(text) // 2))


@pytest.mark.threat(82)
def test_082_a_body_that_makes_too_much_work_is_not_kept() -> None:
    """Nothing of it, whether it is a text or not; its note says why."""
    text = b'"\\"token\\":\\"x\\"," ' * 50_000
    for data in (text, b"\0\xff" + text):
        shown = part(data, Redactor(), cut=False)
        assert (shown["text"], shown["base64"]) == (None, None)
        assert shown["note"] == "not kept: searching it would take too long"


def test_the_most_that_is_kept_of_a_usual_body_is_not_too_much() -> None:
    """A MiB of JSON, of lines and of YAML."""
    row = {"id": 12345, "name": "Some Person", "url": "https://x/y%20z?a=b&c=d", "text": 'A "word".\nNext: yes'}
    for text in (json.dumps(row), "2026-01-01 INFO id=1 path=/a?b=c status=200\n", "a:\n- name: b\n  value: c\n"):
        many = text * ((1 << 20) // len(text))
        assert part(many.encode(), Redactor(), cut=False)["text"] == many
