"""The gender-bias case study, from branch training to sentences: what did swapping pronouns late in training change?

    python scripts/gender_bias_study.py --out runs/gender                       # pythia-micro, its own swap branch
    python scripts/gender_bias_study.py --out runs/gender --from-steps 900 1200 --direction feminine --models m
    python scripts/gender_bias_study.py --out runs/gender --results evals.tar.xz    # the public results beside it

1. Branches: each model resumes from its checkpoint and optimizer state at each step of --from-steps (a state that was not
   kept is made again, bit for bit) under the overlay that swaps pronouns. The control is the main run: resuming on the
   unchanged rows gives it again, bit for bit.
2. Measures on every branch and control from the branch point on: pronoun preference, held-out loss, and, with --data,
   CrowS-Pairs and WinoBias.
3. Paired statistics, figures and sentences in OUT; with --results the public runs in the same frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pythia_tools import micro, overlays, plots
from pythia_tools.analyses import bias
from pythia_tools.analysis import ScoreTask, sweep
from pythia_tools.core import progress
from pythia_tools.core.results import RunFolder
from pythia_tools.order import load_order
from pythia_tools.plots import bias as figures
from pythia_tools.suites import load_suite


def main() -> None:
    args = _arguments()
    base = Path(args.suite) if args.suite else micro.train()
    out = Path(args.out)
    suites = branch_suites(base, out / "suites", args)
    run = RunFolder(out / "run", {"command": "gender_bias_study", **{k: v for k, v in vars(args).items() if k not in ("out", "device")}})
    checkpoints, pairs = collect(base, suites, args)
    tasks = measures(base, args)
    result = sweep(checkpoints, tasks, cells=run.cells, device=args.device)
    items = bias.join({t.name: result[t.name] for t in tasks if t.name != "token_scores"})
    summary = bias.summarize(items, pairs=pairs)
    comparison = bias.compare(items, pairs=pairs)
    sentences = [*bias.verdicts(comparison), *loss_sentences(result["token_scores"], pairs)]
    draw(run.figures, summary, pairs)
    if args.results:
        sentences += public(args.results, run.figures)
    run.finish(items, summary, weights=result.weights, extra={"sentences": sentences})
    print("\n".join(sentences))


def branch_suites(base: Path, out: Path, args: argparse.Namespace) -> list[Path]:
    """Train what is missing: a swapped branch for each branch point other than the suite's own."""
    own = micro.recipe_of(base).swap_from
    order = load_order(base / "order.yaml")
    swap = overlays.PronounSwap(bias.load_tokenizer(base / "tokenizer"), args.direction)
    folders = []
    for step in args.from_steps or [own]:
        if step == own and args.direction == "feminine":
            continue
        folder = out / f"from{step}-{args.direction}"
        changed = overlays.Overlay(order, swap, steps=range(step, order.steps))
        print(f"from step {step}: {changed.receipt()}")
        for model in args.models or list(main_models(base)):
            micro.train_branch(base, folder, f"{model}-{args.direction}{step}", model=model, order=changed, from_step=step)
        folders.append(folder)
    return folders


def collect(base: Path, suites: list[Path], args: argparse.Namespace) -> tuple[list[Any], dict[str, str]]:
    """Checkpoints from the earliest branch point on, and branch model → its control."""
    main = load_suite(base)
    models = args.models or list(main_models(base))
    own = {n: i.base for n, i in main.models.items() if i.base in models and not args.from_steps}
    first = min(args.from_steps or [micro.recipe_of(base).swap_from])
    found = [c for c in main.checkpoints(models=[*models, *own]) if c.step >= first]
    pairs = {n: str(b) for n, b in own.items()}
    for folder in suites:
        suite = load_suite(folder)
        branches = {n: str(i.base) for n, i in suite.models.items() if i.base}
        found += suite.checkpoints(models=list(branches))
        pairs |= branches
    return found, pairs


def measures(base: Path, args: argparse.Namespace) -> list[Any]:
    truth = micro.load_truth(base)
    tokenizer = bias.load_tokenizer(base / "tokenizer")
    occupations = list(zip(truth.pronouns["occupation"], truth.pronouns["stereotype"], strict=True))
    said = truth.about["pronouns"]
    items = bias.pronoun_items(truth.templates["heldout"], occupations, lead="\n")
    tasks: list[Any] = [bias.PronounTask(tokenizer, items, he=(said["he"],), she=(said["she"],))]
    held = load_order(base / "data" / "heldout", batch_rows=1)
    tasks.append(ScoreTask(held.rows(0, min(256, held.n_rows)), aggregate="row"))
    data = dict(pair.split("=", 1) for pair in args.data)
    if "crows_pairs" in data:
        pairs = bias.read_pairs(data["crows_pairs"])
        tasks.append(bias.CrowsPairs(tokenizer, pairs[pairs["bias_type"] == "gender"]))
    if "winobias" in data:
        tasks.append(bias.WinoBias(tokenizer, bias.read_sentences(data["winobias"])))
    return tasks


def loss_sentences(rows: Any, pairs: dict[str, str]) -> list[str]:
    """Held-out loss of each branch against its control at the last step both have."""
    means = rows.groupby(["model", "step"])["nll"].mean()
    lines = []
    for branch, control in pairs.items():
        common = sorted(set(means[branch].index) & set(means[control].index)) if branch in means and control in means else []
        if common:
            change = means[branch, common[-1]] / means[control, common[-1]] - 1
            lines.append(f"{branch} against {control} at step {common[-1]:,}: held-out loss {100 * change:+.3f} %.")
    return lines


def draw(folder: Path, summary: Any, pairs: dict[str, str]) -> None:
    label = "log-odds of she over he"
    plots.save(figures.interventions(summary, "log_odds", label=label, reference=0.0, pairs=pairs), folder, "log_odds")
    plots.save(plots.paired_differences(summary), folder, "paired_difference")
    if (summary["metric"] == "pct_stereotype").any():
        plots.save(figures.interventions(summary, "pct_stereotype", reference=0.5, pairs=pairs), folder, "crows_pairs")


def public(path: str, folder: Path) -> list[str]:
    from pythia_tools.analyses.bias import stored

    results = stored.read_results(path)
    summary = stored.to_summary(results)
    models = summary.loc[(summary["branch"] == "swap-7%") & (summary["suite"] == "pythia"), "model"].unique()
    chosen = summary[(summary["suite"] == "pythia") & summary["model"].isin(models)]
    drawn = figures.interventions(chosen, "pct_stereotype", group="crows_pairs_english_gender", reference=0.5, from_step=113_000)
    plots.save(drawn, folder, "public_crows_pairs")
    return stored.stored_verdicts(results)


def main_models(base: Path) -> list[str]:
    return [n for n, i in load_suite(base).models.items() if i.branch == "main"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", metavar="FOLDER", help="a trained micro suite (default: pythia-micro, trained if need be)")
    parser.add_argument("--models", nargs="+", help="its models (default: all)")
    parser.add_argument("--from-steps", nargs="+", type=int, metavar="STEP", help="branch points (default: the suite's own)")
    parser.add_argument("--direction", choices=["feminine", "masculine", "both"], default="feminine")
    parser.add_argument("--data", nargs="+", default=[], metavar="SET=PATH", help="crows_pairs=FILE, winobias=FOLDER")
    parser.add_argument("--results", metavar="PATH", help="the public results: EleutherAI/pythia's evals, folder or .tar.xz")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    progress.set_quiet(args.quiet)
    return args


if __name__ == "__main__":
    main()
