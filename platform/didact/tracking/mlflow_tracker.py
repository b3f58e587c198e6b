"""Every word spoken to MLflow by the tracking room, through a client with an explicit address.

Nothing here sets MLflow's process-wide address or active run, so it is safe in Ray workers and beside user code. Every
call may be repeated: a run is found again by its key, parameters are compared first, and a metric point with the same
step, value and time is stored once (they are the primary key of MLflow's table).
"""

import contextlib
import functools
import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched, islice
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from didact import env
from didact.logs import get_logger
from didact.tracking.sync_state import DatasetInput, Pending
from didact.tracking.uris import artifact_root, sqlite_file
