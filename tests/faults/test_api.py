"""The API, asked for minutes whatever its description allows and does not."""

from __future__ import annotations

import pytest
from fuzzing import fuzz
from world import CAST, stand_up

import app as corkboard


@pytest.mark.parametrize("person", CAST)
def test_the_api_stands_a_long_fuzzing(app, monkeypatch, person):
    monkeypatch.setattr(corkboard, "API_LIMIT", "1000000 per minute")
    assert fuzz(stand_up(app), person, 40) > 1000
