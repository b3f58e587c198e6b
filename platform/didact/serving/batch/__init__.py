"""OpenAI's batches: many requests in a file, one a line, and their answers as lines of another file.

    {custom_id, method, url, body} -> BatchLine -> Gateway.answer_body -> {id, custom_id, response, error}

Example:
    >>> from didact.serving.batch.lines import BatchLine
    >>> BatchLine.parse(1, b'{"custom_id": "a", "method": "POST", "url": "/v1/nothing", "body": {}}').error.code
    'invalid_url'
"""
