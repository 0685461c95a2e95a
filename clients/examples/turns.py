# /// script
# requires-python = ">=3.11"
# dependencies = ["omni-server"]
# ///
"""A conversation of several turns: a reply is a turn like any other. Needs a running server, `omni-server serve`."""

from omni_client import BadRequestError, OmniClient

with OmniClient() as client:
    drawn = client.generate("draw a fox", modalities=["text", "image"], temperature=0)
    print(drawn.text, *drawn.save("turns"))

    told = client.generate(["draw a fox", drawn, "what is this?"], temperature=0)
    print(told.text, told.usage)

    try:
        client.generate("say 'fox'", voice="nobody")
    except BadRequestError as error:
        print(f"{error.param}: {error.message} ({error.code}, {error.request_id})")
