"""Says whether the running instance is ready, for containers without curl.

Standard library only: this must end within 100 ms, and it runs every few seconds.
"""

import argparse
import json
import os
import sys

from proxy import adminclient, runfile
from proxy.errors import BearerProxyError

#: A listener that needs longer than this for a probe is not ready.
WAIT_SECONDS = 2.0


def main(arguments: list[str]) -> int:
    """`bearer-proxy healthcheck` with its arguments; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="bearer-proxy healthcheck",
        description="Exit with 0 if the running instance is ready, else say why not and exit with 1.",
    )
    parser.add_argument("-c", "--config", metavar="PATH", help="the configuration file of the instance")
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error("there are no other arguments")  # they are not repeated: one may be a secret
    return check(given.config, as_json=given.json)


def check(config: str | None, *, as_json: bool) -> int:
    """Ask the instance of `config` (None: the usual search), print one sentence, give the exit status."""
    why = why_not_ready(config)
    if as_json:
        print(json.dumps({"ready": why is None, "why": why}))
    elif why is None:
        print("ready")
    else:
        print(why, file=sys.stderr)
    return 0 if why is None else 1


def why_not_ready(config: str | None) -> str | None:
    """One sentence that says why the instance of `config` is not ready; None where it is."""
    try:
        running = runfile.find(config, os.environ)
        status, answer = adminclient.ask(running, "GET", "/readyz", wait=WAIT_SECONDS)
    except BearerProxyError as error:
        return str(error)
    if status == 200:
        return None
    if answer.get("draining"):
        return "not ready: it is draining"
    return "not ready: " + " ".join(map(str, dict(answer.get("credentials") or {}).values()))
