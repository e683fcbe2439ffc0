"""The task by litellm, with a loop of our own. Ways: whole or stream."""

# pyright: reportMissingImports=false
from __future__ import annotations

import json

import litellm
from task import QUESTION, Shop, asked

url, way = asked()
shop = Shop()
INTEGER = {"type": "integer"}
TEXT = {"type": "string"}
GOOD = {"type": "object", "properties": {"name": TEXT, "count": INTEGER}, "required": ["name", "count"]}
ADDRESS = {"type": "object", "properties": {"street": TEXT, "zip": INTEGER}, "required": ["street", "zip"]}
PARAMETERS = {
    "write_file": {"path": TEXT, "text": TEXT},
    "order": {
        "goods": {"type": "array", "items": GOOD},
        "speed": {"type": "string", "enum": ["slow", "fast"]},
        "to": ADDRESS,
    },
    "add": {"a": INTEGER, "b": INTEGER},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": name,
            "parameters": {"type": "object", "properties": properties, "required": list(properties)},
        },
    }
    for name, properties in PARAMETERS.items()
]

messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
while True:
    answer = litellm.completion(
        model="openai/m", api_base=url, api_key="none", messages=messages, tools=TOOLS, tool_choice="auto",
        stream=way == "stream", max_retries=0, user="me",
    )  # fmt: skip
    if way == "stream":
        answer = litellm.stream_chunk_builder(list(answer), messages=messages)
    message = answer.choices[0].message
    assert message.reasoning_content
    messages.append(message.model_dump())  # with all that litellm puts into it
    if answer.choices[0].finish_reason != "tool_calls":
        break
    for call in message.tool_calls:
        result = getattr(shop, call.function.name)(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "name": call.function.name, "content": str(result)})
shop.tell(message.content)
