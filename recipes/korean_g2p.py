"""Speech step: Hangul -> the phonemes Kokoro reads (misaki's alphabet). Knows nothing about sound.

Covers what names and short requests need: liaison, nasalisation, aspiration, tensification after a stop.
"""

INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
FINALS = ("", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ")

_CLUSTERS = dict(
    zip(
        "ㄳㄵㄶㄺㄻㄼㄽㄾㄿㅀㅄ",
        ("ㄱㅅ", "ㄴㅈ", "ㄴㅎ", "ㄹㄱ", "ㄹㅁ", "ㄹㅂ", "ㄹㅅ", "ㄹㅌ", "ㄹㅍ", "ㄹㅎ", "ㅂㅅ"),
        strict=True,
    )
)
_HEARD_FINAL = {
    "": "",
    **dict.fromkeys("ㄱㄲㅋㄳㄺ", "ㄱ"),
    **dict.fromkeys("ㄴㄵㄶ", "ㄴ"),
    **dict.fromkeys("ㄷㅅㅆㅈㅊㅌㅎ", "ㄷ"),
    **dict.fromkeys("ㄹㄼㄽㄾㅀ", "ㄹ"),
    **dict.fromkeys("ㅁㄻ", "ㅁ"),
    **dict.fromkeys("ㅂㅍㅄㄿ", "ㅂ"),
    "ㅇ": "ㅇ",
}
_TENSE = dict(zip("ㄱㄷㅂㅅㅈ", "ㄲㄸㅃㅆㅉ", strict=True))
_ASPIRATED = dict(zip("ㄱㄷㅂㅈ", "ㅋㅌㅍㅊ", strict=True))
_NASAL = dict(zip("ㄱㄷㅂ", "ㅇㄴㅁ", strict=True))
_VOICED_SOUND = dict(zip("ㄱㄷㅂㅈ", "ɡdbʥ", strict=True))
_SPOKEN_VOWELS = (
    *("a", "ɛ", "ja", "jɛ", "ʌ", "e", "jʌ", "je", "o", "wa", "wɛ"),
    *("we", "jo", "u", "wʌ", "we", "wi", "ju", "ɯ", "ɯi", "i"),
)
_VOWEL_SOUND = dict(zip(VOWELS, _SPOKEN_VOWELS, strict=True))
_INITIAL_SOUND = dict(
    zip(
        INITIALS,
        ("k", "k", "n", "t", "t", "ɾ", "m", "p", "p", "s", "s", "", "ʨ", "ʨ", "ʨʰ", "kʰ", "tʰ", "pʰ", "h"),
        strict=True,
    )
)
_FINAL_SOUND = {"": "", "ㄱ": "k", "ㄴ": "n", "ㄷ": "t", "ㄹ": "l", "ㅁ": "m", "ㅂ": "p", "ㅇ": "ŋ"}


def to_phonemes(text: str) -> str:
    """Phonemes of each word, joined by blanks; punctuation the voices breathe at is kept."""
    return " ".join(_word_phonemes(word) for word in text.split())


def split_syllable(syllable: str) -> tuple[str, str, str]:
    """One Hangul syllable -> initial, vowel, final ("" when open)."""
    offset = ord(syllable) - ord("가")
    return INITIALS[offset // 588], VOWELS[offset % 588 // 28], FINALS[offset % 28]


def ends_closed(word: str) -> bool:
    """Whether the last syllable has a final consonant, which decides the particle (은/는, 이라고/라고)."""
    return "가" <= word[-1] <= "힣" and split_syllable(word[-1])[2] != ""


def _word_phonemes(word: str) -> str:
    syllables = [list(split_syllable(letter)) for letter in word if "가" <= letter <= "힣"]
    for index, syllable in enumerate(syllables):
        following = syllables[index + 1] if index + 1 < len(syllables) else None
        if following is None:
            syllable[2] = _HEARD_FINAL[syllable[2]]
        else:
            syllable[2], following[0] = _join(syllable[2], following[0], following[1])
    pause = word[-1] if word[-1] in ".,?!" else ""
    return _spell(syllables) + pause


def _join(final: str, initial: str, vowel: str) -> tuple[str, str]:
    """What a final consonant and the next initial become when spoken together."""
    if initial == "ㅇ" and final and final != "ㅇ":
        return _carry_over(final, vowel)
    if final in ("ㅎ", "ㄶ", "ㅀ") and initial in _ASPIRATED:
        return _CLUSTERS.get(final, " ")[0].strip(), _ASPIRATED[initial]
    heard = _HEARD_FINAL[final]
    if initial == "ㅎ" and heard in _NASAL:
        return "", _ASPIRATED["ㅈ" if final == "ㅈ" else heard]
    if heard in _NASAL:
        if initial in "ㄴㅁ":
            return _NASAL[heard], initial
        if initial == "ㄹ":
            return _NASAL[heard], "ㄴ"
        return heard, _TENSE.get(initial, initial)
    if {heard, initial} == {"ㄹ", "ㄴ"}:
        return "ㄹ", "ㄹ"
    if heard in ("ㅁ", "ㅇ") and initial == "ㄹ":
        return heard, "ㄴ"
    return heard, initial


def _carry_over(final: str, vowel: str) -> tuple[str, str]:
    if final in ("ㅎ", "ㄶ", "ㅀ"):
        carried = _CLUSTERS.get(final, " ")[0].strip()
        return "", carried or "ㅇ"
    stays, moves = _CLUSTERS.get(final, " " + final)
    if vowel == "ㅣ":
        moves = {"ㄷ": "ㅈ", "ㅌ": "ㅊ"}.get(moves, moves)
    return stays.strip(), moves


def _spell(syllables: list[list[str]]) -> str:
    sounds = []
    before = None
    for initial, vowel, final in syllables:
        vowel_sound = _VOWEL_SOUND[vowel]
        if before is not None and initial in _VOICED_SOUND and before in ("", "ㄴ", "ㄹ", "ㅁ", "ㅇ"):
            sound = _VOICED_SOUND[initial]
        elif initial == "ㄹ" and before == "ㄹ":
            sound = "l"
        elif initial in "ㅅㅆ" and vowel in "ㅣㅑㅕㅛㅠㅟ":
            sound = "ɕ"
        else:
            sound = _INITIAL_SOUND[initial]
        if initial in "ㅈㅉㅊ":
            vowel_sound = vowel_sound.removeprefix("j")
        stress = "ˈ" if before is None else ""
        sounds.append(sound + stress + vowel_sound + _FINAL_SOUND[final])
        before = final
    return "".join(sounds)
