"""The task by LangChain's agent on LangGraph. Ways: chat or responses, whole or stream, text or typed."""

# pyright: reportMissingImports=false
from __future__ import annotations

from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from task import AS_JSON, QUESTION, Address, Good, Shop, Speed, asked


class Result(BaseModel):
    total: int
    words: list[str]


url, way = asked()
shop = Shop()


def write_file(path: str, text: str) -> str:
    """Write a file."""
    return shop.write_file(path, text)


def order(goods: list[Good], speed: Speed, to: Address) -> str:
    """Order goods."""
    return shop.order(goods, speed, to)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return shop.add(a, b)


model = ChatOpenAI(
    model="m", base_url=url, api_key="none", max_retries=0, use_responses_api="responses" in way,
    streaming="stream" in way,
)  # fmt: skip
typed = ProviderStrategy(Result) if "typed" in way else None
agent = create_agent(model, [write_file, order, add], system_prompt="Be brief.", response_format=typed)
state = agent.invoke({"messages": [{"role": "user", "content": QUESTION + AS_JSON * ("typed" in way)}]})
shop.tell(state["structured_response"].model_dump() if "typed" in way else state["messages"][-1].text)
