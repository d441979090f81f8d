"""Training, evaluation and extraction as recorded runs, each done once.

Imports `tracking`, `training`, `evaluation`, `model`, `data` and the top-level modules.
"""

from worldrep.stages.measure import evaluate_model, extract_model
from worldrep.stages.models import find_model, model_by_run_id
from worldrep.stages.plan import TrainingPlan
from worldrep.stages.train import train_model
