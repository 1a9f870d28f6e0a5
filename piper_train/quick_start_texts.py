"""Sentences for a test data set: made of parts by a seed, never the same one twice, in English, Russian or numbers.

For a language that we have no parts for, the sentences are numbers in digits, which espeak-ng reads in any language.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

Parts = tuple[tuple[str, ...], ...]
MOST = 10_000  # sentences of one request; each language has more than these

_ENGLISH: Parts = (
    ("The old captain", "My younger sister", "A quiet neighbour", "The village doctor", "Our new teacher",
     "The tall gardener", "A friendly pilot", "The night watchman", "Her grandfather", "The young painter",
     "A patient driver", "The hungry fisherman"),
    ("bought fresh bread", "repaired the wooden bridge", "watched the heavy clouds", "played the violin",
     "counted seven white sheep", "carried a large basket", "read the yellow letter", "found the missing key",
     "cooked hot vegetable soup", "described the strange machine", "opened the kitchen window",
     "cleaned the dusty shelves", "painted the garden fence", "lost a pair of gloves", "chose the shortest path",
     "asked three simple questions"),
    ("before breakfast", "after the storm", "on Thursday morning", "in early autumn", "late in the evening",
     "during the holiday", "twice a year", "as usual", "without any help", "in a great hurry"),
    ("near the harbour", "behind the church", "beside the river", "at the railway station", "under the oak tree",
     "in the narrow street", "above the bakery", "far from the city", "between the two hills", "inside the theatre"),
)  # fmt: skip
# Men and verbs of the past alone, so that every combination agrees.
_RUSSIAN: Parts = (
    ("Старый капитан", "Мой младший брат", "Тихий сосед", "Сельский врач", "Наш новый учитель", "Высокий садовник",
     "Весёлый лётчик", "Ночной сторож", "Её дедушка", "Молодой художник", "Терпеливый шофёр", "Голодный рыбак"),
    ("купил свежий хлеб", "починил деревянный мост", "смотрел на тяжёлые облака", "играл на скрипке",
     "считал белых овец", "принёс большую корзину", "читал жёлтое письмо", "нашёл пропавший ключ",
     "сварил горячий борщ", "описал странную машину", "открыл кухонное окно", "вытер пыльные полки",
     "красил садовый забор", "потерял пару перчаток", "выбрал кратчайший путь", "задал три простых вопроса"),
    ("перед завтраком", "после грозы", "в четверг утром", "ранней осенью", "поздно вечером", "во время отпуска",
     "дважды в год", "как обычно", "без всякой помощи", "в большой спешке"),
    ("возле гавани", "за церковью", "у широкой реки", "на вокзале", "под старым дубом", "на узкой улице",
     "над пекарней", "далеко от города", "между двух холмов", "внутри театра"),
)  # fmt: skip
_PARTS: Mapping[str, Parts] = {"en": _ENGLISH, "ru": _RUSSIAN}
_ENDINGS = (".", ".", ".", "!", "?")


def language_of(espeak_voice: str) -> str:
    """The language of an espeak-ng voice: `en` of `en-us`, `ru` of `ru+f2`."""
    return espeak_voice.lower().replace("+", "-").partition("-")[0]


def sentences(espeak_voice: str, count: int, seed: int) -> list[str]:
    """`count` different sentences in a voice's language. A larger count begins with those of a smaller one."""
    if not 0 < count <= MOST:
        raise ValueError(f"{count} sentences are asked for; there are 1 to {MOST}")
    parts = _PARTS.get(language_of(espeak_voice))
    draw: Callable[[random.Random], str] = _numbers if parts is None else lambda rng: _of_parts(rng, parts)
    found = _different(draw, random.Random(f"{seed}"))
    return [next(found) for _ in range(count)]


def _different(draw: Callable[[random.Random], str], rng: random.Random) -> Iterator[str]:
    seen: set[str] = set()
    while True:
        sentence = draw(rng)
        words = sentence[:-1]
        if words not in seen:
            seen.add(words)
            yield sentence


def _of_parts(rng: random.Random, parts: Parts) -> str:
    return " ".join(rng.choice(part) for part in parts) + rng.choice(_ENDINGS)


def _numbers(rng: random.Random) -> str:
    """Three to five numbers of up to four digits: two to five seconds of speech."""
    return ", ".join(str(rng.randrange(10 ** rng.randint(1, 4))) for _ in range(rng.randint(3, 5))) + "."
