"""The served process is killed while people comment: what was acknowledged is there, and nothing is there twice."""

from __future__ import annotations

import random

import pytest
from serving import Site, until

from .conftest import check_comments
from .load import WRITERS, Load

pytestmark = pytest.mark.faults

ROUNDS = 20


def test_killed_20_times_no_comment_is_lost_or_doubled(site: Site, load: Load):
    for _ in range(ROUNDS):
        enough = load.count() + random.randint(WRITERS, 10 * WRITERS)
        until(lambda enough=enough: load.wrong or load.count() >= enough, "nobody can comment")
        site.kill()
        site.start()
    load.finish()
    assert not load.wrong
    assert load.lost["POST"] >= ROUNDS, "the site was not killed while somebody waited for an answer"
    check_comments(site, load.acknowledged)
