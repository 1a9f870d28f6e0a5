"""A sentence in each language, to try a voice with."""

from __future__ import annotations

import unicodedata

_SENTENCES = {
    "ar": "مرحبا، هذا اختبار للصوت الجديد.",
    "bg": "Здравейте, това е проба на новия глас.",
    "ca": "Hola, això és una prova de la veu nova.",
    "cs": "Dobrý den, toto je zkouška nového hlasu.",
    "cy": "Helo, dyma brawf o'r llais newydd.",
    "da": "Hej, dette er en prøve af den nye stemme.",
    "de": "Hallo, das ist eine Probe der neuen Stimme.",
    "el": "Γεια σας, αυτή είναι μια δοκιμή της νέας φωνής.",
    "en": "Hello, this is a test of the new voice.",
    "es": "Hola, esta es una prueba de la nueva voz.",
    "fa": "سلام، این آزمایش صدای جدید است.",
    "fi": "Hei, tämä on uuden äänen koe.",
    "fr": "Bonjour, ceci est un essai de la nouvelle voix.",
    "hi": "नमस्ते, यह नई आवाज़ की परीक्षा है।",
    "hu": "Jó napot, ez az új hang próbája.",
    "is": "Halló, þetta er prufa á nýju röddinni.",
    "it": "Buongiorno, questa è una prova della nuova voce.",
    "ka": "გამარჯობა, ეს ახალი ხმის გამოცდაა.",
    "kk": "Сәлем, бұл жаңа дауыстың сынағы.",
    "nb": "Hei, dette er en prøve av den nye stemmen.",
    "nl": "Hallo, dit is een proef van de nieuwe stem.",
    "pl": "Dzień dobry, to jest próba nowego głosu.",
    "pt": "Olá, este é um teste da nova voz.",
    "ro": "Bună ziua, aceasta este o probă a noii voci.",
    "ru": "Привет, это проверка нового голоса.",
    "sk": "Dobrý deň, toto je skúška nového hlasu.",
    "sl": "Dober dan, to je preizkus novega glasu.",
    "sr": "Здраво, ово је проба новог гласа.",
    "sv": "Hej, det här är ett prov på den nya rösten.",
    "tr": "Merhaba, bu yeni sesin denemesidir.",
    "uk": "Привіт, це перевірка нового голосу.",
    "vi": "Xin chào, đây là bài thử giọng nói mới.",
    "cmn": "你好，这是新声音的测试。",
}
_SAME = {"no": "nb", "nn": "nb", "zh": "cmn", "fas": "fa"}
_ANY = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."  # espeak reads digits in every language


def sentence_for(espeak_voice: str) -> str:
    """What a voice of an espeak language says to be tried: in that language, or the numbers up to ten."""
    language = espeak_voice.lower().replace("_", "-").replace("+", "-").partition("-")[0]
    return unicodedata.normalize("NFC", _SENTENCES.get(_SAME.get(language, language), _ANY))
