"""Asks every operation of the API for what its description allows, and for what it does not, as schemathesis has it.

`fuzz(world, "member", 5)` raises for an answer 5xx, one that the description does not know, or bad data that is taken.
"""

from __future__ import annotations

import contextlib
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi import checks as conformance
from world import World

CHECKS = [
    not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
    conformance.response_headers_conformance,
    conformance.negative_data_rejection,
]  # what a description allows may well be refused: a topic that is not there, a title that is in use


def fuzz(world: World, person: str, examples: int) -> int:
    """Ask with the token of a person, each operation so many times in both ways. Returns how often that was."""
    asked = 0

    def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
        nonlocal asked
        asked += 1
        with world.app.app_context():  # else one request would meet the `g` of the one before
            body = world.app(environ, start_response)
            with contextlib.closing(body):
                return [*body]

    headers = {}
    if person in world.raw_tokens:
        headers["Authorization"] = f"Bearer {world.raw_tokens[person]}"
    description = schemathesis.openapi.from_wsgi("/api/openapi.json", wsgi)
    for result in description.get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try_operation(world, operation, mode, headers, examples)
        if operation.method != "get":
            world.restore()
    return asked


def is_wrong(case: Any) -> bool:
    """Whether bad data is sent for sure: here, a wrong path may be put right, and the token is always sent."""
    parts = case.meta.components
    return any(
        place in parts and parts[place].mode.is_negative for place in (ParameterLocation.QUERY, ParameterLocation.BODY)
    )


def try_operation(world: World, operation: Any, mode: GenerationMode, headers: dict[str, str], examples: int) -> None:
    """Ask one operation, half the time about something that there is."""
    unhurried = settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    known = {
        "post_id": [*world.posts.values()],
        "comment_id": [*world.comments.values()],
        "topic_id": [*world.topics.values()],
        "user_id": [*world.people.values()],
        "file_id": [*world.files.values()],
    }

    @given(operation.as_strategy(generation_mode=mode), st.data())
    @unhurried
    def ask(case: Any, data: st.DataObject) -> None:
        names = [name for name in case.path_parameters or {} if name in known]
        if mode is GenerationMode.POSITIVE or data.draw(st.booleans()):
            for name in names:
                case.path_parameters[name] = data.draw(st.sampled_from(known[name]))
        if isinstance(case.body, dict) and "topic_id" in case.body and data.draw(st.booleans()):
            case.body["topic_id"] = data.draw(st.sampled_from(known["topic_id"]))
        matching = {"If-Match": "*"} if case.method in ("PATCH", "DELETE") else {}
        case.call_and_validate(headers=headers | matching, checks=CHECKS if is_wrong(case) else CHECKS[:-1])

    try:
        ask()
    except Unsatisfiable:  # where nothing is sent, nothing can be wrong
        assert mode is GenerationMode.NEGATIVE
