"""The console command `worldrep`: every command under one name, imported when it is asked for.

It imports click alone, so that `worldrep --help` and completion in a shell answer at once.
"""

from copy import copy
from functools import partial
from importlib import import_module

import click
from click.shell_completion import CompletionItem

STUDY = "entrypoints.study"
COMMANDS = {  # name: module, what it does
    "demo": ("entrypoints.main", "Run a study, by default the demo, and draw its figures."),
    "study": (STUDY, "Do what is left of a study."),
    "status": (STUDY, "Print the state of each step of a study; run nothing."),
    "plan": (STUDY, "Print the steps of a study that would run; run nothing."),
    "pretrain": ("entrypoints.pretrain", "Pretrain a model."),
    "finetune": ("entrypoints.finetune", "Fine-tune a model on Atlantis."),
    "evaluate": ("entrypoints.evaluate", "Evaluate a trained model."),
    "extract": ("entrypoints.extract", "Extract a trained model's representations."),
    "ask": ("entrypoints.ask", "Ask a trained model questions."),
    "sweep": ("entrypoints.sweep", "Search settings with Optuna."),
    "report": ("analysis.report", "All analyses that the store supports, on one page."),
    "exp1_heatmaps": ("analysis.exp1_heatmaps", "Transfer of the ftwb1 and ftwb2 models."),
    "exp3_heatmaps": ("analysis.exp3_heatmaps", "The same for each width."),
    "ft_heatmaps": ("analysis.ft_heatmaps", "The same with and without warm-up rows."),
    "reciprocity": ("analysis.reciprocity", "Which tasks give, which take."),
    "predictors": ("analysis.predictors", "Several tasks predicted from one."),
    "forgetting": ("analysis.forgetting", "What fine-tuning costs on the base's own cities."),
    "probes": ("analysis.probes", "What a linear probe reads from the hidden states."),
    "cka": ("analysis.cka", "How similar representations are."),
    "cka_generalization": ("analysis.cka_generalization", "Similarity against transfer."),
    "dynamics": ("analysis.dynamics", "When each task is learnt."),
    "seeds": ("analysis.seeds", "Spread over seeds."),
    "replication": ("analysis.replication", "Published findings beside those of a folder."),
}


class Unknown(click.ClickException):
    """There is no such command."""

    exit_code = 2


class Commands(click.Group):
    """A group that imports the module of a command when that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            from worldrep.errors import unknown
            from worldrep.studies.definition import builtin_names

            if cmd_name in builtin_names():
                raise Unknown(f"{cmd_name} is a study: worldrep study {cmd_name}")
            raise Unknown(str(unknown("command", cmd_name, COMMANDS)))
        command: click.Command = import_module(COMMANDS[cmd_name][0]).main
        return of_action(command, cmd_name) if cmd_name in ("status", "plan") else command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]


def of_action(study: click.Command, action: str) -> click.Command:
    """Return the command `study` with its option `action` set."""
    assert study.callback is not None
    command = copy(study)
    command.help = COMMANDS[action][1]
    command.name, command.callback = action, partial(study.callback, action=action)
    command.params = [option for option in study.params if option.name != "action"]
    return command


@click.command(cls=Commands, context_settings={"max_content_width": 100})
def main() -> None:
    """Experiments on how small transformers represent a map.

    Each command has --help. Completion in bash: eval "$(_WORLDREP_COMPLETE=bash_source worldrep)";
    zsh and fish have zsh_source and fish_source.
    """


if __name__ == "__main__":
    main(prog_name="worldrep")
