"""The task by OpenAI's Agents SDK. Ways: chat or responses, whole or stream, text or typed: `chat-stream-typed`."""

# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from task import AS_JSON, QUESTION, Address, Good, Shop, Speed, asked


class Result(BaseModel):
    total: int
    words: list[str]


async def main() -> None:
    set_tracing_disabled(True)
    url, way = asked()
    shop = Shop()

    @function_tool
    def write_file(path: str, text: str) -> str:
        """Write a file.

        Args:
            path: Where.
            text: What.
        """
        return shop.write_file(path, text)

    @function_tool
    def order(goods: list[Good], speed: Speed, to: Address) -> str:
        """Order goods."""
        return shop.order(goods, speed, to)

    @function_tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return shop.add(a, b)

    kind = OpenAIChatCompletionsModel if "chat" in way else OpenAIResponsesModel
    agent = Agent(
        name="Helper",
        instructions="Be brief.",
        model=kind(model="m", openai_client=AsyncOpenAI(base_url=url, api_key="none", max_retries=0)),
        model_settings=ModelSettings(parallel_tool_calls=True, include_usage=True, verbosity="low", store=False),
        tools=[write_file, order, add],
        output_type=Result if "typed" in way else None,
    )
    question = QUESTION + AS_JSON * ("typed" in way)
    if "stream" in way:
        run = Runner.run_streamed(agent, question)
        async for _ in run.stream_events():
            pass
    else:
        run = await Runner.run(agent, question)
    assert run.context_wrapper.usage.output_tokens > 0
    output = run.final_output
    shop.tell(output.model_dump() if isinstance(output, Result) else output)


asyncio.run(main())
