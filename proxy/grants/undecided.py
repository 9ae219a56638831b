"""What an answer that gives no token leaves open: was the refresh token redeemed, and what came in its place?

A server that ends the whole family of a refresh token that comes twice (RFC 9700 section 4.14) may have rotated it
before something behind it, or on the way, failed.
"""

from proxy.grants.login import ResponseRules
from proxy.grants.reply import InvalidReply, RejectedReply, is_from_between, read
from proxy.grants.request import TokenReply
from proxy.redact import Secret


def is_undecided(reply: TokenReply) -> bool:
    """May the server have done what it was asked all the same?

    1. 403 with a page: whoever stands between may have held back the server's own answer.
    2. Other 4xx, and 503: the server says that it did not (RFC 9110 sections 15.5, 15.6.4).
    3. Any other 5xx tells of a failure behind the server or before it; with 2xx and 3xx something was done.
    """
    return is_from_between(reply) or not (400 <= reply.status <= 499 or reply.status == 503)


def rotated(reply: TokenReply, rules: ResponseRules, *, now_wall: float) -> Secret | None:
    """The refresh token in a 2xx whose status was not expected."""
    if not 200 <= reply.status <= 299:
        return None
    try:
        return read(reply, rules, now_wall=now_wall).refresh_token
    except InvalidReply as error:
        return error.refresh_token
    except RejectedReply:
        return None
