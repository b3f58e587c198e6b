"""Every error didact raises on purpose.

One root, children by cause. Each child is also the standard type it replaces, so a caller who knows only Python
can catch it, and each is rebuilt from its message alone, so Ray can carry it between processes.
A message says what was found, what was expected and which field, file or line to change.
"""


class DidactError(Exception):
    """Root of all errors that didact raises on purpose.

    `exit_code` is what a command that ends with the error returns, so that whoever runs it can tell the classes apart:
    2 something must be changed, 3 out of memory, 4 diverged, 75 (`EX_TEMPFAIL`) the same command may well succeed
    later.
    """

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks show: the message; where in didact it was raised tells a user nothing."""
        return [f"{type(self).__name__}: {self}"]


class SpecError(DidactError, ValueError):
    """A recipe, search space or serve file that cannot be run as written."""


class DataError(DidactError, ValueError):
    """A source that cannot be read, or has more bad rows than the run allows."""


class FileGone(DataError):
    """A file of a source is not there when it is read; the message begins with its path and "is gone"."""

    @property
    def filename(self) -> str:
        """The file's path, as in a `FileNotFoundError`."""
        return str(self).partition(" is gone")[0]


class TemplateError(DidactError, ValueError):
    """A chat template that cannot be used, or differs from the one an adapter was trained with."""


class NoToolSyntax(TemplateError):
    """A chat template that leaves out what a conversation with tools holds."""


class ModelError(DidactError, ValueError):
    """A base model that cannot be loaded, or a method that does not fit it."""


class DeviceError(DidactError, RuntimeError):
    """A GPU, driver, kernel or compiler that a setting needs and this machine lacks."""


class AdapterError(DidactError, ValueError):
    """An adapter that is damaged, unsafe, or made for another base model."""


class CheckpointError(DidactError, RuntimeError):
    """No checkpoint that verifies, or one that belongs to another run."""


class TrainingDiverged(DidactError, ArithmeticError):
    """The loss or the gradient became NaN or infinite."""

    exit_code = 4


class OutOfMemory(DidactError, MemoryError):
    """A worker has less memory than a micro-batch needs."""

    exit_code = 3


class ModelTooLarge(OutOfMemory):
    """A worker has less memory than the model needs before anything is computed; no smaller batch would help."""


class StorageError(DidactError, OSError):
    """A checkpoint that cannot be written: no space, no permission, a read-only disk."""

    exit_code = 75


class WorkersLost(DidactError, ConnectionError):
    """Workers that died, were taken away or hung more often than the run allows."""

    exit_code = 75


class PlacementError(DidactError, RuntimeError):
    """The cluster cannot give the workers that the run asks for."""

    exit_code = 75


class ClusterError(DidactError, ConnectionError):
    """A Ray that cannot be joined or started as the environment says."""


class ServerError(DidactError, RuntimeError):
    """A server that cannot be where it is told to be, or runs already."""


class RunError(DidactError, RuntimeError):
    """A run folder that is missing, locked by another process, or not in the state asked for."""


class TrackingError(DidactError, LookupError):
    """Where a new try would not help: an MLflow experiment or run that was deleted, an address that is refused."""


class RegistryError(DidactError, RuntimeError):
    """The model registry refused, or holds something other than expected."""


class NotRegistered(RegistryError, LookupError):
    """No registered model, version or alias of that name."""


class EndpointError(DidactError, ConnectionError):
    """A model behind an address that answers nothing any more: down, out of budget, or past its deadline."""

    exit_code = 75


class EndpointRefused(EndpointError):
    """An endpoint that takes no request as it is set: no key, a wrong key, no such model or address."""

    exit_code = 2


class EvaluationIncomplete(DidactError, RuntimeError):
    """An evaluation in which questions got no answer or no score; its report is there, and asking again goes on."""

    exit_code = 75
