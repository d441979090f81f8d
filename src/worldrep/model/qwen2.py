"""The Qwen2 decoder: new models, and models saved in Hugging Face format."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging as transformers_logging

from worldrep.data.tokens import BOS, EOS, PAD, VOCABULARY_SIZE, save_tokenizer
from worldrep.errors import first_line
from worldrep.settings import Settings
from worldrep.stored import CONFIG, WEIGHTS, DamagedError, ModelConfig, check_tensors, read_json

transformers_logging.disable_progress_bar()  # models of this size load in milliseconds

INITIAL_STD = 0.1


SIZES = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
    "num_hidden_layers", "max_position_embeddings", "vocab_size",
)  # fmt: skip
FIXED = (
    "hidden_act",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
    "use_sliding_window",
)


def build_model(settings: Settings) -> Qwen2ForCausalLM:
    """Return a new float32 model on the CPU, initialised from the seed of the settings.

    Linear and Embedding weights are drawn from N(0, 0.1); biases are 0, norm weights 1.
    """
    model = Qwen2ForCausalLM(_config_of(settings))
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, INITIAL_STD, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


def _config_of(settings: Settings) -> Qwen2Config:
    return _config(
        vocab_size=VOCABULARY_SIZE, hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size, num_attention_heads=settings.n_heads,
        num_key_value_heads=settings.n_heads, num_hidden_layers=settings.n_layers,
        max_position_embeddings=128,
    )  # fmt: skip


def _config(**sizes: int) -> Qwen2Config:
    return Qwen2Config(
        **sizes, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        tie_word_embeddings=False, initializer_range=INITIAL_STD,
    )  # fmt: skip


def save_model(model: Qwen2ForCausalLM, folder: Path) -> None:
    """Save weights (safetensors), configuration and tokenizer, for `from_pretrained` to load."""
    model.save_pretrained(folder)
    save_tokenizer(folder)
    for path in folder.glob("*.safetensors"):  # safetensors makes files that others cannot read
        shutil.copymode(folder / "config.json", path)


def load_model(folder: str | Path, settings: Settings | None = None) -> Qwen2ForCausalLM:
    """Load a model that `save_model` wrote, in float32 on the CPU and in evaluation mode.

    Two files are read, config.json and model.safetensors; what else the folder holds has no effect.

    Args:
        folder: The folder of the files.
        settings: What the model was built from, if known: config.json must agree with it.

    Raises:
        DamagedError: A file is missing or damaged, or is not of a model of this platform.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG, settings)
    with torch.device("meta"):  # the names and shapes, without memory
        wanted = {k: tuple(v.shape) for k, v in Qwen2ForCausalLM(config).state_dict().items()}
    check_tensors(folder / WEIGHTS, wanted)
    weights = load_file(folder / WEIGHTS)
    # With a folder instead of None, transformers would also load an adapter that lies in it.
    return Qwen2ForCausalLM.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32
    ).eval()


def _read_config(path: Path, settings: Settings | None) -> Qwen2Config:
    found = read_json(path, ModelConfig).model_dump()
    try:
        config = _config(**{name: found[name] for name in SIZES})
    except ValueError as fault:
        raise DamagedError(path, first_line(fault)) from None
    wanted = (_config_of(settings) if settings else config).to_dict()
    for name in (*SIZES, *FIXED):
        if found.get(name, wanted[name]) != wanted[name]:
            raise DamagedError(path, f"{name} is not {wanted[name]}")
    return config
