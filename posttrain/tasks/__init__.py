"""Tasks: problems to train on, problems held out, and scores.  `posttrain.tasks.load` finds one by name."""

from posttrain.tasks.load import load_task, task_names
from posttrain.tasks.task import Problem, Task

__all__ = ["Problem", "Task", "load_task", "task_names"]
