"""An answer of a schema by instructor; there is no loop. Ways: its modes, tools or json_schema."""

# pyright: reportMissingImports=false
from __future__ import annotations

import instructor
from openai import OpenAI
from pydantic import BaseModel
from task import AS_JSON, QUESTION, Shop, asked


class Result(BaseModel):
    total: int
    words: list[str]


url, way = asked()
mode = instructor.Mode.TOOLS if way == "tools" else instructor.Mode.JSON_SCHEMA
client = instructor.from_openai(OpenAI(base_url=url, api_key="none", max_retries=0), mode=mode)
question = QUESTION + AS_JSON * (way == "json_schema")
answer = client.chat.completions.create(
    model="m", response_model=Result, messages=[{"role": "user", "content": question}], max_retries=0
)
Shop().tell(answer.model_dump())
