"""The task by Pydantic AI. Ways: chat or responses, whole or stream, text, tool or native: `chat-stream-tool`."""

# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, RunContext, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from task import AS_JSON, QUESTION, Address, Good, Shop, Speed, asked


class Result(BaseModel):
    total: int
    words: list[str]


async def watch(context: RunContext[None], events: AsyncIterable[object]) -> None:
    """Whoever watches gets streams."""
    async for _ in events:
        pass


async def main() -> None:
    url, way = asked()
    shop = Shop()
    kind = OpenAIChatModel if "chat" in way else OpenAIResponsesModel
    output = ToolOutput(Result) if "tool" in way else NativeOutput(Result) if "native" in way else str
    agent = Agent(
        kind("m", provider=OpenAIProvider(base_url=url, api_key="none")), output_type=output, instructions="Be brief."
    )

    @agent.tool_plain
    def write_file(path: str, text: str) -> str:
        """Write a file."""
        return shop.write_file(path, text)

    @agent.tool_plain
    def order(goods: list[Good], speed: Speed, to: Address) -> str:
        """Order goods."""
        return shop.order(goods, speed, to)

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return shop.add(a, b)

    question = QUESTION + AS_JSON * ("native" in way)
    answer = (await agent.run(question, event_stream_handler=watch if "stream" in way else None)).output
    shop.tell(answer.model_dump() if isinstance(answer, Result) else answer)


asyncio.run(main())
