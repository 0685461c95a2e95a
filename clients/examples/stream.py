# /// script
# requires-python = ">=3.11"
# dependencies = ["omni-server"]
# ///
"""Words, a picture and a voice while they are being made. Needs a running server, `omni-server serve`."""

from omni_client import AudioDelta, Done, ImageReady, OmniClient, SpanClosed, SpanOpened, TextDelta

with (
    OmniClient() as client,
    client.stream("draw a fox and say it", modalities=["text", "image", "audio"], voice="heart") as stream,
):
    for event in stream:
        match event:
            case SpanOpened(index, modality):
                print(f"span {index} is {modality}")
            case TextDelta(_, text):
                print(f"  words: {text!r}")
            case AudioDelta(pcm, sample_rate, start):
                print(f"  voice: {len(pcm) // 2 / sample_rate:.2f} s from {start:.2f} s on")
            case ImageReady(index, picture):
                print(f"  picture of span {index}: {picture.save(f'span-{index}')}")
            case SpanClosed(index, error):
                print(f"span {index} ends" if error is None else f"span {index} failed: {error.message}")
            case Done(finish_reason, usage, seconds):
                print(f"done: {finish_reason}, {usage.completion_tokens if usage else 0} tokens, {seconds}")
    for path in stream.final().save("reply"):  # everything that was said and drawn, once more
        print("saved", path)
