"""Where the steps of a study run: in this process, in several, or on a Ray cluster."""

from worldrep.executors.choice import Choice, Executor
from worldrep.executors.work import Job, Outcome, Workplace

__all__ = ["Choice", "Executor", "Outcome", "Job", "Workplace"]
