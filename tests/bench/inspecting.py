"""What the inspector costs with many exchanges: its memory, and its page in a real Chromium."""

import http.client
import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench import loads
from tests.bench.processes import Command, DidNotWork, Running, free_port, pinned
from tests.bench.proxies import Job, ours

KEY: Final = "the-key-of-the-bench-0123456789"
#: Exchanges that are kept, and where bodies are, so many, with so many bytes of each body.
MOST: Final = 5000
BODIES_KEPT: Final = 200
BODY_BYTES: Final = 64 << 10
_BODY: Final = json.dumps(
    [{"number": number, "name": f"thing {number}"} for number in range(BODY_BYTES // 32)]
).encode()
WIDTHS: Final = {1280: 800, 400: 800}
#: Requests a second while the page is looked at.
LIVE_RATE: Final = 200
#: A page that was just loaded is not what is measured.
SETTLED_SECONDS: Final = 1.0
#: So long may it take until what ended is written down, which has little of a processor.
WRITTEN_SECONDS: Final = 120.0
#: Scrolls from top to bottom and back, types into the filter, and notes each frame; in milliseconds.
SCENE: Final = """
async (seconds) => {
  const [grid, box] = [document.querySelector('.grid'), document.getElementById('filter')];
  const frames = [], long = [];
  const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((each) => each.duration)));
  observer.observe({ type: 'longtask' });
  const rows = () => document.querySelectorAll('.space .row').length;
  const filters = ['status:2xx', 'path:7', '-path:7', ''];
  let most = 0, bottom = 0, last = 0, typed = 0;
  const began = performance.now();
  await new Promise((done) => requestAnimationFrame(function frame(now) {
    if (last) frames.push(now - last);
    last = now;
    most = Math.max(most, rows());
    const part = (now - began) / 1000 / seconds;
    if (part >= 1) return done();
    const height = grid.scrollHeight - grid.clientHeight;
    if (part < 0.75) grid.scrollTop = height * (1 - Math.abs(1 - Math.max(0, part) / 0.375));
    else if (typed <= (part - 0.75) / 0.25 * filters.length) {
      box.value = filters[typed++];
      box.dispatchEvent(new Event('input'));
    }
    bottom = Math.max(bottom, grid.scrollTop / height);
    requestAnimationFrame(frame);
  }));
  observer.disconnect();
  const shown = Number(document.getElementById('count').textContent.match(/\\d+(?= exchanges)/)[0]);
  return { frames, long: long.length, rows: most, bottom, shown };
}
"""


def keeping(exchanges: int, bodies: int = 0) -> Callable[[Job], Command]:
    """Ours that keeps so many exchanges, and so many bytes of each body; its admin listener has a known key."""

    def start(job: Job) -> Command:
        command = ours(job)
        path = Path(command.arguments[-1])
        config = json.loads(path.read_text())
        config["admin"] = {
            "listen": f"127.0.0.1:{free_port()}",
            "key": KEY,
            "inspector": {"exchanges": exchanges, "bodies": bodies},
        }
        path.write_text(json.dumps(config, indent=1))
        # It holds a key.
        path.chmod(0o600)
        return command

    return start


def with_bodies(number: int) -> bytes:
    """A request that is answered with its own body."""
    return loads.message("POST", f"/echo/{number}", ("Content-Type: application/json",), _BODY)


class Filled:
    """Fills the ring of a proxy that `keeping` started from the configuration in `folder`, over its port."""

    def __init__(self, running: Running, folder: Path | None, messages: Callable[[int], bytes]) -> None:
        if folder is None:
            raise DidNotWork("only ours has an inspector")
        self.running = running
        self.admin = str(json.loads((folder / "ours.yaml").read_text())["admin"]["listen"])
        self._messages = messages
        self._sent = itertools.count()

    def fill(self, count: int) -> None:
        """So many more requests, until all of them are written down."""
        before = self.state()["newest"]
        loads.one_by_one(self.running.port, (self._messages(next(self._sent)) for _ in range(count)))
        give_up_at = time.monotonic() + WRITTEN_SECONDS
        while self.state()["newest"] - before < count:
            if time.monotonic() > give_up_at:
                raise DidNotWork("not all exchanges were written down")
        state = self.state()
        if state["kept"] < min(count, state["capacity"]):
            raise DidNotWork(f"of {count} exchanges {state['kept']} are kept")

    def state(self) -> dict[str, int]:
        """How many are `kept` of its `capacity`, and the number of the `newest`; who asks has more written down."""
        connection = http.client.HTTPConnection(self.admin, timeout=loads.PATIENCE_SECONDS)
        connection.request("GET", "/api/exchanges?limit=1", headers={"Authorization": f"Bearer {KEY}"})
        found = json.loads(connection.getresponse().read())
        connection.close()
        path = found["exchanges"][0]["path"] if found["exchanges"] else "/-1"
        return {"kept": found["kept"], "capacity": found["capacity"], "newest": int(path.rpartition("/")[2] or -1)}

    @contextmanager
    def live(self, rate: int) -> Iterator[None]:
        """So many requests a second until the block ends."""
        is_over = threading.Event()

        def paced() -> Iterator[bytes]:
            began_at = time.monotonic()
            for number in itertools.count():
                if is_over.wait(max(0.0, began_at + number / rate - time.monotonic())):
                    return
                yield self._messages(next(self._sent))

        thread = threading.Thread(target=loads.one_by_one, args=(self.running.port, paced()))
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def memory(filled: Filled, count: int) -> Mapping[str, float]:
    """Of each of `count` exchanges in KiB, and in MiB what more comes with those that take their places.

    The first that are pushed out leave holes that the next ones do not fill wholly, so it is filled twice before.
    """
    loads.one_by_one(filled.running.port, itertools.repeat(loads.message("GET", "/small/"), 20))
    before = filled.running.resident()
    filled.fill(count)
    filled.fill(count)
    twice = filled.running.resident()
    filled.fill(count)
    return {
        "kept": (twice - before) / count / 1024,
        "kept growth": (filled.running.resident() - twice) / (1 << 20),
    }


def page(filled: Filled, chromium: str, cores: frozenset[int], count: int, seconds: int) -> Mapping[str, float]:
    """What frames take while a page with `count` exchanges is scrolled and filtered, wide and narrow."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise DidNotWork("Playwright is not installed") from error
    filled.fill(count)
    found: dict[str, float] = {}
    # A browser does not get on with a core that it has to share with a load.
    with pinned(cores), sync_playwright() as driver, filled.live(LIVE_RATE):
        browser = driver.chromium.launch(executable_path=chromium)
        for width, height in WIDTHS.items():
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.goto(f"http://{filled.admin}/?key={KEY}")
            tab.locator(".space .row").first.wait_for()
            tab.wait_for_timeout(SETTLED_SECONDS * 1000)
            found |= {
                f"page {width} {name}": value for name, value in frames(tab.evaluate(SCENE, seconds), count).items()
            }
            tab.close()
        browser.close()
    return found


def frames(seen: Mapping[str, Any], count: int) -> Mapping[str, float]:
    """What `SCENE` saw, in milliseconds and pieces. Raises `DidNotWork` where that was not all of `count`."""
    if seen["bottom"] < 0.95 or seen["shown"] < count:
        raise DidNotWork(f"the page showed {seen['shown']} exchanges, and was scrolled by {seen['bottom']:.2f}")
    each = sorted(seen["frames"])
    return {
        "median": statistics.median(each),
        "p95": each[min(len(each) - 1, int(len(each) * 0.95))],
        "worst": each[-1],
        "long": seen["long"],
        "rows": seen["rows"],
    }
