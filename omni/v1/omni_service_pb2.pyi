import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from omni.v1 import content_pb2 as _content_pb2
from omni.v1 import converse_pb2 as _converse_pb2
from omni.v1 import events_pb2 as _events_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateRequest(_message.Message):
    __slots__ = ("model", "messages", "modalities", "sampling", "voice", "audio", "tools", "thinking", "drawing", "tool_choice")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    DRAWING_FIELD_NUMBER: _ClassVar[int]
    TOOL_CHOICE_FIELD_NUMBER: _ClassVar[int]
    model: str
    messages: _containers.RepeatedCompositeFieldContainer[_content_pb2.Message]
    modalities: _containers.RepeatedScalarFieldContainer[_content_pb2.Modality]
    sampling: _content_pb2.Sampling
    voice: str
    audio: _content_pb2.AudioFormat
    tools: _containers.RepeatedCompositeFieldContainer[_content_pb2.Tool]
    thinking: _content_pb2.Thinking
    drawing: _content_pb2.Drawing
    tool_choice: _content_pb2.ToolChoice
    def __init__(self, model: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_content_pb2.Message, _Mapping]]] = ..., modalities: _Optional[_Iterable[_Union[_content_pb2.Modality, str]]] = ..., sampling: _Optional[_Union[_content_pb2.Sampling, _Mapping]] = ..., voice: _Optional[str] = ..., audio: _Optional[_Union[_content_pb2.AudioFormat, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[_content_pb2.Tool, _Mapping]]] = ..., thinking: _Optional[_Union[_content_pb2.Thinking, _Mapping]] = ..., drawing: _Optional[_Union[_content_pb2.Drawing, _Mapping]] = ..., tool_choice: _Optional[_Union[_content_pb2.ToolChoice, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("sequence", "span_opened", "text_delta", "audio_delta", "image_preview", "image_ready", "span_closed", "done", "reasoning_delta", "heard", "tool_called")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SPAN_OPENED_FIELD_NUMBER: _ClassVar[int]
    TEXT_DELTA_FIELD_NUMBER: _ClassVar[int]
    AUDIO_DELTA_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PREVIEW_FIELD_NUMBER: _ClassVar[int]
    IMAGE_READY_FIELD_NUMBER: _ClassVar[int]
    SPAN_CLOSED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    REASONING_DELTA_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    span_opened: _events_pb2.SpanOpened
    text_delta: _events_pb2.TextDelta
    audio_delta: _events_pb2.AudioDelta
    image_preview: _events_pb2.ImagePreview
    image_ready: _events_pb2.ImageReady
    span_closed: _events_pb2.SpanClosed
    done: _events_pb2.Done
    reasoning_delta: _events_pb2.ReasoningDelta
    heard: _events_pb2.Heard
    tool_called: _events_pb2.ToolCalled
    def __init__(self, sequence: _Optional[int] = ..., span_opened: _Optional[_Union[_events_pb2.SpanOpened, _Mapping]] = ..., text_delta: _Optional[_Union[_events_pb2.TextDelta, _Mapping]] = ..., audio_delta: _Optional[_Union[_events_pb2.AudioDelta, _Mapping]] = ..., image_preview: _Optional[_Union[_events_pb2.ImagePreview, _Mapping]] = ..., image_ready: _Optional[_Union[_events_pb2.ImageReady, _Mapping]] = ..., span_closed: _Optional[_Union[_events_pb2.SpanClosed, _Mapping]] = ..., done: _Optional[_Union[_events_pb2.Done, _Mapping]] = ..., reasoning_delta: _Optional[_Union[_events_pb2.ReasoningDelta, _Mapping]] = ..., heard: _Optional[_Union[_events_pb2.Heard, _Mapping]] = ..., tool_called: _Optional[_Union[_events_pb2.ToolCalled, _Mapping]] = ...) -> None: ...

class TranscribeRequest(_message.Message):
    __slots__ = ("config", "audio")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    config: TranscribeConfig
    audio: bytes
    def __init__(self, config: _Optional[_Union[TranscribeConfig, _Mapping]] = ..., audio: _Optional[bytes] = ...) -> None: ...

class TranscribeConfig(_message.Message):
    __slots__ = ("model", "audio", "language", "turn_detection", "interim_results", "sampling")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    TURN_DETECTION_FIELD_NUMBER: _ClassVar[int]
    INTERIM_RESULTS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    model: str
    audio: _content_pb2.AudioFormat
    language: str
    turn_detection: _converse_pb2.TurnDetection
    interim_results: bool
    sampling: _content_pb2.Sampling
    def __init__(self, model: _Optional[str] = ..., audio: _Optional[_Union[_content_pb2.AudioFormat, _Mapping]] = ..., language: _Optional[str] = ..., turn_detection: _Optional[_Union[_converse_pb2.TurnDetection, _Mapping]] = ..., interim_results: _Optional[bool] = ..., sampling: _Optional[_Union[_content_pb2.Sampling, _Mapping]] = ...) -> None: ...

class TranscribeResponse(_message.Message):
    __slots__ = ("speech_started", "speech_stopped", "utterance", "done")
    SPEECH_STARTED_FIELD_NUMBER: _ClassVar[int]
    SPEECH_STOPPED_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    speech_started: _converse_pb2.SpeechStarted
    speech_stopped: _converse_pb2.SpeechStopped
    utterance: Utterance
    done: TranscribeDone
    def __init__(self, speech_started: _Optional[_Union[_converse_pb2.SpeechStarted, _Mapping]] = ..., speech_stopped: _Optional[_Union[_converse_pb2.SpeechStopped, _Mapping]] = ..., utterance: _Optional[_Union[Utterance, _Mapping]] = ..., done: _Optional[_Union[TranscribeDone, _Mapping]] = ...) -> None: ...

class Utterance(_message.Message):
    __slots__ = ("index", "text", "is_final", "start", "end")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    is_final: bool
    start: _duration_pb2.Duration
    end: _duration_pb2.Duration
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., is_final: _Optional[bool] = ..., start: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TranscribeDone(_message.Message):
    __slots__ = ("usage", "audio")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    usage: _events_pb2.Usage
    audio: _duration_pb2.Duration
    def __init__(self, usage: _Optional[_Union[_events_pb2.Usage, _Mapping]] = ..., audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SynthesizeRequest(_message.Message):
    __slots__ = ("model", "text", "voice", "audio", "sampling")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    model: str
    text: str
    voice: str
    audio: _content_pb2.AudioFormat
    sampling: _content_pb2.Sampling
    def __init__(self, model: _Optional[str] = ..., text: _Optional[str] = ..., voice: _Optional[str] = ..., audio: _Optional[_Union[_content_pb2.AudioFormat, _Mapping]] = ..., sampling: _Optional[_Union[_content_pb2.Sampling, _Mapping]] = ...) -> None: ...

class SynthesizeResponse(_message.Message):
    __slots__ = ("audio_delta", "text_delta", "done")
    AUDIO_DELTA_FIELD_NUMBER: _ClassVar[int]
    TEXT_DELTA_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    audio_delta: _events_pb2.AudioDelta
    text_delta: _events_pb2.TextDelta
    done: _events_pb2.Done
    def __init__(self, audio_delta: _Optional[_Union[_events_pb2.AudioDelta, _Mapping]] = ..., text_delta: _Optional[_Union[_events_pb2.TextDelta, _Mapping]] = ..., done: _Optional[_Union[_events_pb2.Done, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "modalities_in", "modalities_out", "context_length", "sample_rate_hertz")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_IN_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_OUT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    name: str
    modalities_in: _containers.RepeatedScalarFieldContainer[_content_pb2.Modality]
    modalities_out: _containers.RepeatedScalarFieldContainer[_content_pb2.Modality]
    context_length: int
    sample_rate_hertz: int
    def __init__(self, name: _Optional[str] = ..., modalities_in: _Optional[_Iterable[_Union[_content_pb2.Modality, str]]] = ..., modalities_out: _Optional[_Iterable[_Union[_content_pb2.Modality, str]]] = ..., context_length: _Optional[int] = ..., sample_rate_hertz: _Optional[int] = ...) -> None: ...

class ListVoicesRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListVoicesResponse(_message.Message):
    __slots__ = ("voices",)
    VOICES_FIELD_NUMBER: _ClassVar[int]
    voices: _containers.RepeatedCompositeFieldContainer[Voice]
    def __init__(self, voices: _Optional[_Iterable[_Union[Voice, _Mapping]]] = ...) -> None: ...

class Voice(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...
