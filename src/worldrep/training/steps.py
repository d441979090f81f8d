"""Optimizer steps: one operation after the other, or a whole step as one CUDA graph."""

import gc
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding
from torch.nn.utils import clip_grad_norm_

from worldrep.data.tokens import EQUALS, PAD
from worldrep.errors import StateError
from worldrep.model.packed import Layout, PackedQwen2, on_device
from worldrep.settings import Settings
from worldrep.training.feed import RowFeed
from worldrep.training.optimizer import learning_rate_at
from worldrep.training.state import Training, graph_obstacle

CAPACITY_UNIT = 128  # tokens; matrix products are fastest at multiples
GRAPH_WARM_UP = 3  # steps before the capture, as CUDA graphs need


def not_finite(fault: str, settings: Settings) -> StateError:
    """Return the error of a training whose numbers are not finite any more."""
    muon = " and muon_learning_rate" if settings.optimizer == "muon" else ""
    return StateError(f"{fault}: try a lower learning_rate{muon} or more warmup_steps")


def _step_not_taken(loss: float, norm: float, training: Training) -> StateError:
    fault = f"gradient norm is {norm}" if np.isfinite(loss) else f"loss is {loss}"
    where = f"the {fault} at step {training.step + 1}; the step was not taken"
    return not_finite(where, training.settings)


def _rates(training: Training, feed: RowFeed) -> list[float]:
    """Return the next learning rate of each group of parameters; the first is that of AdamW."""
    warmup, steps = training.settings.warmup_steps, feed.schedule.steps
    return [learning_rate_at(training.step, steps, warmup, g["peak"]) for g in training.groups]


class EagerSteps:
    """Steps on rows packed on the host, which share prefixes; any device, any processes."""

    def __init__(self, training: Training, feed: RowFeed) -> None:
        self._training, self._feed = training, feed
        self._losses: list[float] = []
        self._numbers: dict[str, float] = {}

    def take(self) -> int:
        """Take one optimizer step and return the number of tokens in its rows.

        Raises StateError, without taking the step, if the loss or the gradient norm is not finite.
        """
        training = self._training
        accelerator, settings = training.accelerator, training.settings
        batch = self._feed.batch(training.step)
        loss = self._accumulate_gradients(batch)
        parameters = training.model.parameters()
        norm = float(accelerator.clip_grad_norm_(parameters, settings.clip_norm or float("inf")))
        if not np.isfinite([loss, norm]).all():
            raise _step_not_taken(loss, norm, training)
        rate, *_ = rates = _rates(training, self._feed)
        for group, value in zip(training.groups, rates, strict=True):
            group["lr"] = value
        for optimizer in training.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if training.pull:
            training.pull.apply(rate)
        training.step += 1
        self._losses.append(loss)
        self._numbers = {"train/lr": rate, "train/grad_norm": norm}
        return self._feed.token_count(batch)

    def read(self) -> dict[str, float]:
        """Return the mean loss since the last reading, learning rate and gradient norm."""
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        return {"train/loss": mean, **self._numbers}

    def _accumulate_gradients(self, batch: NDArray[np.int64]) -> float:
        """Compute gradients of the batch's mean loss, part by part, and return that loss.

        Each process takes every n-th row. One without rows computes a row of weight 0, because all
        processes must take part in averaging the gradients.
        """
        training, feed = self._training, self._feed
        accelerator, count = training.accelerator, feed.target_count(batch)
        mine = batch[accelerator.process_index :: accelerator.num_processes]
        parts = [part for part in np.array_split(mine, training.settings.accumulation) if len(part)]
        weight = 1.0 / count if parts else 0.0
        parts = parts or [batch[:1]]
        total = torch.zeros((), device=accelerator.device)
        for i, part in enumerate(parts):
            packed, last = feed.tensors(part), i == len(parts) - 1
            # Processes average their gradients in a batch's last part only.
            with nullcontext() if last else accelerator.no_sync(training.model):
                logits = training.model(packed.tokens, packed.layout, packed.at).float()
                logits = embedding(packed.asked, logits)
                loss = weight * cross_entropy(logits, packed.targets, reduction="sum")
                accelerator.backward(loss * accelerator.num_processes)  # averaged over processes
            total += loss.detach()
        return float(accelerator.reduce(total))


class StaticSteps:
    """Steps of constant shapes that run on the device alone; the host never waits for them.

    All rows are kept and packed on the device. On CUDA a whole step, from packing to AdamW, is
    captured as a graph and replayed; in tests on CPUs its operations run as they are. After a loss
    or gradient norm that is not finite, neither that step nor later ones change anything, and
    `read` raises the error.
    """

    def __init__(self, training: Training, feed: RowFeed) -> None:
        self._training, self._feed, settings = training, feed, training.settings
        device = training.accelerator.device
        self._rows = on_device(feed.rows, device)
        self._capacity = -(-feed.most_tokens() // CAPACITY_UNIT) * CAPACITY_UNIT
        self._batch = torch.full((settings.batch_size,), -1, device=device)
        numbers = torch.zeros(4, device=device).unbind()
        self._loss, self._norm, self._taken, self._stopped = numbers
        self._rates = torch.zeros(len(training.groups), device=device)  # the first is AdamW's
        self._passes = PackedQwen2(training.plain)  # without the wrapper of accelerate
        self._optimizers = [prepared.optimizer for prepared in training.optimizers]
        for group, rate in zip(training.groups, self._rates.unbind(), strict=True):
            group |= {"lr": rate, "capturable": device.type == "cuda"}
        for optimizer in self._optimizers:
            optimizer.found_inf = self._stopped  # makes fused AdamW and Muon skip their updates
        self._loss_of = torch.compile(_mean_loss) if settings.compute == "compile" else _mean_loss
        self._replay = self._capture() if device.type == "cuda" else self._step
        self._clear()

    def take(self) -> int:
        """Queue what `EagerSteps.take` does, without checking the loss."""
        training = self._training
        batch = self._feed.batch(training.step)
        filled = np.full(len(self._batch), -1)  # -1 fills an epoch's last batch
        filled[: len(batch)] = batch
        self._batch.copy_(torch.from_numpy(filled), non_blocking=True)
        self._rates.copy_(torch.tensor(_rates(training, self._feed)), non_blocking=True)
        self._replay()
        training.step += 1
        return self._feed.token_count(batch)

    def read(self) -> dict[str, float]:
        """Synchronise and do what `EagerSteps.read` does, or raise what `EagerSteps.take` does."""
        numbers = torch.stack([self._loss, self._taken, self._stopped, self._norm, self._rates[0]])
        loss, taken, stopped, norm, rate = numbers.tolist()
        if stopped:
            self._training.step = self._read_at + int(taken)
            raise _step_not_taken(loss, norm, self._training)
        self._clear()
        return {"train/loss": loss / taken, "train/lr": rate, "train/grad_norm": norm}

    def _clear(self) -> None:
        self._read_at = self._training.step
        for number in (self._loss, self._taken, self._stopped):
            number.zero_()

    def _capture(self) -> Callable[[], None]:
        """Capture the step as a CUDA graph; the warm-up steps only initialise lazy state."""
        gc.collect()  # an unused graph must not be destroyed during the capture
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(GRAPH_WARM_UP):
                self._stopped.fill_(1.0)
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph.replay

    def _step(self) -> None:
        training, settings = self._training, self._training.settings
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        rows = self._rows[self._batch.clamp(min=0)].long()
        rows = rows.masked_fill(self._batch[:, None] < 0, 0)
        batch = pack_static(rows, self._capacity, settings.loss == "answer")
        with training.accelerator.autocast():
            loss = self._loss_of(self._passes, *batch)
        loss.backward()
        norm = clip_grad_norm_(training.plain.parameters(), settings.clip_norm or float("inf"))
        loss = loss.detach()
        self._loss.add_(torch.where(self._stopped > 0, 0.0, loss))
        self._norm.copy_(torch.where(self._stopped > 0, self._norm, norm))
        is_finite = loss.isfinite() & norm.isfinite()
        self._stopped.copy_(torch.maximum(self._stopped, (~is_finite).float()))
        for optimizer in self._optimizers:
            optimizer.step()
        if training.pull:
            training.pull.apply(self._rates[0] * (1.0 - self._stopped))
        self._taken.add_(1.0 - self._stopped)


def pack_static(
    rows: Tensor, capacity: int, answer_only: bool
) -> tuple[Tensor, Layout, Tensor, Tensor]:
    """Pack token rows (N, L) on their device, without sharing prefixes or waiting for a count.

    Rows may be empty. Return T = capacity input tokens (all but the last of each row, then
    anything), their layout, the tokens to predict, and their weights in the mean loss.
    """
    device, longest = rows.device, rows.shape[1] - 1
    lengths = (rows != PAD).sum(dim=1, keepdim=True) - 1
    columns = torch.arange(longest, device=device)
    present = columns < lengths
    firsts = (rows == EQUALS).int().argmax(dim=1, keepdim=True) if answer_only else 0
    due = present & (columns >= firsts)
    number = present.flatten().cumsum(0) - 1
    cells = torch.arange(present.numel(), device=device)
    slots = torch.where(present.flatten(), number, capacity)  # padding goes to one extra slot
    places = torch.zeros(capacity + 1, dtype=torch.long, device=device)
    places = places.scatter(0, slots, cells)[:capacity]
    filled = torch.arange(capacity, device=device) <= number[-1]
    weights = (due.flatten()[places] & filled) / due.sum().clamp(min=1)
    # Spread padding over all tokens: one shared index would serialise the backward scatter.
    gather = torch.where(present.flatten(), number, cells % capacity).view_as(present)
    inputs, targets = rows[:, :-1].flatten()[places], rows[:, 1:].flatten()[places]
    return inputs, Layout((gather,), places, places % longest), targets, weights


def _mean_loss(
    passes: PackedQwen2, tokens: Tensor, layout: Layout, targets: Tensor, weights: Tensor
) -> Tensor:
    """Return the loss of a static batch; this is the part of a step that is worth compiling."""
    logits = passes(tokens, layout).float()
    return (cross_entropy(logits, targets, reduction="none") * weights).sum()


def steps_of(training: Training, feed: RowFeed) -> EagerSteps | StaticSteps:
    """Return the steps that the setting `compute` wants; `auto` is a CUDA graph if possible."""
    eager = training.settings.compute in ("plain", "packed")
    if eager or graph_obstacle(training.settings, training.accelerator):
        return EagerSteps(training, feed)
    return StaticSteps(training, feed)
