"""Models behind an address: what speaks OpenAI's API answers a task's asks, under limits.

    EndpointSpec -> Endpoint, a Model: Ask -> request, tried again where that helps -> Answer, or its problem by name

Example:
    >>> from didact.evaluation.endpoint import Endpoint
    >>> from didact.spec import EndpointSpec
    >>> Endpoint(EndpointSpec(url="http://localhost:8000/v1", model="demo")).identity.name
    'demo at localhost:8000'
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.endpoint.endpoint import Endpoint
    from didact.evaluation.endpoint.limits import Usage

__all__ = ["Endpoint", "Usage"]

__getattr__ = lazily(__name__)
