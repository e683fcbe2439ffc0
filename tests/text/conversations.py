"""Conversations of many shapes, for the tests that compare two ways to read or write them."""

from __future__ import annotations

from hypothesis import strategies as st

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "  Weather of a place.\n",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where"},
                    "days": {"type": "integer", "minimum": 1, "enum": [1, 3, 7]},
                    "place": {"type": "object", "properties": {"lat": {"type": "number"}}},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "exact": {"type": "boolean"},
                    "factor": {"type": "number"},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]

# signs of tags and markup included, but no whole spelling of a control token
words = st.text(st.sampled_from("ab zé日\n<>|/{}\"'\\_=1&👍"), max_size=12)
inner = words.map(lambda text: text.strip("\n "))

values = {
    "city": words,
    "days": st.integers(-3, 10**20),
    "place": st.dictionaries(words, st.one_of(st.none(), st.booleans(), words, st.floats(-5, 5)), max_size=3),
    "tags": st.lists(words, max_size=3),
    "exact": st.booleans(),
    "factor": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers()),
    "undeclared": words,
}
calls = st.one_of(
    st.fixed_dictionaries({"name": st.just("now"), "arguments": st.just({})}),
    st.fixed_dictionaries({"name": st.just("get_weather"), "arguments": st.fixed_dictionaries({}, optional=values)}),
).map(lambda function: {"type": "function", "function": function})

user = st.fixed_dictionaries({"role": st.just("user"), "content": words})
assistant = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": words},
    optional={"reasoning_content": words, "tool_calls": st.lists(calls, min_size=1, max_size=3)},
)
tagged = st.sampled_from(["<think>\nwhy\n</think>\n\nso", "why\n</think>\n\nso", "<think>", "a<think>b</think>c"]).map(
    lambda text: {"role": "assistant", "content": text}
)
tool = st.fixed_dictionaries({"role": st.just("tool"), "content": words})
other = st.fixed_dictionaries({"role": st.sampled_from(["system", "developer"]), "content": words})

conversations = st.lists(st.one_of(user, assistant, assistant, tool, other, tagged), max_size=6)
