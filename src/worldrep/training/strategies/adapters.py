"""LoRA (Hu et al. 2021): the base's weights stay, small adapters beside them learn; by peft."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

import torch
from transformers import Qwen2ForCausalLM

from worldrep.settings import Settings

if TYPE_CHECKING:
    from peft import PeftModel

# Every matrix of the decoder's layers. Embeddings and head stay as they are.
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def with_adapters(model: Qwen2ForCausalLM, settings: Settings) -> PeftModel:
    """Put adapters into a model, of which nothing else is trained then.

    They start as nothing, and what they add is scaled by lora_alpha / lora_rank. Their random half
    is of the seed.
    """
    from peft import LoraConfig, get_peft_model  # takes a second, and no other strategy needs it

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=ADAPTED,
        lora_dropout=0.0,
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        torch.manual_seed(settings.seed)
        return get_peft_model(model, config)


def merged(adapted: PeftModel) -> Qwen2ForCausalLM:
    """A plain model with the adapters in its weights; the adapted one stays as it is."""
    return copy.deepcopy(adapted).merge_and_unload()
