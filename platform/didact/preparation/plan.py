"""What a recipe will do, worked out without Ray: data, steps, trained share, memory, placement."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact.capacity import Cluster, asked_by_worker, asked_in_words
from didact.devices import memory_of_a_worker, num_gpus, sees_gpu
from didact.display import Shown
from didact.models import Footprint, footprint_of
from didact.preparation.facts import DataFacts
from didact.preparation.prepare import PreparedData
from didact.spec import DataSpec, FinetuneSpec, PlacementSpec

if TYPE_CHECKING:
    from didact.preparation.probe import Probe


@dataclass(frozen=True, slots=True)
class Plan(Shown):
    """A resolved recipe."""

    spec: FinetuneSpec
    data: DataFacts
    tokens_per_micro_batch: int
    footprint: Footprint
    """With a micro-batch of samples of mean length."""
    largest: Footprint
    """With one of the longest samples, which decides whether memory is enough."""
    largest_tokens: int
    """Tokens of that micro-batch."""
    cluster: Cluster | None = None
    """The Ray cluster that the run would join; None for a Ray of its own on this machine."""

    @classmethod
    def of(
        cls,
        spec: FinetuneSpec,
        prepared: PreparedData,
        data: DataFacts | None = None,
        *,
        on_cpu: bool | None = None,
        cluster: Cluster | None = None,
    ) -> "Plan":
        """Work out the plan of a recipe whose data is prepared.

        Args:
            spec: the recipe.
            prepared: its data.
            data: what is known of it; None to work it out.
            on_cpu: where workers compute; None for what `placement.device` would mean there.
            cluster: the Ray cluster that the run would join; None for a Ray of its own on this machine.
        """
        data = data or DataFacts.of(spec, prepared)
        mean_tokens = sum(each.tokens_seen for each in data.sources) / max(
            1, sum(each.samples_seen for each in data.sources)
        )
        longest = max(table.stats.longest for table in prepared.mixture.tables)
        samples = min(spec.training.micro_batch_size, spec.training.global_batch_size)
        supervised = sum(each.supervised_share * each.share_of_tokens for each in data.sources)
        if on_cpu is None:
            on_cpu = not _on_gpu(spec.placement, cluster)
        mean, largest = (
            footprint_of(spec, round(tokens * samples), supervised, sample_tokens=max(1, round(tokens)), on_cpu=on_cpu)
            for tokens in (mean_tokens, longest)
        )
        return cls(
            spec,
            data,
            round(mean_tokens * samples),
            footprint=mean,
            largest=largest,
            largest_tokens=longest * samples,
            cluster=cluster,
        )

    @override
    def __rich__(self) -> Group:
        return self.render()

    def beside(self, probe: "Probe") -> str:
        """The estimate beside what a probe measured, and what that says of the whole run on such a machine."""
        steps, workers = self.data.num_steps, self.spec.placement.min_workers
        tokens = sum(each.tokens_seen for each in self.data.sources)
        seconds = tokens / probe.tokens_per_second / workers
        return (
            f"probe      one worker here: {probe.peak_gib:.2f} GiB at the peak, "
            f"{probe.tokens_per_second:,.0f} tokens/s\n"
            f"time       about {seconds / steps:,.2f} s a step, {seconds / 60:,.1f} minutes for {steps:,} steps "
            f"on {workers} such workers"
        )

    def render(self) -> Group:
        """Tables for a terminal."""
        stages = [self._stages_table()] if self.data.stages else []
        return Group(self._mixture_table(), *stages, Text(), *(Text(line) for line in self._lines()))

    def _mixture_table(self) -> Table:
        title = f"mixture of {self.spec.name}, {_weighing(self.spec.data)}"
        table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 0))
        table.add_column("dataset", min_width=12, overflow="fold")
        for heading in ("weight", "rows", "bad", "dropped", "held out", "tokens", "learned", "share", "epochs"):
            table.add_column(heading, justify="right", no_wrap=True)
        for each in self.data.sources:
            table.add_row(
                each.name,
                f"{each.weight:.3g}",
                f"{each.samples_usable:,}",
                f"{each.num_rejected:,}",
                f"{sum(each.rows_dropped.values()):,}",
                f"{each.rows_held_out:,}",
                f"{each.tokens:,}",
                f"{each.supervised_share:.1%}",
                f"{each.share_of_tokens:.1%}",
                f"{each.epochs:.2f}",
            )
        return table

    def _stages_table(self) -> Table:
        table = Table(title="stages", box=box.SIMPLE_HEAD, padding=(0, 0))
        table.add_column("steps", justify="right")
        table.add_column("dataset", min_width=12, overflow="fold")
        for heading in ("samples", "tokens", "share", "epochs"):
            table.add_column(heading, justify="right", no_wrap=True)
        for stage in self.data.stages:
            for number, each in enumerate(stage.sources):
                table.add_row(
                    "" if number else f"{stage.steps:,.1f}",
                    each.name,
                    f"{each.samples:,}",
                    f"{each.tokens:,.0f}",
                    f"{each.share_of_tokens:.1%}",
                    f"{each.epochs:.2f}",
                )
        return table

    def _dropout_line(self) -> list[str]:
        """For a base that has dropout of its own."""
        share, on = self.footprint.base_dropout, self.spec.training.base_dropout
        if not share:
            return []
        words = "on, so losses depend on the packing" if on else "off; training.base_dropout turns it on"
        return [f"dropout    of the base itself, {share:g}: {words}"]

    def _lines(self) -> list[str]:
        spec, footprint = self.spec, self.footprint
        quantization = f", {spec.model.quantization.bits}-bit" if spec.model.quantization else ""
        steps, tokens = self.data.num_steps, sum(each.tokens_seen for each in self.data.sources)
        fewest, most = spec.placement.min_workers, spec.placement.max_workers
        workers = f"{most}" if fewest == most else f"{fewest} to {most}"
        lines = [
            f"base       {spec.model.base}{quantization}, {footprint.num_parameters:,} parameters",
            *([f"unpacked   {footprint.unpacked}"] if footprint.unpacked else []),
            *self._dropout_line(),
            f"adapter    {spec.adapter.method}, {footprint.num_trainable:,} trained ({footprint.trainable_share:.2%})",
            *(f"left out   {words}" for words in footprint.left_out),
            f"steps      {steps:,} of {spec.training.global_batch_size} samples, about {tokens:,.0f} tokens",
            f"rate       {spec.training.learning_rate:g}, {spec.training.schedule} "
            f"after {spec.training.num_warmup_steps(steps):,} steps of warm-up",
            *(f"           {each.words}" for each in spec.training.changes),
            f"packing    {'on' if spec.packing else 'off'}, {self.tokens_per_micro_batch:,} tokens a forward pass",
            f"memory     {memory_in_words(footprint)}",
            *(["           activations roughly, by the sizes of the layers"] if footprint.rough else []),
            f"           {self.largest.total_gib:.2f} GiB with the longest samples ({self.largest_tokens:,} tokens)",
            f"compute    {footprint.flops / 1e12:.2f} TFLOP a forward and backward pass",
            f"placement  {workers} workers x {spec.placement.cpus_per_worker} CPU, "
            f"device {spec.placement.device}, strategy {spec.training.sharding.strategy}",
        ]
        return [*lines, *self.lacks(), *(f"warning    {doubt}" for doubt in spec.doubts)]

    def too_large(self) -> str | None:
        """Why the longest samples do not fit a worker; None where they do, or nobody says what memory there is."""
        placement, on_gpu = self.spec.placement, _on_gpu(self.spec.placement, self.cluster)
        there = memory_of_a_worker(self.cluster.nodes if self.cluster else None, on_gpu=on_gpu)
        # Workers on the processor of this machine share its memory.
        workers = placement.min_workers if self.cluster is None and not on_gpu else 1
        needed = self.largest.total_gib * workers
        if there is None or needed <= there:
            return None
        where = "a node there has" if self.cluster else "a GPU here has" if on_gpu else "this machine has"
        return f"needs {needed:.1f} GiB, {where} {there:.1f} GiB"

    def lacks(self) -> list[str]:
        """What the placement asks for and is not there."""
        placement, cluster = self.spec.placement, self.cluster or _this_machine()
        ask = asked_by_worker(
            placement.cpus_per_worker,
            use_gpu=_on_gpu(placement, self.cluster),
            accelerator_type=placement.accelerator_type,
        )
        missing = cluster.shortage(ask, placement.min_workers)
        if missing is None:
            return []
        needed = f"needs      {asked_in_words(ask, placement.min_workers)}: {missing.words}"
        if self.cluster is None:
            return [f"{needed}. This machine has {cluster}; set RAY_ADDRESS to a cluster with more"]
        lasting = cluster.lasting_shortage(ask, placement.min_workers) is not None
        comes = "never will" if lasting else f"a run waits {placement.start_timeout_seconds:g} s for more"
        return [f"{needed}. The cluster at RAY_ADDRESS has {cluster}; {comes}"]


def _on_gpu(placement: PlacementSpec, cluster: Cluster | None) -> bool:
    """Whether workers compute on GPUs there; without a cluster, here."""
    if placement.device == "auto" and placement.accelerator_type is None:
        return sees_gpu() if cluster is None else cluster.has_gpus()
    return placement.device != "cpu"


def _this_machine() -> Cluster:
    """What a Ray of its own would have."""
    return Cluster(({"CPU": os.cpu_count() or 1, "GPU": num_gpus() if sees_gpu() else 0},), ())


def memory_in_words(footprint: Footprint) -> str:
    """An estimate of a worker's memory with its parts, in one line."""
    return (
        f"{footprint.total_gib:.2f} GiB a worker: weights {footprint.weights_gib:.2f}, "
        f"trained state {footprint.training_state_gib:.2f}, activations {footprint.activations_gib:.2f}, "
        f"logits {footprint.logits_gib:.2f}, overhead {footprint.overhead_gib:.2f}"
    )


def _weighing(data: DataSpec) -> str:
    if data.curriculum:
        return f"curriculum of {len(data.curriculum)} stages ({data.interpolate}), weights in {data.weight_unit}"
    strategy = {"explicit": "weights", "temperature": f"weights of temperature {data.temperature:g}"}
    limit = f", at most {data.max_epochs:g} epochs" if data.max_epochs is not None else ""
    mixing = data.online_mixing
    follow = f", which follow losses every {mixing.every_steps} steps" if mixing and not mixing.decided else ""
    followed = f", with {len(mixing.decided)} decisions that are followed" if mixing and mixing.decided else ""
    return f"{strategy.get(data.strategy, data.strategy + ' weights')} in {data.weight_unit}{limit}{follow}{followed}"
