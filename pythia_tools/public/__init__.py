"""Public results as data: `published(path)` gives one tidy frame, with item counts and known errors.

Nothing here loads a model.
"""

from pythia_tools.public.columns import COLUMNS, SHARES, items
from pythia_tools.public.reader import LAYOUTS, published
from pythia_tools.public.summaries import of_tasks, to_summary
from pythia_tools.public.tasks import METRICS, TASKS, Task, task

__all__ = [
    "COLUMNS", "LAYOUTS", "METRICS", "SHARES", "TASKS", "Task", "items", "of_tasks", "published", "task", "to_summary",
]
