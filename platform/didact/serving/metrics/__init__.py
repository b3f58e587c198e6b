"""Figures of answers under vLLM's names, so that its dashboards and gateways read them: counted where answers are made.

    Worker -> AnswerMetrics -> Snapshot, one a replica -> MetricsSum in the gateway -> Prometheus' text

Example:
    >>> from didact.serving.metrics.snapshots import MetricsSum
    >>> MetricsSum().text([])
    b''
"""
