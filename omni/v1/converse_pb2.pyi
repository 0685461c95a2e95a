import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from omni.v1 import content_pb2 as _content_pb2
from omni.v1 import events_pb2 as _events_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TurnDetectionType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_DETECTION_TYPE_UNSPECIFIED: _ClassVar[TurnDetectionType]
    TURN_DETECTION_TYPE_SERVER_VAD: _ClassVar[TurnDetectionType]
    TURN_DETECTION_TYPE_NONE: _ClassVar[TurnDetectionType]

class ResponseStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESPONSE_STATUS_UNSPECIFIED: _ClassVar[ResponseStatus]
    RESPONSE_STATUS_COMPLETED: _ClassVar[ResponseStatus]
    RESPONSE_STATUS_INCOMPLETE: _ClassVar[ResponseStatus]
    RESPONSE_STATUS_INTERRUPTED: _ClassVar[ResponseStatus]
    RESPONSE_STATUS_CANCELLED: _ClassVar[ResponseStatus]
    RESPONSE_STATUS_FAILED: _ClassVar[ResponseStatus]
TURN_DETECTION_TYPE_UNSPECIFIED: TurnDetectionType
TURN_DETECTION_TYPE_SERVER_VAD: TurnDetectionType
TURN_DETECTION_TYPE_NONE: TurnDetectionType
RESPONSE_STATUS_UNSPECIFIED: ResponseStatus
RESPONSE_STATUS_COMPLETED: ResponseStatus
RESPONSE_STATUS_INCOMPLETE: ResponseStatus
RESPONSE_STATUS_INTERRUPTED: ResponseStatus
RESPONSE_STATUS_CANCELLED: ResponseStatus
RESPONSE_STATUS_FAILED: ResponseStatus

class ConverseRequest(_message.Message):
    __slots__ = ("config", "audio", "text", "image", "end_turn", "cancel", "truncate", "playback", "tool_result")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    END_TURN_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    PLAYBACK_FIELD_NUMBER: _ClassVar[int]
    TOOL_RESULT_FIELD_NUMBER: _ClassVar[int]
    config: ConverseConfig
    audio: AudioFrame
    text: str
    image: _content_pb2.Media
    end_turn: EndTurn
    cancel: Cancel
    truncate: Truncate
    playback: Playback
    tool_result: ToolResult
    def __init__(self, config: _Optional[_Union[ConverseConfig, _Mapping]] = ..., audio: _Optional[_Union[AudioFrame, _Mapping]] = ..., text: _Optional[str] = ..., image: _Optional[_Union[_content_pb2.Media, _Mapping]] = ..., end_turn: _Optional[_Union[EndTurn, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., truncate: _Optional[_Union[Truncate, _Mapping]] = ..., playback: _Optional[_Union[Playback, _Mapping]] = ..., tool_result: _Optional[_Union[ToolResult, _Mapping]] = ...) -> None: ...

class ConverseConfig(_message.Message):
    __slots__ = ("model", "instructions", "history", "modalities", "voice", "input_audio", "output_audio", "sampling", "turn_detection", "input_transcription", "tools", "tool_choice", "thinking", "drawing")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    INPUT_AUDIO_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_AUDIO_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    TURN_DETECTION_FIELD_NUMBER: _ClassVar[int]
    INPUT_TRANSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CHOICE_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    DRAWING_FIELD_NUMBER: _ClassVar[int]
    model: str
    instructions: str
    history: _containers.RepeatedCompositeFieldContainer[_content_pb2.Message]
    modalities: _containers.RepeatedScalarFieldContainer[_content_pb2.Modality]
    voice: str
    input_audio: _content_pb2.AudioFormat
    output_audio: _content_pb2.AudioFormat
    sampling: _content_pb2.Sampling
    turn_detection: TurnDetection
    input_transcription: bool
    tools: _containers.RepeatedCompositeFieldContainer[_content_pb2.Tool]
    tool_choice: _content_pb2.ToolChoice
    thinking: _content_pb2.Thinking
    drawing: _content_pb2.Drawing
    def __init__(self, model: _Optional[str] = ..., instructions: _Optional[str] = ..., history: _Optional[_Iterable[_Union[_content_pb2.Message, _Mapping]]] = ..., modalities: _Optional[_Iterable[_Union[_content_pb2.Modality, str]]] = ..., voice: _Optional[str] = ..., input_audio: _Optional[_Union[_content_pb2.AudioFormat, _Mapping]] = ..., output_audio: _Optional[_Union[_content_pb2.AudioFormat, _Mapping]] = ..., sampling: _Optional[_Union[_content_pb2.Sampling, _Mapping]] = ..., turn_detection: _Optional[_Union[TurnDetection, _Mapping]] = ..., input_transcription: _Optional[bool] = ..., tools: _Optional[_Iterable[_Union[_content_pb2.Tool, _Mapping]]] = ..., tool_choice: _Optional[_Union[_content_pb2.ToolChoice, _Mapping]] = ..., thinking: _Optional[_Union[_content_pb2.Thinking, _Mapping]] = ..., drawing: _Optional[_Union[_content_pb2.Drawing, _Mapping]] = ...) -> None: ...

class TurnDetection(_message.Message):
    __slots__ = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms", "interrupt_response")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PREFIX_PADDING_MS_FIELD_NUMBER: _ClassVar[int]
    SILENCE_DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    type: TurnDetectionType
    threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int
    interrupt_response: bool
    def __init__(self, type: _Optional[_Union[TurnDetectionType, str]] = ..., threshold: _Optional[float] = ..., prefix_padding_ms: _Optional[int] = ..., silence_duration_ms: _Optional[int] = ..., interrupt_response: _Optional[bool] = ...) -> None: ...

class AudioFrame(_message.Message):
    __slots__ = ("audio", "sequence")
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    audio: bytes
    sequence: int
    def __init__(self, audio: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...

class EndTurn(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("response_id",)
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    def __init__(self, response_id: _Optional[str] = ...) -> None: ...

class Truncate(_message.Message):
    __slots__ = ("response_id", "heard")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    heard: _duration_pb2.Duration
    def __init__(self, response_id: _Optional[str] = ..., heard: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Playback(_message.Message):
    __slots__ = ("response_id", "heard")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    heard: _duration_pb2.Duration
    def __init__(self, response_id: _Optional[str] = ..., heard: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ToolResult(_message.Message):
    __slots__ = ("call_id", "output")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    output: str
    def __init__(self, call_id: _Optional[str] = ..., output: _Optional[str] = ...) -> None: ...

class ConverseResponse(_message.Message):
    __slots__ = ("sequence", "ready", "speech_started", "speech_stopped", "turn_committed", "transcript", "response_started", "span_opened", "audio_delta", "image_preview", "image_ready", "span_closed", "response_done", "interrupted", "turn_complete", "truncated", "problem", "go_away", "reasoning_delta", "heard", "tool_called")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    SPEECH_STARTED_FIELD_NUMBER: _ClassVar[int]
    SPEECH_STOPPED_FIELD_NUMBER: _ClassVar[int]
    TURN_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_STARTED_FIELD_NUMBER: _ClassVar[int]
    SPAN_OPENED_FIELD_NUMBER: _ClassVar[int]
    AUDIO_DELTA_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PREVIEW_FIELD_NUMBER: _ClassVar[int]
    IMAGE_READY_FIELD_NUMBER: _ClassVar[int]
    SPAN_CLOSED_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_DONE_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    TURN_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    REASONING_DELTA_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    ready: Ready
    speech_started: SpeechStarted
    speech_stopped: SpeechStopped
    turn_committed: TurnCommitted
    transcript: Transcript
    response_started: ResponseStarted
    span_opened: _events_pb2.SpanOpened
    audio_delta: _events_pb2.AudioDelta
    image_preview: _events_pb2.ImagePreview
    image_ready: _events_pb2.ImageReady
    span_closed: _events_pb2.SpanClosed
    response_done: ResponseDone
    interrupted: Interrupted
    turn_complete: TurnComplete
    truncated: Truncated
    problem: _events_pb2.Problem
    go_away: GoAway
    reasoning_delta: _events_pb2.ReasoningDelta
    heard: _events_pb2.Heard
    tool_called: _events_pb2.ToolCalled
    def __init__(self, sequence: _Optional[int] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., speech_started: _Optional[_Union[SpeechStarted, _Mapping]] = ..., speech_stopped: _Optional[_Union[SpeechStopped, _Mapping]] = ..., turn_committed: _Optional[_Union[TurnCommitted, _Mapping]] = ..., transcript: _Optional[_Union[Transcript, _Mapping]] = ..., response_started: _Optional[_Union[ResponseStarted, _Mapping]] = ..., span_opened: _Optional[_Union[_events_pb2.SpanOpened, _Mapping]] = ..., audio_delta: _Optional[_Union[_events_pb2.AudioDelta, _Mapping]] = ..., image_preview: _Optional[_Union[_events_pb2.ImagePreview, _Mapping]] = ..., image_ready: _Optional[_Union[_events_pb2.ImageReady, _Mapping]] = ..., span_closed: _Optional[_Union[_events_pb2.SpanClosed, _Mapping]] = ..., response_done: _Optional[_Union[ResponseDone, _Mapping]] = ..., interrupted: _Optional[_Union[Interrupted, _Mapping]] = ..., turn_complete: _Optional[_Union[TurnComplete, _Mapping]] = ..., truncated: _Optional[_Union[Truncated, _Mapping]] = ..., problem: _Optional[_Union[_events_pb2.Problem, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ..., reasoning_delta: _Optional[_Union[_events_pb2.ReasoningDelta, _Mapping]] = ..., heard: _Optional[_Union[_events_pb2.Heard, _Mapping]] = ..., tool_called: _Optional[_Union[_events_pb2.ToolCalled, _Mapping]] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("session_id", "config")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    config: ConverseConfig
    def __init__(self, session_id: _Optional[str] = ..., config: _Optional[_Union[ConverseConfig, _Mapping]] = ...) -> None: ...

class SpeechStarted(_message.Message):
    __slots__ = ("turn_id", "start")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    start: _duration_pb2.Duration
    def __init__(self, turn_id: _Optional[str] = ..., start: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SpeechStopped(_message.Message):
    __slots__ = ("turn_id", "end")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    end: _duration_pb2.Duration
    def __init__(self, turn_id: _Optional[str] = ..., end: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TurnCommitted(_message.Message):
    __slots__ = ("turn_id", "audio")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    audio: _duration_pb2.Duration
    def __init__(self, turn_id: _Optional[str] = ..., audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Transcript(_message.Message):
    __slots__ = ("id", "role", "text", "is_final")
    ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    id: str
    role: _content_pb2.Role
    text: str
    is_final: bool
    def __init__(self, id: _Optional[str] = ..., role: _Optional[_Union[_content_pb2.Role, str]] = ..., text: _Optional[str] = ..., is_final: _Optional[bool] = ...) -> None: ...

class ResponseStarted(_message.Message):
    __slots__ = ("response_id", "turn_id")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    turn_id: str
    def __init__(self, response_id: _Optional[str] = ..., turn_id: _Optional[str] = ...) -> None: ...

class ResponseDone(_message.Message):
    __slots__ = ("response_id", "status", "usage", "timing", "turn_to_first_audio", "audio", "problem")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    TURN_TO_FIRST_AUDIO_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    status: ResponseStatus
    usage: _events_pb2.Usage
    timing: _events_pb2.Timing
    turn_to_first_audio: _duration_pb2.Duration
    audio: _duration_pb2.Duration
    problem: _events_pb2.Problem
    def __init__(self, response_id: _Optional[str] = ..., status: _Optional[_Union[ResponseStatus, str]] = ..., usage: _Optional[_Union[_events_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_events_pb2.Timing, _Mapping]] = ..., turn_to_first_audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., problem: _Optional[_Union[_events_pb2.Problem, _Mapping]] = ...) -> None: ...

class Interrupted(_message.Message):
    __slots__ = ("response_id", "heard", "text")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    heard: _duration_pb2.Duration
    text: str
    def __init__(self, response_id: _Optional[str] = ..., heard: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class TurnComplete(_message.Message):
    __slots__ = ("response_id",)
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    def __init__(self, response_id: _Optional[str] = ...) -> None: ...

class Truncated(_message.Message):
    __slots__ = ("response_id", "heard", "text")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    heard: _duration_pb2.Duration
    text: str
    def __init__(self, response_id: _Optional[str] = ..., heard: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("time_left",)
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    time_left: _duration_pb2.Duration
    def __init__(self, time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
