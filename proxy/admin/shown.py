"""What the inspector shows of a message: fields by a list of what is harmless, everything else by its length.

Law: what is not known to be harmless is not kept, whatever it is called; what is kept is masked by value besides,
since a secret may stand anywhere (threat 82).
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.admin.secretnames import without_userinfo
from proxy.fields import Field
from proxy.headers import CLIENT_KEY_HEADER
from proxy.names import shown_words
from proxy.reasons import KEY_IS_OURS
from proxy.redact import MASK, Redactor, printable

#: Fields whose values are shown: those of HTTP itself (RFC 9110 to 9112, Fetch), and what services say of
#: themselves and of limits. None of them is made to carry a credential.
SHOWN: Final = frozenset(
    b"""
    accept accept-charset accept-encoding accept-language accept-patch accept-post accept-ranges age allow alt-svc
    cache-control cf-cache-status cf-ray connection content-disposition content-encoding content-language
    content-length content-location content-range content-security-policy content-type date deprecation dnt etag
    expect expires forwarded from host if-match if-modified-since if-none-match if-range if-unmodified-since
    idempotency-key keep-alive last-modified link location max-forwards origin pragma prefer preference-applied
    priority proxy-status range ratelimit ratelimit-limit ratelimit-policy ratelimit-remaining ratelimit-reset
    referer referrer-policy request-id retry-after sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest
    sec-fetch-mode sec-fetch-site sec-fetch-user sec-websocket-extensions sec-websocket-protocol
    sec-websocket-version server server-timing strict-transport-security sunset te timing-allow-origin traceparent
    tracestate trailer transfer-encoding upgrade upgrade-insecure-requests user-agent vary via warning
    www-authenticate x-amzn-requestid x-amz-request-id x-cache x-content-type-options x-correlation-id
    x-forwarded-for x-forwarded-host x-forwarded-proto x-frame-options x-github-api-version
    x-github-media-type x-github-request-id x-http-method-override x-powered-by x-ratelimit-limit
    x-ratelimit-remaining x-ratelimit-reset x-ratelimit-resource x-ratelimit-used x-real-ip x-request-id
    x-requested-with x-robots-tag x-runtime x-total-count x-trace-id x-xss-protection
    """.split()
)
#: These are made to be random; longer ones are something else.
_IDENTIFIERS: Final = frozenset(
    b"""
    cf-ray etag idempotency-key if-match if-none-match request-id traceparent tracestate x-amz-request-id
    x-amzn-requestid x-correlation-id x-github-request-id x-request-id x-trace-id
    """.split()
)
_IDENTIFIER_MOST: Final = 80
#: Of these the query is shown as other queries are.
_REFERENCES: Final = frozenset({b"content-location", b"link", b"location", b"referer"})
#: Names of parameters whose values are shown: pages, sorts, filters. What is not among these may be a key.
_PARAMETERS: Final = frozenset(
    b"""
    after before count cursor direction expand fields filter format from include lang language limit locale offset
    order orderby order_by page page_size pagesize per_page perpage q query search since size skip sort sort_by
    start state status to top type until version view
    """.split()
)
NOT_LISTED: Final = "masked: only fields known to be harmless are shown"
#: Also where nothing crossed: whoever repeats the request adds the key, so nothing of it is missing.
_OF_THE_PROXY: Final = f"dropped: {KEY_IS_OURS}"
#: Masked, escaped or cut: what has a note is not what came, so nobody takes it for that.
IN_PART: Final = "masked: not all of it is shown as it came"
#: What became of a field. The page shows the word before the colon; what begins otherwise was rewritten.
DROPPED: Final = "dropped: "
ADDED: Final = "added: "
REWRITTEN: Final = "rewritten: "
ANEW: Final = "written anew"
#: More of one value tells a reader nothing; what is cut ends in a mask.
_VALUE_MOST: Final = 2048
#: Behind `HTTP/1.1 200 `.
_REASON_AT: Final = 13

#: So many texts and fields are remembered, up to this length.
KEPT_TEXTS: Final = 2048
KEPT_LENGTH: Final = 256

#: Between the parts of a field, between fields, and between lists of them: what is shown is printable, so none of
#: these is in it.
_UNIT: Final = "\x1f"
_RECORD: Final = "\x1e"
_GROUP: Final = "\x1d"


class Shown:
    """A field as it may be shown: its name, its value, and a note or None; `packed` is all of it."""

    __slots__ = ("name", "note", "packed", "text")

    def __init__(self, name: str, text: str, note: str | None) -> None:
        self.name = name
        self.text = text
        self.note = note
        self.packed = f"{name}{_UNIT}{text}{_UNIT}{note or ''}"

    def so(self, fate: str) -> "Shown":
        """The same, and what became of it."""
        # A reader might take the value for all of it.
        is_in_part = self.note == IN_PART and fate != IN_PART
        return Shown(self.name, self.text, f"{fate}; {IN_PART}" if is_in_part else fate)


def packed(*groups: Iterable[Shown]) -> str:
    """Lists of fields in one text, which is far cheaper to write and to keep than they are."""
    return _GROUP.join([_RECORD.join([each.packed for each in group]) for group in groups])


def unpacked(text: str) -> list[list[tuple[str, str, str | None]]]:
    """The lists that were packed, of each field its name, its value, and its note or None."""
    return [[_parted(line) for line in group.split(_RECORD) if line] for group in text.split(_GROUP)]


def _parted(line: str) -> tuple[str, str, str | None]:
    name, text, note = line.split(_UNIT)
    return name, text, note or None


class Words:
    """Masks short texts and fields, and remembers those in which nothing was to be masked: heads repeat."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._edition = redactor.edition
        self._known = self._edition.number
        self._clean: set[str] = set()
        #: Fields by their lines, and their names.
        self._fields: dict[bytes, Shown] = {}
        self._names: dict[bytes, str] = {}

    @property
    def edition(self) -> int:
        """What was masked is masked still, and nothing more is to be, as long as this is the same."""
        return self._edition.number

    def text(self, text: str) -> str:
        """As the redactor masks it."""
        if self._known != self._edition.number:
            self._forget()
        if text in self._clean:
            return text
        masked = self._redactor.text(text)
        if masked == text and len(text) <= KEPT_LENGTH:
            if len(self._clean) >= KEPT_TEXTS:
                self._clean.clear()
            self._clean.add(text)
        return masked

    def field(self, field: Field) -> Shown:
        """A field as it may be shown, by its value or by its length."""
        if self._known != self._edition.number:
            self._forget()
        line = field[2]
        known = self._fields.get(line)
        if known is None:
            known = _field(field, self)
            if known.note is None and len(line) <= KEPT_LENGTH:
                if len(self._fields) >= KEPT_TEXTS:
                    self._fields.clear()
                self._fields[line] = known
        return known

    def name(self, name: bytes) -> str:
        """The name of one of the `field`s."""
        known = self._names.get(name)
        if known is None:
            known = clean(name, self)
            if len(name) <= KEPT_LENGTH and known == name.decode("latin-1"):
                if len(self._names) >= KEPT_TEXTS:
                    self._names.clear()
                self._names[name] = known
        return known

    def _forget(self) -> None:
        self._known = self._edition.number
        self._clean.clear()
        self._fields.clear()
        self._names.clear()


def fields(given: Iterable[Field], words: Words) -> list[Shown]:
    """Fields as they came."""
    return [words.field(field) for field in given]


def _field(field: Field, words: Words) -> Shown:
    lower, value, line = field
    name = line[: len(lower)]
    if lower in SHOWN:
        return _listed(lower, value, name, words)
    note = _OF_THE_PROXY if lower == CLIENT_KEY_HEADER else NOT_LISTED
    return Shown(words.name(name), f"{MASK} ({len(value)} bytes)", note)


def _listed(lower: bytes, value: bytes, name: bytes, words: Words) -> Shown:
    text = clean(_with_clean_query(value) if lower in _REFERENCES else value, words)
    # Whoever answers may repeat what a client said in any of these.
    is_name = lower in _IDENTIFIERS and len(value) <= _IDENTIFIER_MOST
    shown_name, shown = words.name(name), text if is_name else shown_words(text)
    is_whole = shown == value.decode("latin-1") and shown_name == name.decode("latin-1")
    return Shown(shown_name, shown, None if is_whole else IN_PART)


def _with_clean_query(value: bytes) -> bytes:
    address, mark, rest = value.partition(b"#")[0].partition(b"?")
    return address + mark + query(rest) if mark else address


def as_field(line: bytes) -> Field:
    """A field line that we wrote."""
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(), line


def split(block: bytes) -> list[Field]:
    """Field lines that we wrote, each with its end."""
    return [as_field(line) for line in block.split(b"\r\n")[:-1]]


def reason(head: bytes, words: Words) -> str:
    """The text behind the status of an answer (RFC 9112 section 4), which no client gets (threat 70)."""
    end = head.find(b"\r\n")
    return shown_words(clean(head[_REASON_AT:] if end < 0 else head[_REASON_AT:end], words))


def path(raw: bytes, words: Words) -> str:
    """A path as it may be shown."""
    return clean(raw, words)


def query(raw: bytes) -> bytes:
    """A query with the values of those parameters alone that are known to be harmless."""
    kept = []
    for parameter in raw.split(b"&"):
        name, mark, value = parameter.partition(b"=")
        plain = name if name.find(b"%") < 0 else unquote_to_bytes(name)
        is_shown = plain.lower() in _PARAMETERS or not value
        kept.append(parameter if is_shown else name + mark + MASK.encode())
    return b"&".join(kept)


def clean(raw: bytes, words: Words) -> str:
    """Text of printable characters, without a secret in it."""
    text = words.text(without_userinfo(raw[:_VALUE_MOST].decode("latin-1")))
    if not text.isascii() or not text.isprintable():
        # Escapes may spell a secret out.
        text = words.text(printable(text))
    return text if len(raw) <= _VALUE_MOST else text + MASK
