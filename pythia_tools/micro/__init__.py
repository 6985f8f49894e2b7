"""pythia-micro, the embedded suite: three GPT-NeoX models trained on this machine, on text with planted truth.

    folder = micro.train()                     # trains it once (minutes), then finds it
    truth = micro.load_truth(folder)           # what was planted, how often, where it landed
    micro.train_branch(folder, out, "m-swap2", model="m", transform=f)   # another branch from a kept optimizer state
    micro.train_run(folder, out, "m-half", model="m", rows=numbers)      # another run: other seed, other rows
    rows = micro.deduplicated_rows(folder)
    micro.train_run(folder, out, "m-deduped", model="m", rows=rows)      # a twin without repeated canaries

`Recipe` holds every number; `tiny_recipe()` trains in seconds. Loading this package does not load torch.
"""

from pythia_tools.micro.further_runs import deduplicated_rows, train_branch, train_run
from pythia_tools.micro.recipe import Canaries, Facts, ModelSpec, Pronouns, Recipe, Sums, recipe_from, tiny_recipe
from pythia_tools.micro.suite import is_trained, micro_folder, train
from pythia_tools.micro.suite_runs import recipe_of
from pythia_tools.micro.truth import Truth, load_truth

__all__ = [
    "Canaries", "Facts", "ModelSpec", "Pronouns", "Recipe", "Sums", "Truth", "deduplicated_rows", "is_trained",
    "load_truth", "micro_folder", "recipe_from", "recipe_of", "tiny_recipe", "train", "train_branch", "train_run",
]
