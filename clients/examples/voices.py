# /// script
# requires-python = ">=3.11"
# dependencies = ["omni-server"]
# ///
"""A voice made of a recording, with the speaker's consent, and taken back. Needs a running server whose checkpoint takes
voices; the one that ships does not, and says so."""

from pathlib import Path

from omni_client import BadRequestError, OmniClient

RECORDING = Path(__file__).parent / "media" / "en-question.flac"  # put your own here

with OmniClient() as client:
    print("voices of the model:", ", ".join(client.voices()))
    try:
        consent = client.create_consent("me", RECORDING, language="en")
        voice = client.create_voice("mine", RECORDING, consent=consent)
    except BadRequestError as refused:
        if refused.code != "unsupported_modality":
            raise
        print("no voice was made:", refused)
    else:
        print(client.speak("hello", voice=voice.id).save("mine.wav"))
        print("made of recordings:", ", ".join(made.name for made in client.cloned_voices()))
        client.delete_consent(consent)  # and the voice with it
