"""What the journal holds as HAR 1.2, which browsers' own tools and others read.

Source: http://www.softwareishard.com/blog/har-12-spec/
"""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

from proxy import __version__

#: What clients get: the upstream's own are not passed on.
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


def har(details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A HAR document of these exchanges, as the journal has them, the oldest first."""
    creator = {"name": "bearer-proxy", "version": __version__}
    return {"log": {"version": "1.2", "creator": creator, "entries": [_entry(each) for each in details]}}


def _entry(detail: Mapping[str, Any]) -> dict[str, Any]:
    timing = detail["timing"]
    asked = detail["request"] or {"http": "1.1", "fields": [], "body": None}
    upstream = next((each["upstream"] for each in detail["attempts"] if each["upstream"]), "http://localhost")
    query = detail["query"]
    wait, receive = timing["first_byte_ms"] or 0.0, timing["body_ms"] or 0.0
    return {
        "startedDateTime": detail["at"],
        "time": detail["ms"],
        "request": {
            "method": detail["method"],
            "url": upstream + detail["path"] + (f"?{query}" if query else ""),
            "httpVersion": f"HTTP/{asked['http']}",
            "cookies": [],
            "headers": _headers(asked["fields"]),
            "queryString": [
                {"name": name, "value": value} for name, value in parse_qsl(query, keep_blank_values=True)
            ],
            "headersSize": -1,
            "bodySize": detail["bytes_in"],
            **_posted(asked["body"]),
        },
        "response": {
            "status": detail["status"],
            "statusText": _PHRASES.get(detail["status"], ""),
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": _headers(detail["response"]["fields"]),
            "content": _content(detail["response"]["body"], detail["bytes_out"]),
            "redirectURL": "",
            "headersSize": -1,
            "bodySize": detail["bytes_out"],
        },
        "cache": {},
        "timings": {
            "blocked": detail["token_wait_ms"],
            "connect": timing["connect_ms"] or -1,
            "send": 0,
            "wait": wait,
            "receive": receive,
        },
        "comment": detail["why"],
        **_refused(detail["attempts"][:-1]),
    }


def _refused(attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Answers that nobody got, since the request was sent once more; the format has no place for them."""
    answers = [
        {
            "status": each["status"],
            "headers": _headers(each["answer"]),
            "content": _content(each["body"], -1),
        }
        for each in attempts
    ]
    return {"_refused": answers} if answers else {}


def _headers(fields: Iterable[Sequence[str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value, **({"comment": note} if note else {})} for name, value, note in fields]


def _posted(body: Mapping[str, Any] | None) -> dict[str, Any]:
    if not body or body["text"] is None:
        return {}
    return {"postData": {"mimeType": body["type"], "text": body["text"], **_cut(body)}}


def _content(body: Mapping[str, Any] | None, size: int) -> dict[str, Any]:
    if not body:
        return {"size": size, "mimeType": ""}
    content = {"size": body["bytes"], "mimeType": body["type"], **_cut(body)}
    if body["text"] is not None:
        return {**content, "text": body["text"]}
    return {**content, "text": body["base64"], "encoding": "base64"} if body["base64"] else content


def _cut(body: Mapping[str, Any]) -> dict[str, str]:
    said = [f"cut at {body['kept']} bytes"] if body["truncated"] else []
    said += [body["note"]] if body["note"] else []
    return {"comment": "; ".join(said)} if said else {}
