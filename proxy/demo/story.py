"""The story of the demonstration: each scene asks through the proxy like any client, and checks what comes."""

import hashlib
import json
from typing import Final
from urllib.parse import unquote

from proxy.demo.plain import AT_ONCE, Request, send
from proxy.demo.scene import Play, Scene

CALLS: Final = "/tracker/calls"
CUSTOMERS: Final = "/crm/customers"
ME: Final = "users/me"
BODY_LINES: Final = 20_000
EVIL: Final = "evil.example"
#: So many characters of a secret give it away.
FRAGMENT: Final = 12


async def first_call(scene: Scene) -> None:
    """Nobody has a token yet."""
    answer = await scene.get(CALLS)
    scene.expect("the client gets its answer", answer.status, 200)
    scene.expect_seen("one login, then the request", "POST /auth/login 200", "GET /calls 200")


async def second_call(scene: Scene) -> None:
    """The token is used again."""
    answer = await scene.get(CALLS)
    scene.expect("the client gets its answer", answer.status, 200)
    scene.expect_seen("no further token request", "GET /calls 200")


async def expired(scene: Scene) -> None:
    """The vendor ends the token before its time."""
    await _expired(scene, 401)


async def forbidden(scene: Scene) -> None:
    """The same, said with the other status."""
    scene.stage.cast.tracker.set(refusal_status=403)
    await _expired(scene, 403)


async def _expired(scene: Scene, status: int) -> None:
    scene.stage.cast.tracker.expire()
    answer = await scene.get(CALLS)
    scene.expect("the client notices nothing", answer.status, 200)
    scene.expect_seen(
        "refused, refreshed, repeated", f"GET /calls {status}", "POST /auth/refresh 200", "GET /calls 200"
    )


async def rotated(scene: Scene) -> None:
    """Each refresh uses the refresh token of the one before."""
    tracker = scene.stage.cast.tracker
    tracker.expire()
    answer = await scene.get(CALLS)
    scene.expect("the client notices nothing", answer.status, 200)
    scene.expect("token requests so far", dict(tracker.token_requests), {"login": 1, "refresh": 3})
    scene.expect("refresh tokens that were used twice", tracker.refresh_reuses, 0)
    [report] = [each for each in scene.stage.instance.reports() if each.name == "tracker"]
    scene.expect("the proxy and the vendor count the same generation", report.generation, tracker.generation)


async def body_repeated(scene: Scene) -> None:
    """The body is kept while it is sent, so that it can be sent again."""
    scene.stage.cast.tracker.expire()
    request = Request("/tracker/echo-size", "POST", lines=BODY_LINES)
    [answer] = await scene.ask(request)
    came = json.loads(answer.body)["data"][0]
    digest = hashlib.sha256(request.body or b"").hexdigest()
    scene.expect_seen(
        "refused, refreshed, repeated",
        "POST /echo-size 403",
        "POST /auth/refresh 200",
        "POST /echo-size 200",
    )
    scene.expect("the SHA-256 of what the upstream read", came["sha256"], digest)


async def all_at_once(scene: Scene) -> None:
    """Many requests meet one expired token."""
    tracker = scene.stage.cast.tracker
    before = tracker.token_requests.total()
    tracker.expire()
    answers = await scene.ask(Request(CALLS, times=AT_ONCE))
    scene.expect("answers that are not 200", [each.status for each in answers if each.status != 200], [])
    scene.expect("token requests for all of them", tracker.token_requests.total() - before, 1)


async def minutes(scene: Scene) -> None:
    """A lifetime in minutes."""
    answer = await scene.get(CUSTOMERS)
    scene.expect("the client gets its answer", answer.status, 200)
    scene.expect_seen("one login, then the request", "POST /token 200", "GET /customers 200")
    [report] = [each for each in scene.stage.instance.reports() if each.name == "crm"]
    scene.expect("minutes that the token is good for", round((report.expires_in or 0) / 60), 120)


async def logs_in_again(scene: Scene) -> None:
    """No refresh token: the login is the refresh."""
    scene.stage.cast.crm.expire()
    answer = await scene.get(CUSTOMERS)
    scene.expect("the client notices nothing", answer.status, 200)
    scene.expect_seen("refused, logged in, repeated", "GET /customers 401", "POST /token 200", "GET /customers 200")


async def in_header(scene: Scene) -> None:
    """A personal access token."""
    answer = await scene.get(f"/community/api/v2/{ME}")
    scene.expect("the client is a member", json.loads(answer.body).get("name"), "member")
    scene.expect("the token's places", [each.places for each in scene.seen], [("header:authorization",)])


async def in_query(scene: Scene) -> None:
    """The same kind of token in its other place."""
    answer = await scene.get(f"/forum/api/v2/{ME}")
    scene.expect("the client is a member", json.loads(answer.body).get("name"), "member")
    scene.expect("the token's places", [each.places for each in scene.seen], [("query:access_token",)])


async def stray(scene: Scene) -> None:
    """A client's own parameter must not win over the header."""
    answer = await scene.get(f"/community/api/v2/{ME}?access_token=stray&page=1")
    scene.expect("the client is a member", json.loads(answer.body).get("name"), "member")
    scene.expect("what the upstream was asked", [each.target for each in scene.seen], [f"/api/v2/{ME}?page=1"])


async def revoked(scene: Scene) -> None:
    """The vendor's own web page is where a member revokes a token; here it is done behind the proxy's back."""
    stage = scene.stage
    revoke = {"Authorization": f"Bearer {stage.environ['VANILLA_OTHER_TOKEN']}"}
    [gone] = await send(Request("/api/v2/tokens/2", "DELETE", revoke), stage.upstreams[2])
    scene.expect("the vendor revokes the token", gone.status, 204)
    answer = await scene.get("/forum/api/v2/discussions")
    scene.expect("the vendor serves a guest", answer.status, 200)
    scene.expect("discussions that a guest sees", len(json.loads(answer.body)), 1)
    scene.expect(
        "the proxy says why",
        answer.headers.get("Proxy-Status"),
        'bearer-proxy; details="credential rejected"',
    )


async def web_page(scene: Scene) -> None:
    """Any page that a browser shows can send requests to loopback."""
    await _refused(scene, {"Origin": f"https://{EVIL}"}, "origin_not_allowed")


async def wrong_host(scene: Scene) -> None:
    """DNS rebinding: a foreign name that points to this machine."""
    await _refused(scene, {"Host": EVIL}, "host_not_allowed")


async def _refused(scene: Scene, headers: dict[str, str], code: str) -> None:
    answer = await scene.get(CALLS, headers)
    scene.expect("the proxy refuses", (answer.status, json.loads(answer.body).get("code")), (403, code))
    scene.expect_seen("the upstream sees nothing")


async def nothing_leaked(scene: Scene) -> None:
    """The search of everything a person saw."""
    text = scene.so_far + scene.stage.log.getvalue()
    readings = text, unquote(text), text.replace("\n", "").replace(" ", "")
    secrets = scene.stage.secrets()
    # A body is cut where it is too long to be shown, so that either end of a secret counts.
    found = [
        name
        for name, value in secrets.items()
        if any(part in reading for part in (value[:FRAGMENT], value[-FRAGMENT:]) for reading in readings)
    ]
    control = "found" if all(CALLS in reading for reading in readings) else "missing"
    scene.expect("the path of the first step, searched for in the same way", control, "found")
    scene.expect(f"of {len(secrets)} passwords and tokens, those that were shown", found, [])


STORY: Final[tuple[tuple[str, str, Play], ...]] = (
    ("The first call logs in", "The client knows no password; the proxy does.", first_call),
    ("The second call uses the same token", "No token request, and no wait.", second_call),
    ("The token expires", "TeleTracker ends it early and answers 401. The client must not see that.", expired),
    ("The same, with a 403", "Its document allows either status for an expired token.", forbidden),
    ("The refresh token rotates", "Each is good for one use; a second use would fail.", rotated),
    ("A POST is repeated with its body", "The upstream refuses it after the body was sent.", body_repeated),
    ("Many calls at once on an expired token", "All of them wait for the same token request.", all_at_once),
    ("MainBrainer counts in minutes", "Its answer says expires_in: 120, which are two hours.", minutes),
    ("MainBrainer has no refresh token", "So the proxy logs in again.", logs_in_again),
    ("Vanilla: a personal access token in the header", "Made by a person, good for years.", in_header),
    ("Vanilla: the same in the query", "For what cannot send headers. The log shows names only.", in_query),
    ("A stray access_token of the client", "At Vanilla the query would win over the header, so it is cut.", stray),
    (
        "A revoked token",
        "Vanilla then answers 200 as to a guest. A client would not notice; so it is told.",
        revoked,
    ),
    ("A web page calls the proxy", "A page of another origin must not act with your token.", web_page),
    ("A wrong Host", "A name that an attacker points to this machine (DNS rebinding).", wrong_host),
    ("Nothing leaked", "Everything above and the whole log, searched for each secret.", nothing_leaked),
)
