"""The API, asked whatever its description allows and does not; for minutes with CORKBOARD_FUZZ=40."""

from __future__ import annotations

import os

import pytest
from fuzzing import fuzz
from world import CAST, stand_up

import app as corkboard

EXAMPLES = int(os.environ.get("CORKBOARD_FUZZ", "2"))


@pytest.mark.parametrize("person", CAST)
def test_the_api_stands_a_long_fuzzing(app, monkeypatch, person):
    monkeypatch.setattr(corkboard, "API_LIMIT", "1000000 per minute")
    assert fuzz(stand_up(app), person, EXAMPLES) > 25 * EXAMPLES
