# /// script
# requires-python = ">=3.11"
# dependencies = ["omni-server[client]"]
# ///
"""A spoken question, sent as fast as it is spoken, and a spoken answer. Needs a running server, `omni-server serve`.

`client.converse(Microphone())` listens to you instead; that needs `pip install sounddevice`.
"""

from omni_client import Audio, AudioDelta, Caption, Interrupted, OmniClient, Paced, ResponseDone, TurnCommitted

with OmniClient() as client:
    question = client.speak("fox")
    with client.converse(Paced(question, silence=1.0), voice="heart") as call:
        assert call.ready is not None
        answer = bytearray()
        for event in call:
            match event:
                case TurnCommitted(_, seconds):
                    print(f"you spoke for {seconds:.2f} s")
                case Caption(_, role, text, final=True):
                    print(f"{role}: {text}")
                case AudioDelta(pcm):
                    answer += pcm
                case Interrupted(_, heard):
                    print(f"you spoke over the answer after {heard:.2f} s")
                case ResponseDone(status=status, turn_to_first_audio=pause):
                    print(f"the answer is {status}; its first sound came after {pause} s")
        print(Audio.from_pcm(bytes(answer), call.ready.output_sample_rate).save("answer.wav"))
