"""How long the long tests are: `make nightly` sets a variable."""

import os
from typing import Final

#: So many times as long as in `make test-slow`.
TIMES: Final = int(os.environ.get("BEARER_PROXY_TEST_TIMES", "1"))
