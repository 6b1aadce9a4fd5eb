"""fusionlearn: one-shot federated learning. Three nouns, three verbs.

A Task goes out. Each client *summarizes* its data into one Update. The server *fuses* the updates into one Model,
and anyone *predicts* with it.
"""

from fusionlearn import threads as _threads  # noqa: F401 - before numpy is loaded
from fusionlearn.errors import FusionlearnError
from fusionlearn.file import digest, read, sign, verify, write
from fusionlearn.problem import Category, ClassLabel, Number, NumberLabel, Schema, Text, TextLabel, Vector
from fusionlearn.run import add, evaluate, fuse, new_task, predict, subtract, summarize
from fusionlearn.types import Model, Privacy, Report, Task, Total, Update

__version__ = "0.1.0"

__all__ = [
    "Category",
    "ClassLabel",
    "FusionlearnError",
    "Model",
    "Number",
    "NumberLabel",
    "Privacy",
    "Report",
    "Schema",
    "Task",
    "Text",
    "TextLabel",
    "Total",
    "Update",
    "Vector",
    "add",
    "digest",
    "evaluate",
    "fuse",
    "new_task",
    "predict",
    "read",
    "sign",
    "subtract",
    "summarize",
    "verify",
    "write",
]
