"""lm-eval's own definitions of real tasks over a few documents in local files, in the real data sets' schema."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

NOUNS = ["nurse", "driver", "teacher", "doctor", "designer", "garden", "river", "théâtre", "house", "piano", "letter",
         "東京", "café", "market"]
VERBS = ["saw", "liked", "opened", "moved", "painted", "carried", "forgot", "heard", "watched"]
CROWS = Path(__file__).parents[2] / "shared" / "data" / "bias" / "crows_pairs_anonymized.csv"
ZERO_SHOT = ("piqa", "lambada_openai", "wikitext", "winogrande", "crows_pairs_english", "sciq", "everything")
FEW_SHOT = ("arc_easy", "gsm8k", "first_ones")
GROUP = "both"


def sentence(rng: random.Random, words: int = 9) -> str:
    said = [rng.choice(("The", "A")), rng.choice(NOUNS), rng.choice(VERBS)]
    while len(said) < words:
        said += [rng.choice(("the", "a", "that")), rng.choice(NOUNS)]
    return " ".join(said[:words])


def documents(rng: random.Random, n: int = 12) -> dict[str, list[dict]]:
    """Task → documents of its test split, in the schema of the public set."""
    def some(words: int = 6) -> str:
        return sentence(rng, words)

    return {
        "piqa": [{"goal": some(), "sol1": some(7), "sol2": some(5), "label": rng.randrange(2)} for _ in range(n)],
        "lambada_openai": [{"text": f"{some(12)}. {some(8)}"} for _ in range(n)],
        "wikitext": [{"page": f" = {some(3)} = \n \n " + " . ".join(some(9) for _ in range(k)) + " . \n"}
                     for k in (1, 4, 30, 90)],
        "winogrande": [
            {"sentence": f"The nurse told the driver that _ {rng.choice(VERBS)} the {rng.choice(NOUNS)}.",
             "option1": "the nurse", "option2": "the driver", "answer": rng.choice("12")} for _ in range(n)
        ],
        "sciq": [{"support": rng.choice(("", f"  {some(10)}")), "question": f"{some()}?", "distractor1": some(2),
                  "distractor2": some(3), "distractor3": some(1), "correct_answer": some(2)} for _ in range(n)],
        "arc_easy": [
            {"id": f"q{k}", "question": f"{some()}?", "answerKey": rng.choice("ABC"),
             "choices": {"text": [some(2), some(3), some(4)], "label": ["A", "B", "C"]}} for k in range(n)
        ],
        "gsm8k": [{"question": f"{some()} {k}. How many?", "answer": f"{some()} {k} + 1.\n#### {k + 1}"}
                  for k in range(n)],
        "everything": [{"question": some(), "options": [some(3), some(2), some(4)], "answer": rng.randrange(2)}
                       for _ in range(n)],
        "first_ones": [{"question": some(), "options": ["yes", "no"], "answer": k % 2} for k in range(n)],
        "crows_pairs_english": [
            {"sent_more": f"The {a} {rng.choice(VERBS)} the café.", "sent_less": f"The {b} {rng.choice(VERBS)} it.",
             "bias_type": "gender"} for a, b in itertools.pairwise(NOUNS)
        ],
    }


OWN = {
    "everything": {  # every metric of multiple choice that lm-eval has for itself
        "output_type": "multiple_choice", "test_split": "test", "doc_to_text": "{{question}}",
        "doc_to_target": "answer", "doc_to_choice": "options", "metadata": {"version": 2.5},
        "metric_list": [{"metric": m, "aggregation": a, "higher_is_better": True} for m, a in (
            ("acc", "mean"), ("acc_norm", "mean"), ("acc_bytes", "mean"), ("exact_match", "mean"),
            ("brier_score", "brier_score"), ("acc_mutual_info", "mean"), ("mcc", "matthews_corrcoef"),
        )],
    },
    "first_ones": {  # the first examples instead of random ones, from the split that is evaluated
        "output_type": "multiple_choice", "test_split": "test", "fewshot_split": "test",
        "fewshot_config": {"sampler": "first_n"}, "description": "Say yes or no.\n\n", "doc_to_text": "Q: {{question}}",
        "doc_to_target": "answer", "doc_to_choice": "options", "metadata": {"version": 1},
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
}
CHANGES: dict[str, dict] = {"gsm8k": {"generation_kwargs": {"until": ["Question:", "the n"], "max_gen_toks": 12}}}
SPLITS = {"piqa": "validation", "winogrande": "validation"}


FILES = {"lambada_openai": "lambada/lambada_openai", "winogrande": "winogrande/default", "arc_easy": "arc/arc_easy",
         "crows_pairs_english": "crows_pairs/crows_pairs_english"}


def write(folder: Path, *, seed: int = 0, n: int = 12) -> Path:
    """YAML files and their documents into a folder, which --include-path takes."""
    rng = random.Random(seed)
    sets, training = documents(rng, n), documents(rng, n)
    (folder / "data").mkdir(parents=True)
    for name, some in sets.items():
        places = {SPLITS.get(name, "test"): write_lines(folder / "data" / f"{name}.jsonl", some),
                  "train": write_lines(folder / "data" / f"{name}_train.jsonl", training[name])}
        define(folder, {**definition(name), "dataset_kwargs": {"data_files": places}})
    define(folder, {"group": GROUP, "task": ["piqa", "sciq"], "metadata": {"version": 1},
                    "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True},
                                              {"metric": "acc_norm", "weight_by_size": False}]})
    return folder


def definition(name: str) -> dict:
    """One of OWN, or lm-eval's definition of this name, over documents in a local file."""
    import lm_eval

    home = Path(lm_eval.__file__).parent / "tasks"
    base = OWN.get(name) or {"include": str(home / f"{FILES.get(name, f'{name}/{name}')}.yaml")}
    return {**base, **CHANGES.get(name, {}), "task": name, "dataset_path": "json", "dataset_name": None}


def write_lines(path: Path, documents: list[dict]) -> str:
    path.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents), encoding="utf-8")
    return str(path)


def define(folder: Path, config: dict) -> None:
    name = config["group"] if "group" in config else config["task"]
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


def save_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer of a few words, as a checkpoint's folder has it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=["<|endoftext|>", "<|padding|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    words = " ".join([*NOUNS, *VERBS, "The A the a that Question: Answer: How many?"])
    made.train_from_iterator([words] * 30, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)


SHAPES = {  # positions as pythia-micro has them, so that prompts are cut; and the shape of Pythia's smallest model
    "short": {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64},
    "long": {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 512},
    "14m": {"vocab_size": 50304, "hidden_size": 128, "num_hidden_layers": 6, "max_position_embeddings": 2048,
            "rotary_pct": 0.25},
}


def save_model(folder: Path, seed: int = 0, shape: str = "short") -> None:
    """A random GPT-NeoX of this shape with its tokenizer, as a checkpoint's folder has them."""
    torch.manual_seed(seed)
    GPTNeoXForCausalLM(GPTNeoXConfig(
        **SHAPES[shape], num_attention_heads=4, intermediate_size=4 * SHAPES[shape]["hidden_size"], bos_token_id=0,
        eos_token_id=0, initializer_range=0.15, tie_word_embeddings=False,
    )).save_pretrained(folder)
    save_tokenizer(folder)
