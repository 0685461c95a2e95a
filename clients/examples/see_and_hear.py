# /// script
# requires-python = ">=3.11"
# dependencies = ["omni-server"]
# ///
"""Pictures and recordings as a question: paths, bytes, PIL images and waveforms. Needs `omni-server serve`, Pillow, numpy."""

from pathlib import Path

import numpy
import PIL.Image

from omni_client import Audio, OmniClient

MEDIA = Path(__file__).parent / "media"

with OmniClient() as client:
    print("a path:     ", client.generate([MEDIA / "fox.png", "what is this?"]).text)
    print("bytes:      ", client.generate([(MEDIA / "banana.png").read_bytes(), "what is this?"]).text)
    with PIL.Image.open(MEDIA / "tractor.png") as image:
        print("a PIL image:", client.generate([image.rotate(10), "what is this?"]).text)
    print("a recording:", client.generate(MEDIA / "en-question.flac").text)

    spoken = client.speak("fox").waveform  # float32 [n]
    louder = numpy.clip(1.5 * spoken, -1, 1)
    print("a waveform: ", client.generate([(louder, 24_000), "write down what you hear"]).text)
    print("the same:   ", client.transcribe(Audio.from_waveform(louder, 24_000)))
