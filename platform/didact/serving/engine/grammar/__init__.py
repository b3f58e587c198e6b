"""Answers that must have a form: JSON of a schema, a pattern, one of some texts, calls of functions.

    Grammar -> Grammars (compiles, keeps) -> Constraint of one row -> which tokens may come next

`lark` writes grammars and needs nothing; `matcher` needs the extra `didact[grammar]` (llguidance), which it loads at
the first grammar.

Example:
    >>> from didact.serving.engine.grammar.lark import one_of
    >>> one_of(("yes", "no"), "structured_outputs.choice").text
    'start: answer\\nanswer: "yes" | "no"\\n'
"""
