"""Small stand-ins that behave like the real thing: two-layer random models of each family, adapters, data, servers."""
