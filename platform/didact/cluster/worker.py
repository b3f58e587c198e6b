"""What one Ray Train worker does, in story order: data, model, adapter, loop, adapter out."""

import copy
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch

from didact.cluster.callbacks import Heartbeat, Measurements, RunRecord
from didact.cluster.failures import explained, stack_file
from didact.cluster.stopping import StopRequest
from didact.connect import receive
from didact.devices import cpu_capability, is_out_of_memory, memory_words
from didact.errors import DidactError, ModelTooLarge
from didact.evaluation import held_out_loss, task_texts
from didact.failpoints import read_failpoints
from didact.files import append_jsonl, fingerprint, new_folder, write_text
from didact.logs import kept_in
from didact.models import (
    base_fingerprint,
    check_model,
    compile_blocks,
    compute_dtype,
    save_adapter,
    save_model,
    verify_adapter,
)
from didact.preparation import PreparedData, open_prepared
from didact.runs import Run, open_run, package_versions, processor
from didact.spec import FinetuneSpec, FullSpec, to_json
from didact.training import (
    Callback,
    CheckpointStore,
    FaultInjection,
    TrainResult,
    World,
    check_devices,
    resolve_sharing,
    train,
    trainable_model,
    whole_weights,
)

_EVALUATION_BATCH = 8  # never more than a micro-batch, which must fit anyway


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom a worker tells what it measures, and who tells it to stop."""

    tell: Callable[[dict[str, Any]], object]
    """Is told what schedulers act on."""
    stop: Callable[[], bool]
    """Asked in every step."""


def run_worker(config: dict[str, Any], contact: Contact | None = None) -> TrainResult:
    """Entry point of every worker.

    Args:
        config: what `train.worker_config` says.
        contact: of a worker outside Ray Train; None on one that this has placed.

    Raises:
        OutOfMemory: of this machine or its GPU.
        WorkersLost: another worker is gone or hangs, or this one's GPU has failed.
        DidactError: anything that every worker meets alike.
    """
    receive()
    run = open_run(config["run"])
    spec = run.spec()
    if not config["use_gpu"]:
        torch.set_num_threads(spec.placement.cpus_per_worker)
    device = torch.device("cuda", 0) if config["use_gpu"] else torch.device("cpu")
    if config["use_gpu"] and contact is None:
        device = ray.train.torch.get_device()
    try:
        with kept_in(run.log):
            return _train(run, spec, config, device, contact)
    except DidactError:
        raise
    except (MemoryError, RuntimeError) as error:
        if own := explained(error, spec.placement.hang_timeout_seconds, device):
            raise own from error
        raise


def _train(
    run: Run,
    spec: FinetuneSpec,
    config: dict[str, Any],
    device: torch.device,
    contact: Contact | None,
) -> TrainResult:
    world = World.current()
    contact = contact or Contact(ray.train.report, StopRequest(run, world.rank))
    check_devices(spec, device)
    prepared = open_prepared(run.prepared, spec, task_texts)
    settled = settle_dtype(spec, device)
    start = run.start if spec.adapter.start else None
    model, packing = _loaded(settled, prepared.num_steps, load_device(spec, device, world.size), device, start)
    shares = resolve_sharing(settled, model, packing, device)
    if spec.training.compile:
        compile_blocks(model)
    checkpoints = _checkpoints(run, run_identity(spec, prepared), world, allow_fresh=config["allow_fresh"])
    training = spec.training.model_copy(update={"micro_batch_size": config["micro_batch_size"]})
    spec, settled = (each.model_copy(update={"training": training}) for each in (spec, settled))
    heartbeat = Heartbeat(spec.placement.hang_timeout_seconds, stack_file(run, config["attempt"], world.rank))
    # A report to Ray Train is a barrier over all workers.
    callbacks: list[Callback] = [Measurements(contact.tell), heartbeat]
    if world.rank == 0:
        append_jsonl(run.workers, {"attempt": config["attempt"], **computing_on(settled, device, world.size)})
        callbacks.insert(0, RunRecord(run, config["attempt"]))
    if failpoints := read_failpoints(run.path):
        callbacks.append(FaultInjection(failpoints, model, world.rank))
    result = train(
        model,
        prepared.loader(spec, packing=packing, share_prefixes=shares),
        spec.training,
        num_steps=prepared.num_steps,
        compute_dtype=compute_dtype(spec.model, device),
        checkpoints=checkpoints,
        adapter=spec.adapter,
        callbacks=callbacks,
        evaluate=lambda trained: held_out_losses(
            trained,
            prepared,
            world,
            packing=packing,
            device=device,
            lockstep=spec.training.sharding.cuts_weights,
            batch_size=min(_EVALUATION_BATCH, spec.training.micro_batch_size),
            share_prefixes=shares,
        ),
        world=world,
        stop=contact.stop,
        until=config.get("until"),
    )
    with whole_weights(model, world):
        if world.rank == 0 and result.steps == prepared.num_steps:
            export(model, run, spec, prepared)
    return result


def _checkpoints(run: Run, identity: str, world: World, *, allow_fresh: bool) -> CheckpointStore:
    """The run's own, with the one of another run that it goes on from."""
    keep = run.spec().training.keep_checkpoints
    store = CheckpointStore(run.checkpoints, keep=keep, identity=identity, allow_fresh=allow_fresh)
    if world.rank == 0:
        for taken in run.branch.glob("step-*"):
            store.adopt(taken)
    return store


def computing_on(spec: FinetuneSpec, device: torch.device, num_workers: int) -> dict[str, Any]:
    """What decides the last bits of a run beside its recipe, as plain data: two machines that agree in it agree in all.

    Args:
        spec: the recipe as this worker follows it, with `model.dtype` settled.
        device: what computes.
        num_workers: of the group.
    """
    return {
        "host": socket.gethostname(),
        "processor": processor(),
        "capability": cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "workers": num_workers,
        "micro_batch_size": spec.training.micro_batch_size,
        "dtype": spec.model.dtype,
        "packages": package_versions(),
    }


def run_identity(spec: FinetuneSpec, prepared: PreparedData) -> str:
    """Fingerprint of everything that decides a run's weights, by which its checkpoints are known."""
    return fingerprint([prepared.mixture.fingerprint, base_fingerprint(spec.model), spec.adapter.model_dump()])


def settle_dtype(spec: FinetuneSpec, device: torch.device) -> FinetuneSpec:
    """The recipe with `model.dtype: auto` resolved for where it computes, wherever weights are read to."""
    if spec.model.dtype != "auto":
        return spec
    dtype = str(compute_dtype(spec.model, device)).removeprefix("torch.")
    return spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": dtype})})


def _loaded(
    spec: FinetuneSpec, num_steps: int, read_to: torch.device, device: torch.device, start: Path | None
) -> tuple[torch.nn.Module, bool]:
    try:
        return trainable_model(spec, num_steps, read_to, device, start)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise ModelTooLarge(memory_words(error, device)) from error
        raise


def load_device(spec: FinetuneSpec, device: torch.device, num_workers: int) -> torch.device:
    """Where the base is read to: weights that will be cut go to the GPU block by block, after they are cut.

    Quantized weights are small, and are quantized where they compute. A worker alone (elastic ones may be, for a time)
    cuts nothing unless it offloads, and would train where the weights lie.
    """
    sharding = spec.training.sharding
    cut = sharding.strategy == "fsdp" and (num_workers > 1 or sharding.cpu_offload)
    return torch.device("cpu") if cut and spec.model.quantization is None else device


def held_out_losses(
    model: torch.nn.Module,
    prepared: PreparedData,
    world: World,
    *,
    packing: bool,
    device: torch.device | None = None,
    lockstep: bool = False,
    batch_size: int = _EVALUATION_BATCH,
    share_prefixes: bool = False,
) -> dict[str, float]:
    """Held-out loss per source and over all, each worker computing its share; equal on all workers.

    Args:
        model: in training, on every worker.
        prepared: with the held-out rows.
        world: the workers.
        packing: as in training.
        device: where batches go; None for where the model's first weight lies.
        batch_size: samples in one forward pass.
        share_prefixes: as in training.
        lockstep: the workers share the model's weights, so all make equally many forward passes.
    """
    names = [name for name, table in prepared.mixture.held_out.items() if len(table)]
    sums = torch.zeros(len(names), 2, dtype=torch.float64)
    for position, name in enumerate(names):
        table = prepared.mixture.held_out[name]
        mine = [table[index] for index in range(world.rank, len(table), world.size)]
        if mine or lockstep:
            loss = held_out_loss(
                model,
                mine or [table[0]],
                pad_id=prepared.tokenizer.pad_token_id,
                packing=packing,
                batch_size=batch_size,
                num_passes=math.ceil(math.ceil(len(table) / world.size) / batch_size) if lockstep else None,
                device=device,
                share_prefixes=share_prefixes,
            )
        if mine:
            sums[position] = torch.tensor([loss.mean * loss.num_supervised, loss.num_supervised])
    sums = world.sum(sums.to(device or next(model.parameters()).device)).cpu()
    if not names:
        return {}
    metrics = {f"eval/{name}/loss": (total / count).item() for name, (total, count) in zip(names, sums, strict=True)}
    return {**metrics, "eval/loss": (sums[:, 0].sum() / sums[:, 1].sum()).item()}


def export(model: Any, run: Run, spec: FinetuneSpec, prepared: PreparedData) -> Path:
    """Write the publishable result: an adapter folder, or for full finetuning the whole model."""
    trains_all = isinstance(spec.adapter, FullSpec)
    with new_folder(run.adapter, check_model if trains_all else verify_adapter) as scratch:
        prepared.contract.save(scratch)
        write_text(scratch / "recipe.json", to_json(spec))
        if trains_all:
            save_model(model, scratch)
            tokenizer = copy.deepcopy(prepared.tokenizer)
            tokenizer.chat_template = prepared.contract.standalone
            tokenizer.save_pretrained(scratch)
        else:
            save_adapter(
                model,
                scratch,
                base=spec.model.base,
                base_fingerprint=base_fingerprint(spec.model),
                method=spec.adapter.method,
            )
    return run.adapter
