"""One local Ray for the tests that need no cluster of their own."""

from collections.abc import Iterator

import pytest

from didact.cluster import ray_cluster


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A local Ray of two CPUs, without dashboard."""
    with ray_cluster(num_cpus=2):
        yield
