"""A stored model as MLflow's `python_function`: questions in, answers out.

This file is copied beside the weights of each model, and MLflow runs it there. It imports nothing
of worldrep, so that a model can be used where worldrep is not installed.
"""

import re
from pathlib import Path

import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 256  # questions that are answered together


class Answers(PythonModel):
    """Answers questions such as `dist(c_12,c_40)=` greedily, as an evaluation does.

    Its configuration has `labels`, those of the tasks, and `max_new_tokens` of an answer.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights and the tokenizer that lie beside this file."""
        folder = Path(__file__).parent
        self.labels = context.model_config["labels"]
        self.max_new_tokens = context.model_config["max_new_tokens"]
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def predict(
        self, context: PythonModelContext, model_input: list[str], params: dict | None = None
    ) -> list[str]:
        """Return the answer to each question. Raises MlflowException for what is no question."""
        # Without <eos>, which the tokenizer appends.
        prompts = [self.tokenizer(self._checked(text))["input_ids"][:-1] for text in model_input]
        answers = [""] * len(prompts)
        by_length: dict[int, list[int]] = {}  # questions of one length need no padding
        for place, prompt in enumerate(prompts):
            by_length.setdefault(len(prompt), []).append(place)
        for places in by_length.values():
            for start in range(0, len(places), BATCH):
                batch = places[start : start + BATCH]
                answered = self._answer([prompts[i] for i in batch])
                for place, answer in zip(batch, answered, strict=True):
                    answers[place] = answer
        return answers

    def _checked(self, typed: str) -> str:
        text = re.sub(r"\s", "", typed)
        text += "" if text.endswith("=") else "="
        match = re.fullmatch(r"(\w+)\((c_\d+[,;])+c_\d+\)=", text, re.ASCII)
        if match is None or match[1] not in self.labels:
            raise MlflowException.invalid_parameter_value(
                f"{typed!r} is no question: a question is, for example, dist(c_12,c_40)=, and "
                f"begins with one of {', '.join(self.labels)}"
            )
        if len(text) + 1 + self.max_new_tokens > self.model.config.max_position_embeddings:
            raise MlflowException.invalid_parameter_value(f"{typed!r} has too many cities")
        return text

    @torch.inference_mode()
    def _answer(self, prompts: list[list[int]]) -> list[str]:
        tokens = torch.tensor(prompts, device=self.model.device)
        options = {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        found = self.model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
        ends = self.tokenizer.eos_token
        texts = self.tokenizer.batch_decode(found[:, tokens.shape[1] :])
        return [text.partition(ends)[0] for text in texts]


set_model(Answers())
