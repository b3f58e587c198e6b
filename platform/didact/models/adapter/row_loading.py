"""An adapter folder, verified and read for rows of a shared batch."""

from pathlib import Path

from didact.models.adapter.adapter_files import check_held_alike, verify_adapter
from didact.models.adapter.host import AdapterHost, does_not_fit
from didact.models.adapter.row_adapter import RowAdapter, read_row_adapter
from didact.models.adapter.row_slots import RowSlots


def load_row_adapter(folder: Path, host: AdapterHost, slots: RowSlots | None) -> RowAdapter | None:
    """Verify a folder and read it, in any thread.

    Returns:
        None for an adapter that needs the whole model, so `host.load` is what is left; also where `slots` is None.

    Raises:
        AdapterError: as `AdapterHost.load`.
    """
    if slots is None:
        return None
    facts = verify_adapter(folder, host.base_fingerprint)
    check_held_alike(facts, folder, host.base)
    if facts.method == "partial":
        return None
    try:
        return read_row_adapter(folder, slots.linear, slots.modules, slots.dtype)
    except (RuntimeError, ValueError, KeyError) as error:
        raise does_not_fit(folder, facts, error) from error
