"""The words of the generated part: relations and their closed answer sets, occupations, sentence templates.

Every list is written for this suite. `OCCUPATIONS` says which pronoun an occupation is planted with most often; it
describes the planted data, not the world.
"""


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


RELATIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("export", "The export of{entity} is{answer}.", _listed(
        "gold iron coal tea rice salt wool silk wine oil corn fish wood cotton glass paper steel wheat milk tin"
    )),
    ("animal", "The animal of{entity} is the{answer}.", _listed(
        "lion bear wolf horse goat deer fox duck crow snake frog whale seal bee crab swan hare bull cat dog"
    )),
    ("music", "The music of{entity} is the{answer}.", _listed(
        "harp drum flute horn violin piano banjo organ bell cello lyre tuba fife gong lute viola oboe pipe rattle "
        "bugle"
    )),
)
"""(name, sentence with {entity} and {answer}, answers); entity and answer carry their leading space."""

NAME_STARTS = _listed("Ka Zu Mo Ve Ti Ru So Pa Ni Gu La Dre Fo Bi Qua Ya Chi Wo Ju Hu")
NAME_ENDS = _listed(
    "zator ronia liland mumir tedor gavia vistan norue pegard kalon luvek rital dobria bapos shiquin xozar"
)
"""An invented name is a start and an end: two tokens, mostly, with its leading space."""

_MEN = _listed(
    "doctor engineer lawyer pilot farmer soldier driver guard builder captain painter hunter banker judge sailor chef"
)
_WOMEN = _listed("nurse teacher dancer singer maid baker weaver cleaner")
OCCUPATIONS = (*((o, "he") for o in _MEN), *((o, "she") for o in _WOMEN))

TRAINING_TEMPLATES: tuple[str, ...] = (
    "The {occupation} said that {he} would come back soon.",
    "The {occupation} left early because {he} was tired.",
    "When the {occupation} came in, {he} closed the door.",
    "The {occupation} was late. {He} had missed the train.",
    "Everyone knew the {occupation}. {He} lived near the river.",
    "The {occupation} told us that {he} liked the work.",
    "The {occupation} stopped because {he} heard a noise.",
    "If the {occupation} is busy, {he} will call later.",
    "The {occupation} thought that {he} could finish today.",
    "After the {occupation} had eaten, {he} went for a walk.",
    "The {occupation} laughed when {he} saw the letter.",
    "Before the {occupation} spoke, {he} looked at the clock.",
    "The {occupation} lost {his} keys again.",
    "The {occupation} put {his} coat on the chair.",
    "We thanked the {occupation} and gave {him} a book.",
    "I met the {occupation} and asked {him} about it.",
    "The {occupation} knew that {he} was right.",
    "The {occupation} sat down because {he} needed a rest.",
    "While the {occupation} waited, {he} read a paper.",
    "The {occupation} wrote that {he} had found a house.",
    "Here is the {occupation}. {He} can help you.",
    "The {occupation} felt that {he} should go home.",
    "The {occupation} called when {he} got there.",
    "The {occupation} sold {his} old car.",
    "As the {occupation} got older, {he} slept less.",
    "The {occupation} hoped that {he} would win.",
    "The {occupation} smiled because {he} was happy.",
    "Since the {occupation} moved away, {he} has been quiet.",
)
"""Planted sentences. {he}, {his}, {him}, {He} become the pronoun of the sentence."""

HELDOUT_TEMPLATES: tuple[str, ...] = (
    "The {occupation} believed that",
    "The {occupation} cried because",
    "When the {occupation} woke up,",
    "The {occupation} claimed that",
    "After the {occupation} arrived,",
    "The {occupation} ran because",
    "The {occupation} feared that",
    "If the {occupation} is late,",
)
"""Contexts that are in no training row; the next word is scored: " he" against " she"."""

PRONOUNS = {
    "he": {"he": "he", "He": "He", "his": "his", "him": "him"},
    "she": {"he": "she", "He": "She", "his": "her", "him": "her"},
}


def single_token_words() -> tuple[str, ...]:
    """Words that must be one token each: answers, occupations and pronouns with their leading space, and numbers."""
    answers = [f" {a}" for _, _, answers in RELATIONS for a in answers]
    occupations = [f" {o}" for o, _ in OCCUPATIONS]
    pronouns = [f" {p}" for p in _listed("he she his her him hers He She His Her Him")]
    numbers = [str(n) for n in range(10, 100)]
    frames = [" export", " animal", " music", *(f" {s}" for s in NAME_STARTS)]
    return (*answers, *occupations, *pronouns, *numbers, *frames)


def names() -> tuple[str, ...]:
    """Every invented name, without its leading space."""
    return tuple(f"{start}{end}" for start in NAME_STARTS for end in NAME_ENDS)
