"""One replica, without Ray: names become versions, versions become adapters in memory, prompts become text.

    ServeSpec -> assemble -> Catalog (name -> version), AdapterStore (version -> folder), Worker (Ask -> Events)

Example:
    >>> from didact.serving.replica.assemble import base_name
    >>> from didact.spec import ServeSpec
    >>> base_name(ServeSpec())
    'smollm2-135m-instruct'
"""
