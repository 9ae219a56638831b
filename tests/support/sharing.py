"""Fixtures for processes that share a store on disk, and a vendor with strict rotation."""

import base64
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.teletracker import TeleTracker
from tests.support.leaks import Canaries
from tests.support.vendors import Vendor


@pytest.fixture
def shared(tmp_path: Path, tracker: Vendor[TeleTracker], canaries: Canaries) -> dict[str, Any]:
    """The configuration of all of them."""
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    path = tmp_path / "store.key"
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(canaries.mint("token")[:32].encode()).decode())
    # These are real processes: nobody moves their clocks.
    return {**tracker.config, "store": {"kind": "file", "path": str(folder), "key": {"file": str(path)}}}
