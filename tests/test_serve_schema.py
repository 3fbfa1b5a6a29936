"""What the served model's own description allows, and much that it does not, ends in no fault of the server."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="needs the extra test")

HOW = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def asking(operation, answered: dict[str, int], examples: int):
    """A test of one way: whatever it is sent, the server is not at fault."""

    @settings(HOW, max_examples=examples)
    @given(case=operation.as_strategy())
    def ask(case):
        code = case.call().status_code
        assert code < 500 or code == 503, (operation.path, case.body)
        answered[operation.path] = answered.get(operation.path, 0) + 1

    return ask


@pytest.mark.parametrize("examples", [4, pytest.param(25, marks=pytest.mark.soak)])
def test_no_request_ends_in_a_fault_of_the_server(folder, examples):
    pytest.importorskip("fastapi", reason="needs the extra serve")
    from generalist.serve.app import app_of

    described = schemathesis.openapi.from_asgi("/openapi.json", app_of(folder, {}, body_mb=1))
    answered: dict[str, int] = {}
    for found in described.get_all_operations():
        asking(found.ok(), answered, examples)()
    assert {"/rank", "/encode", "/forecast", "/detect", "/describe", "/nearest", "/about"} <= answered.keys()
