"""The Qwen2 decoder: new models, and models saved in Hugging Face format."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging as transformers_logging

from worldrep.data.tokens import BOS, EOS, PAD, VOCABULARY_SIZE, save_tokenizer
from worldrep.errors import StateError, first_line
from worldrep.settings import Settings

transformers_logging.disable_progress_bar()  # models of this size load in milliseconds

INITIAL_STD = 0.1


def build_model(settings: Settings) -> Qwen2ForCausalLM:
    """Return a new float32 model on the CPU, initialised from the seed of the settings.

    Linear and Embedding weights are drawn from N(0, 0.1); biases are 0, norm weights 1.
    """
    config = Qwen2Config(
        vocab_size=VOCABULARY_SIZE, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        hidden_size=settings.hidden_size, intermediate_size=settings.intermediate_size,
        num_attention_heads=settings.n_heads, num_key_value_heads=settings.n_heads,
        num_hidden_layers=settings.n_layers, max_position_embeddings=128,
        tie_word_embeddings=False, initializer_range=INITIAL_STD,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, INITIAL_STD, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


def save_model(model: Qwen2ForCausalLM, folder: Path) -> None:
    """Save weights (safetensors), configuration and tokenizer, for `from_pretrained` to load."""
    model.save_pretrained(folder)
    save_tokenizer(folder)
    for path in folder.glob("*.safetensors"):  # safetensors makes files that others cannot read
        shutil.copymode(folder / "config.json", path)


def load_model(folder: str | Path) -> Qwen2ForCausalLM:
    """Load a model that `save_model` wrote, in float32 on the CPU and in evaluation mode.

    Raises:
        StateError: A file is missing or damaged.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise StateError(f"{folder} holds no model: {name} is missing")
    try:
        model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except (SafetensorError, OSError, ValueError, RuntimeError) as fault:
        raise StateError(f"the model in {folder} is damaged: {first_line(fault)}") from None
    return model.eval()
