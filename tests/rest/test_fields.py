"""Every field of OpenAI's is accepted, refused or ignored, and docs/rest.md says which."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import completion_create_params, image_create_variation_params, image_edit_params, image_generate_params
from openai.types.audio import speech_create_params, transcription_create_params, translation_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params, tool_param
from pydantic import BaseModel

from omni_server.rest.chat_wire import ChatRequest
from omni_server.rest.completion_wire import CompletionRequest
from omni_server.rest.image_fields import EditRequest, ImageRequest, VariationRequest
from omni_server.rest.kinds import field_kinds
from omni_server.rest.response_wire import ImageTool, ResponseRequest
from omni_server.rest.speech import SpeechRequest
from omni_server.rest.transcriptions import TranscriptionRequest, TranslationRequest
from tests.rest.field_tables import PAGE, written

FILES = {"file", "image", "mask", "markup"}  # parts of a form, which are read or refused by their names there


@pytest.mark.parametrize(
    ("model", "stock"),
    [
        (ChatRequest, chat_create_params.CompletionCreateParamsBase),
        (CompletionRequest, completion_create_params.CompletionCreateParamsBase),
        (ResponseRequest, response_create_params.ResponseCreateParamsBase),
        (ImageTool, tool_param.ImageGeneration),
        (SpeechRequest, speech_create_params.SpeechCreateParams),
        (TranscriptionRequest, transcription_create_params.TranscriptionCreateParamsBase),
        (TranslationRequest, translation_create_params.TranslationCreateParams),
        (ImageRequest, image_generate_params.ImageGenerateParamsBase),
        (EditRequest, image_edit_params.ImageEditParamsBase),
        (VariationRequest, image_create_variation_params.ImageCreateVariationParams),
    ],
)
def test_every_field_of_the_stock_client_is_known(model: type[BaseModel], stock: Any) -> None:
    """Would catch a field that the stock client can send and that nobody has thought about."""
    kinds = {name: (kind, note) for name, kind, note in field_kinds(model)}
    assert not {*stock.__annotations__} - {name.removesuffix("[]") for name in kinds} - FILES
    assert all(note for kind, note in kinds.values() if kind != "accepted")


def test_the_page_is_fresh() -> None:
    """Would catch a page that says of a field what is no longer so."""
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page
    assert page.count("| required |") >= 5
