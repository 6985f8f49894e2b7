"""An overlay (or any order) written out so that GPT-NeoX's own loader serves exactly these rows, in this order.

Each row is one document of the store. GPT-NeoX reads sample k from sample_idx[shuffle_idx[k]] to the next entry, so
every row has two entries, its first token and its last: the pair reads the row whole, and the pair between two rows is
never asked for. Rows of the chosen steps stand at their own places, so a run that resumes at step N reads batch N; each
place before them (and one after, because the loader drops its last sample) holds a guard: a row of padding alone.

Files: PREFIX.bin and .idx, the three index maps beside them under GPT-NeoX's names, PREFIX.order.yaml (these rows for
`load_order`), PREFIX.neox.yml and PREFIX.recipe.md (how to resume a real run on them).
Cost: one read and one write of the rows, 4 bytes per place for the shuffle map.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml

from pythia_tools.core import files
from pythia_tools.core.errors import RequestError
from pythia_tools.order import IndexMaps, MapName, Rows, save_maps, store_digest
from pythia_tools.order import num_samples as samples_asked
from pythia_tools.overlays.overlay import BLOCK_ROWS, Overlay
from pythia_tools.tokens import StoreWriter, open_store

INFIXES = {"v1": "", "current": "_packedpi_ac"}
"""What GPT-NeoX puts into the maps' names: nothing until August 2024, the packing since then."""


GUARD_ID = 1
"""Of the guard row: Pythia's padding."""


def write_out(
    order: Rows, prefix: str | Path, *, steps: Iterable[int] | None = None, seed: int = 1234,
    num_samples: int | None = None, version: str = "v1",
) -> tuple[Path, ...]:
    """Write the rows of `steps` (default: the overlay's own) for GPT-NeoX; returns every file written.

    Args:
        order: an Overlay, or any order.
        steps: consecutive batches; places outside them hold the guard row.
        seed, num_samples, version: what the loader puts into the maps' file names. `num_samples` defaults to the
            run's rows plus half a per cent, as GPT-NeoX asks for.
    Raises: RequestError for steps that are not consecutive, or an unknown version.
    """
    if version not in INFIXES:
        raise RequestError(f"GPT-NeoX version {version!r}: allowed are {', '.join(INFIXES)}")
    first, last = _span(order, steps)
    wanted = samples_asked(order.steps, order.batch_rows) if num_samples is None else num_samples
    prefix = Path(prefix)
    width = order.seq_length + 1
    with StoreWriter(prefix, order.dtype) as out:
        for start in range(first, last, BLOCK_ROWS):
            rows = order.rows(start, min(last, start + BLOCK_ROWS))
            out.add_documents(rows.reshape(-1), np.full(len(rows), width))
        out.add_document(np.full(width, GUARD_ID, dtype=out.dtype))
    maps = MapName(prefix, wanted, order.seq_length, seed, infix=INFIXES[version])
    save_maps(_maps(first, last, width), maps)
    store = [prefix.with_name(prefix.name + suffix) for suffix in (".bin", ".idx")]
    return *store, *maps.paths.values(), *_documents(order, maps, first, last)


def _span(order: Rows, steps: Iterable[int] | None) -> tuple[int, int]:
    """First and last (exclusive) row of consecutive steps."""
    if steps is None:
        chosen = order.chosen.steps if isinstance(order, Overlay) else np.arange(order.steps)
    else:
        chosen = np.unique(np.asarray(list(steps), dtype=np.int64))
    if not chosen.size or chosen[-1] - chosen[0] + 1 != chosen.size:
        raise RequestError("the steps to write out must be one run of consecutive batches, for example 133000:142999")
    per = order.batch_rows
    return int(chosen[0]) * per, (int(chosen[-1]) + 1) * per


def _maps(first: int, last: int, width: int) -> IndexMaps:
    n = last - first
    documents = np.arange(n + 1, dtype=np.int32)
    kind = np.int32 if 2 * (n + 1) < np.iinfo(np.int32).max else np.int64
    sample = np.zeros((2 * (n + 1), 2), dtype=kind)
    sample[0::2, 0] = sample[1::2, 0] = documents
    sample[1::2, 1] = width - 1
    shuffle = np.full(last + 1, 2 * n, dtype=np.uint32 if 2 * n < np.iinfo(np.uint32).max - 1 else np.int64)
    shuffle[first:last] = 2 * np.arange(n)
    return IndexMaps(documents, sample, shuffle)


def _documents(order: Rows, maps: MapName, first: int, last: int) -> list[Path]:
    """The manifest, configuration and recipe beside the data."""
    prefix, per, seq = maps.prefix, order.batch_rows, order.seq_length
    manifest = {
        "name": prefix.name, "kind": "preshuffled", "seq_length": seq, "batch_rows": per,
        "steps": (last - first) // per, "store": {"prefix": prefix.name, "digest": store_digest(open_store(prefix))},
        "about": f"rows {first}:{last} of {order.name} ({order.fingerprint[:12]}); row 0 here is row {first} there",
    }
    config = {
        **{f"{part}_data_paths": [str(prefix)] for part in ("train", "valid", "test")}, "train_data_weights": [1.0],
        "seq_length": seq, "max_position_embeddings": seq, "train_iters": order.steps, "seed": maps.seed,
        "finetune": False, "no_load_optim": False, "no_load_rng": False, "load": "CHECKPOINTS", "save": "BRANCH",
        "extra_save_iters": [],
    }
    paths = [prefix.with_name(prefix.name + suffix) for suffix in (".order.yaml", ".neox.yml", ".recipe.md")]
    files.write_text(paths[0], yaml.safe_dump(manifest, sort_keys=False))
    files.write_text(paths[1], yaml.safe_dump(config, sort_keys=False))
    files.write_text(paths[2], _recipe(order, maps, first, last))
    return paths


def _recipe(order: Rows, maps: MapName, first: int, last: int) -> str:
    prefix, start, end = maps.prefix, first // order.batch_rows, last // order.batch_rows
    names = "\n".join(f"- `{p.name}`" for p in maps.paths.values())
    return f"""# Branch training on the rows of `{prefix.name}`

Batches {start} to {end - 1} ({last - first:,} rows of {order.seq_length + 1} tokens) of order `{order.name}`,
fingerprint `{order.fingerprint}`.

1. Take the base run's GPT-NeoX checkpoint at step {start}, optimizer state included (`global_step{start}` with its
   `*_optim_states.pt`), and the base run's own configuration (batch size, learning rate schedule, precision).
2. Add `{prefix.name}.neox.yml` after it: it names this data, and `load`/`save`; set those two to your folders.
   `train_iters` must stay {order.steps}, the base run's, so that the learning rate follows the same schedule and the
   loader asks for the same file names. `finetune: false` keeps the iteration at {start}: batch {start} is read first.
3. Keep these files beside `{prefix.name}.bin`; the loader takes index maps that exist and builds none:
{names}
   The names hold num_samples = {maps.num_samples} (train_iters × batch × 1.005, rounded up). If yours differs, the
   loader would silently build its own: check that it prints no "could not find index map files".
4. Train the control in the same way on the unchanged rows (`data overlay ORDER --steps {start}:{end - 1} --control`):
   same checkpoint, same batches, same seed. The difference between the two is then the rows alone.
5. Convert the checkpoints with GPT-NeoX's `tools/ckpts/convert_neox_to_hf.py`, give both folders as one suite
   (FOLDER/MODEL/stepN, and FOLDER/MODEL-swap/stepN), and measure with `pythia-tools bias`.

Places before batch {start} hold a row of padding: a loss near zero at first means that the run started at step 0.
"""
