"""Optimizer steps: one operation after the other, or all of a step as one CUDA graph."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, embedding
from torch.nn.utils import clip_grad_norm_

from worldrep.errors import StateError
from worldrep.model.layout import on_device
from worldrep.model.packed import PackedQwen2
from worldrep.training.device import graph_obstacle
from worldrep.training.feed import RowFeed
from worldrep.training.optimizer import learning_rate_at
from worldrep.training.state import Training
from worldrep.training.static_batch import StaticBatch, pack_static

CAPACITY_UNIT = 128  # tokens; matrix products are fastest at multiples
GRAPH_WARM_UP = 3  # steps before the capture, as CUDA graphs want


class Steps(Protocol):
    """Takes the steps of a training, one after the other."""

    def take(self) -> None:
        """One optimizer step. May raise StateError, naming the step, for a loss not finite."""

    def read(self) -> dict[str, float]:
        """Mean loss since the last reading, learning rate and gradient norm of the last step.

        There must have been a step since. Raises StateError, naming the step, when a loss was not
        finite: that step was not taken.
        """


def steps_of(training: Training, feed: RowFeed) -> Steps:
    """What the setting `compute` asks for; `auto` is a graph where one can be captured."""
    eager = training.settings.compute in ("plain", "packed")
    if eager or graph_obstacle(training.settings, training.accelerator):
        return EagerSteps(training, feed)
    return StaticSteps(training, feed)


class EagerSteps:
    """Rows packed on the host, shared beginnings computed once; any device, any processes."""

    def __init__(self, training: Training, feed: RowFeed) -> None:
        self._training, self._feed = training, feed
        self._losses: list[float] = []
        self._numbers: dict[str, float] = {}

    def take(self) -> None:
        training = self._training
        accelerator, settings = training.accelerator, training.settings
        loss = self._accumulate_gradients(self._feed.batch(training.step))
        if not np.isfinite(loss):
            raise not_finite(loss, training.step)
        limit = settings.clip_norm or float("inf")
        norm = accelerator.clip_grad_norm_(training.model.parameters(), limit)
        rate = learning_rate_at(training.step, self._feed.schedule.steps, settings)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        training.optimizer.step()
        training.optimizer.zero_grad()
        if training.pull:
            training.pull.apply(rate)
        training.step += 1
        self._losses.append(loss)
        self._numbers = {"train/lr": rate, "train/grad_norm": float(norm)}

    def read(self) -> dict[str, float]:
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        return {"train/loss": mean, **self._numbers}

    def _accumulate_gradients(self, batch: NDArray[np.int64]) -> float:
        """Gradients of the batch's mean loss, part by part; returns that loss.

        Each process takes every n-th row. One without rows computes a row of weight 0, so that the
        exchange of gradients has all its partners.
        """
        training, feed = self._training, self._feed
        accelerator, count = training.accelerator, feed.target_count(batch)
        mine = batch[accelerator.process_index :: accelerator.num_processes]
        parts = [part for part in np.array_split(mine, training.settings.accumulation) if len(part)]
        weight = 1.0 / count if parts else 0.0
        parts = parts or [batch[:1]]
        total = torch.zeros((), device=accelerator.device)
        for i, part in enumerate(parts):
            packed = feed.tensors(part)
            with training.gradient_sync(last=i == len(parts) - 1):
                logits = training.model(packed.tokens, packed.layout, packed.at).float()
                logits = embedding(packed.asked, logits)
                loss = weight * cross_entropy(logits, packed.targets, reduction="sum")
                accelerator.backward(loss * accelerator.num_processes)  # processes average these
            total += loss.detach()
        return float(accelerator.reduce(total))


class StaticSteps:
    """Steps whose shapes never change and for which the host never waits.

    All rows lie on the device, and the device packs them. On CUDA a whole step, from packing to
    AdamW, is captured once and replayed; elsewhere its operations run as they are. A loss that is
    not finite keeps its step and all later ones from changing anything, and shows at the reading.
    """

    def __init__(self, training: Training, feed: RowFeed) -> None:
        self._training, self._feed, settings = training, feed, training.settings
        device = training.accelerator.device
        self._rows = on_device(feed.rows, device)
        self._capacity = -(-feed.most_tokens() // CAPACITY_UNIT) * CAPACITY_UNIT
        self._batch = torch.full((settings.batch_size,), -1, device=device)
        self._rate, self._loss, self._norm, self._taken, self._stopped = torch.zeros(
            5, device=device
        ).unbind()
        self._passes = PackedQwen2(training.plain)  # without what accelerate wraps around it
        self._optimizer = training.optimizer.optimizer
        for group in self._optimizer.param_groups:
            group |= {"lr": self._rate, "capturable": device.type == "cuda"}
        self._optimizer.found_inf = self._stopped  # what keeps fused AdamW from its update
        self._loss_of = torch.compile(_mean_loss) if settings.compute == "compile" else _mean_loss
        self._replay = self._capture() if device.type == "cuda" else self._step
        self._clear()

    def take(self) -> None:
        training, schedule = self._training, self._feed.schedule
        self._send(self._feed.batch(training.step))
        self._rate.fill_(learning_rate_at(training.step, schedule.steps, training.settings))
        self._replay()
        training.step += 1

    def read(self) -> dict[str, float]:
        numbers = torch.stack([self._loss, self._taken, self._stopped, self._norm, self._rate])
        loss, taken, stopped, norm, rate = numbers.tolist()
        if stopped:
            self._training.step = self._read_at + int(taken)
            raise not_finite(loss, self._training.step)
        self._clear()
        return {"train/loss": loss / taken, "train/lr": rate, "train/grad_norm": norm}

    def _clear(self) -> None:
        self._read_at = self._training.step
        for number in (self._loss, self._taken, self._stopped):
            number.zero_()

    def _send(self, batch: NDArray[np.int64]) -> None:
        """Tell the device which rows are next; -1 fills up the last batch of an epoch."""
        filled = np.full(len(self._batch), -1)
        filled[: len(batch)] = batch
        self._batch.copy_(torch.from_numpy(filled), non_blocking=True)

    def _capture(self) -> Callable[[], None]:
        """The step as a CUDA graph. The steps taken before change nothing but lazy state."""
        gc.collect()  # a graph that is no longer used must not end while this one is captured
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
        """All of a step, on the device alone."""
        training, settings = self._training, self._training.settings
        self._optimizer.zero_grad(set_to_none=True)
        rows = self._rows[self._batch.clamp(min=0)].long()
        rows = rows.masked_fill(self._batch[:, None] < 0, 0)
        batch = pack_static(rows, self._capacity, settings.loss == "answer")
        with training.accelerator.autocast():
            loss = self._loss_of(self._passes, batch)
        loss.backward()
        norm = clip_grad_norm_(training.plain.parameters(), settings.clip_norm or float("inf"))
        loss = loss.detach()
        self._loss.add_(torch.where(self._stopped > 0, 0.0, loss))
        self._stopped.copy_(torch.maximum(self._stopped, (~loss.isfinite()).float()))
        self._norm.copy_(norm)
        self._optimizer.step()
        if training.pull:
            training.pull.apply(self._rate * (1.0 - self._stopped))
        self._taken.add_(1.0 - self._stopped)


def _mean_loss(passes: PackedQwen2, batch: StaticBatch) -> torch.Tensor:
    """Loss of a static batch, the part of a step that is worth compiling."""
    logits = passes(batch.tokens, batch.layout).float()
    return (cross_entropy(logits, batch.targets, reduction="none") * batch.weights).sum()


def not_finite(loss: float, step: int) -> StateError:
    """What is said about the step behind `step` steps."""
    return StateError(
        f"the loss is {loss} at step {step + 1}; the step was not taken: "
        "try a lower learning_rate or more warmup_steps"
    )
