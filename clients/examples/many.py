# /// script
# requires-python = ">=3.11"
# dependencies = ["omni-server"]
# ///
"""Many requests at once, with asyncio. Needs a running server, `omni-server serve`."""

import asyncio

from omni_client import AsyncOmniClient


async def main() -> None:
    async with AsyncOmniClient() as client:
        pictures = asyncio.gather(*(client.draw(name, seed=1) for name in ("a fox", "a banana")))
        async with client.stream("is a fox an animal?") as stream:
            async for words in stream.text:
                print(words, end="", flush=True)
        print()
        for name, picture in zip(("fox", "banana"), await pictures, strict=True):
            print(picture.save(name))


asyncio.run(main())
