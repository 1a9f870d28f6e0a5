"""What published voices say of their language, from the name of the espeak voice."""

from __future__ import annotations

# Family -> the region of its published voices, its own name, its English name, the region's English name. Where there
# are several regions, the first is that of a voice whose name has none.
_KNOWN: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "ar": (("JO", "العربية", "Arabic", "Jordan"),),
    "ca": (("ES", "Català", "Catalan", "Spain"),),
    "cs": (("CZ", "Čeština", "Czech", "Czech Republic"),),
    "cy": (("GB", "Cymraeg", "Welsh", "Great Britain"),),
    "da": (("DK", "Dansk", "Danish", "Denmark"),),
    "de": (("DE", "Deutsch", "German", "Germany"),),
    "el": (("GR", "Ελληνικά", "Greek", "Greece"),),
    "en": (("US", "English", "English", "United States"), ("GB", "English", "English", "Great Britain")),
    "es": (("ES", "Español", "Spanish", "Spain"), ("MX", "Español", "Spanish", "Mexico")),
    "fa": (("IR", "فارسی", "Farsi", "Iran"),),
    "fi": (("FI", "Suomi", "Finnish", "Finland"),),
    "fr": (("FR", "Français", "French", "France"),),
    "hu": (("HU", "Magyar", "Hungarian", "Hungary"),),
    "is": (("IS", "íslenska", "Icelandic", "Iceland"),),
    "it": (("IT", "Italiano", "Italian", "Italy"),),
    "ka": (("GE", "ქართული ენა", "Georgian", "Georgia"),),
    "kk": (("KZ", "қазақша", "Kazakh", "Kazakhstan"),),
    "lb": (("LU", "Lëtzebuergesch", "Luxembourgish", "Luxembourg"),),
    "lv": (("LV", "Latviešu", "Latvian", "Latvia"),),
    "ml": (("IN", "മലയാളം", "Malayalam", "India"),),
    "ne": (("NP", "नेपाली", "Nepali", "Nepal"),),
    "nl": (("NL", "Nederlands", "Dutch", "Netherlands"), ("BE", "Nederlands", "Dutch", "Belgium")),
    "nb": (("NO", "Norsk", "Norwegian", "Norway"),),
    "pl": (("PL", "Polski", "Polish", "Poland"),),
    "pt": (("PT", "Português", "Portuguese", "Portugal"), ("BR", "Português", "Portuguese", "Brazil")),
    "ro": (("RO", "Română", "Romanian", "Romania"),),
    "ru": (("RU", "Русский", "Russian", "Russia"),),
    "sk": (("SK", "Slovenčina", "Slovak", "Slovakia"),),
    "sl": (("SI", "Slovenščina", "Slovenian", "Slovenia"),),
    "sr": (("RS", "srpski", "Serbian", "Serbia"),),
    "sv": (("SE", "Svenska", "Swedish", "Sweden"),),
    "sw": (("CD", "Kiswahili", "Swahili", "Democratic Republic of the Congo"),),
    "tr": (("TR", "Türkçe", "Turkish", "Turkey"),),
    "uk": (("UA", "украї́нська мова", "Ukrainian", "Ukraine"),),
    "vi": (("VN", "Tiếng Việt", "Vietnamese", "Vietnam"),),
    "cmn": (("CN", "简体中文", "Chinese", "China"),),
}
_FAMILIES = {"cmn": "zh", "nb": "no"}  # what espeak calls otherwise than published voices
_LATIN_AMERICA = "419"


def language_of(espeak_voice: str) -> dict[str, str]:
    """Return code (`en_US`), family, region and names for a voice like `en-us`; only what is known."""
    family, _, region = espeak_voice.strip().replace("_", "-").lower().partition("-")
    region = "MX" if region == _LATIN_AMERICA else region.split("-")[0].upper()
    known = _KNOWN.get(family, ())
    shown = _FAMILIES.get(family, family)
    for row in known:
        if region in ("", row[0]) or (len(known) == 1 and len(region) != 2):
            code, native, english, country = row
            return {
                "code": f"{shown}_{code}",
                "family": shown,
                "region": code,
                "name_native": native,
                "name_english": english,
                "country_english": country,
            }
    return {"code": f"{shown}_{region}" if region else shown, "family": shown, **({"region": region} if region else {})}
