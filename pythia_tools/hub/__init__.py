"""The hub: checkpoints as local folders, fetched whole and verified, or read in part.

`fetch(checkpoint)` gives a folder that `from_pretrained` opens; `fetch_ahead` keeps the next one coming;
`plan`/`download` do many at once within a disk budget; `open_weights` reads tensors or rows of them by range;
`listing`, `branches` and `matrix` say what a repository holds.
Everything lands in the ordinary hub cache ($HF_HUB_CACHE), laid out as `huggingface_hub` does.
"""

from pythia_tools.hub.cache import sweep
from pythia_tools.hub.client import PATIENCE, Patience, offline
from pythia_tools.hub.downloading import Plan, download, plan
from pythia_tools.hub.fetching import drop_damaged, fetch, fetch_ahead, fetch_tokenizer, holding
from pythia_tools.hub.ledger import default_budget, parse_bytes, set_budget
from pythia_tools.hub.matrix import grid_states, matrix
from pythia_tools.hub.partial import Weights, open_listed, open_weights, sample_rows
from pythia_tools.hub.repositories import Listing, RemoteFile, branches, listing, listings

__all__ = [
    "PATIENCE", "Listing", "Patience", "Plan", "RemoteFile", "Weights", "branches", "default_budget", "download", "drop_damaged", "fetch",
    "fetch_ahead", "fetch_tokenizer", "grid_states", "holding", "listing", "listings", "matrix", "offline", "open_listed", "open_weights", "parse_bytes",
    "plan", "sample_rows", "set_budget", "sweep",
]
