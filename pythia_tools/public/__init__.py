"""Public results as data: `read(path)` gives one tidy frame of what others published, with item counts and known errors.

Nothing here loads a model. `pythia_tools.published` is `read`.
"""

from pythia_tools.public.columns import COLUMNS, SHARES, items
from pythia_tools.public.reader import LAYOUTS, read
from pythia_tools.public.tasks import METRICS, TASKS, Task, task

__all__ = ["COLUMNS", "LAYOUTS", "METRICS", "SHARES", "TASKS", "Task", "items", "read", "task"]
