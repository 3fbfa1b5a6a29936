"""What the served model's own description allows, and much that it does not, ends in no fault of the server."""

import pytest
from hypothesis import HealthCheck, Phase, settings

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")


@pytest.fixture(scope="module")
def served(folder):
    pytest.importorskip("fastapi", reason="needs the extra serve")
    from generalist.serve.app import app_of

    return schemathesis.openapi.from_asgi("/openapi.json", app_of(folder, {}, body_mb=1))


schema = schemathesis.pytest.from_fixture("served")


@pytest.mark.soak  # a minute: many requests a way
@schema.parametrize()
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_ends_in_a_fault_of_the_server(case):
    case.call_and_validate(checks=[schemathesis.checks.not_a_server_error])
