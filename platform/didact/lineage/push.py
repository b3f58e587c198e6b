"""A version goes to the Hugging Face hub: said first, private unless asked otherwise, in one commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils._validators import validate_repo_id
from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact.display import Shown, visible
from didact.errors import RegistryError
from didact.lineage.bundle import Bundle, make_bundle
from didact.lineage.records import Records

_FAILURES: tuple[type[Exception], ...] = (
    *(OSError, ValueError),
    *(each for each in HfHubHTTPError.__mro__ if each.__name__ == "HTTPError"),  # no answer at all
)


@dataclass(frozen=True, slots=True)
class Push(Shown):
    """What will go where."""

    bundle: Bundle
    repo: str
    """`OWNER/REPO`."""
    public: bool
    endpoint: str | None = None
    """Address of the hub; None for that of `HF_ENDPOINT`, else huggingface.co."""

    @override
    def __rich__(self) -> Group:
        seen = "PUBLIC: everybody can read it" if self.public else "private"
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("File", overflow="fold")
        table.add_column("Bytes", justify="right")
        for name in self.bundle.files:
            table.add_row(Text(name), f"{self.bundle.size(name):,}")
        heading = Text(
            f"{visible(self.bundle.name)} -> {self.repo} ({seen})", style="bold red" if self.public else "bold"
        )
        return Group(heading, table, *(Text(f"note: {note}", style="yellow") for note in self.bundle.notes))


def plan_push(
    asked: str, repo: str, *, public: bool = False, records: Records | None = None, endpoint: str | None = None
) -> Push:
    """Gather and check what would be uploaded. Nothing is sent, and the hub is not asked.

    Args:
        asked: see `make_bundle`.
        repo: `OWNER/REPO` on the hub.
        public: whether everybody may read it.
        records: see `make_bundle`.
        endpoint: of the hub.

    Raises:
        RegistryError: `repo` is no name of a repository.
        DidactError: see `make_bundle`.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RegistryError(f"{repo!r} is no repository: {error}; expected OWNER/REPO") from None
    if "/" not in repo:
        raise RegistryError(f"found {repo!r}; expected OWNER/REPO, with you or your organisation as the owner")
    return Push(make_bundle(asked, records), repo, public, endpoint)


def push(plan: Push) -> str:
    """Upload in one commit; the same files again make none. Returns the commit's address.

    Raises:
        RegistryError: the repository is public though it was to be private, or the hub refuses or does not answer.
    """
    api = HfApi(endpoint=plan.endpoint, library_name="didact")
    with _asking(plan.repo):
        try:
            is_private = bool(api.model_info(plan.repo).private)
        except RepositoryNotFoundError:
            api.create_repo(plan.repo, private=not plan.public, repo_type="model", exist_ok=True)
            is_private = not plan.public
    if not is_private and not plan.public:
        raise RegistryError(f"{plan.repo} is there and public; add --public if everybody may read {plan.bundle.name}")
    operations = [
        CommitOperationAdd(name, content.encode("utf-8") if isinstance(content, str) else str(content))
        for name, content in plan.bundle.files.items()
    ]
    with _asking(plan.repo):
        done = api.create_commit(
            plan.repo,
            operations,
            commit_message=f"{plan.bundle.name}, adapter {plan.bundle.adapter_sha256[:12]}",
            repo_type="model",
        )
    return str(done.commit_url)


@contextmanager
def _asking(repo: str) -> Iterator[None]:
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise RegistryError(f"{repo}: HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it") from error
    except _FAILURES as error:
        said = " ".join(str(error).split())
        raise RegistryError(
            f"the hub did not take {repo}: {said}; `hf auth login` or HF_TOKEN says who you are"
        ) from error
