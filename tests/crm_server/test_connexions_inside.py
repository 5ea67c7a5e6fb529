"""We stand in for parts of Connexion's inside (docs/decisions/0003): here one notices when they move."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from connexion.middleware.abstract import RoutedMiddleware
from connexion.middleware.request_validation import RequestValidationAPI, RequestValidationOperation
from connexion.middleware.routing import RoutingMiddleware, RoutingOperation
from connexion.middleware.security import SecurityAPI, SecurityOperation
from connexion.security import SecurityHandlerFactory

KNOWN: dict[Callable[..., Any], str] = {
    RequestValidationOperation.__call__: "af472716211911b9",
    RequestValidationAPI.make_operation: "55b32cb8b0ab229e",
    RoutingMiddleware.__call__: "32944caa9c9cad13",
    RoutingMiddleware.add_api: "a25f6d00c2c1d3d2",
    RoutingOperation.__call__: "634b2f09f2375ba4",
    RoutedMiddleware.__call__: "10e95f7a2d823872",
    SecurityAPI.make_operation: "8051a99c0921b5fd",
    SecurityHandlerFactory.verify_security: "eb34fea712e0643a",
    SecurityOperation.__call__: "64eb38b0d5982445",
}


@pytest.mark.parametrize("function", KNOWN, ids=lambda function: function.__qualname__)
def test_what_we_stand_in_for_has_not_moved(function: Callable[..., Any]) -> None:
    source = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    assert source == KNOWN[function], (
        "read it again, then docs/decisions/0003, then write the new digest here"
    )
