"""Requests that are made up from the service's own description, /openapi.json.

Whatever is sent, the service makes no mistake (no 5xx), and each answer is as the description says: status, type of
content, and document. Values that the description allows are mixed with values that it forbids.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import hypothesis
import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as described

from tests.gallery.served import Served, picture, served
from tests.gallery.station import station


def wrong_requests_are_refused(context: Any, response: Any, case: Any) -> bool | None:
    """`negative_data_rejection`, except for values that are wrong only before they are sent.

    In a query everything is a text: of `cameras`, the number 7, the text "7" and the list ["7"] are sent alike, and so
    a request that was made up as a wrong one may be a good one. The check of the library sees this for one parameter,
    but not for two.
    """
    if response.status_code < 400 and case.method == "GET" and good_as_sent(case, response.request.url):
        return None
    return described.negative_data_rejection(context, response, case)


def good_as_sent(case: Any, url: str) -> bool:
    """Whether the description allows all that stands in an address.

    Each parameter counts as a text, as texts, as a number, and as nothing (null) if it is empty: a form sends what is
    left open as an empty text, and the service takes it so where null is allowed.
    """
    parameters = case.operation.definition.raw.get("parameters", ())
    schemas = {one["name"]: one["schema"] for one in parameters if one["in"] == "query"}
    for name, texts in parse_qs(urlsplit(url).query, keep_blank_values=True).items():
        readings: list[Any] = [texts]
        if len(texts) == 1:
            readings += [texts[0], *_number(texts[0]), *([] if texts[0].strip() else [None])]
        if name not in schemas or not any(jsonschema_rs.is_valid(schemas[name], one) for one in readings):
            return False
    return True


def _number(text: str) -> list[int]:
    """The whole number that a text is read as, if it is one: "7", " +7", "7.0"."""
    try:
        return [int(float(text))] if float(text).is_integer() else []
    except ValueError:
        return []


QUICK, MANY = 6, 60
"""Requests of each kind to each route."""
CHECKS = [
    not_a_server_error,
    described.status_code_conformance,
    described.content_type_conformance,
    described.response_headers_conformance,
    described.response_schema_conformance,
    wrong_requests_are_refused,
    described.unsupported_method,
]
"""Not that every value is taken that the description allows: no description can say what a picture is."""


@pytest.fixture(scope="module")
def service(
    worlds: dict[str, Path], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("fuzz") / "index"
    with served(station(folder, runs["sysu-mm01"], worlds["sysu-mm01"])) as running:
        yield running


def known(service: Served) -> dict[str, str]:
    """A search that is remembered, and a picture that it showed."""
    with service.client() as client:
        found = client.post("/v1/searches", files={"image": picture()}).json()
    return {"search": found["search"], "id": found["matches"][0]["picture"]}


def operations(service: Served) -> Iterator[Any]:
    """Each route of the description with each method that it has."""
    headers = {"Authorization": f"Bearer {service.token}"}
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json", headers=headers)
    return (found.ok() for found in schema.get_all_operations())


def fuzz(service: Served, examples: int) -> Counter[tuple[str, int]]:
    """Send made-up requests to each route: (route, status) → how often it was answered so."""
    seen: Counter[tuple[str, int]] = Counter()
    there = known(service)
    with requests.Session() as session:
        session.trust_env = False
        for operation in operations(service):
            names = {one.name for one in operation.path_parameters}
            ids: list[dict[str, Any]] = [{}]
            if names:  # made-up ones are never known
                ids.append({"path_parameters": {name: there[name] for name in names}})
            modes = [GenerationMode.POSITIVE]
            if operation.label.startswith(("POST", "PUT")) or names:
                modes.append(GenerationMode.NEGATIVE)
            for mode, given_ids in itertools.product(modes, ids):
                strategy = operation.as_strategy(generation_mode=mode, **given_ids)
                _send(session, service.token, strategy, examples, seen)
    return seen


def _send(session: requests.Session, token: str, strategy: Any, examples: int, seen: Counter) -> None:
    headers = {"Authorization": f"Bearer {token}"}

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples == QUICK,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def send(case: Any) -> None:
        answer = case.call(session=session, headers=headers)
        seen[case.operation.label, answer.status_code] += 1
        case.validate_response(answer, headers=headers, checks=CHECKS)

    send()


def test_no_made_up_request_leads_to_a_mistake(service: Served) -> None:
    seen = fuzz(service, QUICK)
    assert {route for route, _ in seen} == {one.label for one in operations(service)}
    assert ("GET /v1/searches/{search}", 200) in seen and ("PUT /v1/feedback", 422) in seen


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_request_of_very_many_leads_to_a_mistake(service: Served) -> None:
    fuzz(service, MANY)


def test_answers_to_good_requests_are_as_described(service: Served) -> None:
    """Made-up pictures are hardly ever pictures, so real ones are sent as well."""
    found = {one.label: one for one in operations(service)}
    headers = {"Authorization": f"Bearer {service.token}"}

    def asked(label: str, path: str, **sent: Any) -> requests.Response:
        method = label.split()[0]
        answer = requests.request(method, f"{service.url}{path}", headers=headers, timeout=30, **sent)
        found[label].validate_response(answer)
        return answer

    made = asked("POST /v1/searches", "/v1/searches", files={"image": picture()}, data={"cameras": ["1", "2"]}).json()
    picture_id = made["matches"][0]["picture"]
    asked("POST /v1/searches", "/v1/searches", json={"picture": picture_id, "since": "2026-03-01"})
    asked("GET /v1/searches/{search}", f"/v1/searches/{made['search']}", params={"start": 3, "top": 2})
    asked("GET /v1/pictures/{id}/thumbnail", f"/v1/pictures/{picture_id}/thumbnail")
    verdict = {"search": made["search"], "picture": picture_id, "verdict": "different"}
    assert asked("PUT /v1/feedback", "/v1/feedback", json=verdict).status_code == 204
    for path in ("/v1/facets", "/metrics", "/healthz", "/readyz"):
        assert asked(f"GET {path}", path).status_code == 200
