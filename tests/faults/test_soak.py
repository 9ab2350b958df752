"""A short soak: what the long one (`python tests/faults/soak.py`) watches, in a minute."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .soak import FILES_MORE, WAL_MAX, Soak, prepared

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")]

REQUESTS = 2000
GROWTH_MAX = 40  # MB after the warm-up; the process is young, and its memory still settles


def test_many_mixed_requests_leave_the_process_as_it_was(tmp_path: Path) -> None:
    with prepared(tmp_path / "data") as site:
        soak = Soak(site, REQUESTS, lambda _: None).run()
    assert soak.wrong == []
    assert soak.failures() == 0
    assert sum(soak.statuses.values()) == REQUESTS
    assert soak.more_files() <= FILES_MORE
    assert soak.largest_wal() <= WAL_MAX
    assert soak.moments[-1].memory - soak.moments[4].memory < GROWTH_MAX
