"""What answers say, read while they are written: thoughts, text, function calls.

    pieces of text, Speech of the template -> AnswerReader -> Thought, Text, CallBegun, CallArguments

Example:
    >>> from didact.serving.api.speech.reader import AnswerReader
    >>> from didact.serving.replica.backend import Speech
    >>> reader = AnswerReader(Speech(calls="hermes"), ["add"])
    >>> reader.push('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
    [CallBegun(index=0, name='add'), CallArguments(index=0, text='{"a": 1}')]
"""
