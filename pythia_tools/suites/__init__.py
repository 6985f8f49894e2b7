'''Suites: families of models with known checkpoints, described by manifests that anyone can write.

`load_suite(name | manifest path | folder)` gives a `Suite`; `suite.checkpoints(models, steps)` gives checkpoints.

A manifest is YAML. Shipped ones lie in `data_manifests/suites/`; one's own works by path in the same way.
Unknown fields are errors, so a typo is never ignored. What nobody has established is left out or null, never guessed.

```yaml
name: my-suite                       # required
description: What it is.             # required
sources: [URL or citation, ...]      # where the facts below come from
location:                            # required: exactly one of hub and folder
  hub: "me/my-{model}"               #   repository pattern; a model may state its own `repo`
  revision: "step{step}"             #   branch pattern over {step}, {model}, {label} (= step × label_factor +
                                     #   label_offset), {tokens_b} (billions of tokens, rounded up),
                                     #   {tokens_b_nearest} (to the nearest); or null
  folder: "{model}/step{step}"       #   or: save_pretrained folders beside the manifest
models:                              # required, in the order in which they are listed and plotted
  70m:
    shape: 70m                       # a key of `shapes`, or a mapping like those there
    params: 70426624                 # optional where the shape gives them (GPT-NeoX); checked against it
    non_embedding: 18915328
    seed: 1234
    branch: swap                     # an intervention's name (default main), with
    base: 70m                        #   the model of this suite that it left, and
    branch_step: 133000              #   the step at which it left
    repo: me/elsewhere               # instead of location's pattern
    revision: "ckpt{step}"
    revisions: {1000: first, 2000: {repo: me/second, revision: main}}   # steps that the patterns do not give
    known_defects: [...]             # as below, for this model
    note: one line
    sources: [...]
shapes:
  70m: {architecture: gpt_neox, layers: 6, d_model: 512, heads: 8, vocab: 50304, rotary_pct: 0.25, context: 2048}
# the following hold for every model that does not state its own
steps: [0, 1, 2, 4, "1000:143000:1000"]   # whole numbers and inclusive ranges
tokens_per_step: 2097152
batch_rows: 1024
seq_length: 2048
order: pile-standard-preshuffled     # a data order's name, or a file beside the manifest (order.yaml)
dtype: float32                       # what analyses load it in
stored_dtype: float16                # what the files hold
buffers: neox-masks                  # causal masks in the files (neox-masks) or none
initialisation: small-wang           # small-wang, scaled-normal, normal
peak_lr: 1.0e-3
schedule: {kind: neox-cosine, warmup: 0.01, decay_steps: 143000, floor: 0.1}   # or cosine (warmup_steps), or constant
tokenizer: {name: me/tok, source: https://…}   # on the hub: owner/name or owner/name@revision; the name alone will do
# tokenizer: tokenizer               # or a folder, or a tokenizer.json, beside the manifest
label_factor: 1                      # {label} in a revision is step × this
label_offset: 0                      #   plus this
known_defects:
  - models: [70m]                    # default: all
    steps: [0, "1000:5000:1000"]     # default: all
    what: the same file as step143000
    source: https://…
    severity: wrong                  # wrong (loaders refuse unless told to go on) or note (harmless, worth knowing)
extra: {}                            # anything of your own
```
'''

from pythia_tools.suites.checkpoint import Checkpoint, Defect, Folder, HubRevision, ModelInfo
from pythia_tools.suites.loading import MANIFEST, discover, load_suite, suite_names, trained_root
from pythia_tools.suites.schema import read_suite
from pythia_tools.suites.shapes import initial_std, learning_rate, neox_non_embedding, neox_params, weight_bytes
from pythia_tools.suites.suite import Suite, check_defects

__all__ = [
    "MANIFEST", "Checkpoint", "Defect", "Folder", "HubRevision", "ModelInfo", "Suite", "check_defects", "discover",
    "initial_std", "learning_rate", "load_suite", "neox_non_embedding", "neox_params", "read_suite", "suite_names",
    "trained_root", "weight_bytes",
]
