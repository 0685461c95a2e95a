# /// script
# requires-python = ">=3.11"
# dependencies = ["omni-server"]
# ///
"""A picture, a voice and a transcript: one line each. Needs a running server, `omni-server serve`."""

from omni_client import OmniClient

with OmniClient() as client:
    picture = client.draw("a fox", seed=1)
    print(picture.save("fox.png"), "with the seed", picture.seed)

    voice = client.speak("fox", voice=client.voices()[0])
    print(voice.save("fox.wav"), f"{voice.seconds:.2f} s:", voice.transcript)

    print("heard:", client.transcribe("fox.wav"))
