"""A captured request as a command of curl, for the proxy, which adds the token.

Law: what arrives is what came, as far as it is shown, and a first line says what is not.
"""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from proxy.admin.resend import PART_OF_BODY, announces_body, came, left_out, sendable

#: What curl adds by itself, to a request with a body of at least so many bytes. It expects 100 from 1 MiB on, in
#: older versions from 1 KiB on.
_OF_CURL: Final = {"User-Agent": 0, "Accept": 0, "Content-Type": 1, "Expect": 1024}
#: How a body comes; its length is for curl to count.
_FRAMING: Final = {"Transfer-Encoding": "chunked", "Expect": "100-continue"}
#: Linux takes 128 KiB in one argument (MAX_ARG_STRLEN, execve(2)).
_ARGUMENT_MOST: Final = 128_000
_WRITTEN_ANEW: Final = frozenset({"content-length", *map(str.lower, _FRAMING)})


def command(detail: Mapping[str, Any], url: str, *, needs_key: bool) -> str:
    """The command, with a line before it where it lacks something.

    `url` is where the proxy listens; `needs_key`: it asks for a client key, which is taken from $PROXY_KEY.
    """
    # Braces, brackets and dots are the request's own.
    words = ["curl", "-sS", "--globoff", "--path-as-is"]
    if url.startswith("unix:"):
        words += ["--unix-socket", url.removeprefix("unix:")]
        url = "http://localhost"
    if detail["method"] == "HEAD" and not detail["bytes_in"]:
        words.append("--head")
    elif detail["method"] != "GET" or detail["bytes_in"]:
        words += ["-X", detail["method"]]
    words.append(url + detail["path"] + ("?" + detail["query"] if detail["query"] else ""))
    for field in _fields(detail):
        words += ["-H", field]
    line = shlex.join(words)
    if needs_key:
        line += ' -H "X-Proxy-Key: $PROXY_KEY"'
    lacks = left_out(detail, {})
    body = (detail["request"] or {}).get("body")
    text = body["text"] if body and not body["truncated"] else None
    if text is not None and len(text.encode()) <= _ARGUMENT_MOST:
        line += " --data-raw " + shlex.quote(text)
    elif detail["bytes_in"]:
        line += " --data-binary @body"
        if PART_OF_BODY not in lacks:
            why = "no text" if text is None else "too long for a command"
            lacks.append(f"its body, which is {why}: put it into a file called body")
    first = f"# Left out, since it is masked or was not kept: {', '.join(lacks)}\n" if lacks else ""
    return f"{first}{line}\n"


def _fields(detail: Mapping[str, Any]) -> Iterator[str]:
    """As `-H` takes them: `NAME;` is a field without a value, `NAME:` keeps curl from adding it."""
    size = detail["bytes_in"]
    told = {name.lower() for name, *_ in came(detail)}
    fields = [(name, value) for name, value in sendable(detail) if name.lower() not in _WRITTEN_ANEW]
    if size:
        fields += [(name, value) for name, value in _FRAMING.items() if name.lower() in told]
    elif announces_body(came(detail)):
        fields.append(("Content-Length", "0"))
    yield from (f"{name}: {value}" if value else f"{name};" for name, value in fields)
    named = {name.lower() for name, _ in fields}
    yield from (f"{name}:" for name, least in _OF_CURL.items() if size >= least and name.lower() not in named)
