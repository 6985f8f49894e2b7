"""The hub: checkpoints, data sets and files from elsewhere. Nothing else in this package opens a connection.

`fetch(checkpoint)` gives a folder that `from_pretrained` opens; `plan`/`download` do many at once within a disk budget;
`open_weights` reads tensors or rows of them by range; `fetch_tokenizer` takes a repository's tokenizer alone;
`Dataset` reads files of data sets, by range or whole; `listing`, `branches` and `grid_states` say what a repository
holds. Everything lands in the ordinary hub cache ($HF_HUB_CACHE), laid out as `huggingface_hub` does, parts of files in
the range cache below this package's own folder.
"""

from pythia_tools.hub.cache import delete_unfinished
from pythia_tools.hub.client import BRIEF, RetryPolicy, fetch_url, offline
from pythia_tools.hub.datasets import Dataset
from pythia_tools.hub.downloading import Plan, download, drop_damaged, fetch, fetch_tokenizer, pinned, plan
from pythia_tools.hub.ledger import default_budget, parse_bytes, set_budget
from pythia_tools.hub.partial import SAMPLE_ROWS, Weights, open_weights, read_config, sample_rows
from pythia_tools.hub.range_cache import RangeCache, shared_cache
from pythia_tools.hub.repositories import Listing, RemoteFile, branches, grid_states, listing

__all__ = [
    "BRIEF", "SAMPLE_ROWS", "Dataset", "Listing", "Plan", "RangeCache", "RemoteFile", "RetryPolicy", "Weights",
    "branches", "default_budget", "delete_unfinished", "download", "drop_damaged", "fetch", "fetch_tokenizer",
    "fetch_url", "grid_states", "listing", "offline", "open_weights", "parse_bytes", "pinned", "plan", "read_config",
    "sample_rows", "set_budget", "shared_cache",
]
