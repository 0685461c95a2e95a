# /// script
# requires-python = ">=3.11"
# dependencies = ["omni-server"]
# ///
"""Pictures out of pictures, and English out of Korean. Needs a running server, `omni-server serve`."""

from pathlib import Path

from omni_client import OmniClient

MEDIA = Path(__file__).parent / "media"

with OmniClient() as client:
    print(client.edit(MEDIA / "fox.png", "draw this in the flat style", seed=1).save("flat.png"))
    for number, picture in enumerate(client.vary(MEDIA / "banana.png", 2, seed=1), start=1):
        print(picture.save(f"varied-{number}.png"), "with the seed", picture.seed)
    print("in English:", client.translate(MEDIA / "ko-name.flac"))
