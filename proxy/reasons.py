"""Why a field of a request stops, or came to be: in the words of `explain` and of the inspector.

Law: nothing is decided here. Whoever asks has seen what crossed; only the reasons are worked out.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from proxy.fields import canonical
from proxy.headers import (
    ALWAYS_DROPPED,
    CLIENT_KEY_HEADER,
    FORWARDING,
    FRAMING,
    HOP_BY_HOP,
    OLD_DESTINATION,
    OUR_COOKIES,
    Stripping,
)
from proxy.injection import Place

KEY_IS_OURS: Final = "the client key is for the proxy alone"
HOLDS_KEY: Final = "a client key stands in it"
OF_THIS_CONNECTION: Final = "it is about this connection alone"
CONNECTION_NAMES_IT: Final = "Connection names it"
NAMED_THE_PROXY: Final = "it named the proxy"
WITH_THE_UPSTREAMS_NAME: Final = "the client's, with the upstream's name in place of the proxy's"
_OF_THE_BODY: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})
#: Those that stop whatever the route says.
_ON_EVERY_ROUTE: Final = {
    OLD_DESTINATION: "it may name a place that no rule judged",
    **dict.fromkeys(FORWARDING, "only a proxy may say it"),
    **dict.fromkeys(FRAMING, "it is written anew"),
    **dict.fromkeys(HOP_BY_HOP, OF_THIS_CONNECTION),
}
_OF_A_HANDSHAKE: Final = frozenset({b"connection", b"upgrade"})


class Reasons:
    """What the fields of a request met on their way.

    `options` are those of its Connection; `owner` is the credential that stands in `places`; `strip` is what was
    taken out, `bare` what of it the route takes out by itself; `constants` are the lines of `headers.set`, `host`
    is `host_header`.
    """

    __slots__ = ("authorization_is_key", "bare", "constants", "host", "options", "owner", "places", "strip")

    def __init__(
        self,
        *,
        options: frozenset[bytes],
        owner: str,
        places: Sequence[Place],
        strip: Stripping,
        bare: Stripping,
        constants: bytes,
        host: str,
        authorization_is_key: bool,
    ) -> None:
        self.options = options
        self.owner = owner
        self.places = places
        self.strip = strip
        self.bare = bare
        self.constants = constants
        self.host = host
        self.authorization_is_key = authorization_is_key

    def why_dropped(self, lower: bytes, *, named_proxy: bool) -> str:
        """Most telling first; `named_proxy`: it went on, with the upstream's name in place of ours."""
        name = canonical(lower)
        if name == CLIENT_KEY_HEADER or (name == b"authorization" and self.authorization_is_key):
            return KEY_IS_OURS
        if self._is_filled(name):
            return f"that of credential {self.owner} stands in its place"
        if (why := _ON_EVERY_ROUTE.get(name)) is not None:
            return why
        if lower in self.options:
            return CONNECTION_NAMES_IT
        return self._by_the_route(name) or (NAMED_THE_PROXY if named_proxy else HOLDS_KEY)

    def _by_the_route(self, name: bytes) -> str:
        if name in self._set():
            return "headers.set of the route"
        if name in self.bare.names and name not in ALWAYS_DROPPED:
            return "headers.remove of the route"
        return f"credential {self.owner} lets no other go along" if name in self.strip.names else ""

    def why_cookie_dropped(self, name: bytes) -> str:
        """Of one cookie."""
        if b"cookie" in self.strip.names or b"cookie" in self.options:
            return self.why_dropped(b"cookie", named_proxy=False)
        if name.lower().startswith(OUR_COOKIES):
            return "the proxy's own stay here"
        if name in self.strip.cookies:
            return f"that of credential {self.owner} stands in its place"
        return HOLDS_KEY

    def why_added(self, line: bytes) -> str:
        """Of a line that the client did not send, or not so."""
        lower = line.partition(b":")[0].lower()
        if lower == b"host":
            return f"host_header: {self.host}"
        if lower in _OF_THE_BODY:
            return "how the body is framed"
        if self.constants.find(line + b"\r\n") >= 0:
            return "headers.set of the route"
        if lower in FORWARDING:
            return "forwarded: true"
        return "the WebSocket handshake" if lower in _OF_A_HANDSHAKE else WITH_THE_UPSTREAMS_NAME

    def _is_filled(self, name: bytes) -> bool:
        """Does a credential stand in the field of this name?"""
        return any(place.kind == "header" and canonical(place.name.encode()) == name for place in self.places)

    def _set(self) -> Iterator[bytes]:
        return (canonical(line.partition(b":")[0]) for line in self.constants.split(b"\r\n") if line)


def cookie_names(values: Iterable[bytes]) -> Iterator[bytes]:
    """The names of the cookies in these fields."""
    for value in values:
        for pair in value.split(b";"):
            if name := pair.partition(b"=")[0].strip(b" \t"):
                yield name
