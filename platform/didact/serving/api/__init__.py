"""The OpenAI API: HTTP in, calls of a `Backend` out, and its events as JSON or server-sent events again.

    HTTP body -> ChatRequest -> gateway (the catalog says what `model` means) -> Backend.ask -> answers -> HTTP

Example:
    >>> from didact.serving.api.openai_types import ChatRequest
    >>> ChatRequest.model_validate({"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}).model
    'demo'
"""
