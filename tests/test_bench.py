"""The benchmark runs and tells everything that is asked of it; its figures are for a quiet machine, not for here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "bench" / "run.py"
QUICK = ["--posts", "60", "--seconds", "0.1", "--rounds", "1"]
# Read by each Python that the benchmark starts: twenty passwords hashed for real were a third of its work.
QUICK_HASHES = """
import hashlib
scrypt = hashlib.scrypt
hashlib.scrypt = lambda *password, **cost: scrypt(*password, **cost | {"n": 2, "r": 1, "p": 1})
"""

pytestmark = pytest.mark.slow


def bench(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), *arguments], capture_output=True, encoding="utf-8", timeout=300, env=environ or None
    )


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is missing (Debian: apt-get install wrk)")
def test_it_measures_everything(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(QUICK_HASHES, encoding="utf-8")
    done = bench(*QUICK, "--json", **os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    (site,) = result["sites"]
    pages = ["home", "deepest home page", "post, 10 comments", "handbook", "people"]
    looks = [*pages, "search", "search, while typing", "notifications, nothing new (304)"]
    looks += ["file, 18 KB", "file, unchanged (304)"]
    assert list(site["rows"]) == [*looks, "comment (POST)", "sign-in (POST)"]
    for row in site["rows"].values():
        assert all(row[name] > 0 for name in ("per_second", "p50", "p99", "share", "statements"))
    assert not any(site["rows"][page]["writes"] for page in looks)
    assert site["rows"]["comment (POST)"]["writes"]
    assert result["writers"]["errors"] == 0
    assert 0 < result["process"]["first_answer"] < 20
    assert len(result["required"]) == 14


def test_without_wrk_it_names_the_package(tmp_path):
    done = bench(*QUICK, PATH=str(tmp_path))
    assert done.returncode == 2
    assert "apt-get install wrk" in done.stderr


def test_its_table_is_markdown(monkeypatch):
    monkeypatch.syspath_prepend(str(RUN.parent))
    import run

    lines = list(run.table(("1,000 posts", "p50 ms"), [("home", "1.5"), ("people", "12.0")], markdown=True))
    assert lines == [
        "",
        "| 1,000 posts | p50 ms |",
        "| :-- | --: |",
        "| home        |    1.5 |",
        "| people      |   12.0 |",
    ]
