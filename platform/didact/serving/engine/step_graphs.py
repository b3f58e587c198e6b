"""Decoding steps recorded as CUDA graphs and replayed as a whole.

A step of one token a row is some hundred small operations: on a fast GPU the processor takes many times longer to ask
for them than the GPU to compute them. A graph asks for all of them at once. It holds addresses and sizes, so a step is
recorded for every number of rows and columns, both rounded up, and all that changes from step to step lies in tensors
that stay where they are. The twin is `DecodingBatch.step`; the first recorded step of a base is compared with it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from didact.logs import get_logger
from didact.models.adapter import RowSlots
from didact.serving.engine.fixed_layer import FixedLayer, Window, fixed_cache, rounded_columns, rounded_rows
from didact.serving.engine.memory.row_attention import BY_ROWS

_log = get_logger(__name__)
_MOST_RECORDED = 64
_FARTHEST = {torch.bfloat16: 0.1, torch.float16: 0.05}
"""Norm of the difference over that of the plain step's logits; other dtypes 1e-3."""


class StepGraphs:
    """The memory and the recorded steps of one base. Only the step thread uses it, for one batch at a time."""

    def __init__(self, base: PreTrainedModel, slots: RowSlots | None, max_rows: int) -> None:
        """Nothing is recorded yet.

        Args:
            base: the model.
            slots: adapters of rows.
            max_rows: of a batch.
        """
        self.on = True
        """False once a step could not be recorded, or computed something else."""
        self._base, self._slots = base, slots
        self._device = base.device
        rows = rounded_rows(max_rows)
        self._ids = torch.zeros(rows, 1, dtype=torch.long, device=self._device)
        self._positions = torch.zeros(rows, 1, dtype=torch.long, device=self._device)
        self._newest = torch.zeros(1, dtype=torch.long, device=self._device)
        self._mask = torch.zeros(0, dtype=torch.bool, device=self._device)
        num_slots = slots.num_slots if slots else 0
        self._marks = torch.zeros(rows, num_slots, dtype=torch.bool, device=self._device)
        self._of_rows = torch.zeros(rows, dtype=torch.long, device=self._device)
        self._logits = torch.zeros(0, device=self._device)
        self._layers: list[FixedLayer] = []
        self._recorded: OrderedDict[tuple[object, ...], Callable[[], None]] = OrderedDict()
        self._holds_for: tuple[object, ...] = ()
        self._graph_memory: Any = None
        self._proven: set[bool] = set()
        """Whether steps without adapters, and steps with them, were compared with the twin."""
        self._num_rows = 0
        self._shape = (0, 0, 0)
        """Rows, columns and slots, rounded up, of the batch that was laid in."""
        self._replay: Callable[[], None] | None = None
        """Its recorded step, once it was asked for."""
        self._version = 0

    def cache(self, num_layers: int) -> DynamicCache:
        """An empty cache over the memory of the last batch."""
        if len(self._layers) != num_layers:
            self._layers = [FixedLayer() for _ in range(num_layers)]
        for layer in self._layers:
            layer.empty()
        return fixed_cache(self._layers)

    def release(self) -> None:
        """Give all memory back, as after a batch that failed; its cache cannot be used any more."""
        self._layers, self._holds_for = [], ()
        self._forget()
        self._mask, self._logits = self._mask.new_zeros(0), self._logits.new_zeros(0)

    def lay_in(self, mask: torch.Tensor, positions: torch.Tensor, slots: Sequence[int | None]) -> int:
        """Write down what a batch is before its next step.

        Args:
            mask: int64 [rows, columns in use], what each row may attend to.
            positions: int64 [rows], of the newest tokens that were read.
            slots: of the rows.

        Returns:
            How many steps it holds for.
        """
        num_rows = len(slots)
        rows = rounded_rows(num_rows)
        for layer in self._layers:
            layer.make_room(rows)
        first, last = self._layers[0].span
        columns = min(rounded_columns(last + 1), self._layers[0].num_columns)
        used = max((slot for slot in slots if slot is not None), default=-1) + 1
        used = min(-(-used // 4) * 4, self._marks.shape[1])
        if self._mask.dim() < 4 or self._mask.shape[-1] < self._layers[0].num_columns:
            self._mask = self._mask.new_zeros(len(self._ids), 1, 1, self._layers[0].num_columns)
        self._mask[:rows] = False
        self._mask[:num_rows, 0, 0, first:last] = mask.bool()
        self._positions[:num_rows, 0] = positions + 1
        self._newest.fill_(last)
        if used:
            without = self._marks.shape[1]
            owners = torch.tensor([without if slot is None else slot for slot in slots], device=self._device)
            self._of_rows[:rows] = without
            self._of_rows[:num_rows] = owners
            self._marks[:rows] = self._of_rows[:rows, None] == torch.arange(without, device=self._device)
        self._num_rows, self._shape = num_rows, (rows, columns, used)
        self._replay, self._version = None, self._slots.version if self._slots else 0
        return columns - last

    @property
    def outdated(self) -> bool:
        """Whether weights have moved since a batch was laid in."""
        return self._slots is not None and self._version != self._slots.version

    def step(self, newest: Sequence[int], plain: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """Read each row's newest token. Returns float [rows, vocabulary] that hold until the next step.

        Args:
            newest: tokens of the rows.
            plain: the same step computed by the twin, leaving the batch as it was.

        Returns:
            None where nothing can be recorded.
        """
        with_adapters = self._shape[2] > 0
        self._ids[: self._num_rows] = torch.tensor(newest).view(-1, 1).to(self._device)
        try:
            if self._replay is None:
                self._replay = self._find()
            twin = None if with_adapters in self._proven else plain()
            self._replay()
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            self._give_up(f"{type(error).__name__}: {error}")
            return None
        logits = self._logits[: self._num_rows]
        if twin is not None:
            far = float((logits.float() - twin.float()).norm() / twin.float().norm())
            if not far <= _FARTHEST.get(twin.dtype, 1e-3):
                self._give_up(f"recorded, a step is {far:.2g} away from the same step computed plainly")
                return None
            self._proven.add(with_adapters)
        return logits

    def _give_up(self, reason: str) -> None:
        _log.warning("decoding steps are not recorded as graphs on this base: %s", reason)
        self.on = False
        self._forget()

    def _forget(self) -> None:
        """Every recorded step; their memory is gone with the last one, and cannot be asked for by its name again."""
        self._replay = None
        self._recorded.clear()
        self._graph_memory = None

    def _find(self) -> Callable[[], None]:
        """The recorded step for what was laid in; recorded now where there is none."""
        holds_for = (self._mask.data_ptr(), *(layer.place for layer in self._layers))
        if holds_for != self._holds_for:
            self._forget()
            self._holds_for = holds_for
        key = (*self._shape, self._slots.layout() if self._slots and self._shape[2] else ())
        if key not in self._recorded:
            self._recorded[key] = self._record()
            if len(self._recorded) > _MOST_RECORDED:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        return self._recorded[key]

    def _record(self) -> Callable[[], None]:
        rows, columns, used = self._shape
        mask = self._mask[:rows, ..., :columns]
        positions = self._positions[:rows]
        of_rows, marks = self._of_rows[:rows], self._marks[:rows, :used]

        def compute() -> None:
            mask.index_fill_(-1, self._newest, True)
            own = self._slots.marked(marks, of_rows) if self._slots and used else nullcontext()
            with torch.inference_mode(), own:
                found = self._base(
                    input_ids=self._ids[:rows],
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=fixed_cache(self._layers),
                    use_cache=True,
                ).logits[:, -1]
            if not len(self._logits):
                self._logits = found.new_zeros(len(self._ids), found.shape[-1])
            self._logits[:rows] = found

        def go_on() -> None:
            compute()
            positions.add_(1)
            self._newest.add_(1)

        window = Window(rows, columns, self._newest)
        for layer in self._layers:
            layer.window = window
        try:
            return self._captured(compute, go_on) if self._device.type == "cuda" else self._within(window, go_on)
        finally:
            for layer in self._layers:
                layer.window = None

    def _captured(self, compute: Callable[[], None], go_on: Callable[[], None]) -> Callable[[], None]:
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(here)
        if self._graph_memory is None:
            self._graph_memory = torch.cuda.graph_pool_handle()
        random = torch.cuda.default_generators[here.device_index]
        untouched = random.clone_state()
        with torch.cuda.stream(aside):
            compute()  # so that libraries have made what they make at their first call
            try:
                graph.capture_begin(pool=self._graph_memory, capture_error_mode="thread_local")
                try:
                    go_on()
                finally:
                    graph.capture_end()
            except Exception:
                # Else the generator waits for ever for the end of the capture, and draws no number any more.
                random.graphsafe_set_state(untouched)
                raise
        here.wait_stream(aside)
        return graph.replay

    def _within(self, window: Window, go_on: Callable[[], None]) -> Callable[[], None]:
        """On a processor there are no graphs; a step is computed in the same way each time."""

        def again() -> None:
            for layer in self._layers:
                layer.window = window
            try:
                go_on()
            finally:
                for layer in self._layers:
                    layer.window = None

        return again


def recorder_for(
    base: PreTrainedModel, slots: RowSlots | None, max_rows: int, wanted: bool | None
) -> StepGraphs | None:
    """None where steps are not to be recorded, or cannot be on this base.

    Args:
        base: the model.
        slots: adapters of rows.
        max_rows: of a batch.
        wanted: None for a GPU only; True tries it on a processor too, where nothing is won.
    """
    if wanted is False or (wanted is None and base.device.type != "cuda") or not attends_to_all(base):
        return None
    return StepGraphs(base, slots, max_rows)


def attends_to_all(base: PreTrainedModel) -> bool:
    """Whether every layer attends to all that a mask leaves, by an attention that takes a ready one."""
    text = base.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    plain = kinds <= {"full_attention"} if kinds else window is None
    takes_masks = text._attn_implementation in ("sdpa", BY_ROWS)
    return plain and getattr(text, "attention_chunk_size", None) is None and takes_masks
