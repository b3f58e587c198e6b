"""Small stand-ins that behave like the real thing: a byte tokenizer and two-layer random models of each family."""
