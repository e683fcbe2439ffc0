"""The task by smolagents' ToolCallingAgent, which demands a call in every turn and ends with `final_answer`.

Ways: whole or stream.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from smolagents import OpenAIServerModel, ToolCallingAgent, tool
from task import QUESTION, Shop, asked

url, way = asked()
shop = Shop()


@tool
def write_file(path: str, text: str) -> str:
    """Write a file.

    Args:
        path: Where.
        text: What.
    """
    return shop.write_file(path, text)


@tool
def order(goods: list, speed: str, to: dict) -> str:
    """Order goods.

    Args:
        goods: Each with name and count.
        speed: How fast. (choices: ["slow", "fast"])
        to: The street and the zip.
    """
    return shop.order(goods, speed, to)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: One.
        b: The other.
    """
    return shop.add(a, b)


model = OpenAIServerModel(model_id="m", api_base=url, api_key="none", temperature=0.6)
agent = ToolCallingAgent([write_file, order, add], model, stream_outputs=way == "stream", verbosity_level=0)
shop.tell(agent.run(QUESTION, max_steps=4))
