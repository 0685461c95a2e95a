# /// script
# requires-python = ">=3.11"
# dependencies = ["omni-server"]
# ///
"""A conversation of several turns: a reply is a turn like any other. Needs a running server, `omni-server serve`."""

from omni_client import BadRequestError, Message, OmniClient

with OmniClient() as client:
    ask = Message("user", "draw a fox")
    drawn = client.generate([ask], modalities=["text", "image"], temperature=0)
    print(drawn.text, *drawn.save("turns"))

    told = client.generate([ask, drawn, Message("user", "what is this?")], temperature=0)
    print(told.text, told.usage)

    try:
        client.generate("say 'fox'", voice="nobody")
    except BadRequestError as error:
        print(f"{error.param}: {error.message} ({error.code}, {error.request_id})")
