"""What is known of the published tasks: items, chance, and what lm-eval 0.4.13 calls them today.

Item counts are those of the data sets' splits; old definitions are those of lm-eval's `tasks/*.py` of February 2023
(commit 3d14707a1), present ones of the YAML of 0.4.13.
"""

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Task:
    """A published task: items and chance level (None unknown), today's name (None: there is no such task), whether
    that asks the same (`same`, `nearly`, `differs`, `none`), and what to know.
    """

    items: int | None = None
    chance: float | None = None
    now: str | None = None
    match: str | None = None
    note: str | None = None


METRICS = {"ppl": "perplexity", "likelihood_difference": "likelihood_diff"}
"""Published metric → its name in lm-eval 0.4.13, where that differs."""
_SAME = "same"
TASKS: dict[str, Task] = {
    "lambada_openai": Task(5153, 0.0, "lambada_openai", _SAME, "never lambada_standard, which is another text"),
    "piqa": Task(1838, 0.5, "piqa", _SAME),
    "winogrande": Task(1267, 0.5, "winogrande", _SAME),
    "wsc": Task(104, 0.5, "wsc", "nearly", "the data set's configuration is wsc.fixed now; never wsc273, 273 items"),
    "arc_easy": Task(2376, 0.25, "arc_easy", _SAME),
    "arc_challenge": Task(1172, 0.25, "arc_challenge", _SAME),
    "sciq": Task(1000, 0.25, "sciq", "differs", "items without support begin with an empty line now"),
    "logiqa": Task(651, 0.25, "logiqa", _SAME),
}
_HENDRYCKS = (
    "abstract_algebra 100, anatomy 135, astronomy 152, business_ethics 100, clinical_knowledge 265, "
    "college_biology 144, college_chemistry 100, college_computer_science 100, college_mathematics 100, "
    "college_medicine 173, college_physics 102, computer_security 100, conceptual_physics 235, econometrics 114, "
    "electrical_engineering 145, elementary_mathematics 378, formal_logic 126, global_facts 100, "
    "high_school_biology 310, high_school_chemistry 203, high_school_computer_science 100, "
    "high_school_european_history 165, high_school_geography 198, high_school_government_and_politics 193, "
    "high_school_macroeconomics 390, high_school_mathematics 270, high_school_microeconomics 238, "
    "high_school_physics 151, high_school_psychology 545, high_school_statistics 216, high_school_us_history 204, "
    "high_school_world_history 237, human_aging 223, human_sexuality 131, international_law 121, jurisprudence 108, "
    "logical_fallacies 163, machine_learning 112, management 103, marketing 234, medical_genetics 100, "
    "miscellaneous 783, moral_disputes 346, moral_scenarios 895, nutrition 306, philosophy 311, prehistory 324, "
    "professional_accounting 282, professional_law 1534, professional_medicine 272, professional_psychology 612, "
    "public_relations 110, security_studies 245, sociology 201, us_foreign_policy 100, virology 166, "
    "world_religions 171"
)
_CROWS = {
    "english": "1677, age 91, autre 11, disability 65, gender 320, nationality 216, physical_appearance 72, "
               "race_color 508, religion 111, sexual_orientation 93, socioeconomic 190",
    "french": "1677, age 90, autre 13, disability 66, gender 321, nationality 253, physical_appearance 72, "
              "race_color 460, religion 115, sexual_orientation 91, socioeconomic 196",
}
_OLD_PROMPT = "old prompt, whole answers scored; mmlu_* scores letters, mmlu_continuation hides the choices"
_EXACT_MATCH = "exact match of the generated referent, not the paper's choice between two pronouns"
for _subject in _HENDRYCKS.split(", "):
    _name, _n = _subject.split()
    TASKS[f"hendrycksTest-{_name}"] = Task(int(_n), 0.25, None, "none", _OLD_PROMPT)
for _language, _counts in _CROWS.items():
    for _part in _counts.split(", "):
        *_kind, _n = _part.split()
        _name = "_".join(["crows_pairs", _language, *_kind])
        TASKS[_name] = Task(int(_n), 0.5, _name, _SAME)
for _type in ("type1", "type2"):
    for _side in ("pro", "anti"):
        TASKS[f"wino_bias_{_type}_{_side}"] = Task(396, None, None, "none", _EXACT_MATCH)
_BLIMP = Task(1000, 0.5, None, _SAME)
_ARITHMETIC = Task(50, 0.0, None, "none", "no space after Q: and A:; the answer is the first run of digits")


@cache
def task(name: str) -> Task:
    """What is known of a published task; an empty Task for an unknown one.

    >>> task("wsc").items, task("blimp_drop_argument").now, task("hendrycksTest-anatomy").match
    (104, 'blimp_drop_argument', 'none')
    """
    if re.fullmatch(r"blimp_\w+", name):
        return Task(_BLIMP.items, _BLIMP.chance, name, _BLIMP.match)
    if re.match(r"num_reasoning_(arithmetic|op_infer)_", name):
        return _ARITHMETIC
    return TASKS.get(name, Task())
