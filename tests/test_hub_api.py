"""The hub's OpenAPI description is true: thousands of requests made from it, right ones and wrong ones.

No answer is a server's error, none has a status or a shape that the description lacks.
"""

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests import hub_world as world

pytest.importorskip("fastapi", reason='a hub is needed: pip install "fusionlearn[hub]"')
schemathesis = pytest.importorskip("schemathesis")

import requests  # noqa: E402
from schemathesis.core.transport import Response  # noqa: E402
from tests.test_hub_security import ALL, MAY, OTHER, OWN, Hub, _unlimited  # noqa: E402

from fusionlearn import file  # noqa: E402
from fusionlearn.hub.gate import Rates  # noqa: E402

EXAMPLES = int(os.environ.get("FUSIONLEARN_API_EXAMPLES", "12"))  # for each operation, right and wrong
SIMPLE = ("/v1/health", "/v1/hub", "/v1/ready")  # nothing about these requests can be wrong
OPERATIONS = sorted(key for key in MAY if key[1].startswith("/v1") and key[1] != "/v1/openapi.json")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rates, "take", _unlimited)
        made = Hub(tmp_path_factory.mktemp("hub"))
        yield made
        made.close()


@pytest.fixture(scope="module")
def described(hub: Hub) -> dict[tuple[str, str], Any]:
    description = hub.client("GET", "/v1/openapi.json").json()
    schema = schemathesis.openapi.from_dict(description)
    return {(made.method.upper(), made.path): made for made in (found.ok() for found in schema.get_all_operations())}


def test_every_route_is_described(described: dict[tuple[str, str], Any]) -> None:
    assert sorted(described) == OPERATIONS


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*operation, "POSITIVE") for operation in OPERATIONS]
    + [(*operation, "NEGATIVE") for operation in OPERATIONS if operation[1] not in SIMPLE],
)
def test_answers_are_those_that_are_described(
    hub: Hub, described: dict[tuple[str, str], Any], method: str, path: str, mode: str
) -> None:
    operation = described[method, path]
    strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode])
    may = MAY[method, path]
    keys = (
        (0, 0, 1, 2, world.READER, world.OTHER_OWNER, world.STRANGER) if may == ALL else (0, 0, 0, 1, 1, world.READER)
    )

    @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=strategy, data=st.data())
    def check(case: Any, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(keys))
        update = hub.updates[data.draw(st.sampled_from((1, 2)))]
        there = {
            "project": data.draw(st.sampled_from((OWN, OWN, OWN, OTHER))), "task": hub.digest,
            "update": file.digest(update), "version": data.draw(st.sampled_from(("latest", "1", "2"))),
            "key": world.public(data.draw(st.sampled_from((2, 3, world.READER)))),
        }  # fmt: skip
        real = data.draw(st.integers(0, 9)) < 8  # most requests speak of what is there
        if real and isinstance(case.path_parameters, dict):
            case.path_parameters = {name: there.get(name, value) for name, value in case.path_parameters.items()}
        asked = case.as_transport_kwargs(base_url="http://hub.test")
        answer = send(hub, method, asked, world.key(number), data)
        told = Response(
            answer.status, {name: [value] for name, value in answer.headers.items()}, answer.content,
            requests.Request(method, asked["url"]).prepare(), 0.0, False,
        )  # fmt: skip
        assert answer.status < 500, (method, path, answer)
        assert str(answer.status) in operation.responses._inner, (method, path, answer)
        if answer.headers.get("content-type", "").startswith("application/json") and method != "HEAD":
            operation.validate_response(told)
        assert b"Traceback" not in answer.content

    check()


def send(hub: Hub, method: str, asked: dict[str, Any], key: Any, data: st.DataObject) -> Any:
    """The request as it is made up, signed rightly more often than not."""
    parts = urlsplit(asked["url"])
    path = quote(parts.path, safe="/%") or "/"
    query = parts.query or urlencode(asked.get("params") or {}, doseq=True)
    body: Any = asked.get("json", asked.get("data", b""))
    if not isinstance(body, bytes | dict | list):
        body = str(body).encode("utf-8", "replace") if body is not None else b""
    headers = {}
    for name, value in (asked.get("headers") or {}).items():
        if name.lower() not in ("user-agent", "connection", "accept-encoding", "accept", "content-length"):
            headers[name] = str(value).encode("latin-1", "replace").decode("latin-1").strip()
    sign = data.draw(st.integers(0, 9)) < 9
    return hub.client(method, path + (f"?{query}" if query else ""), key if sign else None, body, headers=headers)
