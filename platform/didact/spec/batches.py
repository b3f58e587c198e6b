"""`BatchesSpec`: files of requests that a server answers in the background."""

from pydantic import Field

from didact.spec.base import Spec


class BatchesSpec(Spec):
    """OpenAI's `/v1/files` and `/v1/batches`."""

    folder: str
    """Where files, batches and results are kept. On a cluster: a path that every gateway sees."""
    concurrency: int = Field(default=8, ge=1)
    """Lines that one gateway has in work; half of what replicas generate together leaves room for other requests."""
    max_file_mib: int = Field(default=100, ge=1)
    """Largest file."""
    max_requests: int = Field(default=50_000, ge=1)
    """Lines of a batch."""
    max_folder_gib: float = Field(default=10, gt=0)
    """All files together; more are refused."""
    max_active: int = Field(default=100, ge=1)
    """Batches of one key that are not done."""
    keep_days: float = Field(default=30, gt=0)
    """How long files, batches and results are kept."""
