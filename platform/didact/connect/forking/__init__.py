"""Workers of a Ray on this machine are forked from one process that has imported what all of them need.

    a command, or ray_cluster -> `begin`, `forking` -> server.py imports once
    Ray wants a worker -> client.py, in the place of Ray's own script -> the server forks -> Ray's worker program

Importing PyTorch, transformers and PEFT takes some ten seconds of a processor, and a run has four such processes one
after the other. Only on Linux without GPUs, since what their libraries hold does not survive a fork. Everywhere else,
and whenever the server cannot (other variables, a thread that should not be there), Ray starts its workers as it always
does; `DIDACT_FORK=0` has it do so always.

Example:
    >>> from didact.connect.forking.server import decisive
    >>> decisive({"OMP_NUM_THREADS": "1", "COLUMNS": "80"})  # a fork must have begun with the same
    {'OMP_NUM_THREADS': '1'}
"""

from didact.connect.forking.starting import begin, forking

__all__ = ["begin", "forking"]
