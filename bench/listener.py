"""The client half of bench/speech.py, in a process of its own: hears one reply over REST or gRPC, and counts its bytes."""

from __future__ import annotations

import json
import sys


def over_rest(port: str) -> int:
    import httpx

    body = {
        "model": "omni-scripted",
        "messages": [{"role": "user", "content": "hi"}],
        "modalities": ["text", "audio"],
        "audio": {"format": "pcm16", "voice": "mint"},
        "stream": True,
    }
    with httpx.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60) as reply:
        return sum(len(piece) for piece in reply.iter_raw())


def over_grpc(port: str) -> int:
    import grpc

    from omni.v1 import content_pb2, omni_service_pb2, omni_service_pb2_grpc

    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="hi")])
    asked = omni_service_pb2.GenerateRequest(messages=[message], modalities=[content_pb2.MODALITY_AUDIO])
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = omni_service_pb2_grpc.OmniServiceStub(channel)
        return sum(reply.ByteSize() + 5 for reply in stub.Generate(asked))  # 5 bytes stand before each message


if __name__ == "__main__":
    hear = {"rest": over_rest, "grpc": over_grpc}[sys.argv[1]]
    print(json.dumps({"bytes": sum(hear(sys.argv[2]) for _ in range(int(sys.argv[3])))}))
