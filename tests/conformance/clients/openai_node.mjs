// The `openai` package of npm: REST, and the realtime wire by its `ws` client. Prints the same lines as checks.py.

import fs from "node:fs";
import OpenAI, { toFile } from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const { OMNI_BASE_URL: baseURL, OMNI_TLS_URL: secureURL, OMNI_MODEL: model, OMNI_MEDIA: media } = process.env;
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
// Its realtime client knows TLS only.
const secure = new OpenAI({ baseURL: secureURL, apiKey: "none" });
const voice = "heart";
const recording = fs.readFileSync(`${media}/question-24000.wav`);
const png = fs.readFileSync(`${media}/picture.png`);
const SECONDS = 120;

const expect = (yes, told) => {
  if (!yes) throw new Error(told);
};
const ask = (content, fields = {}) =>
  client.chat.completions.create({ model, messages: [{ role: "user", content }], ...fields });
const { OMNI_TOOLS_URL: callsURL, OMNI_TOOLS_MODEL: callsModel } = process.env;
const calls = new OpenAI({ baseURL: callsURL, apiKey: "none", maxRetries: 0 });
const CITIES = ["Oslo", "서울"];
const BOOK = {
  type: "object",
  properties: { city: { type: "string", enum: CITIES }, guests: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["city", "guests"],
  additionalProperties: false,
};
const expectBooking = (name, text) => {
  const { city, guests } = JSON.parse(text);
  expect(name === "book" && CITIES.includes(city) && guests >= 1 && guests <= 9, `${name} with ${text}`);
};
const toolCalls = (tool_choice, fields = {}) =>
  calls.chat.completions.create({
    model: callsModel,
    messages: [{ role: "user", content: "a room" }],
    tools: [{ type: "function", function: { name: "book", parameters: BOOK } }],
    tool_choice,
    parallel_tool_calls: false,
    reasoning_effort: "none",
    ...fields,
  });
const collect = async (stream) => {
  const all = [];
  for await (const event of stream) all.push(event);
  return all;
};

// A call of the realtime wire; `until` waits for an event by type.
const calling = async (session, feature) => {
  const socket = new OpenAIRealtimeWS({ model }, secure);
  const events = [];
  let wake = () => {};
  let fault = null;
  socket.on("event", (event) => (events.push(event), wake()));
  socket.on("error", (error) => ((fault = error), wake()));
  let at = 0;
  const until = async (type) => {
    for (;;) {
      if (fault) throw fault;
      for (; at < events.length; at++) if (events[at].type === type) return events[at++];
      await new Promise((resolve) => (wake = resolve));
    }
  };
  const send = (event) => socket.send(event);
  const speak = () => {
    const sound = recording.subarray(44);
    for (let from = 0; from < sound.length; from += 4800)
      send({ type: "input_audio_buffer.append", audio: sound.subarray(from, from + 4800).toString("base64") });
  };
  const say = async (text) => {
    send({ type: "conversation.item.create", item: { type: "message", role: "user", content: [{ type: "input_text", text }] } });
    await until("conversation.item.done");
  };
  try {
    await until("session.created");
    send({ type: "session.update", session: { type: "realtime", ...session } });
    await until("session.updated");
    await feature({ until, send, speak, say });
  } finally {
    socket.close();
  }
};

const features = {
  chat: async () => expect((await ask("say fox")).choices[0].message.content, "no words"),
  "chat: streamed": async () => {
    const chunks = await collect(await ask("say fox", { stream: true, stream_options: { include_usage: true } }));
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), "no words");
    expect(chunks.at(-1).usage.total_tokens > 0, "no usage in the last chunk");
  },
  "chat: a picture in": async () => {
    const url = `data:image/png;base64,${png.toString("base64")}`;
    const reply = await ask([{ type: "image_url", image_url: { url } }, { type: "text", text: "what is this?" }]);
    expect(reply.usage.prompt_tokens > 30, "the picture did not reach the prompt");
  },
  "chat: sound in": async () => {
    const input_audio = { data: recording.toString("base64"), format: "wav" };
    expect((await ask([{ type: "input_audio", input_audio }])).usage.prompt_tokens_details.audio_tokens > 0, "no sound");
  },
  "chat: a voice out": async () => {
    const reply = await ask("say fox", { modalities: ["text", "audio"], audio: { voice, format: "wav" } });
    const { data, transcript } = reply.choices[0].message.audio;
    expect(Buffer.from(data, "base64").subarray(0, 4).toString() === "RIFF" && transcript, "no sound, or no transcript");
  },
  "chat: a voice out, streamed": async () => {
    const stream = await ask("say fox", { stream: true, modalities: ["text", "audio"], audio: { voice, format: "pcm16" } });
    const audio = (await collect(stream)).map((chunk) => chunk.choices[0]?.delta.audio ?? {});
    expect(audio.some((piece) => piece.data) && audio.some((piece) => piece.transcript), "no sound, or no transcript");
  },
  "chat: a picture out": async () => {
    const { images } = (await ask("draw a fox", { modalities: ["text", "image"] })).choices[0].message;
    expect(images[0].image_url.url.startsWith("data:image/"), "no picture");
  },
  "chat: JSON by schema": async () => {
    const schema = { type: "object", properties: { animal: { enum: ["fox", "cat"] } }, required: ["animal"] };
    const response_format = { type: "json_schema", json_schema: { name: "animal", schema, strict: true } };
    expect(JSON.parse((await ask("say fox", { response_format })).choices[0].message.content).animal, "not of that form");
  },
  responses: async () => expect((await client.responses.create({ model, input: "say fox" })).output_text, "no words"),
  "responses: streamed": async () => {
    const events = await collect(await client.responses.create({ model, input: "say fox", stream: true }));
    expect(events[0].type === "response.created" && events.at(-1).type === "response.completed", "no beginning, or no end");
  },
  "responses: input items": async () => {
    const first = await client.responses.create({ model, input: "say fox" });
    const again = await client.responses.create({ model, input: "again", previous_response_id: first.id });
    const items = await collect(client.responses.inputItems.list(again.id, { order: "asc", limit: 2 }));
    expect(items.map((item) => item.role).join() === "user,assistant,user", "not what the response was made from");
  },
  "responses: tools": async () => {
    const reply = await calls.responses.create({
      model: callsModel,
      input: "a room",
      tools: [{ type: "function", name: "book", parameters: BOOK, strict: true }],
      tool_choice: { type: "function", name: "book" },
      reasoning: { effort: "none" },
    });
    const [call] = reply.output.filter((item) => item.type === "function_call");
    expectBooking(call.name, call.arguments);
  },
  "tools: required": async () => {
    const [call] = (await toolCalls("required")).choices[0].message.tool_calls;
    expectBooking(call.function.name, call.function.arguments);
  },
  "tools: named": async () => {
    const [call] = (await toolCalls({ type: "function", function: { name: "book" } })).choices[0].message.tool_calls;
    expectBooking(call.function.name, call.function.arguments);
  },
  "tools: streamed": async () => {
    let name = "", args = "";
    for (const chunk of await collect(await toolCalls("required", { stream: true })))
      for (const delta of chunk.choices[0].delta.tool_calls ?? []) {
        name += delta.function.name ?? "";
        args += delta.function.arguments ?? "";
      }
    expectBooking(name, args);
  },
  completions: async () => expect((await client.completions.create({ model, prompt: "fox", max_tokens: 4 })).choices[0], "none"),
  models: async () => expect((await collect(client.models.list())).some((one) => one.id === model), "not listed"),
  errors: async () => {
    const error = await ask("hello", { model: "another" }).catch((thrown) => thrown);
    expect(error instanceof OpenAI.NotFoundError && error.code === "model_not_found", "without a code");
  },
  speech: async () => {
    for (const response_format of ["mp3", "opus", "aac", "flac", "wav", "pcm"]) {
      const made = await client.audio.speech.create({ model, voice, input: "fox", response_format });
      expect((await made.arrayBuffer()).byteLength > 500, `no ${response_format}`);
    }
  },
  "speech: streamed": async () => {
    const made = await client.audio.speech.create({ model, voice, input: "fox", response_format: "pcm" });
    let size = 0;
    for await (const piece of made.body) size += piece.length;
    expect(size > 4800, "no sound");
  },
  transcription: async () => {
    const file = await toFile(recording, "question.wav");
    expect((await client.audio.transcriptions.create({ model, file })).text, "no words");
  },
  "transcription: streamed": async () => {
    const file = await toFile(recording, "question.wav");
    const events = await collect(await client.audio.transcriptions.create({ model, file, stream: true }));
    expect(events.at(-1).type === "transcript.text.done", "no end");
  },
  images: async () => expect((await client.images.generate({ model, prompt: "a fox" })).data[0].b64_json, "no picture"),
  "images: streamed": async () => {
    const events = await collect(await client.images.generate({ model, prompt: "a fox", stream: true, partial_images: 1 }));
    expect(events.at(-1).type === "image_generation.completed", "no end");
  },
  "images: edited": async () => {
    const image = await toFile(png, "picture.png", { type: "image/png" });
    expect((await client.images.edit({ model, image, prompt: "draw this in the flat style" })).data[0].b64_json, "no picture");
  },
  "realtime: session": () =>
    calling({}, async ({ send, until }) => {
      send({ type: "session.update", session: { type: "realtime", instructions: "be brief" } });
      expect((await until("session.updated")).session.instructions === "be brief", "it does not hold");
    }),
  "realtime: spoken turn": () =>
    calling({}, async ({ speak, until }) => {
      speak();
      await until("input_audio_buffer.speech_started");
      await until("response.output_audio.delta");
      expect((await until("response.done")).response.status === "completed", "it did not end well");
    }),
  "realtime: transcripts": () =>
    calling({ audio: { input: { transcription: { model: "whisper-1" } } } }, async ({ speak, until }) => {
      speak();
      expect((await until("conversation.item.input_audio_transcription.completed")).transcript, "it is empty");
    }),
  "realtime: written turn": () =>
    calling({}, async ({ say, send, until }) => {
      await say("say fox");
      send({ type: "response.create" });
      await until("response.output_audio.delta");
      expect((await until("response.done")).response.output[0].content[0].transcript, "no words");
    }),
  "realtime: written answers": () =>
    calling({ output_modalities: ["text"] }, async ({ say, send, until }) => {
      await say("say fox");
      send({ type: "response.create" });
      expect((await until("response.output_text.done")).text, "no words");
    }),
  "realtime: cancelling": () =>
    calling({}, async ({ say, send, until }) => {
      await say("say fox");
      send({ type: "response.create" });
      await until("response.created");
      send({ type: "response.cancel" });
      // A short answer may have been made before the server heard of it.
      expect(["cancelled", "completed"].includes((await until("response.done")).response.status), "it neither stopped nor ended");
    }),
  "realtime: truncation": () =>
    calling({}, async ({ say, send, until }) => {
      await say("say fox");
      send({ type: "response.create" });
      const item_id = (await until("response.done")).response.output[0].id;
      send({ type: "conversation.item.truncate", item_id, content_index: 0, audio_end_ms: 100 });
      await until("conversation.item.truncated");
    }),
  "realtime: turns by hand": () =>
    calling({ audio: { input: { turn_detection: null } } }, async ({ speak, send, until }) => {
      speak();
      send({ type: "input_audio_buffer.commit" });
      await until("input_audio_buffer.committed");
      send({ type: "response.create" });
      await until("response.output_audio.delta");
    }),
};

const wanted = new Set(process.argv.slice(2));
for (const [feature, check] of Object.entries(features)) {
  if (wanted.size && !wanted.has(feature)) continue;
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("it took too long")), SECONDS * 1000).unref());
  const result = await Promise.race([check(), late]).then(
    () => ({ outcome: "works", note: "" }),
    (error) => ({ outcome: "fails", note: String(error).slice(0, 300) }),
  );
  console.log("RESULT " + JSON.stringify({ feature, ...result }));
}
process.exit(0);
