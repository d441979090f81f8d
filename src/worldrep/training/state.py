"""Device and precision of a training, and all of it that changes from step to step."""

import copy
import sys
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from transformers import Qwen2ForCausalLM

from worldrep.data.tokens import Tokens
from worldrep.errors import InputError, StateError
from worldrep.model.packed import PackedQwen2, PlainQwen2
from worldrep.settings import Settings
from worldrep.training.checkpoint import Checkpoint
from worldrep.training.optimizer import build_optimizers, state_keys, trained_parameters
from worldrep.training.processes import check_environment
from worldrep.training.strategies import Pull, fisher_information, train_only, with_adapters

ADAPTER, OPTIMIZER = "adapter/", "optimizer/"  # prefixes in a state dict


def best_device() -> torch.device:
    """Return the device for evaluating and extracting: CUDA if available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_accelerator(settings: Settings) -> Accelerator:
    """Return an accelerator; precision `auto` is bf16 on a CUDA device that has it, else float32.

    Prints a line on standard error if bf16 is asked for on a CPU without bfloat16 instructions.
    Raises InputError if the setting `compute` needs a CUDA graph, which is not possible here, or
    if the environment describes half a group of processes.
    """
    check_environment()
    precision = settings.precision
    if precision == "auto":
        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if bf16 else "no"
    accelerator = Accelerator(mixed_precision=precision)
    slow = precision == "bf16" and accelerator.device.type == "cpu" and not _has_bf16()
    if slow and accelerator.is_main_process:
        print(
            "precision=bf16 is slow on this CPU, which has no bfloat16 instructions; "
            "use precision=no",
            file=sys.stderr,
        )
    obstacle = graph_obstacle(settings, accelerator)
    if settings.compute in ("graph", "compile") and obstacle:
        allowed = "allowed here: auto, plain, packed"
        raise InputError(f"compute={settings.compute} {obstacle}; {allowed}")
    return accelerator


def _has_bf16() -> bool:
    """Whether the CPU has bfloat16 instructions, as far as this version of torch can tell."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return True
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def graph_obstacle(settings: Settings, accelerator: Accelerator) -> str:
    """Return why a step cannot be captured as a CUDA graph, or an empty text if it can."""
    if accelerator.device.type != "cuda":
        return "needs a CUDA device"
    if accelerator.num_processes > 1:
        return "is for one process"
    return "cannot be used with accumulation" if settings.accumulation > 1 else ""


class CheckpointError(StateError):
    """A checkpoint is not one of this training; nothing was changed."""


def kind_of(tensor: torch.Tensor) -> str:
    """Return type and shape of a tensor, such as `float32[2, 3]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


class Training:
    """A model, its optimizers and the number of steps taken.

    It begins with the model at step 0, even if a checkpoint is loaded afterwards. `plain` is the
    model of `transformers`, `model` its forward pass as the setting `compute` wants it, prepared by
    accelerate. base_rows (m, length) are rows of the base's training, for the strategy `ewc`.
    """

    def __init__(
        self, model: Qwen2ForCausalLM, settings: Settings, accelerator: Accelerator,
        base_rows: Tokens | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.accelerator, self.step = settings, accelerator, 0
        self.plain = model.to(accelerator.device).train()
        self.pull = self._pull(base_rows)
        self._adapted = with_adapters(self.plain, settings) if settings.strategy == "lora" else None
        if settings.strategy == "freeze":
            train_only(settings.trained_part, self.plain)
        passes = (PlainQwen2 if settings.is_plain else PackedQwen2)(self.plain)
        optimizers = build_optimizers(self.plain, settings)
        self.model, *self.optimizers = accelerator.prepare(passes, *optimizers)
        self._optimizer_of = {
            parameter: optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    def _pull(self, base_rows: Tokens | None) -> Pull | None:
        if self.settings.strategy == "l2sp":
            return Pull(self.plain, self.settings.l2sp_strength)
        if self.settings.strategy == "ewc":
            assert base_rows is not None
            information = broadcast(fisher_information(self.plain, base_rows, self.settings))
            return Pull(self.plain, self.settings.ewc_strength, information)
        return None

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The groups of parameters of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def result(self) -> Qwen2ForCausalLM:
        """Return the model as it is now, with adapters merged into its weights."""
        return copy.deepcopy(self._adapted).merge_and_unload() if self._adapted else self.plain

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return step, random state, optimizer state and adapters; weights are saved as a model."""
        state = {"step": torch.tensor(self.step), "rng": torch.get_rng_state()}
        for name, parameter in trained_parameters(self.plain):
            if self._adapted:
                state[f"{ADAPTER}{name}"] = parameter.detach().cpu().contiguous()
            for key, value in self._state_of(parameter).items():
                state[f"{OPTIMIZER}{name}/{key}"] = value.detach().cpu().contiguous()
        return state

    def _check(self, checkpoint: Checkpoint, steps: int) -> None:
        if not 0 < checkpoint.step <= steps:
            raise CheckpointError(f"step {checkpoint.step} is not one of the {steps} to take")
        state = {"step": "int64[]", "rng": kind_of(torch.get_rng_state())}
        for name, parameter in trained_parameters(self.plain):
            if self._adapted:
                state[f"{ADAPTER}{name}"] = kind_of(parameter)
            for key in state_keys(self._optimizer_of[parameter].optimizer):
                kind = "float32[]" if key == "step" else kind_of(parameter)
                state[f"{OPTIMIZER}{name}/{key}"] = kind
        pairs = [(checkpoint.state, state)]
        if not self._adapted:  # else the weights are of the merged model, which is not loaded
            weights = {name: kind_of(value) for name, value in self.plain.state_dict().items()}
            pairs.append((checkpoint.weights, weights))
        for tensors, expected in pairs:
            found = {name: kind_of(tensor) for name, tensor in tensors.items()}
            for name in sorted(found.keys() | expected.keys()):
                has, should = found.get(name, "absent"), expected.get(name, "absent")
                if has != should:
                    raise CheckpointError(f"{name} is {has}, should be {should}")

    def _state_of(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        return self._optimizer_of[parameter].state[parameter]

    def load_checkpoint(self, checkpoint: Checkpoint, steps: int) -> None:
        """Continue after a checkpoint of this training, which has `steps` steps.

        Raises:
            CheckpointError: The checkpoint is another training's, or lacks something; the training
                is as it was.
        """
        self._check(checkpoint, steps)
        weights, state = checkpoint.weights, checkpoint.state
        trained = trained_parameters(self.plain)
        if self._adapted:
            weights = {name: state[f"{ADAPTER}{name}"] for name, _ in trained}
        self.plain.load_state_dict(weights, strict=self._adapted is None)
        for name, parameter in trained:
            own = {k: v for k, v in state.items() if k.startswith(f"{OPTIMIZER}{name}/")}
            kept = {k.rpartition("/")[2]: v.to(parameter.device) for k, v in own.items()}
            self._state_of(parameter).update(kept)
        torch.set_rng_state(state["rng"])
        self.step = checkpoint.step
