"""What whisper is known to write for silence, music and noise, by language, in the form of `hallucinations.plain_text`.

It learned from subtitles: who made them, thanks for watching, what is on next. The lines are those that users report.
"""

from __future__ import annotations

# Each a whole text. A speaker who says such a line and nothing else in a clip loses that clip.
_CREDITS = """
thanks for watching|thank you for watching|thank you so much for watching|thank you very much for watching
thanks for watching and ill see you in the next video|thank you for watching and see you in the next video
thanks for watching please subscribe|thanks for watching dont forget to like and subscribe
please subscribe|please subscribe to my channel|like and subscribe|dont forget to like and subscribe
please like and subscribe|subscribe to my channel|please like comment and subscribe|see you in the next video
ill see you in the next video|subtitles by the amaraorg community|transcript emily beynon
transcription by castingwords|transcribed by https otterai|transcription outsourcing llc|subtitles by
subs by www zeoranger co uk|subtitles by steamteamextra|for more information visit wwwfemagov
for more un videos visit wwwunorg|wwwmoojiorg
субтитры подогнал симон|продолжение следует|спасибо за просмотр|подписывайтесь на канал|подписывайтесь на мой канал
ставьте лайки|спасибо за субтитры алексею дубровскому|спасибо за субтитры
дякую за перегляд|дякуємо за перегляд|підписуйтесь на канал
untertitel im auftrag des zdf für funk|untertitelung des zdf|untertitel der amaraorg community
untertitelung bayerischer rundfunk|untertitel von stephanie geiges|untertitelung aufgrund der amaraorg community
ard text im auftrag von funk|vielen dank fürs zuschauen|danke fürs zuschauen|danke fürs zusehen|vielen dank fürs zusehen
sous titres réalisés par la communauté damaraorg|sous titres réalisés para la communauté damaraorg
sous titres réalisés par lamaraorg|sous titres réalisés par|sous titres fait par sous titres par|sous titrage st 501
sous titrage société radio canada|sous titrage fr|merci davoir regardé cette vidéo|merci davoir regardé
merci davoir regardé la vidéo|abonnez vous|noubliez pas de vous abonner|abonnez vous à la chaîne
subtítulos realizados por la comunidad de amaraorg|subtítulos por la comunidad de amaraorg
subtitulado por la comunidad de amaraorg|subtítulos en español de amaraorg|gracias por ver el video
gracias por ver el vídeo|gracias por ver|muchas gracias por ver el video|suscríbete al canal|no olvides suscribirte
más información wwwalimmentacom
legendas pela comunidade amaraorg|legendas pela comunidade das amaraorg|legendado pela comunidade amaraorg
obrigado por assistir|obrigada por assistir|inscreva se no canal|se inscreva no canal|legenda adriana zanotto
sottotitoli creati dalla comunità amaraorg|sottotitoli e revisione a cura di qtss|sottotitoli a cura di qtss
grazie per aver guardato il video|grazie per la visione|iscriviti al canale|grazie per aver guardato
ondertitels ingediend door de amaraorg gemeenschap|ondertiteld door de amaraorg gemeenschap|bedankt voor het kijken
napisy stworzone przez społeczność amaraorg|napisy wykonane przez społeczność amaraorg|dziękuję za oglądanie
dzięki za obejrzenie|zdjęcia i montaż
titulky vytvořil johnyx|děkujeme za sledování|altyazı mk
izlediğiniz için teşekkür ederim|izlediğiniz için teşekkürler|abone olmayı unutmayın
undertexter från amaraorg gemenskapen|tack för att du har tittat|tack för att ni tittade|tack för att du tittade
undertekster av amaraorg samfunnet|undertekster av ai media|danske tekster af nicolai winther|scandinavian text service
tusen takk for at du så på|tak fordi du så med|kiitos kun katsoit
köszönöm hogy megnéztétek|feliratok az amaraorg közösségtől
vă mulțumim pentru vizionare|mulțumesc pentru vizionare|ευχαριστώ που παρακολουθήσατε|υπότιτλοι authorwave
ご視聴ありがとうございました|ご視聴ありがとうございます|ご覧いただきありがとうございます|最後までご視聴ありがとうございました
チャンネル登録お願いします|チャンネル登録をお願いします|チャンネル登録よろしくお願いします|高評価とチャンネル登録お願いします
시청해주셔서 감사합니다|구독과 좋아요 부탁드립니다|구독과 좋아요 부탁드려요|mbc 뉴스|다음 영상에서 만나요
자막 제공 및 광고를 포함하고 있습니다|이 영상은 유료 광고를 포함하고 있습니다
字幕由amaraorg社区提供|字幕由amaraorg社群提供|词曲李宗盛|詞曲李宗盛|作词作曲编曲李宗盛
请不吝点赞订阅转发打赏支持明镜与点点栏目|請不吝點贊訂閱轉發打賞支持明鏡與點點欄目|明镜需要您的支持欢迎订阅明镜
谢谢观看|謝謝觀看|感谢观看|感謝觀看|谢谢大家观看|谢谢收看|謝謝收看|多谢您的观看|订阅我的频道
優優獨播劇場yoyo television series exclusive
ترجمة نانسي قنقر|اشتركوا في القناة|شكرا للمشاهدة|شكرا على المشاهدة|لا تنسوا الاشتراك في القناة
תודה רבה על הצפייה|תודה שצפיתם|देखने के लिए धन्यवाद
cảm ơn các bạn đã theo dõi|cảm ơn các bạn đã xem video
hãy subscribe cho kênh ghiền mì gõ để không bỏ lỡ những video hấp dẫn
các bạn hãy đăng kí kênh để ủng hộ kênh của mình nhé|hãy đăng ký kênh để ủng hộ kênh của mình nhé
terima kasih telah menonton|terima kasih kerana menonton|terima kasih sudah menonton|jangan lupa subscribe
ขอบคุณที่รับชม|อย่าลืมกดติดตาม|โปรดติดตามตอนต่อไป|gràcies per veure el vídeo
"""

# Whole texts with a name or a year in them.
CREDIT_PATTERNS = (
    r"(subtitles|subs|captions|captioned|subtitled|transcribed|transcript|transcription) by( \w+){1,3}",
    r"(copyright )?(wdr|swr|zdf|ndr|ard) (19|20)\d\d",
    r"untertitel(ung)? (im auftrag des|des|vom) (zdf|wdr|ndr|swr|ard)( für funk)?( (19|20)\d\d)?",
    r"субтитры (сделал|делал|создавал|создал|добавил|подготовил|предоставил)а? \w+( \w+)?",
    r"редактор субтитров( \w+){1,3}( корректор( \w+){1,3})?",
    r"(sous titrage|sous titres|subtítulos|subtitulado|legendas|legendado|sottotitoli) (par|por|di|a cura di)( \w+){1,3}",
    r"(tekstet av|tekster af|undertekster av|undertexter av|titulky vytvořil) \w+ \w+",
    r"(中文)?字幕 ?(志愿者|志願者|by|由) ?\w{2,8}",
    r"mbc 뉴스 \w{2,4}(입니다|이었습니다|였습니다)",
    r"(한글 ?)?자막 by \w+",
)

# Real sentences as well: they count only if the recogniser was unsure, or the clip is far too long for them.
_COMMON = """
you|thank you|thanks|thank you very much|thank you so much|bye|bye bye|okay|ok|so|oh|yeah|yes|no|hmm|mm hmm|uh|um|the|and
i|music|applause|laughter|silence|the end|im sorry|all right|well be right back|ill see you next time|see you next time
спасибо|да|нет|ну|пока|музыка|до новых встреч|дякую
danke|vielen dank|ja|nein|tschüss|musik|bis zum nächsten mal|merci|oui|non|musique|au revoir|gracias|muchas gracias|sí
música|adiós|obrigado|obrigada|tchau|grazie|sì|ciao|musica|dank je wel|dziękuję|dziękuję za uwagę|muzyka
děkuji za pozornost|köszönöm a figyelmet|teşekkür ederim|teşekkürler|suscríbete
ありがとうございました|ありがとうございます|ご清聴ありがとうございました|はい|うん|ん|おやすみなさい|감사합니다|네|음
谢谢|謝謝|谢谢大家|嗯|好|شكرا|תודה רבה|धन्यवाद|cảm ơn|terima kasih|ขอบคุณ
"""


def _lines(text: str) -> frozenset[str]:
    return frozenset(line for line in text.strip().replace("\n", "|").split("|") if line)


CREDITS, COMMON = _lines(_CREDITS), _lines(_COMMON)
