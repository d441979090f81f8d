"""Run jobs in this process, in worker processes of this machine, or on a Ray cluster.

Imports: stages, tracking, training and below.
"""

from worldrep.executors.executor import Executor, ExecutorOptions, open_executor
from worldrep.executors.jobs import Job, Message, Outcome
